//! What a reader is doing: the numbers that `reader.metrics()` gives.
//!
//! `counters` is where the stages count while they work, `threads` how much processor time they take; here is the snapshot of
//! both, `limit` says which stage holds the others up, and `table` prints it all.

mod threads;

mod bytes;
mod clocks;
mod counters;

mod limit;
mod since;
mod table;

#[cfg(feature = "prometheus")]
mod endpoint;
#[cfg(feature = "prometheus")]
mod exposition;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use squall_dataset::StoreMetrics;
use squall_dataset::cache::RangeCache;

pub(crate) use bytes::bytes_of;
pub(crate) use clocks::Doing;
pub(crate) use counters::{About, Counters, Part, nanos};
pub(crate) use threads::Threads;

pub use counters::{LoaderStage, Meter};
#[cfg(feature = "prometheus")]
pub use endpoint::{MetricsServer, serve_metrics};
pub use limit::Stage;

/// What a reader has done so far. A plain copy: it does not change.
///
/// It prints as a table, and serializes with times in seconds under names that end in `_seconds`. A loader gives the numbers of
/// its reader, with the trainer as the consumer and its own stages in [`Metrics::loader`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// The dataset that is read; of a mixture all of them, with commas. No secrets are in it.
    pub dataset: String,
    /// This rank, from 0.
    pub rank: u64,
    /// The number of ranks.
    pub world_size: u64,
    /// Time since the first batch was asked for, to now or to the end of the data. What lies between an end and a reset does not
    /// count.
    #[serde(rename = "wall_seconds", serialize_with = "seconds")]
    pub wall: Duration,
    /// How long the first batch took, from the first time that it was asked for.
    #[serde(rename = "first_batch_seconds", serialize_with = "some_seconds")]
    pub first_batch: Option<Duration>,
    /// How long the consumer waited for batches, the first one included.
    #[serde(rename = "waited_seconds", serialize_with = "seconds")]
    pub waited: Duration,
    /// Rows that were handed out.
    pub rows: u64,
    /// Batches that were handed out.
    pub batches: u64,
    /// Bad rows that were skipped in them.
    pub bad_rows: u64,
    /// Bytes of files that came in, what is read ahead included; those of footers and where-clauses are not counted.
    pub bytes_fetched: u64,
    /// Bytes of columns that were decoded of them, cells still encoded.
    pub bytes_decoded: u64,
    /// Bytes of the batches that were built.
    pub bytes_built: u64,
    /// Requests for bytes. Its time is wall time: busy is when at least one request was under way.
    pub fetch: StageTimes,
    /// Parquet pages to columns, on the worker threads.
    pub decode: StageTimes,
    /// Columns to batches, on the same threads.
    pub build: StageTimes,
    /// What building is made of.
    pub build_parts: BuildTimes,
    /// Whoever takes the batches: busy with them, or starved while it waits for the next one.
    pub consumer: StageTimes,
    /// What the caller of the reader waited for behind the first batch, by what the reader lacked. Its sum is the time that he
    /// waited: the consumer, or the thread of a loader.
    pub waited_for: WaitedFor,
    /// The stages of the loader, where there is one.
    pub loader: Option<LoaderTimes>,
    /// What the store counts.
    pub storage: StorageCounts,
    /// What the local cache counts, where there is one.
    pub cache: Option<CacheCounts>,
    /// Memory by the reader's own count.
    pub memory: MemoryMetrics,
    /// What waits where.
    pub queues: QueueDepths,
    /// Processor time.
    pub cpu: CpuMetrics,
}

/// How a stage spent its time: the sum over its slots, so that the three make `slots` times the time that the reader ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StageTimes {
    /// How many things it does at once: threads, or 1 where time is counted by the wall.
    pub slots: u64,
    /// Jobs that were done.
    pub jobs: u64,
    /// Working. A worker thread works for one stage at a time.
    #[serde(rename = "busy_seconds", serialize_with = "seconds")]
    pub busy: Duration,
    /// Idle with nothing to do: its input is not here. A worker thread that is idle is so for both of its stages.
    #[serde(rename = "starved_seconds", serialize_with = "seconds")]
    pub starved: Duration,
    /// Idle though there is work: what it makes is not taken, or there is no memory to make more.
    #[serde(rename = "blocked_seconds", serialize_with = "seconds")]
    pub blocked: Duration,
}

/// How the time of building is spent, summed over threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BuildTimes {
    /// The rows of a batch, picked from windows.
    #[serde(rename = "gather_seconds", serialize_with = "seconds")]
    pub gather: Duration,
    /// npy, npz, png and jpeg to tensors.
    #[serde(rename = "cells_seconds", serialize_with = "seconds")]
    pub cells: Duration,
    /// The closures of a [`TransformSpec`](crate::TransformSpec).
    #[serde(rename = "transform_seconds", serialize_with = "seconds")]
    pub transform: Duration,
}

