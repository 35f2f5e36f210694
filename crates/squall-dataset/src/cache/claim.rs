//! Who fetches: of several that want the same bytes at the same time, one.
//!
//! A claim is a lock on a small file that names a slot of an object and a part of it: row groups of one slot are fetched side by
//! side. The ranks of a tensor-parallel group want the same bytes at
//! the same moment, and those beside each other share pages where their lanes meet. Whoever comes second waits, and then
//! finds the bytes in the cache. When the first dies, the operating system ends its lock. Whoever has waited too long fetches
//! too: that costs a request, no more.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::key::ObjectKey;
use super::layout::{EntryName, Layout};
use super::metrics::add;

/// Between two looks whether a claim is free.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Claims on parts of slots. They end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Vec<(PathBuf, File)>,
}

impl Claims {
    /// Claims these slots of an object, which are ascending and of one part: so no two wait for each other. A claim that cannot be had, for the
    /// time is up or the directory does not allow it, is left out. `waits` is one more once it waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives back what was claimed.
    pub(super) async fn take(
        layout: &Layout,
        key: &ObjectKey,
        names: &[EntryName],
        patience: Duration,
        waits: &AtomicU64,
    ) -> Self {
        let mut claims = Self::default();
        let mut waited = false;
        // There is no clock to wait by outside of a runtime.
        let deadline = Handle::try_current().is_ok().then(|| Instant::now() + patience);
        for name in names {
            let path = layout.claim(key, *name);
            let mut pause = SHORTEST_PAUSE;
            loop {
                let Ok(file) = File::options().create(true).truncate(false).write(true).open(&path) else {
                    break;
                };
                match file.try_lock() {
                    Ok(()) => {
                        claims.held.push((path, file));
                        break;
                    }
                    Err(fs::TryLockError::Error(_)) => break,
                    Err(fs::TryLockError::WouldBlock) => {}
                }
                add(waits, u64::from(!waited));
                waited = true;
                if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        claims
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        for (path, _) in &self.held {
            // Before the lock ends: who opens the file after that makes a new one. Who had it open looks into the cache first.
            let _ = fs::remove_file(path);
        }
    }
}
