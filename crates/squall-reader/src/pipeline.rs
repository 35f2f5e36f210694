//! The only file that spawns, orders and cancels, but for what `column_stream` reads ahead of a decoder.
//!
//! ```text
//!             new windows                 bytes                    decoded windows
//! Schedule ───────────────▶ fetch (tokio) ─────▶ decode (workers) ──────────────┐
//!     │ planned batches                                                         ▼
//!     └───────────────────────────────────────────────▶ wait for windows ─▶ gather, cells, transform (workers)
//!                                                                               │ in any order
//!                                                        caller ◀── in order ◀──┘
//! ```
//!
//! One thread, the driver, holds all state and never works on data: it takes events, hands out jobs and puts finished
//! batches in order. Workers and fetches share nothing with each other. A lane is read forwards by one job at a time, so
//! that its decoder goes on where it stood. An error takes its batch's place in the order; what comes before it is
//! delivered, and nothing behind it.
//!
//! Dropping the pipeline stops the driver, which ends the fetches and joins the workers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use futures::task::AtomicWaker;
use squall_schema::{Error, Result, panic_text};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::budget::{Budget, Permit};
use crate::column_stream::Streaming;
use crate::fetch::{Wanted, guarded};
use crate::footprint::LEAST_SLICE_BYTES;
use crate::lane::{Arrived, Ask, Lane, Ready, Slicing};
use crate::metrics::{Counters, Doing};
use crate::picked::Pick;
use crate::plan::{PlannedBatch, ReadPlan, Schedule};
use crate::slice;
use crate::source::Source;
use crate::trace;
use crate::window::Window;
use crate::work::{Context, Delivered, Event, FETCHES, Job, LaneKey};

/// Most batches that are planned ahead of those in work, so that windows are read before they are needed. Fewer are when
/// they open more windows than [`windows_ahead`].
pub(crate) const PLAN_AHEAD: usize = 32;

/// Most windows that are decoded ahead of those that batches in work need. They take memory for a long time; their bytes are
/// fetched before anyway.
pub(crate) fn windows_ahead(lanes: u64, workers: u64) -> u64 {
    (lanes / 4).max(2 * workers).min(lanes)
}

/// A running pipeline. Batches come in order, errors included; after an error there are no more.
pub(crate) struct Pipeline {
    /// `None` once it is dropped.
    batches: Option<Receiver<Result<Delivered>>>,
    /// Of the task that waits for a batch, where the caller is asynchronous.
    waker: Arc<AtomicWaker>,
    events: Sender<Event>,
    driver: Option<JoinHandle<()>>,
}

