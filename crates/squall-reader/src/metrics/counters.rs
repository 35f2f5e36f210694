//! Where the stages count while they work.
//!
//! Worker threads add to stripes of atomics, each on cache lines of its own. What has a clock is behind a lock that is taken once
//! a job, a fetch or a batch, mostly by one thread: nothing is counted row by row.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use crossbeam_utils::CachePadded;

use crate::metrics::bytes::bytes_of;
use crate::metrics::clocks::{Doing, DriverClock, FetchClock, TakerClock};
use crate::metrics::threads::{OnThread, Threads, process_time};
use crate::metrics::{BuildTimes, CpuMetrics, LoaderTimes, Metrics, QueueDepths, StageTimes};
use crate::trace;

/// What a worker thread spends its time on. The last three are parts of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Decode,
    Build,
    Gather,
    Cells,
    Transform,
}

const PARTS: usize = 5;

/// Threads share a stripe where there are more of them.
const STRIPES: usize = 64;

#[derive(Default)]
struct Stripe {
    nanos: [AtomicU64; PARTS],
    jobs: [AtomicU64; PARTS],
    bytes_decoded: AtomicU64,
    bytes_built: AtomicU64,
}

/// Which reader it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) dataset: String,
    pub(crate) rank: u64,
    pub(crate) world_size: u64,
    pub(crate) workers: usize,
}

/// Fills in what others count: the store, the cache, the byte budget.
pub(crate) type Probe = Box<dyn Fn(&mut Metrics) + Send + Sync>;

/// The counters of a reader. They outlive its pipelines, of which it has a new one after each seek.
pub(crate) struct Counters {
    about: About,
    stripes: Box<[CachePadded<Stripe>]>,
    bytes_fetched: CachePadded<AtomicU64>,
    driver: Mutex<DriverClock>,
    fetches: Mutex<FetchClock>,
    /// Of whoever calls the reader: the user, or the thread of a loader.
    caller: Mutex<TakerClock>,
    loader: OnceLock<LoaderCounters>,
    probes: Mutex<Vec<Probe>>,
    threads: Arc<Threads>,
    /// Processor time of the threads and of the process when the first batch was asked for.
    before: OnceLock<(Option<Duration>, Option<Duration>)>,
}

#[derive(Default)]
struct LoaderCounters {
    collate: AtomicU64,
    sink: AtomicU64,
    blocked: AtomicU64,
    trainer: Mutex<TakerClock>,
}

/// A stage of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoaderStage {
    /// Columns are laid out in one buffer each.
    Collate,
    /// The batch is made into what the trainer takes.
    Sink,
    /// The trainer has not taken the last ones.
    Blocked,
}

/// A fetch, counted until it is dropped: first it waits, then it is under way.
pub(crate) struct Fetching {
    counters: Arc<Counters>,
    under_way: bool,
}

impl Counters {
    pub(crate) fn new(about: About, threads: Arc<Threads>) -> Self {
        let stripes = about.workers.clamp(1, STRIPES);
        Self {
            stripes: (0..stripes).map(|_| CachePadded::default()).collect(),
            about,
            bytes_fetched: CachePadded::default(),
            driver: Mutex::default(),
            fetches: Mutex::default(),
            caller: Mutex::default(),
            loader: OnceLock::new(),
            probes: Mutex::default(),
            threads,
            before: OnceLock::new(),
        }
    }

