//! What a cache did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the handles of this process on a cache did since it was opened. Bytes are those that readers asked for, but for what is
/// written and evicted, which is counted as it stands on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheMetrics {
    /// Ranges that were served without the store.
    pub hits: u64,
    /// Ranges of which the store gave some or all.
    pub misses: u64,
    /// Bytes that came from the cache.
    pub hit_bytes: u64,
    /// Bytes that came from the store.
    pub miss_bytes: u64,
    /// Calls that waited while another one, of this process or another, fetched what they wanted.
    pub waits: u64,
    /// Entries that were written.
    pub entries: u64,
    /// Bytes of them.
    pub entry_bytes: u64,
    /// Entries that were not written, because all that would have to go is needed sooner.
    pub refused: u64,
    /// Entries that were evicted.
    pub evictions: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Entries that were damaged, and removed.
    pub damaged: u64,
    /// Reads and writes of the cache's directory that failed. The data came from the store.
    pub failures: u64,
}

/// The counters behind a [`CacheMetrics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) hit_bytes: AtomicU64,
    pub(super) miss_bytes: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) entry_bytes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) evicted_bytes: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) failures: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> CacheMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheMetrics {
            hits: get(&self.hits),
            misses: get(&self.misses),
            hit_bytes: get(&self.hit_bytes),
            miss_bytes: get(&self.miss_bytes),
            waits: get(&self.waits),
            entries: get(&self.entries),
            entry_bytes: get(&self.entry_bytes),
            refused: get(&self.refused),
            evictions: get(&self.evictions),
            evicted_bytes: get(&self.evicted_bytes),
            damaged: get(&self.damaged),
            failures: get(&self.failures),
        }
    }
}
