//! The engine of several machines: Ballista runs the plan, its executors write the files, this process commits.
//!
//! A job is a physical plan whose topmost node is a [`node::UnitExec`]; each of its partitions is a unit, which on any attempt is
//! the same rows. The `driver` submits it and watches what units leave in the staging place: a record each when they are done
//! (`record`), signs of life before. What Ballista says of results is not believed; a job that fails, hangs or loses an executor is
//! submitted again, and units that have a record are skipped. Rows that are brought in order take two jobs: one scatters them to
//! runs on the store, one gathers them.

mod hex;

pub(crate) mod columns;

mod fault;
pub(crate) mod place;

mod session;
mod signal;

mod work;

mod lease;
mod record;

mod guard;

mod life;

mod doubt;

mod unit;

mod node;

mod codec;

mod stage;
mod tasks;

mod executor;
mod scheduler;

mod client;

mod repeat;

mod client_session;
mod cluster;
mod trials;

mod driver;

pub use cluster::{Cluster, FileWriter};
pub(crate) use driver::convert;
pub use executor::{ExecutorOptions, run_executor};
pub(crate) use place::store_url;
pub use scheduler::{SchedulerOptions, run_scheduler};
