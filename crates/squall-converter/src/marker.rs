//! The file that keeps readers and other conversions away from a place in a store as long as its conversion lives.
//!
//! It is put where none is, and put anew every few seconds by its owner. Who finds one and sees it change waits or goes away; who sees
//! it stand still for long takes it over by a put that fails if it has changed after all, so that one of many wins. What a
//! killed conversion left is cleaned up by the next one in this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use squall_dataset::{Store, WRITING_MARKER, storage_error};
use squall_schema::{Error, ErrorKind, Result};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How often an owner says that it lives, and after how long a silence it is dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) beat: Duration,
    pub(crate) silence: Duration,
}

/// How long a marker may stand still when nothing else is said.
const SILENCE: Duration = Duration::from_secs(30);
/// How often its owner puts it in that time.
const BEATS: u32 = 6;

impl Lease {
    pub(crate) fn of(silence: Duration) -> Self {
        Self {
            beat: silence / BEATS,
            silence,
        }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::of(SILENCE)
    }
}

/// A marker that is ours.
#[derive(Debug)]
pub(crate) struct Marker {
    store: Store,
    lease: Lease,
    held: Arc<Mutex<Held>>,
    beats: JoinHandle<()>,
    is_lost: Arc<AtomicBool>,
    /// Whether somebody else's was taken over: what they left is still there.
    pub(crate) is_inherited: bool,
}

impl Marker {
    /// Puts the marker. An error of kind [`ErrorKind::AlreadyExists`] if somebody who lives has put one.
    pub(crate) async fn take(store: &Store, lease: Lease) -> Result<Self> {
        let at = |error: Error| error.at("file", WRITING_MARKER).at("URL", store.url());
        let path = Path::from(WRITING_MARKER);
        loop {
            match put(store, PutMode::Create).await {
                Ok(version) => return Ok(Self::start(store, lease, version, false)),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(error) => return Err(at(storage_error(error))),
            }
            let Some(silent) = silent(store, &path, lease).await.map_err(at)? else {
                // It went away meanwhile.
                continue;
            };
            match put(store, PutMode::Update(silent)).await {
                Ok(version) => return Ok(Self::start(store, lease, version, true)),
                // Somebody else was faster, or its owner lives after all.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                    let message = "a conversion that was killed left its marker, which this store cannot replace safely: remove it if no conversion to this place runs";
                    return Err(at(Error::new(ErrorKind::AlreadyExists, message)));
                }
                Err(error) => return Err(at(storage_error(error))),
            }
        }
    }

    fn start(store: &Store, lease: Lease, version: UpdateVersion, is_inherited: bool) -> Self {
        let is_lost = Arc::new(AtomicBool::new(false));
        let held = Arc::new(Mutex::new(Held {
            version,
            last: Instant::now(),
        }));
        let beats = tokio::spawn(beat(store.clone(), lease, held.clone(), is_lost.clone()));
        Self {
            store: store.clone(),
            lease,
            held,
            beats,
            is_lost,
            is_inherited,
        }
    }

    /// An error if somebody has, or may have, taken it over: the owner was silent for too long.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = "the conversion could not reach its store for so long that another may have taken its place";
        Err(Error::new(ErrorKind::Storage, message).at("URL", self.store.url()))
    }

    /// Makes sure that it is ours at this moment: a process that was stopped for a while may not know yet.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.check()?;
        let mut held = self.held.lock().await;
        let is_ours = held.renew(&self.store, self.lease).await;
        // A put that failed for another reason says nothing.
        if !is_ours || held.last.elapsed() > self.lease.silence / 2 {
            self.is_lost.store(true, Ordering::Release);
        }
        self.check()
    }

    /// Takes it away.
    pub(crate) async fn release(self) -> Result<()> {
        self.confirm().await?;
        self.beats.abort();
        let removed = self.store.objects().delete(&Path::from(WRITING_MARKER)).await;
        removed.map_err(|error| {
            storage_error(error)
                .at("file", WRITING_MARKER)
                .at("URL", self.store.url())
        })
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

async fn put(store: &Store, mode: PutMode) -> object_store::Result<UpdateVersion> {
    // Each has another content, so that a store whose ETags are digests tells them apart.
    let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let text = format!(
        "written by squall, process {}, at {} ns since 1970\n",
        std::process::id(),
        nonce.unwrap_or_default().as_nanos()
    );
    let (path, payload) = (Path::from(WRITING_MARKER), PutPayload::from(text.into_bytes()));
    let put = store.objects().put_opts(&path, payload, PutOptions::from(mode));
    Ok(put.await?.into())
}

/// What an owner knows of its marker.
#[derive(Debug)]
struct Held {
    version: UpdateVersion,
    /// When it was put last.
    last: Instant,
}

impl Held {
    /// Puts the marker anew; false if it is lost. A store that cannot replace a file on condition has it written over: nobody takes it
    /// over there.
    async fn renew(&mut self, store: &Store, lease: Lease) -> bool {
        // Others may have begun to take it for dead: it is put only while none can have ended.
        if self.last.elapsed() > lease.silence {
            return false;
        }
        let mut written = put(store, PutMode::Update(self.version.clone())).await;
        if let Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) = written {
            written = put(store, PutMode::Overwrite).await;
        }
        match written {
            Ok(version) => {
                *self = Self {
                    version,
                    last: Instant::now(),
                };
                true
            }
            // Ours may be what changed it: an answer that was lost on its way.
            Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => false,
            // Half of the silence after which others take over: they count from another moment.
            Err(_) => self.last.elapsed() <= lease.silence / 2,
        }
    }
}

/// Puts the marker anew until it is lost.
async fn beat(store: Store, lease: Lease, held: Arc<Mutex<Held>>, is_lost: Arc<AtomicBool>) {
    loop {
        sleep(lease.beat).await;
        if !held.lock().await.renew(&store, lease).await {
            is_lost.store(true, Ordering::Release);
            return;
        }
    }
}

/// The version of a marker that has not changed for long; `None` if there is none any more. An error if it changes.
async fn silent(store: &Store, path: &Path, lease: Lease) -> Result<Option<UpdateVersion>> {
    let look = || async {
        match store.objects().head(path).await {
            Ok(found) => Ok(Some((found.e_tag, found.version, found.last_modified))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage_error(error)),
        }
    };
    let Some(first) = look().await? else {
        return Ok(None);
    };
    let began = Instant::now();
    while began.elapsed() < lease.silence {
        sleep(lease.beat / 4).await;
        match look().await? {
            None => return Ok(None),
            Some(now) if now != first => {
                let message = "another conversion writes to this place";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            Some(_) => {}
        }
    }
    let (e_tag, version, _) = first;
    Ok(Some(UpdateVersion { e_tag, version }))
}

#[cfg(test)]
mod tests;
