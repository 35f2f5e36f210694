//! What was done between two snapshots.

use std::time::Duration;

use crate::metrics::{BuildTimes, CacheCounts, CpuMetrics, LoaderTimes, Metrics, StageTimes, StorageCounts, WaitedFor};

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
            waited_for: WaitedFor {
                fetch: self.waited_for.fetch.saturating_sub(earlier.waited_for.fetch),
                memory: self.waited_for.memory.saturating_sub(earlier.waited_for.memory),
                workers: self.waited_for.workers.saturating_sub(earlier.waited_for.workers),
                hand_over: self.waited_for.hand_over.saturating_sub(earlier.waited_for.hand_over),
            },
            loader: self.loader.map(|now| loader(now, earlier.loader.unwrap_or_default())),
            storage: StorageCounts {
                requests: self.storage.requests.saturating_sub(earlier.storage.requests),
                retries: self.storage.retries.saturating_sub(earlier.storage.retries),
                throttled: self.storage.throttled.saturating_sub(earlier.storage.throttled),
                hedges_sent: self.storage.hedges_sent.saturating_sub(earlier.storage.hedges_sent),
                hedges_won: self.storage.hedges_won.saturating_sub(earlier.storage.hedges_won),
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

fn cache(now: CacheCounts, before: CacheCounts) -> CacheCounts {
    CacheCounts {
        hits: now.hits.saturating_sub(before.hits),
        misses: now.misses.saturating_sub(before.misses),
        hit_bytes: now.hit_bytes.saturating_sub(before.hit_bytes),
        miss_bytes: now.miss_bytes.saturating_sub(before.miss_bytes),
        evictions: now.evictions.saturating_sub(before.evictions),
        damaged: now.damaged.saturating_sub(before.damaged),
        failures: now.failures.saturating_sub(before.failures),
    }
}

fn time(now: Option<Duration>, before: Option<Duration>) -> Option<Duration> {
    Some(now?.saturating_sub(before.unwrap_or_default()))
}
