//! The file by which units know that their driver lives, and still wants them.
//!
//! Executors that ask for work cannot be told to stop it: Ballista cancels a job for itself alone. So each unit looks for the
//! lease now and then, and right before and after it puts a file. A driver that is done marks it first, and waits for those that
//! end; then it takes it away. When it is gone, or has stood still for long, nobody waits.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::{Store, storage_error};
use squall_schema::{Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::record::{self, DIRECTORY};

/// How often the driver renews it.
const RENEW: Duration = Duration::from_secs(2);
/// How often the mark is tried.
const MARKS: usize = 3;
/// How long the last renewal may take.
const LAST: Duration = Duration::from_secs(10);
/// After how long a silence the driver is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// The name of a conversion, which its passes begin with, is that of its lease: units of one that was killed do not take the next one's
/// for theirs.
fn path(conversion: &str) -> Path {
    Path::from(DIRECTORY).join(format!("{conversion}.json"))
}

/// The conversion of a pass.
pub(crate) fn conversion_of(pass: &str) -> &str {
    pass.split('-').next().unwrap_or_default()
}

/// The driver's lease; no longer renewed when it is dropped.
pub(crate) struct Lease {
    store: Store,
    path: Path,
    beats: JoinHandle<()>,
    is_over: Arc<Notify>,
}

impl Lease {
    pub(crate) async fn begin(store: &Store, conversion: &str) -> Result<Self> {
        let path = path(conversion);
        record::write(store, &path, &Some(0u64)).await?;
        let (own, renewed) = (store.clone(), path.clone());
        let is_over = Arc::new(Notify::new());
        let over = is_over.clone();
        let beats = tokio::spawn(async move {
            for n in 1u64.. {
                tokio::select! {
                    () = sleep(RENEW) => {}
                    () = over.notified() => break,
                }
                // What fails now may go well the next time; units are patient for longer.
                let _ = record::write(&own, &renewed, &Some(n)).await;
            }
        });
        Ok(Self {
            store: store.clone(),
            path,
            beats,
            is_over,
        })
    }

    /// Marks it: all units that still run end, and give signs of life until they have.
    pub(crate) async fn over(&mut self) {
        // A renewal that is on its way when its task is aborted may come after the mark, and take its place.
        self.is_over.notify_one();
        if timeout(LAST, &mut self.beats).await.is_err() {
            self.beats.abort();
        }
        for _ in 0..MARKS {
            if record::write(&self.store, &self.path, &None::<u64>).await.is_ok() {
                return;
            }
        }
        // Who does not see a mark must find the lease gone.
        let _ = self.store.objects().delete(&self.path).await;
    }

    /// Takes it away: from now on nothing is written to the place.
    pub(crate) async fn end(&mut self) {
        self.beats.abort();
        let _ = self.store.objects().delete(&self.path).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// The driver does not want the work.
pub(crate) struct Unwanted {
    pub(crate) error: Error,
    /// Whether it waits for those that are still on it.
    pub(crate) is_awaited: bool,
}

impl From<Unwanted> for Error {
    fn from(unwanted: Unwanted) -> Self {
        unwanted.error
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
            path: path(conversion_of(pass)),
            seen: None,
            since: Instant::now(),
        }
    }

    /// An error if the driver wants the work no more, or if nobody can tell.
    pub(crate) async fn make_sure(&mut self, store: &Store) -> Result<()> {
        for last in [false, false, true] {
            match store.objects().head(&self.path).await {
                Err(object_store::Error::NotFound { .. }) | Ok(_) => break,
                Err(error) if last => return Err(storage_error(error)),
                Err(_) => sleep(RENEW).await,
            }
        }
        Ok(self.look(store).await?)
    }

    /// An error if the driver wants the work no more.
    pub(crate) async fn look(&mut self, store: &Store) -> Result<(), Unwanted> {
        let unwanted = |why: &str, is_awaited| Unwanted {
            error: Error::new(ErrorKind::Cancelled, format!("the conversion {why}")),
            is_awaited,
        };
        match store.objects().get(&self.path).await {
            Err(object_store::Error::NotFound { .. }) => return Err(unwanted("is over", false)),
            Err(error) if self.since.elapsed() > SILENCE => {
                return Err(Unwanted {
                    error: storage_error(error),
                    is_awaited: false,
                });
            }
            Err(_) => return Ok(()),
            Ok(found) => {
                let text = found.bytes().await.unwrap_or_default();
                // What cannot be read now may be read the next time.
                match serde_json::from_slice(&text) {
                    Ok(None::<u64>) => return Err(unwanted("is over", true)),
                    Ok(n) if n != self.seen => (self.seen, self.since) = (n, Instant::now()),
                    _ => {}
                }
            }
        }
        match self.since.elapsed() > SILENCE {
            true => Err(unwanted("has not been heard of for long", false)),
            false => Ok(()),
        }
    }
}