    /// The work, with its time counted for this part.
    pub(crate) fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let stripe = self.stripe();
        stripe.nanos[part as usize].fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
        stripe.jobs[part as usize].fetch_add(1, Ordering::Relaxed);
        done
    }

    pub(crate) fn decoded(&self, bytes: u64) {
        self.stripe().bytes_decoded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn built(&self, batch: &RecordBatch) {
        self.stripe().bytes_built.fetch_add(bytes_of(batch), Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, bytes: u64) {
        self.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_fetched(&self) -> u64 {
        self.bytes_fetched.load(Ordering::Relaxed)
    }

    /// A fetch that waits for its turn.
    pub(crate) fn fetch(self: &Arc<Self>) -> Fetching {
        lock(&self.fetches).waiting += 1;
        Fetching {
            counters: self.clone(),
            under_way: false,
        }
    }

    /// What the driver waits with from now on; `None` when it ends.
    pub(crate) fn drive(&self, doing: Option<Doing>) {
        let now = Instant::now();
        let waited = lock(&self.caller).at(now).waited_after_first();
        lock(&self.driver).turn(now, doing, waited);
    }

    /// The thread that calls counts as one that loads.
    pub(crate) fn on_thread(&self) -> OnThread {
        self.threads.enter()
    }

    /// The caller waits for a batch.
    pub(crate) fn ask(&self) {
        self.begin();
        lock(&self.caller).ask(Instant::now());
    }

    /// The caller was given a batch.
    pub(crate) fn take(&self, rows: u64, bad_rows: u64) {
        lock(&self.caller).take(Instant::now(), rows, bad_rows);
    }

    /// There are no more batches for the caller.
    pub(crate) fn end(&self) {
        lock(&self.caller).end(Instant::now());
    }

    /// Adds what another counts to every snapshot.
    #[allow(dead_code)]
    pub(crate) fn probe(&self, probe: Probe) {
        lock(&self.probes).push(probe);
    }

    fn begin(&self) {
        self.before.get_or_init(|| (self.threads.time(), process_time()));
    }

    fn stripe(&self) -> &Stripe {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        &self.stripes[OWN.with(|own| *own) % self.stripes.len()]
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let stripes = self.stripes.iter();
        stripes.map(|stripe| of(stripe).load(Ordering::Relaxed)).sum()
    }

    fn part(&self, part: Part) -> (Duration, u64) {
        let nanos = self.sum(|stripe| &stripe.nanos[part as usize]);
        (
            Duration::from_nanos(nanos),
            self.sum(|stripe| &stripe.jobs[part as usize]),
        )
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let now = Instant::now();
        let fetches = lock(&self.fetches).at(now);

        let caller = lock(&self.caller).at(now);
        let driver = lock(&self.driver).at(now, caller.waited_after_first());
        let loader = self.loader.get();
        let taker = loader.map_or(caller, |loader| lock(&loader.trainer).at(now));
        let doing = driver.doing();
        let workers = |part| {
            let (busy, jobs) = self.part(part);
            StageTimes {
                slots: self.about.workers as u64,
                jobs,
                busy,
                starved: driver.starved,
                blocked: driver.blocked,
            }
        };
        let mut metrics = Metrics {
            dataset: self.about.dataset.clone(),
            rank: self.about.rank,
            world_size: self.about.world_size,
            wall: taker.wall,
            first_batch: taker.first,
            waited: taker.waited,
            rows: taker.rows,
            batches: taker.batches,
            bad_rows: taker.bad_rows,
            bytes_fetched: self.bytes_fetched(),
            bytes_decoded: self.sum(|stripe| &stripe.bytes_decoded),
            bytes_built: self.sum(|stripe| &stripe.bytes_built),
            fetch: StageTimes {
                slots: 1,
                jobs: fetches.done,
                busy: fetches.busy,
                starved: driver.fetched_all,
                blocked: (driver.ran.saturating_sub(fetches.busy)).saturating_sub(driver.fetched_all),
            },
            decode: workers(Part::Decode),
            build: workers(Part::Build),
            build_parts: BuildTimes {
                gather: self.part(Part::Gather).0,
                cells: self.part(Part::Cells).0,
                transform: self.part(Part::Transform).0,
            },
            consumer: StageTimes {
                slots: 1,
                jobs: taker.batches,
                busy: taker.wall.saturating_sub(taker.waited),
                starved: taker.waited,
                blocked: Duration::ZERO,
            },
            waited_for: driver.waited_for,
            loader: loader.map(|loader| loader.times(caller)),
            queues: QueueDepths {
                fetches_waiting: fetches.waiting,
                fetching: fetches.under_way,
                jobs: doing.jobs,
                ready: doing.ready,
            },
            cpu: self.cpu(),
            ..Metrics::default()
        };
        lock(&self.probes).iter().for_each(|probe| probe(&mut metrics));
        metrics
    }

    fn cpu(&self) -> CpuMetrics {
        let (threads, process) = self.before.get().copied().unwrap_or_default();
        let since = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        CpuMetrics {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            loading: since(self.threads.time(), threads),
            process: since(process_time(), process),
        }
    }
}

impl LoaderCounters {
    fn times(&self, caller: TakerClock) -> LoaderTimes {
        let time = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        LoaderTimes {
            collate: time(&self.collate),
            sink: time(&self.sink),
            starved: caller.waited,
            blocked: time(&self.blocked),
            batches: caller.batches,
        }
    }
}

impl Fetching {
    /// It waits no longer.
    pub(crate) fn begin(&mut self) {
        let mut fetches = lock(&self.counters.fetches);
        if !self.under_way {
            fetches.waiting -= 1;
            fetches.begin(Instant::now());
            self.under_way = true;
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut fetches = lock(&self.counters.fetches);
        match self.under_way {
            true => fetches.end(Instant::now()),
            false => fetches.waiting -= 1,
        }
    }
}

/// The counters of a reader, to be looked at from anywhere while others take its batches: by a thread that logs, say. It keeps
/// neither the reader nor its data.
#[derive(Clone)]
pub struct Meter(Arc<Counters>);

impl Meter {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self(counters)
    }

    /// What was done so far.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics()
    }

    /// Makes the one who calls `ask` and `take` the consumer, instead of the one who calls the reader: for a loader. Its thread
    /// calls this, and counts as one that loads until what it gets is dropped.
    pub fn load(&self) -> impl Sized + use<> {
        self.0.loader.get_or_init(LoaderCounters::default);
        self.0.on_thread()
    }

    /// The work, with its time counted for a stage of a loader.
    pub fn time<T>(&self, stage: LoaderStage, work: impl FnOnce() -> T) -> T {
        let _span = trace::load(stage).entered();
        let began = Instant::now();
        let done = work();
        let loader = self.loader();
        let counter = match stage {
            LoaderStage::Collate => &loader.collate,
            LoaderStage::Sink => &loader.sink,
            LoaderStage::Blocked => &loader.blocked,
        };
        counter.fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
        done
    }

    /// The trainer waits for a batch of a loader.
    pub fn ask(&self) {
        self.0.begin();
        lock(&self.loader().trainer).ask(Instant::now());
    }

    /// The trainer was given a batch of a loader, with so many rows, some of them in place of bad ones.
    pub fn take(&self, rows: u64, bad_rows: u64) {
        lock(&self.loader().trainer).take(Instant::now(), rows, bad_rows);
    }

    /// There are no more batches for the trainer.
    pub fn end(&self) {
        lock(&self.loader().trainer).end(Instant::now());
    }

    fn loader(&self) -> &LoaderCounters {
        self.0.loader.get_or_init(LoaderCounters::default)
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.0.about).finish()
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts stay right when a thread panics: none of them is left half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
