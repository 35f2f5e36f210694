//! A process that runs tasks.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use squall_schema::{ByteSize, Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::scratch::Scratch;

use super::client::address;
use super::codec::Codec;
use super::doubt::Doubts;
use super::node::Runner;
use super::record::By;
use super::session::{MESSAGE_BYTES, config, runtime};
use super::signal::asked_to_end;
use super::tasks::Tasks;

/// Seconds between two signs of life.
const HEARTBEAT: u64 = 3;
/// Seconds for which it waits for a scheduler.
const CONNECT: u16 = 30;
/// Seconds after which intermediate results of jobs that ended are taken away, and between two looks for them.
const JOB_DATA: u64 = 3600;
const CLEAN_UP: u64 = 300;
/// How long tasks may take to end when the process is asked to.
const DRAIN: Duration = Duration::from_secs(30);

/// How an executor runs.
#[derive(Debug, Clone)]
#[must_use]
pub struct ExecutorOptions {
    scheduler: String,
    bind: SocketAddr,
    host: Option<String>,
    name: Option<String>,
    work_directory: Option<PathBuf>,
    concurrent_tasks: Option<NonZeroUsize>,
    memory_limit: Option<ByteSize>,
}

impl ExecutorOptions {
    /// An executor of the scheduler at this address: `df://host:port`, or `host:port`.
    pub fn new(scheduler: impl Into<String>) -> Self {
        Self {
            scheduler: scheduler.into(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: None,
            name: None,
            work_directory: None,
            concurrent_tasks: None,
            memory_limit: None,
        }
    }

    /// Where it gives intermediate results to other executors; any free port of 127.0.0.1 if not given.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// The name or address by which the others reach it, if that is not the address that it binds.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// What it is called in results; its host and port if not given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where it keeps intermediate results, and spills; a temporary directory if not given.
    pub fn work_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.work_directory = Some(directory.into());
        self
    }

    /// Tasks at a time; as many as there are processors if not given.
    pub fn concurrent_tasks(mut self, n: NonZeroUsize) -> Self {
        self.concurrent_tasks = Some(n);
        self
    }

    /// Memory that the operators of queries may take together; the tasks share it. What does not fit is spilled, where
    /// operators can. A part of the machine's memory if not given.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.memory_limit = Some(limit);
        self
    }
}

/// Runs an executor until the process is asked to end, by SIGTERM or Ctrl-C: then it takes no more tasks, and ends those it has
/// within 30 s. `ready` is told what it is called, before it has found its scheduler.
///
/// # Cancel safety
///
/// Dropping the future ends the executor; others do its tasks anew.
pub async fn run_executor(options: ExecutorOptions, ready: impl FnOnce(&str)) -> Result<()> {
    let (scheduler_host, scheduler_port) = address(&options.scheduler)?;
    let bind = free_port(options.bind)?;
    let host = options.host.clone().unwrap_or_else(|| match bind.ip() {
        // Others cannot reach "any address": they are told this machine's loopback, or what the options say.
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]).to_string(),
        ip => ip.to_string(),
    });
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| format!("{host}:{}", bind.port()));
    let temporary = match options.work_directory {
        Some(_) => None,
        None => Some(Temporary::make()?),
    };
    let directory = options
        .work_directory
        .clone()
        .or_else(|| temporary.as_ref().map(|own| own.0.path.clone()));
    let directory = directory.unwrap_or_default();
    std::fs::create_dir_all(&directory).map_err(|error| no_directory(&directory, &error))?;
    let directory = directory.to_string_lossy().into_owned();
    let by = By {
        executor: name.clone(),
        process: std::process::id(),
    };
    let spill = directory.clone();
    let settings = ExecutorProcessConfig {
        bind_host: bind.ip().to_string(),
        external_host: Some(host),
        port: bind.port(),
        grpc_port: bind.port(),
        scheduler_host,
        scheduler_port,
        scheduler_connect_timeout_seconds: CONNECT,
        vcores: options.concurrent_tasks.map_or(0, NonZeroUsize::get),
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(directory),
        job_data_ttl_seconds: JOB_DATA,
        job_data_clean_up_interval_seconds: CLEAN_UP,
        grpc_max_decoding_message_size: MESSAGE_BYTES,
        grpc_max_encoding_message_size: MESSAGE_BYTES,
        executor_heartbeat_interval_seconds: HEARTBEAT,
        memory_pool_size: options.memory_limit.map(|limit| limit.bytes()),
        override_execution_engine: Some(Arc::new(Tasks::new(
            DefaultExecutionEngine::new(),
            Runner {
                by,
                threads: Handle::current(),
                doubts: Doubts::default(),
            },
        ))),
        override_config_producer: Some(Arc::new(config)),
        override_runtime_producer: Some(Arc::new(move |_| runtime(Some(&spill)))),
        override_physical_codec: Some(Arc::new(Codec::default())),
        ..ExecutorProcessConfig::default()
    };
    ready(&name);
    let ended = async {
        asked_to_end().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        done = start_executor_process(Arc::new(settings)) => done.map_err(|error| {
            Error::new(ErrorKind::Engine, "the executor failed").at("scheduler", &options.scheduler).with_source(error.to_string())
        }),
        () = ended => Ok(()),
    }
}

/// The address with a port that is free, where any is asked for. Ballista wants to know it before it binds it.
fn free_port(bind: SocketAddr) -> Result<SocketAddr> {
    let found = TcpListener::bind(bind).and_then(|listener| listener.local_addr());
    found.map_err(|error| {
        Error::new(ErrorKind::Storage, "the executor cannot listen")
            .at("address", bind)
            .with_source(error.to_string())
    })
}

/// A directory that goes when this is dropped; those that killed executors left go when it is made.
struct Temporary(Scratch);

impl Temporary {
    fn make() -> Result<Self> {
        let parent = std::env::temp_dir();
        let made = Scratch::begin(&parent, ".squall-executor-");
        made.map(Self).map_err(|error| no_directory(&parent, &error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.path);
    }
}

fn no_directory(path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, "no work directory")
        .at("directory", path.display())
        .with_source(error.to_string())
}
