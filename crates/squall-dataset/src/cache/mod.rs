//! A cache on local disk of byte ranges of remote objects.
//!
//! Asked for ranges of an object, it gives what it has, has the rest fetched, and keeps that if there is room or something
//! else is worth less ([`Foresight`]). Any number of processes may have one directory open: the ranks of a node share it, and of
//! those that want the same bytes at the same time one fetches. `docs/caching.md` is the page for users.
//!
//! The files stand in the order of the data: [`key`](ObjectKey) names an object in one version, `layout` the files, `entry` is
//! one of them, `index` finds bytes in them, `claim` says who fetches what is missing, `foresight` what an entry is worth and `room`
//! keeps the limit.
//!
//! - Bytes are served under the key they were stored under, and only if their checksum is right.
//! - What the directory cannot give or take is no error: the store gives it, and a counter says so.
//! - No entry is visible before all of it is there: it is renamed into its place.
//! - Files of the directory never hold more than the limit.

mod key;
mod metrics;

mod layout;

mod entry;
mod index;

mod claim;

mod foresight;
mod room;

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use squall_schema::{Error, ErrorKind, Result};
use tokio::runtime::Handle;

pub use self::foresight::{Foresight, NextUse, Registration};
pub use self::key::ObjectKey;
pub use self::metrics::CacheMetrics;

use self::claim::Claims;
use self::entry::{Chunk, MAX_RUNS, SLOT_BYTES, encode_header};
use self::foresight::Knowledge;
use self::index::{Fault, Index, Part};
use self::layout::{EntryName, Layout};
use self::metrics::{Counters, add};
use self::room::Room;

/// The smallest limit: less would not hold a few pages.
pub const MIN_CACHE_LIMIT: u64 = 1 << 20;
/// How long a call waits for another one that fetches the same, if nothing else is said.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// The caches of this process that are open: readers of one directory share what they know of the future.
static OPEN: LazyLock<Mutex<HashMap<CacheOptions, Weak<RangeCache>>>> = LazyLock::new(Mutex::default);

/// Where a cache is, and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CacheOptions {
    /// A directory on a local disk. It is made where there is none.
    pub directory: PathBuf,
    /// Most bytes that its files hold, of all processes and data sets together; at least [`MIN_CACHE_LIMIT`]. Processes that give
    /// different limits each keep to their own when they write.
    pub limit: u64,
    /// How long a call waits for another one that fetches the same bytes, before it fetches them too; [`DEFAULT_PATIENCE`] (30
    /// seconds) if not given.
    pub patience: Duration,
    /// Whether files and memory stores are cached too, where a reader asks for it: for a data set on a network mount. Not if not
    /// given: a local disk is no faster than another.
    pub local_stores: bool,
}

impl CacheOptions {
    /// A cache in this directory, of so many bytes.
    pub fn new(directory: impl Into<PathBuf>, limit: u64) -> Self {
        Self {
            directory: directory.into(),
            limit,
            patience: DEFAULT_PATIENCE,
            local_stores: false,
        }
    }

    /// Waits so long for another call that fetches the same.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Caches files too: of a network mount.
    #[must_use]
    pub fn with_local_stores(mut self) -> Self {
        self.local_stores = true;
        self
    }
}

/// A directory with byte ranges of objects, open.
#[derive(Debug)]
pub struct RangeCache {
    layout: Layout,
    patience: Duration,
    local_stores: bool,
    index: Index,
    knowledge: Arc<Knowledge>,
    room: Room,
    counters: Counters,
    /// Failures in a row of writing, and how many entries are not tried because of them.
    failed: AtomicU64,
    pause: AtomicU64,
}