impl Pipeline {
    pub(crate) fn start(plan: Arc<ReadPlan>, io: Handle, counters: Arc<Counters>, budget: Arc<Budget>) -> Result<Self> {
        let (batches_in, batches) = bounded(plan.prefetch);
        let (events_in, events) = unbounded();
        let (jobs, work) = unbounded();
        let context = Arc::new(Context::new(plan.clone(), counters.clone(), budget.clone()));
        let freed = events_in.clone();
        // The driver may have stopped.
        budget.on_freed(move || drop(freed.send(Event::Freed)));
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name).spawn(run);
            spawned.map_err(|error| Error::internal("cannot start a thread").with_source(error))
        };
        let mut workers = Vec::new();
        for i in 0..plan.workers {
            let (work, events, context) = (work.clone(), events_in.clone(), context.clone());
            let run = move || {
                let _counted = context.counters.on_thread();
                for job in work {
                    if events.send(context.work(job)).is_err() {
                        break;
                    }
                }
            };
            workers.push(spawn(format!("squall-worker-{i}"), Box::new(run))?);
        }
        let n_sources = plan.sources.len();
        let slicing = slicing(&plan);
        let waker = Arc::new(AtomicWaker::new());
        let driver = Driver {
            schedule: Some(Schedule::new(plan)),
            context,
            lanes: HashMap::new(),
            planned: VecDeque::new(),
            unplanned: None,
            windows_ahead: 0,
            unopened: VecDeque::new(),
            slicing,
            newest: vec![0; n_sources],
            in_work: 0,
            n_jobs: 0,
            n_fetches: 0,
            done: BTreeMap::new(),
            n_started: 0,
            n_delivered: 0,
            jobs,
            events,
            events_in: events_in.clone(),
            batches: batches_in,
            waker: waker.clone(),
            fetches: JoinSet::new(),
            stop: watch::Sender::new(false),
            io,
        };
        let woken = waker.clone();
        let run = move || {
            let _counted = counters.on_thread();
            let batches = driver.batches.clone();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| driver.run())) {
                // An end without an error would look like the end of the data. The caller may be gone.
                let _ = batches.send(Err(Error::internal(format!(
                    "the driver panicked: {}",
                    panic_text(&*panic)
                ))));
            }
            counters.drive(None);
            // The end is there to be seen before somebody is woken to see it.
            drop(batches);
            woken.wake();
            for worker in workers {
                // A worker catches the panics of its jobs and has none of its own.
                let _ = worker.join();
            }
        };
        Ok(Self {
            batches: Some(batches),
            waker,
            events: events_in,
            driver: Some(spawn("squall-driver".into(), Box::new(run))?),
        })
    }

    /// The next batch; waits for it.
    pub(crate) fn next(&mut self) -> Option<Result<Delivered>> {
        let next = self.batches.as_ref()?.recv().ok();
        self.taken();
        next
    }

    /// Wakes the driver when half of the batches that were ready are taken, for it begins several at a time, and when all are: what
    /// it saw before it handed the last ones over may be all that it waits for.
    fn taken(&self) {
        if let Some(batches) = &self.batches
            && (batches.is_empty() || batches.len() == batches.capacity().unwrap_or(0) / 2)
        {
            // The driver may have ended.
            let _ = self.events.send(Event::Freed);
        }
    }

    /// The next batch, if it is here; the task is woken when it is.
    pub(crate) fn poll_next(&mut self, task: &task::Context<'_>) -> Poll<Option<Result<Delivered>>> {
        let Some(batches) = &self.batches else {
            return Poll::Ready(None);
        };
        // A batch that comes between a look and the registration wakes nobody: look again behind it.
        for registered in [false, true] {
            match batches.try_recv() {
                Ok(batch) => {
                    self.taken();
                    return Poll::Ready(Some(batch));
                }
                Err(TryRecvError::Disconnected) => return Poll::Ready(None),
                Err(TryRecvError::Empty) if registered => {}
                Err(TryRecvError::Empty) => self.waker.register(task.waker()),
            }
        }
        Poll::Pending
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.batches = None;
        // The driver may have ended already.
        let _ = self.events.send(Event::Stop);
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

/// For each dataset how its runs are cut: all slices together, those on their way too, are at most about a quarter of the budget.
fn slicing(plan: &ReadPlan) -> Vec<Slicing> {
    let of = |source: &Source| Slicing {
        bytes: slice_bytes(plan, source),
        rows: source.footprint.decode_rows,
    };
    plan.sources.iter().map(of).collect()
}

/// Bytes of a slice of a run, about. A run of no more is fetched whole.
pub(crate) fn slice_bytes(plan: &ReadPlan, source: &Source) -> u64 {
    /// A request of a remote store takes as long as some megabytes do.
    const MOST: u64 = 8 << 20;
    /// A local one takes a few microseconds: what is not in memory longer than it must be stays in the caches.
    const MOST_LOCAL: u64 = 1 << 20;
    let lanes: u64 = plan.sources.iter().map(|source| source.lanes()).sum();
    if let Some(bytes) = plan.slice_size {
        return bytes;
    }
    let is_local = source.dataset.store().url().to_file_path().is_some();
    let most = if is_local { MOST_LOCAL } else { MOST };
    (plan.memory_budget / lanes.saturating_mul(8).max(1)).clamp(LEAST_SLICE_BYTES, most)
}

struct Driver {
    context: Arc<Context>,
    /// `None` when all batches are planned, or none are wanted any more.
    schedule: Option<Schedule>,
    lanes: HashMap<LaneKey, Lane>,
    /// Batches that wait for their windows, with the number of windows that each is the first to need.
    planned: VecDeque<(usize, PlannedBatch)>,
    /// Why no more batches could be planned, until those before are begun.
    unplanned: Option<Error>,
    /// The sum of these numbers.
    windows_ahead: usize,
    /// Windows that wait for memory, in the order in which batches need them, each with the pass and lane that it is of.
    unopened: VecDeque<(LaneKey, Arc<Window>)>,
    /// For each dataset how its runs are cut.
    slicing: Vec<Slicing>,
    /// For each dataset the newest pass; lanes of older ones get no more windows.
    newest: Vec<u64>,
    in_work: usize,
    /// Jobs that workers have, or will take next.
    n_jobs: u64,
    /// Fetches that are not here yet.
    n_fetches: u64,
    /// Batches that wait for their turn.
    done: BTreeMap<u64, Result<Delivered>>,
    n_started: u64,
    n_delivered: u64,
    jobs: Sender<Job>,
    events: Receiver<Event>,
    events_in: Sender<Event>,
    batches: Sender<Result<Delivered>>,
    waker: Arc<AtomicWaker>,
    fetches: JoinSet<()>,
    /// Ends what worker threads wait for.
    stop: watch::Sender<bool>,
    io: Handle,
}

impl Driver {
    fn run(mut self) {
        self.context.counters.drive(Some(self.doing()));
        loop {
            self.plan();
            self.open_windows();
            self.start_ready();
            if self.planned.is_empty()
                && let Some(error) = self.unplanned.take()
            {
                self.fail(error);
            }
            if !self.deliver() {
                return;
            }
            let finished = self.schedule.is_none() && self.planned.is_empty() && self.in_work == 0;
            // What was fetched ahead is counted as long as somebody still takes batches.
            let is_taken = self.n_fetches == 0 || self.batches.is_empty();
            if finished && self.done.is_empty() && is_taken {
                return;
            }
            self.context.counters.drive(Some(self.doing()));
            match self.events.recv() {
                Ok(Event::Stop) | Err(_) => return,
                Ok(event) => self.take(event),
            }
            // Whatever came meanwhile is looked at together.
            for event in self.events.clone().try_iter() {
                match event {
                    Event::Stop => return,
                    event => self.take(event),
                }
            }
        }
    }

    /// Hands over what is next in order; `false` at an error, or when nobody wants more.
    fn deliver(&mut self) -> bool {
        while let Some(next) = self.done.remove(&self.n_delivered) {
            let failed = next.is_err();
            // There is room: no more are begun than the channel holds.
            if self.batches.send(next).is_err() || failed {
                return false;
            }
            self.waker.wake();
            self.n_delivered += 1;
        }
        true
    }

    /// Batches that the caller has taken.
    fn n_taken(&self) -> u64 {
        self.n_delivered - self.batches.len() as u64
    }

    fn doing(&self) -> Doing {
        Doing {
            workers: self.context.plan.workers as u64,
            jobs: self.n_jobs,
            fetches: self.n_fetches,
            fetch_places: FETCHES as u64,
            no_memory: !self.unopened.is_empty(),
            all_planned: self.schedule.is_none(),
            ready: (self.done.len() + self.batches.len()) as u64,
            next_is_done: self.done.contains_key(&self.n_delivered),
            full: self.n_started - self.n_taken() >= self.context.plan.prefetch as u64,
        }
    }

    /// Plans ahead, and begins to fetch what the new windows need.
    fn plan(&mut self) {
        while let Some(schedule) = &mut self.schedule {
            if let Some((_, last)) = self.planned.back()
                && (self.planned.len() >= PLAN_AHEAD
                    || self.windows_ahead as u64 > windows_ahead(last.lanes, self.context.plan.workers as u64))
            {
                return;
            }
            let mut new = Vec::new();
            match schedule.next(&mut new) {
                Ok(Some(batch)) => {
                    new.retain(|window| !window.is_here());
                    self.windows_ahead += new.len();
                    self.planned.push_back((new.len(), batch));
                    let keyed = new.into_iter().map(|window| ((window.pass.id, window.lane), window));
                    self.unopened.extend(keyed);
                }
                Ok(None) => self.schedule = None,
                Err(error) => {
                    self.schedule = None;
                    self.unplanned = Some(error);
                }
            }
        }
    }

    /// Opens planned windows as far as there is memory for them.
    fn open_windows(&mut self) {
        while let Some((_, window)) = self.unopened.front() {
            let source = &self.context.plan.sources[window.pass.source];
            let bytes = (window.rows.end - window.rows.start).saturating_mul(source.footprint.stored);
            // What will be fetched for it is taken with it.
            let room = self.slicing[window.pass.source].bytes.max(bytes);
            let budget = self.context.budget.clone();
            let mut permit = budget.try_take(bytes, room);
            if permit.is_none() {
                budget.wait();
                permit = budget.try_take(bytes, room);
            }
            // Nothing that goes on would give bytes back: the next batch must have its windows all the same. One at a
            // time: what is fetched for it is given back when it is decoded, and all of them at once would go beyond the budget.
            let is_forced = permit.is_none() && self.is_stuck() && self.is_of_next_batch(window);
            let permit = permit.or_else(|| is_forced.then(|| budget.take(bytes)));
            let (Some(permit), Some((key, window))) = (permit, self.unopened.front().cloned()) else {
                return;
            };
            self.unopened.pop_front();
            self.open_window(key, window, permit);
        }
    }

    /// Whether the next batch to begin needs this window.
    fn is_of_next_batch(&self, window: &Arc<Window>) -> bool {
        let next = self.planned.front();
        next.is_some_and(|(_, batch)| batch.picks.iter().any(|pick| Arc::ptr_eq(&pick.window, window)))
    }

    /// Whether no job, fetch or finished batch is left that could give bytes back.
    fn is_stuck(&self) -> bool {
        self.n_jobs == 0 && self.n_fetches == 0 && self.done.is_empty() && self.batches.is_empty()
    }

    fn open_window(&mut self, key: LaneKey, window: Arc<Window>, permit: Permit) {
        let pass = window.pass.clone();
        if pass.id > self.newest[pass.source] {
            self.newest[pass.source] = pass.id;
            let old = self.lanes.iter().filter(|(_, lane)| lane.pass.source == pass.source);
            let old: Vec<_> = old.map(|(key, _)| *key).filter(|key| key.0 < pass.id).collect();
            old.into_iter().for_each(|key| self.close_lane(key));
        }
        let slicing = self.slicing[pass.source];
        let lane = self.lanes.entry(key);
        let lane = lane.or_insert_with(|| Lane::new(pass.clone(), key.1, slicing));
        lane.open(window, permit, self.context.plan.sources[pass.source].dataset.pieces());
        self.go_on(key);
    }

    /// Begins the fetches and the decoding that a lane is ready for.
    fn go_on(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let (asks, place) = (lane.asks(), lane.pass.source);
        if let Some(Ready {
            window,
            permit,
            cursor,
            parts,
        }) = lane.ready()
        {
            self.n_jobs += 1;
            let _ = self.jobs.send(Job::Decode {
                lane: key,
                window,
                permit,
                cursor,
                parts,
            });
        }
        asks.into_iter().for_each(|ask| self.fetch(key, place, ask));
        while self.fetches.try_join_next().is_some() {}
    }

    fn fetch(&mut self, key: LaneKey, place: usize, ask: Ask) {
        let (context, events) = (self.context.clone(), self.events_in.clone());
        let mut counted = context.counters.fetch();
        let permit = context.budget.take(ask.bytes);
        let streaming = Streaming {
            counters: context.counters.clone(),
            dataset: context.plan.sources[place].dataset.clone(),
            io: self.io.clone(),
            fetches: context.fetches.clone(),
            stop: self.stop.subscribe(),
        };
        let epoch = self.lanes.get(&key).map_or(0, |lane| lane.pass.order.epoch());
        self.n_fetches += 1;
        let task = async move {
            let source = &context.plan.sources[place];
            let start = ask.start;
            let wanted = Wanted {
                dataset: &source.dataset,
                footers: &source.footers,
                piece: &ask.piece,
                rows: ask.stored,
                columns: &source.columns,
            };
            // The semaphore is never closed; a permit is held during the request only.
            let _permit = context.fetches.acquire().await;
            counted.begin();
            let work = async {
                Ok(match &ask.run {
                    Some(run) => (None, slice::go_on(wanted, &run.fetched, ask.next, permit).await?),
                    None => {
                        let (fetched, slice) = slice::open(wanted, ask.next, permit, streaming).await?;
                        (Some(fetched), slice)
                    }
                })
            };
            let span = trace::fetch(&source.dataset, &ask.piece, (epoch, key.1));
            let result = guarded(work, &source.dataset, &ask.piece).instrument(span).await;
            drop(counted);
            let result = result.map(|(fetched, slice)| {
                context.counters.fetched(slice.bytes);
                tracing::trace!(lane = key.1, start, to = slice.to, bytes = slice.bytes, "fetched");
                Arrived { fetched, slice }
            });
            // The driver may have stopped.
            let _ = events.send(Event::Fetched {
                lane: key,
                start,
                result,
            });
        };
        self.fetches.spawn_on(task, &self.io);
    }

    /// Hands planned batches whose windows are decoded to the workers, in order.
    fn start_ready(&mut self) {
        while self.n_started - self.n_taken() < self.context.plan.prefetch as u64 {
            let Some((n_new, batch)) = self.planned.front() else {
                return;
            };
            for Pick { window, .. } in batch.picks.iter().filter(|pick| !pick.window.is_here()) {
                let lane = self.lanes.get_mut(&(window.pass.id, window.lane));
                if let Some(error) = lane.and_then(|lane| lane.take_failure(window)) {
                    self.fail(error);
                    return;
                }
            }
            if batch.picks.iter().any(|pick| !pick.window.is_here()) {
                return;
            }
            // Batches give bytes back when they are built: they never wait for windows, and the next one not at all.
            let budget = &self.context.budget;
            let bytes = self.context.plan.bytes_of(batch);
            let mut permit = budget.try_take(bytes, 0);
            if permit.is_none() && self.n_started > self.n_taken() {
                budget.wait();
                permit = budget.try_take(bytes, 0);
                if permit.is_none() {
                    return;
                }
            }
            let permit = permit.unwrap_or_else(|| budget.take(bytes));
            self.windows_ahead -= n_new;
            let Some((_, batch)) = self.planned.pop_front() else {
                return;
            };
            self.n_jobs += 1;
            let _ = self.jobs.send(Job::Build {
                seq: self.n_started,
                batch,
                permit,
            });
            self.n_started += 1;
            self.in_work += 1;
        }
    }

    /// Puts the error in the place of the next batch to start; nothing is planned behind it.
    fn fail(&mut self, error: Error) {
        self.schedule = None;
        self.planned.clear();
        self.unopened.clear();
        self.unplanned = None;
        self.done.retain(|seq, _| *seq < self.n_started);
        self.done.insert(self.n_started, Err(error));
        self.n_started += 1;
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Fetched { .. } => self.n_fetches -= 1,
            Event::Decoded { .. } | Event::Built { .. } => self.n_jobs -= 1,
            Event::Freed | Event::Stop => {}
        }
        match event {
            Event::Fetched {
                lane: key,
                start,
                result,
            } => {
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.arrive(start, result);
                }
                self.go_on(key);
            }
            Event::Decoded {
                lane: key,
                start,
                cursor,
                result,
            } => {
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.decoded(cursor, start, result);
                }
                self.go_on(key);
                self.close_lane(key);
            }
            Event::Built { seq, result } => {
                self.in_work -= 1;
                self.done.insert(seq, result);
            }
            Event::Freed | Event::Stop => {}
        }
    }

    /// Forgets a lane that has nothing to do and holds nothing that it will need.
    fn close_lane(&mut self, key: LaneKey) {
        let newest = &self.newest;
        let idle = |lane: &Lane| lane.is_idle(key.0 < newest[lane.pass.source]);
        let idle = self.lanes.get(&key).is_some_and(idle);
        if idle {
            self.lanes.remove(&key);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The workers that wait for bytes of a file are joined behind this.
        self.stop.send_replace(true);
    }
}
