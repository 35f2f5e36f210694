//! What was decoded or fetched last, up to a number of bytes, and what somebody is loading right now.
//!
//! Whoever asks for something that is neither kept nor under way must load it; everybody else waits for that. So threads that want
//! the same page fetch and decode it once. Nobody waits while others wait for what he is to load: a claim is fulfilled, or
//! given up, before its owner waits for those of others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::metrics::seconds;

/// What is kept of a row group, which is named by its place in the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The decoded rows of a group of columns from this row on.
    Run { piece: usize, group: usize, start: u64 },
    /// The bytes from this place of the file on.
    Bytes { piece: usize, start: u64 },
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Run(Arc<RecordBatch>),
    Bytes(Bytes),
}

/// What an entry costs beside its bytes, about.
const OVERHEAD: u64 = 256;

impl Entry {
    fn size(&self) -> u64 {
        let bytes = match self {
            Self::Run(run) => run.columns().iter().map(|column| column.get_array_memory_size()).sum(),
            Self::Bytes(bytes) => bytes.len(),
        };
        bytes as u64 + OVERHEAD
    }
}

/// Numbers of a [`MapDataset`](crate::MapDataset) since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct MapStats {
    /// Requests for pages.
    pub requests: u64,
    /// The time of these requests; of those that overlap the sum.
    #[serde(rename = "fetching_seconds", serialize_with = "seconds")]
    pub fetching: Duration,
    /// The time of decoding pages, summed over threads.
    #[serde(rename = "decoding_seconds", serialize_with = "seconds")]
    pub decoding: Duration,
    /// Runs of rows, and pages, that the cache had.
    pub cache_hits: u64,
    /// Those that it had not.
    pub cache_misses: u64,
    /// Bytes of pages that were fetched, without footers.
    pub fetched_bytes: u64,
    /// Rows times columns that were decoded, needed or not.
    pub decoded_cells: u64,
    /// Bytes that the cache holds now.
    pub cached_bytes: u64,
}

/// Least recently used entries go first.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Key, Kept>,
    /// The keys by their last use.
    uses: BTreeMap<u64, Key>,
    clock: u64,
    bytes: u64,
    hits: u64,
    misses: u64,
    under_way: HashMap<Key, Waiting>,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    used: u64,
    size: u64,
}

type Waiting = watch::Receiver<Option<Entry>>;

impl State {
    fn get(&mut self, key: &Key) -> Option<Entry> {
        let kept = self.kept.get_mut(key)?;
        // The newest entry need not be made the newest again; rows are often asked for one after the other.
        if kept.used != self.clock {
            self.uses.remove(&kept.used);
            self.clock += 1;
            kept.used = self.clock;
            self.uses.insert(kept.used, *key);
        }
        self.hits += 1;
        Some(kept.entry.clone())
    }

    fn insert(&mut self, key: Key, entry: Entry, capacity: u64) {
        let size = entry.size();
        if size > capacity || self.kept.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.uses.insert(self.clock, key);
        let used = self.clock;
        self.kept.insert(key, Kept { entry, used, size });
        self.bytes += size;
        while self.bytes > capacity
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.size);
        }
    }
}

/// The answer to a question for some keys.
pub(crate) struct Asked<'a> {
    pub(crate) found: Vec<(Key, Entry)>,
    /// What the asker must load.
    pub(crate) claim: Claim<'a>,
    /// What others are loading.
    pub(crate) others: Vec<(Key, Waiting)>,
}

impl Cache {
    /// A cache of so many bytes; of 0, it keeps nothing.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// Hits and misses.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.hits, state.misses)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// The entries of all keys, in their order, if all are kept.
    pub(crate) fn get_all(&self, keys: impl Iterator<Item = Key>) -> Option<Vec<Entry>> {
        let mut state = self.state();
        keys.map(|key| state.get(&key)).collect()
    }

