//! How far a conversion is.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two reports, but those of a new phase.
const PAUSE: Duration = Duration::from_millis(100);

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Rows are read and spilled to disk, in parts that are in order each.
    Sorting,
    /// Rows are written to files that nobody sees yet.
    Writing,
    /// The files are made visible.
    Committing,
    /// The dataset is there.
    Done,
}

impl Phase {
    fn of(number: u8) -> Self {
        let all = [Self::Sorting, Self::Writing, Self::Committing, Self::Done];
        all.into_iter()
            .find(|phase| *phase as u8 == number)
            .unwrap_or(Self::Done)
    }
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Rows that went through this phase.
    pub rows: u64,
    /// About how many there are, where that is known.
    pub total_rows: Option<u64>,
    /// Bytes of files that were written.
    pub bytes: u64,
    /// Files that are whole.
    pub files: u64,
    /// Since its begin.
    pub elapsed: Duration,
    /// Since the begin of this phase.
    pub in_phase: Duration,
}

type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counts, and reports now and then.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    report: Option<Report>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rows: AtomicU64,
    /// Plus one; 0 where it is not known.
    total_rows: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    phase: AtomicU8,
    times: Mutex<Option<Times>>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    began: Instant,
    /// The phase began.
    entered: Instant,
    reported: Instant,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.fmt(f)
    }
}

impl Meter {
    pub(crate) fn new(report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self {
            report: Some(Arc::new(report)),
            counts: Arc::default(),
        }
    }

    /// The conversion begins; a meter counts one, whoever else had the converter.
    pub(crate) fn begin(&mut self, total_rows: Option<u64>) {
        self.counts = Arc::default();
        let total = total_rows.map_or(0, |rows| rows.saturating_add(1));
        self.counts.total_rows.store(total, Ordering::Relaxed);
        self.enter(Phase::Writing);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.counts.phase.store(phase as u8, Ordering::Relaxed);
        self.send(true);
    }

    /// All rows were sorted, and go through the phase of writing from the first on.
    pub(crate) fn begin_again(&self) {
        let rows = self.counts.rows.swap(0, Ordering::Relaxed);
        self.counts.total_rows.store(rows.saturating_add(1), Ordering::Relaxed);
        self.enter(Phase::Writing);
    }

    pub(crate) fn add_rows(&self, n: usize) {
        self.counts.rows.fetch_add(n as u64, Ordering::Relaxed);
        self.send(false);
    }

    pub(crate) fn add_bytes(&self, n: usize) {
        self.counts.bytes.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_file(&self) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows, bytes and files so far.
    #[cfg(feature = "ballista")]
    pub(crate) fn counted(&self) -> [u64; 3] {
        let counts = &self.counts;
        [&counts.rows, &counts.bytes, &counts.files].map(|count| count.load(Ordering::Relaxed))
    }

    /// Says what others counted.
    #[cfg(feature = "ballista")]
    pub(crate) fn set(&self, [rows, bytes, files]: [u64; 3]) {
        self.counts.rows.store(rows, Ordering::Relaxed);
        self.counts.bytes.store(bytes, Ordering::Relaxed);
        self.counts.files.store(files, Ordering::Relaxed);
        self.send(false);
    }

    fn send(&self, always: bool) {
        let Some(report) = &self.report else {
            return;
        };
        let now = Instant::now();
        // Held while reporting, so that reports do not overtake each other.
        let mut times = self.counts.times.lock().unwrap_or_else(PoisonError::into_inner);
        let own = times.get_or_insert(Times {
            began: now,
            entered: now,
            reported: now,
        });
        if !always && now.duration_since(own.reported) < PAUSE {
            return;
        }
        own.reported = now;
        if always {
            own.entered = now;
        }
        report(Progress {
            phase: Phase::of(self.counts.phase.load(Ordering::Relaxed)),
            rows: self.counts.rows.load(Ordering::Relaxed),
            total_rows: self.counts.total_rows.load(Ordering::Relaxed).checked_sub(1),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            files: self.counts.files.load(Ordering::Relaxed),
            elapsed: now.duration_since(own.began),
            in_phase: now.duration_since(own.entered),
        });
    }
}
