//! Times that are told from events: of the driver, of fetches, and of whoever takes the batches.
//!
//! Each clock holds a condition and since when it has lasted; an event adds the time to what the condition stands for. So a
//! snapshot is right in the middle of a long wait too. The callers give the time: the rules are tested without a real clock.

use std::time::{Duration, Instant};

/// What the driver of a pipeline is waiting for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Doing {
    /// Worker threads.
    pub(crate) workers: u64,
    /// Jobs that workers have or will take next.
    pub(crate) jobs: u64,
    /// Fetches that are not here yet, those that wait for their turn included.
    pub(crate) fetches: u64,
    /// Whether there is nothing more to fetch than that.
    pub(crate) all_planned: bool,
    /// Batches that are built and not taken.
    pub(crate) ready: u64,
    /// Whether no more batches are begun before one is taken.
    pub(crate) full: bool,
}

/// The time of workers and of fetches, as the driver sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DriverClock {
    since: Option<(Instant, Doing)>,
    /// The time in which requests were under way, until then.
    fetched: Duration,
    /// Summed over threads.
    pub(crate) starved: Duration,
    pub(crate) blocked: Duration,
    /// By the wall: nothing was left to fetch.
    pub(crate) fetched_all: Duration,
    pub(crate) ran: Duration,
    pub(crate) unready_fetch: Duration,
    pub(crate) unready_memory: Duration,
    pub(crate) unready_workers: Duration,
}

impl DriverClock {
    /// From now on the driver waits with this; `None` when it has ended. `fetched` is all the time so far in which a request was
    /// under way.
    pub(crate) fn turn(&mut self, now: Instant, doing: Option<Doing>, fetched: Duration) {
        if let Some((since, before)) = self.since {
            let time = now.saturating_duration_since(since);
            let fetching = fetched.saturating_sub(self.fetched) * 2 > time;
            self.add(time, before, fetching);
        }
        self.fetched = fetched;
        self.since = doing.map(|doing| (now, doing));
    }

    /// The clock with the time since the last turn.
    pub(crate) fn at(mut self, now: Instant, fetched: Duration) -> Self {
        self.turn(now, self.since.map(|(_, doing)| doing), fetched);
        self
    }

    pub(crate) fn doing(&self) -> Doing {
        self.since.map(|(_, doing)| doing).unwrap_or_default()
    }

    fn add(&mut self, time: Duration, doing: Doing, fetching: bool) {
        self.ran += time;
        let idle = doing.workers.saturating_sub(doing.jobs);
        let idle_time = time.saturating_mul(u32::try_from(idle).unwrap_or(u32::MAX));
        let no_memory = doing.fetches > 0 && !fetching;
        if doing.full || no_memory {
            self.blocked += idle_time;
        } else {
            self.starved += idle_time;
        }
        if doing.fetches == 0 && doing.all_planned {
            self.fetched_all += time;
        }
        if doing.ready == 0 {
            if idle == 0 || doing.fetches == 0 {
                self.unready_workers += time;
            } else if fetching {
                self.unready_fetch += time;
            } else {
                self.unready_memory += time;
            }
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
    /// What it waited for the first batch is not counted here.
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
            ..Doing::default()
        };
        clock.turn(start, Some(fetching), Duration::ZERO);
        // One second of both threads for bytes that are under way, one for memory.
        clock.turn(start + SECOND, Some(fetching), SECOND);
        let working = Doing { jobs: 1, ..fetching };
        clock.turn(start + 2 * SECOND, Some(working), SECOND);
        // One of the two works, while bytes come.
        let busy = Doing { jobs: 5, ..fetching };
        clock.turn(start + 3 * SECOND, Some(busy), 2 * SECOND);
        // Both work.
        let full = Doing {
            workers: 2,
            ready: 4,
            full: true,
            all_planned: true,
            ..Doing::default()
        };
        clock.turn(start + 4 * SECOND, Some(full), 3 * SECOND);
        // The consumer takes nothing, and all is fetched.
        clock.turn(start + 5 * SECOND, None, 3 * SECOND);
        clock.turn(start + 9 * SECOND, None, 3 * SECOND);
        assert_eq!(clock.starved, 3 * SECOND);
        assert_eq!(clock.blocked, 4 * SECOND);
        assert_eq!(clock.fetched_all, SECOND);
        assert_eq!(clock.ran, 5 * SECOND);
        let unready = (clock.unready_fetch, clock.unready_memory, clock.unready_workers);
        assert_eq!(unready, (2 * SECOND, SECOND, SECOND));
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
