//! Times that are told from events: of the driver, of fetches, and of whoever takes the batches.
//!
//! Each clock holds a condition and since when it has lasted; an event adds the time to what the condition stands for. So a
//! snapshot is right in the middle of a long wait too. The callers give the time: the rules are tested without a real clock.

use std::time::{Duration, Instant};

use crate::metrics::WaitedFor;

/// What the driver of a pipeline is waiting for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Doing {
    /// Worker threads.
    pub(crate) workers: u64,
    /// Jobs that workers have or will take next.
    pub(crate) jobs: u64,
    /// Fetches that are not here yet, those that wait for their turn included.
    pub(crate) fetches: u64,
    /// How many fetches may be under way at a time.
    pub(crate) fetch_places: u64,
    /// Whether something waits for memory that could be fetched or decoded.
    pub(crate) no_memory: bool,
    /// Whether there is nothing more to fetch than that.
    pub(crate) all_planned: bool,
    /// Batches that are built and not taken.
    pub(crate) ready: u64,
    /// Whether the next batch is built, and waits for the caller to take the one before it.
    pub(crate) next_is_done: bool,
    /// Whether no more batches are begun before one is taken.
    pub(crate) full: bool,
}

/// The time of workers and of fetches, as the driver sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DriverClock {
    since: Option<(Instant, Doing)>,
    /// How long the caller had waited until then, the first batch left out.
    waited: Duration,
    /// Summed over threads.
    pub(crate) starved: Duration,
    pub(crate) blocked: Duration,
    /// By the wall: nothing was left to fetch.
    pub(crate) fetched_all: Duration,
    pub(crate) ran: Duration,
    pub(crate) waited_for: WaitedFor,
}

impl DriverClock {
    /// From now on the driver waits with this; `None` when it has ended. `waited` is all the time so far in which the caller waited
    /// for a batch, the first one left out.
    pub(crate) fn turn(&mut self, now: Instant, doing: Option<Doing>, waited: Duration) {
        if let Some((since, before)) = self.since {
            self.add(now.saturating_duration_since(since), before);
            self.blame(waited.saturating_sub(self.waited), before);
        }
        self.waited = waited;
        self.since = doing.map(|doing| (now, doing));
    }

    /// The clock with the time since the last turn.
    pub(crate) fn at(mut self, now: Instant, waited: Duration) -> Self {
        self.turn(now, self.since.map(|(_, doing)| doing), waited);
        self
    }

    pub(crate) fn doing(&self) -> Doing {
        self.since.map(|(_, doing)| doing).unwrap_or_default()
    }

    fn add(&mut self, time: Duration, doing: Doing) {
        self.ran += time;
        let idle = doing.workers.saturating_sub(doing.jobs);
        let idle_time = time.saturating_mul(u32::try_from(idle).unwrap_or(u32::MAX));
        if doing.full || doing.no_memory {
            self.blocked += idle_time;
        } else {
            self.starved += idle_time;
        }
        if doing.fetches == 0 && doing.all_planned {
            self.fetched_all += time;
        }
    }

    /// The caller waited: for what?
    fn blame(&mut self, waited: Duration, doing: Doing) {
        let lacking = &mut self.waited_for;
        if doing.next_is_done {
            lacking.hand_over += waited;
        } else if doing.jobs > 0 && doing.jobs >= doing.workers {
            lacking.workers += waited;
        } else if doing.no_memory && doing.fetches < doing.fetch_places {
            // More could be under way.
            lacking.memory += waited;
        } else if doing.fetches > 0 {
            lacking.fetch += waited;
        } else if doing.jobs > 0 {
            lacking.workers += waited;
        } else {
            // Nothing is under way: the driver plans.
            lacking.hand_over += waited;
        }
    }
}

/// The time of fetches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FetchClock {
    since: Option<Instant>,
    pub(crate) waiting: u64,
    pub(crate) under_way: u64,
    /// By the wall: at least one was under way.
    pub(crate) busy: Duration,
    pub(crate) done: u64,
}

impl FetchClock {
    pub(crate) fn begin(&mut self, now: Instant) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    pub(crate) fn end(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.done += 1;
        if self.under_way == 0
            && let Some(since) = self.since.take()
        {
            self.busy += now.saturating_duration_since(since);
        }
    }

    pub(crate) fn at(mut self, now: Instant) -> Self {
        if let Some(since) = self.since {
            self.busy += now.saturating_duration_since(since);
            self.since = Some(now);
        }
        self
    }
}

/// The time of whoever takes batches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TakerClock {
    /// Since when it runs; `None` before it began and when it has ended.
    since: Option<Instant>,
    waiting: Option<Instant>,
    pub(crate) wall: Duration,
    pub(crate) waited: Duration,
    pub(crate) first: Option<Duration>,
    pub(crate) rows: u64,
    pub(crate) batches: u64,
    pub(crate) bad_rows: u64,
}

