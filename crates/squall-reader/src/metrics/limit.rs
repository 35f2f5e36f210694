//! Which stage holds the others up.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::metrics::Metrics;

/// The consumer limits where it waits for less than this share of its time.
const READY: f64 = 0.05;

/// Handing batches over limits where it is what the consumer waits for, for more than this share of its time.
const HANDING_OVER: f64 = 0.5;

/// What limits a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Bytes come too slowly: storage and network.
    Fetch,
    /// Fetches wait for memory: the byte budget is small.
    Memory,
    /// Parquet pages to columns.
    Decode,
    /// Rows of a batch, picked from windows.
    Gather,
    /// npy, npz, png and jpeg to tensors.
    Cells,
    /// Closures of the user.
    Transform,
    /// Batches are ready, but pass too slowly from thread to thread.
    HandOver,
    /// A loader lays columns out in buffers.
    Collate,
    /// A loader makes batches into what the trainer takes.
    Sink,
    /// Batches wait ready: the trainer.
    Consumer,
}

impl Stage {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Memory => "memory",
            Self::Decode => "decode",
            Self::Gather => "gather",
            Self::Cells => "cells",
            Self::Transform => "transform",
            Self::HandOver => "hand_over",
            Self::Collate => "collate",
            Self::Sink => "sink",
            Self::Consumer => "consumer",
        }
    }

    /// What helps where it limits.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Fetch => "storage is too slow: read fewer columns, cache locally, or move the data closer",
            Self::Memory => "fetches wait for memory: raise the byte budget",
            Self::Decode => {
                "Parquet is decoded too slowly: read fewer columns, use more workers, or a lighter compression"
            }
            Self::Gather => "batches are put together too slowly: use more workers, or pack scalar columns",
            Self::Cells => "cells are decoded too slowly: use more workers, or store smaller images",
            Self::Transform => "the transform is too slow: use more workers, or work on batches instead of rows",
            Self::HandOver => "batches are ready but pass too slowly from thread to thread: make them larger",
            Self::Collate => "the loader lays out batches too slowly: read fewer columns",
            Self::Sink => "the sink is too slow: look at the copies to the device",
            Self::Consumer => "batches wait ready: loading is fast enough",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Metrics {
    /// The stage that limits; `None` before the first batch was taken.
    ///
    /// The rule, in the spirit of the data readiness that SPDL looks at:
    ///
    /// 1. The consumer, where it waited for less than 5 % of the time behind the first batch.
    /// 2. A loader's own stage, the slower one, where its thread waited for the reader less than it worked.
    /// 3. What the caller waited for the longest: bytes, while threads were idle and fetches under way ([`Stage::Fetch`]); memory,
    ///    while fetches waited for it ([`Stage::Memory`]); threads, of which the part of the work that took the most time limits;
    ///    or batches that were ready. The last is the consumer's own slowness to wake up, unless it waited for more than half of
    ///    its time ([`Stage::HandOver`]).
    pub fn limiting_stage(&self) -> Option<Stage> {
        let first = self.first_batch?;
        let wall = self.wall.saturating_sub(first).as_secs_f64();
        let waited = self.waited.saturating_sub(first).as_secs_f64();
        if waited <= READY * wall {
            return Some(Stage::Consumer);
        }
        if let Some(loader) = &self.loader
            && loader.starved.saturating_sub(first) < loader.collate + loader.sink
        {
            return longest([(Stage::Collate, loader.collate), (Stage::Sink, loader.sink)]);
        }
        let work = longest([
            (Stage::Decode, self.decode.busy),
            (Stage::Gather, self.build_parts.gather),
            (Stage::Cells, self.build_parts.cells),
            (Stage::Transform, self.build_parts.transform),
        ])?;
        let passing = match waited > HANDING_OVER * wall {
            true => Stage::HandOver,
            false => Stage::Consumer,
        };
        longest([
            (work, self.waited_for.workers),
            (Stage::Fetch, self.waited_for.fetch),
            (Stage::Memory, self.waited_for.memory),
            (passing, self.waited_for.hand_over),
        ])
    }
}

/// The first one of those that took the longest.
fn longest<const N: usize>(stages: [(Stage, Duration); N]) -> Option<Stage> {
    let longest = stages.iter().map(|(_, time)| *time).max()?;
    stages
        .iter()
        .find(|(_, time)| *time == longest)
        .map(|(stage, _)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LoaderTimes;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn waiting() -> Metrics {
        let mut metrics = Metrics {
            first_batch: Some(seconds(1)),
            wall: seconds(11),
            waited: seconds(9),
            ..Metrics::default()
        };
        metrics.waited_for.workers = seconds(8);
        metrics.decode.busy = seconds(2);
        metrics.build_parts.cells = seconds(5);
        metrics
    }

    #[test]
    fn each_stage_is_named() {
        assert_eq!(Metrics::default().limiting_stage(), None);
        let check = |change: &dyn Fn(&mut Metrics), expected| {
            let mut metrics = waiting();
            change(&mut metrics);
            assert_eq!(metrics.limiting_stage(), Some(expected), "{metrics:?}");
        };
        check(&|_| {}, Stage::Cells);
        // The first batch always has to be waited for.
        check(&|metrics| metrics.waited = seconds(1), Stage::Consumer);
        check(&|metrics| metrics.decode.busy = seconds(6), Stage::Decode);
        check(&|metrics| metrics.build_parts.gather = seconds(6), Stage::Gather);
        check(&|metrics| metrics.build_parts.transform = seconds(6), Stage::Transform);
        check(&|metrics| metrics.waited_for.fetch = seconds(9), Stage::Fetch);
        check(&|metrics| metrics.waited_for.hand_over = seconds(9), Stage::HandOver);
        let woken_late = |metrics: &mut Metrics| {
            metrics.waited = seconds(4);
            metrics.waited_for.hand_over = seconds(9);
        };
        check(&woken_late, Stage::Consumer);
        check(&|metrics| metrics.waited_for.memory = seconds(9), Stage::Memory);
        let loader = |collate, sink, starved| {
            move |metrics: &mut Metrics| {
                metrics.loader = Some(LoaderTimes {
                    collate: seconds(collate),
                    sink: seconds(sink),
                    starved: seconds(starved),
                    ..LoaderTimes::default()
                });
            }
        };
        check(&loader(6, 3, 2), Stage::Collate);
        check(&loader(1, 8, 2), Stage::Sink);
        check(&loader(1, 1, 8), Stage::Cells);
    }
}
