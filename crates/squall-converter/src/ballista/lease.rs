//! The file by which units know that their driver lives, and still wants them.
//!
//! Executors that ask for work cannot be told to stop it: Ballista cancels a job for itself alone. So each unit looks for the
//! lease now and then. When it is gone, or has stood still for long, the unit ends and takes its files away.

use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::{Store, storage_error};
use squall_schema::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::record::{self, DIRECTORY};

/// How often the driver renews it.
const RENEW: Duration = Duration::from_secs(2);
/// After how long a silence the driver is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// The name of a conversion, which its passes begin with, is that of its lease: units of one that was killed do not take the next one's
/// for theirs.
fn path(conversion: &str) -> Path {
    Path::from(DIRECTORY).join(format!("{conversion}.json"))
}

/// The driver's lease; no longer renewed when it is dropped.
pub(crate) struct Lease {
    store: Store,
    path: Path,
    beats: JoinHandle<()>,
}

impl Lease {
    pub(crate) async fn begin(store: &Store, conversion: &str) -> Result<Self> {
        let path = path(conversion);
        record::write(store, &path, &0u64).await?;
        let (own, renewed) = (store.clone(), path.clone());
        let beats = tokio::spawn(async move {
            for n in 1u64.. {
                sleep(RENEW).await;
                // What fails now may go well the next time; units are patient for longer.
                let _ = record::write(&own, &renewed, &n).await;
            }
        });
        Ok(Self {
            store: store.clone(),
            path,
            beats,
        })
    }

    /// Takes it away: all units that still run end.
    pub(crate) async fn end(&mut self) {
        self.beats.abort();
        let _ = (&mut self.beats).await;
        let _ = self.store.objects().delete(&self.path).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// Looks whether the driver lives.
pub(crate) struct Watch {
    path: Path,
    seen: Option<u64>,
    since: Instant,
}

impl Watch {
    /// Over the conversion of a pass.
    pub(crate) fn of(pass: &str) -> Self {
        Self {
            path: path(pass.split('-').next().unwrap_or_default()),
            seen: None,
            since: Instant::now(),
        }
    }

    /// An error if the driver wants the work no more.
    pub(crate) async fn look(&mut self, store: &Store) -> Result<()> {
        let cancelled = |why: &str| Error::new(ErrorKind::Cancelled, format!("the conversion {why}"));
        match store.objects().get(&self.path).await {
            Err(object_store::Error::NotFound { .. }) => return Err(cancelled("is over")),
            Err(error) if self.since.elapsed() > SILENCE => return Err(storage_error(error)),
            Err(_) => return Ok(()),
            Ok(found) => {
                let text = found.bytes().await.unwrap_or_default();
                let n = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                if n.is_some() && n != self.seen {
                    (self.seen, self.since) = (n, Instant::now());
                }
            }
        }
        match self.since.elapsed() > SILENCE {
            true => Err(cancelled("has not been heard of for long")),
            false => Ok(()),
        }
    }
}
