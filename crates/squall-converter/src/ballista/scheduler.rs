//! The process that divides plans among executors.

use std::net::SocketAddr;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::SessionStateBuilder;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use squall_schema::{Error, ErrorKind, Result};
use tokio::net::TcpListener;

use super::codec::Codec;
use super::session::{MESSAGE_BYTES, config, runtime};
use super::signal::asked_to_end;

/// Seconds without a word from an executor after which it is dead. A busy one asks for work every five.
const EXECUTOR_TIMEOUT: u64 = 12;
/// Seconds between two looks for dead executors.
const LOOK: u64 = 2;
/// Seconds for which jobs wait where there is no executor.
const NO_EXECUTORS: u64 = 60;

/// How a scheduler runs.
#[derive(Debug, Clone)]
#[must_use]
pub struct SchedulerOptions {
    bind: SocketAddr,
}

impl SchedulerOptions {
    /// A scheduler that listens at this address; port 0 takes any that is free.
    pub fn new(bind: SocketAddr) -> Self {
        Self { bind }
    }
}

/// Runs a scheduler until the process is asked to end, by SIGTERM or Ctrl-C. `ready` is told the address when it listens.
///
/// Whoever reaches the address can have the executors read and write what they can read and write: it belongs in a network of
/// its own. What is scheduled is kept in memory; conversions that run end with an error when the scheduler does.
///
/// # Cancel safety
///
/// Dropping the future ends the scheduler.
pub async fn run_scheduler(options: SchedulerOptions, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let at = |error: Error| error.at("address", options.bind);
    let cannot_listen = |error: std::io::Error| {
        at(Error::new(ErrorKind::Storage, "the scheduler cannot listen").with_source(error.to_string()))
    };
    let listener = TcpListener::bind(options.bind).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let settings = SchedulerConfig {
        bind_host: address.ip().to_string(),
        external_host: address.ip().to_string(),
        bind_port: address.port(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: EXECUTOR_TIMEOUT,
        expire_dead_executor_interval_seconds: LOOK,
        no_executors_grace_period_seconds: NO_EXECUTORS,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES,
        grpc_client_max_message_size: MESSAGE_BYTES,
        override_config_producer: Some(Arc::new(config)),
        override_session_builder: Some(Arc::new(|config| {
            let state = SessionStateBuilder::new().with_default_features().with_config(config);
            Ok(state.with_runtime_env(runtime(None)?).build())
        })),
        override_physical_codec: Some(Arc::new(Codec::default())),
        ..SchedulerConfig::default()
    };
    let failed = |error: ballista_core::error::BallistaError| {
        at(Error::new(ErrorKind::Engine, "the scheduler failed").with_source(error.to_string()))
    };
    let cluster = BallistaCluster::new_from_config(&settings).await.map_err(failed)?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(settings));
    let scheduler = scheduler.await.map_err(failed)?;
    ready(address);
    tokio::select! {
        served = start_grpc_service_with_listener(listener, scheduler) => served.map_err(failed),
        () = asked_to_end() => Ok(()),
    }
}
