//! What was done between two snapshots.

use std::time::Duration;

use crate::metrics::{BuildTimes, CacheMetrics, CpuMetrics, LoaderTimes, Metrics, StageTimes, StorageMetrics, Unready};

impl Metrics {
    /// What was done since an earlier snapshot of the same reader. What does not add up stays as it is now: memory, queues. The
    /// first batch is the reader's, if it came since; otherwise it took no time.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let first_batch = match (self.first_batch, earlier.first_batch) {
            (Some(_), Some(_)) => Some(Duration::ZERO),
            (first, _) => first,
        };
        Self {
            dataset: self.dataset.clone(),
            rank: self.rank,
            world_size: self.world_size,
            wall: self.wall.saturating_sub(earlier.wall),
            first_batch,
            waited: self.waited.saturating_sub(earlier.waited),
            rows: self.rows.saturating_sub(earlier.rows),
            batches: self.batches.saturating_sub(earlier.batches),
            bad_rows: self.bad_rows.saturating_sub(earlier.bad_rows),
            bytes_fetched: self.bytes_fetched.saturating_sub(earlier.bytes_fetched),
            bytes_decoded: self.bytes_decoded.saturating_sub(earlier.bytes_decoded),
            bytes_built: self.bytes_built.saturating_sub(earlier.bytes_built),
            fetch: stage(self.fetch, earlier.fetch),
            decode: stage(self.decode, earlier.decode),
            build: stage(self.build, earlier.build),
            build_parts: BuildTimes {
                gather: self.build_parts.gather.saturating_sub(earlier.build_parts.gather),
                cells: self.build_parts.cells.saturating_sub(earlier.build_parts.cells),
                transform: self.build_parts.transform.saturating_sub(earlier.build_parts.transform),
            },
            consumer: stage(self.consumer, earlier.consumer),
            unready: Unready {
                fetch: self.unready.fetch.saturating_sub(earlier.unready.fetch),
                memory: self.unready.memory.saturating_sub(earlier.unready.memory),
                workers: self.unready.workers.saturating_sub(earlier.unready.workers),
            },
            loader: self.loader.map(|now| loader(now, earlier.loader.unwrap_or_default())),
            storage: StorageMetrics {
                requests: self.storage.requests.saturating_sub(earlier.storage.requests),
                retries: self.storage.retries.saturating_sub(earlier.storage.retries),
            },
            cache: self.cache.map(|now| cache(now, earlier.cache.unwrap_or_default())),
            memory: self.memory,
            queues: self.queues,
            cpu: CpuMetrics {
                cores: self.cpu.cores,
                loading: time(self.cpu.loading, earlier.cpu.loading),
                process: time(self.cpu.process, earlier.cpu.process),
            },
        }
    }
}

fn stage(now: StageTimes, before: StageTimes) -> StageTimes {
    StageTimes {
        slots: now.slots,
        jobs: now.jobs.saturating_sub(before.jobs),
        busy: now.busy.saturating_sub(before.busy),
        starved: now.starved.saturating_sub(before.starved),
        blocked: now.blocked.saturating_sub(before.blocked),
    }
}

fn loader(now: LoaderTimes, before: LoaderTimes) -> LoaderTimes {
    LoaderTimes {
        collate: now.collate.saturating_sub(before.collate),
        sink: now.sink.saturating_sub(before.sink),
        starved: now.starved.saturating_sub(before.starved),
        blocked: now.blocked.saturating_sub(before.blocked),
        batches: now.batches.saturating_sub(before.batches),
    }
}

fn cache(now: CacheMetrics, before: CacheMetrics) -> CacheMetrics {
    CacheMetrics {
        hits: now.hits.saturating_sub(before.hits),
        misses: now.misses.saturating_sub(before.misses),
        hit_bytes: now.hit_bytes.saturating_sub(before.hit_bytes),
        miss_bytes: now.miss_bytes.saturating_sub(before.miss_bytes),
    }
}

fn time(now: Option<Duration>, before: Option<Duration>) -> Option<Duration> {
    Some(now?.saturating_sub(before.unwrap_or_default()))
}
