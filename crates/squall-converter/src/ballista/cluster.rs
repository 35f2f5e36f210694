//! Which cluster converts, and how patiently it is watched; and which of its executors wrote what.

use std::time::Duration;

use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use squall_schema::{Error, Result};

use super::client_session::scheduler_of;

/// How long nothing may happen if nothing else is said.
const STALL: Duration = Duration::from_secs(120);

/// After how long a silence an executor is lost if nothing else is said.
const LOST: Duration = Duration::from_secs(8);

/// A cluster of Ballista that runs a conversion: [`Converter::cluster`](crate::Converter::cluster).
#[derive(Debug, Clone)]
#[must_use]
pub struct Cluster {
    pub(crate) scheduler: String,
    pub(crate) stall: Duration,
    pub(crate) lost_after: Duration,
}

impl Cluster {
    /// That of the scheduler at `df://host:port`, whose executors are those of `squall executor`.
    pub fn new(scheduler: impl Into<String>) -> Self {
        Self {
            scheduler: scheduler.into(),
            stall: STALL,
            lost_after: LOST,
        }
    }

    /// That of a session of Ballista's client, such as `SessionContext::remote("df://host:port")` makes. A conversion of rows of such a
    /// session takes it by itself where [`Converter::cluster`](crate::Converter::cluster) says nothing.
    ///
    /// # Cancel safety
    ///
    /// Nothing is begun.
    pub async fn of(session: &SessionContext) -> Result<Self> {
        let found = Self::of_state(&session.state()).await?;
        found.ok_or_else(|| {
            Error::invalid(
                "expected a session of Ballista's client, found one that plans by itself: name the scheduler by Cluster::new",
            )
        })
    }

    /// That of the session, if it is one of Ballista's client.
    pub(crate) async fn of_state(state: &SessionState) -> Result<Option<Self>> {
        Ok(scheduler_of(state).await?.map(Self::new))
    }

    /// After how long without a sign of life of a task, which gives one each second, its executor is lost; 8 s if not given. One that
    /// lives after all loses nothing but time.
    pub fn lost_after(mut self, silence: Duration) -> Self {
        self.lost_after = silence;
        self
    }

    /// After how long without any sign of life a job is taken for hanging, and submitted again; 120 s if not given.
    pub fn stall(mut self, timeout: Duration) -> Self {
        self.stall = timeout;
        self
    }
}

/// A file of a dataset, and the process that wrote it: [`Converted::writers`](crate::Converted::writers).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileWriter {
    /// Its path in the dataset.
    pub file: String,
    /// The address of the executor, or the name that it was given.
    pub executor: String,
    /// The number of its process.
    pub process: u32,
}