impl RangeCache {
    /// Opens a cache. One that this process has open with the same options is the same.
    ///
    /// An error if the directory cannot be made or written, or if its file system has no locks. Walks the directory, once a
    /// process: some milliseconds for each thousand entries.
    pub fn open(options: &CacheOptions) -> Result<Arc<Self>> {
        if options.limit < MIN_CACHE_LIMIT {
            return Err(Error::invalid(format!(
                "expected a limit of the local cache of at least {MIN_CACHE_LIMIT} bytes, found {}",
                options.limit
            )));
        }
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Storage, "cannot open the local cache")
                .at("directory", options.directory.display())
                .with_source(error)
        };
        let layout = Layout::create(&options.directory).map_err(failed)?;
        let same = CacheOptions {
            directory: layout.root().to_owned(),
            ..options.clone()
        };
        if let Some(cache) = open.get(&same).and_then(Weak::upgrade) {
            return Ok(cache);
        }
        let knowledge = Arc::new(Knowledge::new());
        let cache = Arc::new(Self {
            patience: options.patience,
            local_stores: options.local_stores,
            index: Index::default(),
            room: Room::open(&layout, options.limit, &*knowledge).map_err(failed)?,
            layout,
            knowledge,
            counters: Counters::default(),
            failed: AtomicU64::new(0),
            pause: AtomicU64::new(0),
        });
        open.retain(|_, cache| cache.strong_count() > 0);
        open.insert(same, Arc::downgrade(&cache));
        Ok(cache)
    }

    /// The directory that was opened.
    pub fn directory(&self) -> &Path {
        self.layout.root().parent().unwrap_or(self.layout.root())
    }

    /// Whether it is for local stores too: [`CacheOptions::local_stores`].
    pub fn takes_local_stores(&self) -> bool {
        self.local_stores
    }

    /// What was done since it was opened.
    pub fn metrics(&self) -> CacheMetrics {
        self.counters.snapshot()
    }

    /// Asks this about the future from now on, until what is returned is dropped. It may be called by any thread, with a lock of the
    /// cache held: it must be quick, and must not use the cache.
    pub fn register(&self, foresight: Arc<dyn Foresight>) -> Registration {
        self.knowledge.register(foresight)
    }

    /// The bytes of these ranges of an object, in the order asked for. What is not there is fetched: `fetch` is called once, or
    /// not at all, with ranges that together are what is missing; it must give the bytes of each, and must fail where the object is
    /// not in the version of `object` any more. `part` is what [`Foresight`] will be asked about.
    ///
    /// Fails only where `fetch` fails, or gives other lengths. Belongs into a tokio runtime with time: outside of one it blocks
    /// its thread while it reads the disk, and does not wait for others.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of `fetch` and gives back what was claimed. What is being written is written.
    pub async fn get_ranges<F, Fut>(
        self: &Arc<Self>,
        object: &ObjectKey,
        part: Option<u64>,
        ranges: &[Range<u64>],
        fetch: F,
    ) -> Result<Vec<Bytes>>
    where
        F: FnOnce(Vec<Range<u64>>) -> Fut,
        Fut: Future<Output = Result<Vec<Bytes>>>,
    {
        if ranges
            .iter()
            .any(|range| range.start > range.end || range.end > object.size())
        {
            // Whatever the store says to that.
            return fetch(ranges.to_vec()).await;
        }
        self.knowledge.reads(object);
        let parts = ranges.iter().map(|range| Part {
            range: range.clone(),
            bytes: None,
        });
        let mut parts = self.fill(object, distinct(parts.collect())).await?;
        let mut miss_bytes = 0;
        let mut fetched: Vec<Range<u64>> = Vec::new();
        if parts.iter().any(|part| part.bytes.is_none()) {
            let (slots, waits) = (slots(&parts, part), &self.counters.waits);
            let claims = Claims::take(&self.layout, object, &slots, self.patience, waits).await;
            // Somebody may have fetched it in the meantime.
            parts = self.fill(object, parts).await?;
            fetched = missing(&parts, ranges);
            if !fetched.is_empty() {
                let chunks = self.fetch(fetched.clone(), fetch).await?;
                miss_bytes = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
                take_from(&mut parts, &chunks);
                let (cache, object) = (self.clone(), object.clone());
                // Waiting for the disk here is what bounds the memory of what is to be written.
                blocking(move || cache.store(&object, part, &chunks)).await?;
            }
            drop(claims);
        }
        let all: u64 = parts.iter().map(|part| part.range.end - part.range.start).sum();
        add(&self.counters.miss_bytes, miss_bytes);
        add(&self.counters.hit_bytes, all.saturating_sub(miss_bytes));
        let missed = |range: &&Range<u64>| fetched.iter().any(|own| own.start < range.end && range.start < own.end);
        let misses = ranges.iter().filter(missed).count() as u64;
        add(&self.counters.misses, misses);
        add(&self.counters.hits, ranges.len() as u64 - misses);
        ranges.iter().map(|range| join(&parts, range)).collect()
    }

    async fn fetch<F, Fut>(&self, wanted: Vec<Range<u64>>, fetch: F) -> Result<Vec<Chunk>>
    where
        F: FnOnce(Vec<Range<u64>>) -> Fut,
        Fut: Future<Output = Result<Vec<Bytes>>>,
    {
        let got = fetch(wanted.clone()).await?;
        let alike = |(range, bytes): (&Range<u64>, &Bytes)| bytes.len() as u64 == range.end - range.start;
        if got.len() != wanted.len() || !wanted.iter().zip(&got).all(alike) {
            return Err(Error::internal(format!(
                "expected {} ranges of the lengths that were asked for, found {}, or other lengths",
                wanted.len(),
                got.len()
            )));
        }
        let chunk = |(range, bytes): (Range<u64>, Bytes)| Chunk {
            start: range.start,
            bytes,
        };
        Ok(wanted.into_iter().zip(got).map(chunk).collect())
    }

    /// Fills in the parts that are on disk.
    async fn fill(self: &Arc<Self>, object: &ObjectKey, parts: Vec<Part>) -> Result<Vec<Part>> {
        let (cache, object) = (self.clone(), object.clone());
        blocking(move || {
            let mut faults = Vec::new();
            let parts = cache.index.fill(&cache.layout, &object, parts, &mut faults);
            faults.into_iter().for_each(|fault| cache.report(fault));
            parts
        })
        .await
    }

    fn report(&self, fault: Fault) {
        match fault {
            Fault::Damaged(path, why) => {
                add(&self.counters.damaged, 1);
                tracing::warn!(path = %path.display(), why, "an entry of the local cache was damaged and is removed");
            }
            Fault::Io(path, error) => {
                add(&self.counters.failures, 1);
                tracing::warn!(path = %path.display(), %error, "cannot read from the local cache");
            }
        }
    }

    /// Keeps what was fetched, as far as there is room for it.
    fn store(&self, object: &ObjectKey, part: Option<u64>, chunks: &[Chunk]) {
        for chunks in entries(chunks) {
            let paused = self
                .pause
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if paused.is_ok() {
                continue;
            }
            match self.write(object, part, &chunks) {
                Ok(()) => self.failed.store(0, Ordering::Relaxed),
                Err(error) => {
                    add(&self.counters.failures, 1);
                    // Twice as long each time: a disk that is gone is not asked for each entry.
                    let failed = self.failed.fetch_add(1, Ordering::Relaxed).min(10);
                    self.pause.store((1 << failed) - 1, Ordering::Relaxed);
                    let directory = self.layout.root().display();
                    if error.kind() == io::ErrorKind::StorageFull {
                        let limit = self.room.is_full().unwrap_or(0);
                        tracing::warn!(%directory, limit, "the disk of the local cache is full: it grows no more");
                    } else {
                        tracing::warn!(%directory, %error, "cannot write to the local cache");
                    }
                }
            }
        }
    }

    fn write(&self, object: &ObjectKey, part: Option<u64>, chunks: &[Chunk]) -> io::Result<()> {
        let header = encode_header(object, chunks);
        let len = header.len() as u64 + chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        let worth = self.knowledge.worth(object, part, SystemTime::now());
        let (draft, evicted) = self.room.draft(len, worth, &*self.knowledge)?;
        add(&self.counters.evictions, evicted.entries);
        add(&self.counters.evicted_bytes, evicted.bytes);
        let Some(draft) = draft else {
            add(&self.counters.refused, 1);
            return Ok(());
        };
        let mut file = &draft.file;
        file.write_all(&header)?;
        for chunk in chunks {
            file.write_all(&chunk.bytes)?;
        }
        let name = EntryName {
            slot: chunks[0].start / SLOT_BYTES,
            part,
        };
        draft.keep(&self.layout.entry(object, name))?;
        add(&self.counters.entries, 1);
        add(&self.counters.entry_bytes, len);
        Ok(())
    }
}