/// What the caller of a reader waited for, by what the reader lacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitedFor {
    /// A thread was idle, and bytes were under way, or waited for a request to end.
    #[serde(rename = "fetch_seconds", serialize_with = "seconds")]
    pub fetch: Duration,
    /// A thread was idle, and windows waited for memory though more requests could have been under way.
    #[serde(rename = "memory_seconds", serialize_with = "seconds")]
    pub memory: Duration,
    /// All threads were busy, or nothing but their work was left to wait for.
    #[serde(rename = "workers_seconds", serialize_with = "seconds")]
    pub workers: Duration,
    /// The next batch was ready, and on its way from thread to thread.
    #[serde(rename = "hand_over_seconds", serialize_with = "seconds")]
    pub hand_over: Duration,
}

/// What a loader's thread did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoaderTimes {
    /// Columns laid out in one buffer each.
    #[serde(rename = "collate_seconds", serialize_with = "seconds")]
    pub collate: Duration,
    /// Batches made into what the trainer takes.
    #[serde(rename = "sink_seconds", serialize_with = "seconds")]
    pub sink: Duration,
    /// It waited for the reader.
    #[serde(rename = "starved_seconds", serialize_with = "seconds")]
    pub starved: Duration,
    /// It waited for the trainer.
    #[serde(rename = "blocked_seconds", serialize_with = "seconds")]
    pub blocked: Duration,
    /// Batches that it took from the reader.
    pub batches: u64,
}

/// What the store counts since it was opened, footers included, summed over the datasets of a mixture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StorageCounts {
    /// Requests that were sent, those sent again included.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Of these, how many because the store asked for fewer.
    pub throttled: u64,
    /// Second requests that were sent because the first one was slow.
    pub hedges_sent: u64,
    /// Those whose answer was taken.
    pub hedges_won: u64,
}

/// What a cache counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Ranges that were there.
    pub hits: u64,
    /// Ranges that were not.
    pub misses: u64,
    /// Bytes of the hits.
    pub hit_bytes: u64,
    /// Bytes of the misses.
    pub miss_bytes: u64,
    /// Entries that had to go.
    pub evictions: u64,
    /// Entries that were damaged, and not used.
    pub damaged: u64,
    /// Reads and writes of the cache that failed. The data came from the store.
    pub failures: u64,
}

impl CacheCounts {
    /// What these count together.
    pub(crate) fn of(caches: &[Arc<RangeCache>]) -> Self {
        let mut sum = Self::default();
        for counted in caches.iter().map(|cache| cache.metrics()) {
            sum.hits += counted.hits;
            sum.misses += counted.misses;
            sum.hit_bytes += counted.hit_bytes;
            sum.miss_bytes += counted.miss_bytes;
        }
        sum
    }
}

/// The byte budget of a reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryMetrics {
    /// The budget, where there is one.
    pub budget: Option<u64>,
    /// Bytes that are taken of it now.
    pub in_use: u64,
    /// The most that was taken at any time.
    pub high_water: u64,
}

/// How much waits where, at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueDepths {
    /// Fetches that wait for their turn, or for memory.
    pub fetches_waiting: u64,
    /// Fetches that are under way.
    pub fetching: u64,
    /// Windows to decode and batches to build that workers have, or will take next.
    pub jobs: u64,
    /// Batches that are built and were not taken.
    pub ready: u64,
}

/// Processor time since the first batch was asked for. Without numbers where the system does not tell: they come from Linux.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CpuMetrics {
    /// Cores that the process may use.
    pub cores: u64,
    /// Of the reader's and loader's threads: workers, driver, I/O.
    #[serde(rename = "loading_seconds", serialize_with = "some_seconds")]
    pub loading: Option<Duration>,
    /// Of the whole process.
    #[serde(rename = "process_seconds", serialize_with = "some_seconds")]
    pub process: Option<Duration>,
}

impl StorageCounts {
    pub(crate) fn add(&mut self, store: &StoreMetrics) {
        self.requests += store.requests;
        self.retries += store.retries.total();
        self.throttled += store.retries.throttled;
        self.hedges_sent += store.hedges_sent;
        self.hedges_won += store.hedges_won;
    }
}

impl Metrics {
    /// The share of all processor time that loading takes: 0.5 is half of the cores, all the time.
    pub fn cpu_share(&self) -> Option<f64> {
        let whole = self.wall.as_secs_f64() * self.cpu.cores as f64;
        let loading = self.cpu.loading?.as_secs_f64();
        (whole > 0.0).then(|| (loading / whole).min(1.0))
    }

    /// Rows a second, handed out.
    pub fn rows_per_second(&self) -> f64 {
        per_second(self.rows, self.wall)
    }
}

impl StageTimes {
    /// The shares of busy, starved and blocked time; zeros before any has passed.
    pub fn shares(&self) -> [f64; 3] {
        let parts = [self.busy, self.starved, self.blocked].map(|part| part.as_secs_f64());
        let whole: f64 = parts.iter().sum();
        parts.map(|part| if whole > 0.0 { part / whole } else { 0.0 })
    }
}

pub(crate) fn per_second(n: u64, time: Duration) -> f64 {
    match time.as_secs_f64() {
        0.0 => 0.0,
        seconds => n as f64 / seconds,
    }
}

pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn some_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&time.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}