    /// What is kept of these keys; the asker gets a claim to the others that nobody is loading. No key stands twice.
    pub(crate) fn ask(&self, keys: &[Key]) -> Asked<'_> {
        let mut asked = Asked {
            found: Vec::new(),
            claim: Claim {
                cache: self,
                promised: HashMap::new(),
            },
            others: Vec::new(),
        };
        let mut state = self.state();
        for key in keys {
            if let Some(entry) = state.get(key) {
                asked.found.push((*key, entry));
            } else if let Some(waiting) = state.under_way.get(key) {
                asked.others.push((*key, waiting.clone()));
            } else {
                state.misses += 1;
                let (promise, waiting) = watch::channel(None);
                state.under_way.insert(*key, waiting);
                asked.claim.promised.insert(*key, promise);
            }
        }
        asked
    }
}

/// Keys that one asker loads while others wait. Those that it has not fulfilled when it is dropped are free again.
pub(crate) struct Claim<'a> {
    cache: &'a Cache,
    promised: HashMap<Key, watch::Sender<Option<Entry>>>,
}

impl Claim<'_> {
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.promised.contains_key(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.promised.is_empty()
    }

    /// Hands the entry to those who wait, and keeps it for later where `keep` says so.
    pub(crate) fn fulfil(&mut self, key: Key, entry: Entry, keep: bool) {
        let Some(promise) = self.promised.remove(&key) else {
            return;
        };
        let mut state = self.cache.state();
        state.under_way.remove(&key);
        if keep {
            state.insert(key, entry.clone(), self.cache.capacity);
        }
        drop(state);
        promise.send_replace(Some(entry));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.promised.is_empty() {
            let mut state = self.cache.state();
            self.promised.keys().for_each(|key| {
                state.under_way.remove(key);
            });
        }
    }
}

/// The entry that somebody else loads; `None` if he gave up.
pub(crate) async fn wait_for(mut waiting: Waiting) -> Option<Entry> {
    let loaded = waiting.wait_for(Option::is_some).await.ok()?;
    loaded.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(start: u64) -> Key {
        Key::Bytes { piece: 0, start }
    }

    fn load(cache: &Cache, start: u64, bytes: usize) {
        let mut asked = cache.ask(&[key(start)]);
        asked
            .claim
            .fulfil(key(start), Entry::Bytes(vec![0; bytes].into()), true);
    }

    fn has(cache: &Cache, start: u64) -> bool {
        cache.get_all([key(start)].into_iter()).is_some()
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = Cache::new(3 * (1000 + OVERHEAD));
        (0..3).for_each(|start| load(&cache, start, 1000));
        assert!(has(&cache, 0));
        load(&cache, 3, 1000);
        assert_eq!([0, 1, 2, 3].map(|start| has(&cache, start)), [true, false, true, true]);
        assert_eq!(cache.bytes(), 3 * (1000 + OVERHEAD));
        // Nothing goes for what would not fit.
        load(&cache, 4, 10_000);
        assert_eq!([0, 2, 3, 4].map(|start| has(&cache, start)), [true, true, true, false]);
        load(&cache, 5, 2000);
        assert_eq!([0, 2, 3, 5].map(|start| has(&cache, start)), [false, false, true, true]);
        let state = cache.state();
        assert_eq!(state.uses.len(), state.kept.len());
    }

    #[tokio::test]
    async fn a_key_has_one_owner_and_others_wait() {
        let cache = Cache::new(0);
        let mut first = cache.ask(&[key(0), key(1)]);
        let second = cache.ask(&[key(0), key(1), key(2)]);
        assert!(first.claim.has(&key(0)) && !second.claim.has(&key(0)) && second.claim.has(&key(2)));
        first.claim.fulfil(key(0), Entry::Bytes(Bytes::from_static(b"x")), true);
        drop(first);
        let waits = second.others.into_iter().map(|(_, waiting)| wait_for(waiting));
        let loaded = futures::future::join_all(waits).await;
        // The second key was given up; whoever asks again may load it.
        assert!(matches!(&loaded[..], [Some(Entry::Bytes(bytes)), None] if bytes == "x"));
        assert!(cache.ask(&[key(1)]).claim.has(&key(1)));
        assert!(!has(&cache, 0));
    }
}