/// Ranges sorted and cut so that none overlaps another; empty ones left out.
fn distinct(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by_key(|part| part.range.start);
    let mut end = 0;
    parts.retain_mut(|part| {
        part.range.start = part.range.start.max(end);
        end = end.max(part.range.end);
        part.range.start < part.range.end
    });
    parts
}

/// The slots that are missing of a part.
fn slots(parts: &[Part], part: Option<u64>) -> Vec<EntryName> {
    let missing = parts.iter().filter(|part| part.bytes.is_none());
    let mut slots: Vec<_> = missing
        .flat_map(|part| part.range.start / SLOT_BYTES..=(part.range.end - 1) / SLOT_BYTES)
        .collect();
    slots.dedup();
    slots.into_iter().map(|slot| EntryName { slot, part }).collect()
}

/// What is missing, in pieces as they were asked for: a range that is fetched whole is the bytes that are returned.
fn missing(parts: &[Part], asked: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut starts: Vec<_> = asked.iter().map(|range| range.start).collect();
    starts.sort_unstable();
    let mut missing: Vec<Range<u64>> = Vec::new();
    for part in parts.iter().filter(|part| part.bytes.is_none()) {
        match missing.last_mut() {
            Some(last) if last.end == part.range.start && starts.binary_search(&part.range.start).is_err() => {
                last.end = part.range.end;
            }
            _ => missing.push(part.range.clone()),
        }
    }
    missing
}

