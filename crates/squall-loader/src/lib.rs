//! Rows to batches to tensors on the host.
//!
//! A [`Loader`] takes batches of columns from a reader, [`collate`](collate()) lays each field out in one contiguous buffer, and a
//! [`Sink`] makes of it what the trainer wants: [`Host`] leaves it as it is, squall-torch makes tensors on a device. This
//! happens on a thread of its own, some batches ahead.

mod collate;
mod sink;

mod loader;
mod stream;

pub use collate::{HostBatch, HostColumn, HostTensor, collate};
pub use loader::{IntoLoader, Loader, LoaderBuilder};
pub use sink::{Host, Sink};
pub use stream::LoaderStream;
