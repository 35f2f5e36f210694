//! The runtime that a reader's I/O runs on.

use std::future::Future;
use std::sync::Arc;

use squall_schema::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::metrics::Threads;

/// Threads for I/O. They wait more than they work.
const IO_THREADS: usize = 2;

/// Threads that read local files, and scan the columns of where-clauses.
const BLOCKING_THREADS: usize = 16;

/// The runtime of a reader's I/O.
#[derive(Debug)]
pub(crate) struct Io {
    /// `None` when it is being dropped.
    runtime: Option<Runtime>,
    threads: Arc<Threads>,
}

impl Io {
    pub(crate) fn new() -> Result<Self> {
        let threads = Arc::new(Threads::default());
        let (begun, ended) = (threads.clone(), threads.clone());
        let runtime = Builder::new_multi_thread()
            .on_thread_start(move || begun.begin())
            .on_thread_stop(move || ended.end())
            .worker_threads(IO_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("squall-io")
            .enable_all()
            .build();
        let failed = |error| Error::internal("cannot start the I/O threads").with_source(error);
        Ok(Self {
            runtime: Some(runtime.map_err(failed)?),
            threads,
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is taken by drop only")
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime().handle().clone()
    }

    /// The threads that load: those of the runtime, and those that say so themselves.
    pub(crate) fn threads(&self) -> Arc<Threads> {
        self.threads.clone()
    }

    /// Runs a future to its end, from any thread.
    pub(crate) fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        block_on(self.runtime(), future)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is not allowed inside another one.
        if let Some(runtime) = self.runtime.take()
            && Handle::try_current().is_ok()
        {
            runtime.shutdown_background();
        }
    }
}

/// Runs a future to its end on a runtime, from any thread: one that belongs to another runtime may not block itself.
fn block_on<F>(runtime: &Runtime, future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    if Handle::try_current().is_err() {
        return runtime.block_on(future);
    }
    std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(future)).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