/// Puts what was fetched into the parts that are missing. All of them are in the chunks, each in one.
fn take_from(parts: &mut [Part], chunks: &[Chunk]) {
    for part in parts.iter_mut().filter(|part| part.bytes.is_none()) {
        let chunk = chunks
            .partition_point(|chunk| chunk.start <= part.range.start)
            .checked_sub(1);
        part.bytes = chunk.map(|chunk| {
            let Chunk { start, bytes } = &chunks[chunk];
            bytes.slice((part.range.start - start) as usize..(part.range.end - start) as usize)
        });
    }
}

/// The bytes of a range, which all parts together have.
fn join(parts: &[Part], range: &Range<u64>) -> Result<Bytes> {
    let lost = || Error::internal(format!("the local cache lost bytes {} to {}", range.start, range.end));
    let mut joined = BytesMut::new();
    let mut at = range.start;
    let first = parts.partition_point(|part| part.range.end <= at);
    for part in &parts[first..] {
        if at >= range.end {
            break;
        }
        let bytes = part
            .bytes
            .as_ref()
            .filter(|_| part.range.start <= at)
            .ok_or_else(lost)?;
        let end = part.range.end.min(range.end);
        let bytes = bytes.slice((at - part.range.start) as usize..(end - part.range.start) as usize);
        if at == range.start && end == range.end {
            return Ok(bytes);
        }
        if joined.is_empty() {
            joined.reserve((range.end - range.start) as usize);
        }
        joined.extend_from_slice(&bytes);
        at = end;
    }
    match at == range.end {
        true => Ok(joined.freeze()),
        false => Err(lost()),
    }
}

/// Chunks, which are ascending, as those of entries: each in one slot, and of no more runs than an entry may have.
fn entries(chunks: &[Chunk]) -> Vec<Vec<Chunk>> {
    let mut entries: Vec<Vec<Chunk>> = Vec::new();
    for chunk in chunks {
        let mut at = chunk.start;
        while at < chunk.end() {
            let end = ((at / SLOT_BYTES + 1) * SLOT_BYTES).min(chunk.end());
            let piece = Chunk {
                start: at,
                bytes: chunk
                    .bytes
                    .slice((at - chunk.start) as usize..(end - chunk.start) as usize),
            };
            match entries.last_mut() {
                Some(last) if last.len() < MAX_RUNS && last[0].start / SLOT_BYTES == at / SLOT_BYTES => {
                    last.push(piece)
                }
                _ => entries.push(vec![piece]),
            }
            at = end;
        }
    }
    entries
}

/// Runs what reads and writes files where it holds up nobody: on the runtime's threads for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let Ok(runtime) = Handle::try_current() else {
        return Ok(work());
    };
    match runtime.spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::new(ErrorKind::Cancelled, "the runtime shuts down").with_source(error)),
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is asked for as several are")]
mod tests;