impl TakerClock {
    /// It asks for a batch, or still waits for it.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.waiting.get_or_insert(now);
    }

    /// It was given a batch.
    pub(crate) fn take(&mut self, now: Instant, rows: u64, bad_rows: u64) {
        let waited = self.stop_waiting(now);
        self.first.get_or_insert(waited);
        self.rows += rows;
        self.batches += 1;
        self.bad_rows += bad_rows;
    }

    /// There was none: the end, or an error.
    pub(crate) fn end(&mut self, now: Instant) {
        self.stop_waiting(now);
        if let Some(since) = self.since.take() {
            self.wall += now.saturating_duration_since(since);
        }
    }

    fn stop_waiting(&mut self, now: Instant) -> Duration {
        let waited = self.waiting.take().map(|since| now.saturating_duration_since(since));
        self.waited += waited.unwrap_or_default();
        waited.unwrap_or_default()
    }

    /// What it waited behind the first batch.
    pub(crate) fn waited_after_first(&self) -> Duration {
        self.first
            .map_or(Duration::ZERO, |first| self.waited.saturating_sub(first))
    }

    pub(crate) fn at(mut self, now: Instant) -> Self {
        if let Some(since) = self.waiting {
            self.waited += now.saturating_duration_since(since);
        }
        if let Some(since) = self.since {
            self.wall += now.saturating_duration_since(since);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn idle_threads_are_starved_or_blocked() {
        let start = Instant::now();
        let mut clock = DriverClock::default();
        let fetching = Doing {
            workers: 2,
            fetches: 3,
            fetch_places: 3,
            ..Doing::default()
        };
        clock.turn(start, Some(fetching), Duration::ZERO);
        // One second of both threads for bytes that are under way, one for memory; the caller waits all the time.
        let short = Doing {
            no_memory: true,
            fetches: 1,
            ..fetching
        };
        clock.turn(start + SECOND, Some(short), SECOND);
        let working = Doing { jobs: 1, ..fetching };
        clock.turn(start + 2 * SECOND, Some(working), 2 * SECOND);
        // One of the two works, while bytes come.
        let busy = Doing { jobs: 5, ..fetching };
        clock.turn(start + 3 * SECOND, Some(busy), 3 * SECOND);
        // Both work.
        let full = Doing {
            workers: 2,
            ready: 4,
            next_is_done: true,
            full: true,
            all_planned: true,
            ..Doing::default()
        };
        clock.turn(start + 4 * SECOND, Some(full), 4 * SECOND);
        // The consumer takes nothing, and all is fetched; then it wakes up late.
        let waited = 4 * SECOND + SECOND / 4;
        clock.turn(start + 5 * SECOND, None, waited);
        clock.turn(start + 9 * SECOND, None, waited);
        assert_eq!(clock.starved, 3 * SECOND);
        assert_eq!(clock.blocked, 4 * SECOND);
        assert_eq!(clock.fetched_all, SECOND);
        assert_eq!(clock.ran, 5 * SECOND);
        let expected = WaitedFor {
            fetch: 2 * SECOND,
            memory: SECOND,
            workers: SECOND,
            hand_over: SECOND / 4,
        };
        assert_eq!(clock.waited_for, expected);
    }

    #[test]
    fn fetches_that_overlap_count_once() {
        let start = Instant::now();
        let mut clock = FetchClock::default();
        clock.begin(start);
        clock.begin(start + SECOND);
        clock.end(start + 2 * SECOND);
        assert_eq!(clock.at(start + 3 * SECOND).busy, 3 * SECOND);
        clock.end(start + 4 * SECOND);
        assert_eq!((clock.busy, clock.done, clock.under_way), (4 * SECOND, 2, 0));
        assert_eq!(clock.at(start + 9 * SECOND).busy, 4 * SECOND);
    }

    #[test]
    fn a_taker_waits_or_works() {
        let start = Instant::now();
        let mut clock = TakerClock::default();
        clock.ask(start);
        // A stream is polled again while it waits.
        clock.ask(start + SECOND);
        clock.take(start + 2 * SECOND, 8, 1);
        clock.ask(start + 5 * SECOND);
        let now = clock.at(start + 6 * SECOND);
        assert_eq!((now.wall, now.waited), (6 * SECOND, 3 * SECOND));
        clock.end(start + 7 * SECOND);
        let now = clock.at(start + 100 * SECOND);
        assert_eq!(
            (now.wall, now.waited, now.first),
            (7 * SECOND, 4 * SECOND, Some(2 * SECOND))
        );
        assert_eq!((now.rows, now.batches, now.bad_rows), (8, 1, 1));
    }
}
