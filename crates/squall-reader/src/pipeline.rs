//! The only file that spawns, orders and cancels.
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
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded, unbounded};
use futures::task::AtomicWaker;
use squall_dataset::Piece;
use squall_schema::{Error, Result, panic_text};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::fetch::{Wanted, fetch};
use crate::gather::{Pick, Window};
use crate::metrics::{Counters, Doing};
use crate::order::Segment;
use crate::plan::{Pass, PlannedBatch, ReadPlan, Schedule};
use crate::row_set::RowSet;
use crate::work::{Context, Cursor, Delivered, Event, Job, LaneKey, Part, Run};

/// Most batches that are planned ahead of those in work, so that windows are read before they are needed. Fewer are when
/// they open more windows than there are lanes: about one window more a lane is in memory than the batches in work need.
pub(crate) const PLAN_AHEAD: usize = 32;

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
    pub(crate) fn start(plan: Arc<ReadPlan>, io: Handle, counters: Arc<Counters>) -> Result<Self> {
        let (batches_in, batches) = bounded(1);
        let (events_in, events) = unbounded();
        let (jobs, work) = unbounded();
        let context = Arc::new(Context::new(plan.clone(), counters.clone()));
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
        let waker = Arc::new(AtomicWaker::new());
        let driver = Driver {
            schedule: Some(Schedule::new(plan)),
            context,
            lanes: HashMap::new(),
            planned: VecDeque::new(),
            windows_ahead: 0,
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
        self.batches.as_ref()?.recv().ok()
    }

    /// The next batch, if it is here; the task is woken when it is.
    pub(crate) fn poll_next(&mut self, task: &task::Context<'_>) -> Poll<Option<Result<Delivered>>> {
        let Some(batches) = &self.batches else {
            return Poll::Ready(None);
        };
        // A batch that comes between a look and the registration wakes nobody: look again behind it.
        for registered in [false, true] {
            match batches.try_recv() {
                Ok(batch) => return Poll::Ready(Some(batch)),
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

/// A run that is fetched or being fetched.
struct Pending {
    rows: Range<u64>,
    piece: Piece,
    set: RowSet,
    samples: Range<u64>,
    /// `None` until it is here, or has failed.
    run: Option<Result<Arc<Run>>>,
}

struct Lane {
    pass: Arc<Pass>,
    /// Windows to decode, in order.
    queue: VecDeque<Arc<Window>>,
    /// Runs that the queue and the window behind it need, in order.
    runs: VecDeque<Pending>,
    /// `None` while a job has it.
    cursor: Option<Cursor>,
    /// The first window that cannot be decoded, by its first row, and why. The lane stops there.
    failed: Option<(u64, Error)>,
}

struct Driver {
    context: Arc<Context>,
    /// `None` when all batches are planned, or none are wanted any more.
    schedule: Option<Schedule>,
    lanes: HashMap<LaneKey, Lane>,
    /// Batches that wait for their windows, with the number of windows that each is the first to need.
    planned: VecDeque<(usize, PlannedBatch)>,
    /// The sum of these numbers.
    windows_ahead: usize,
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
    io: Handle,
}

impl Driver {
    fn run(mut self) {
        loop {
            self.plan();
            self.start_ready();
            let finished = self.schedule.is_none() && self.planned.is_empty() && self.in_work == 0;
            if finished && self.done.is_empty() {
                return;
            }
            self.context.counters.drive(Some(self.doing()));
            let Some(next) = self.done.remove(&self.n_delivered) else {
                match self.events.recv() {
                    Ok(Event::Stop) | Err(_) => return,
                    Ok(event) => self.take(event),
                }
                continue;
            };
            let mut select = Select::new();
            let deliver = select.send(&self.batches);
            select.recv(&self.events);
            let ready = select.select();
            if ready.index() == deliver {
                let failed = next.is_err();
                if ready.send(&self.batches, next).is_err() || failed {
                    return;
                }
                self.waker.wake();
                self.n_delivered += 1;
            } else {
                self.done.insert(self.n_delivered, next);
                match ready.recv(&self.events) {
                    Ok(Event::Stop) | Err(_) => return,
                    Ok(event) => self.take(event),
                }
            }
        }
    }

    fn doing(&self) -> Doing {
        Doing {
            workers: self.context.plan.workers as u64,
            jobs: self.n_jobs,
            fetches: self.n_fetches,
            all_planned: self.schedule.is_none(),
            ready: (self.done.len() + self.batches.len()) as u64,
            full: self.n_started - self.n_delivered >= self.context.plan.prefetch as u64,
        }
    }

    /// Plans ahead, and begins to fetch what the new windows need.
    fn plan(&mut self) {
        while let Some(schedule) = &mut self.schedule {
            if let Some((_, last)) = self.planned.back()
                && (self.planned.len() >= PLAN_AHEAD || self.windows_ahead as u64 > last.lanes)
            {
                return;
            }
            let mut new = Vec::new();
            match schedule.next(&mut new) {
                Ok(Some(batch)) => {
                    self.windows_ahead += new.len();
                    self.planned.push_back((new.len(), batch));
                    new.into_iter().for_each(|window| self.open_window(window));
                }
                Ok(None) => self.schedule = None,
                Err(error) => {
                    self.schedule = None;
                    let seq = self.n_started + self.planned.len() as u64;
                    self.done.insert(seq, Err(error));
                }
            }
        }
    }

    fn open_window(&mut self, window: Arc<Window>) {
        let pass = &window.pass;
        let key = (pass.id, window.lane);
        if pass.id > self.newest[pass.source] {
            self.newest[pass.source] = pass.id;
            let old = self.lanes.iter().filter(|(_, lane)| lane.pass.source == pass.source);
            let old: Vec<_> = old.map(|(key, _)| *key).filter(|key| key.0 < pass.id).collect();
            old.into_iter().for_each(|key| self.close_lane(key));
        }
        let lane = self.lanes.entry(key).or_insert_with(|| Lane {
            pass: pass.clone(),
            queue: VecDeque::new(),
            runs: VecDeque::new(),
            cursor: Some(Cursor::default()),
            failed: None,
        });
        let lane_len = pass.order.lane_len(window.lane);
        // One window more than is needed now: its bytes are here when its turn comes.
        let (_, ahead) = pass.order.windows(window.lane).of(window.rows.end.min(lane_len - 1));
        let wanted = window.rows.start..ahead.end;
        lane.queue.push_back(window);
        self.fetch(key, wanted);
        self.decode(key);
    }

    /// Begins to fetch the runs that cover `wanted` and are not under way.
    fn fetch(&mut self, key: LaneKey, wanted: Range<u64>) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let last = lane.runs.back().map_or(0, |run| run.rows.end);
        let mut at = wanted.start.max(last);
        while at < wanted.end {
            let Segment { piece, rows } = lane.pass.order.segment_at(key.1, at);
            let end = at + (rows.end - rows.start);
            let place = lane.pass.source;
            let selected = &lane.pass.selection.pieces()[piece as usize];
            let info = self.context.plan.sources[place].dataset.pieces()[selected.piece as usize];
            lane.runs.push_back(Pending {
                rows: at..end,
                piece: info,
                set: selected.rows.clone(),
                samples: rows.clone(),
                run: None,
            });
            let stored = selected.rows.runs(&rows);
            let (context, events, start) = (self.context.clone(), self.events_in.clone(), at);
            let mut counted = context.counters.fetch();
            self.n_fetches += 1;
            let task = async move {
                let source = &context.plan.sources[place];
                let wanted = Wanted {
                    dataset: &source.dataset,
                    footers: &source.footers,
                    piece: &info,
                    rows: stored,
                    columns: &source.columns,
                };
                // The semaphore is never closed; a permit is held during the request only.
                let _permit = context.fetches.acquire().await;
                counted.begin();
                let result = fetch(wanted).await;
                drop(counted);
                if let Ok(fetched) = &result {
                    context.counters.fetched(fetched.bytes.held() as u64);
                }
                // The driver may have stopped.
                let _ = events.send(Event::Fetched {
                    lane: key,
                    start,
                    result,
                });
            };
            self.fetches.spawn_on(task, &self.io);
            at = end;
        }
        while self.fetches.try_join_next().is_some() {}
    }

    /// Hands the lane's next window to a worker, if its bytes are here and no job has the lane.
    fn decode(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let (Some(window), Some(_), None) = (lane.queue.front(), &lane.cursor, &lane.failed) else {
            return;
        };
        // A rank that takes part of a lane may never need some window.
        while lane.runs.front().is_some_and(|run| run.rows.end <= window.rows.start) {
            lane.runs.pop_front();
        }
        let mut parts = Vec::new();
        for pending in &mut lane.runs {
            let rows = window.rows.start.max(pending.rows.start)..window.rows.end.min(pending.rows.end);
            if rows.start >= rows.end {
                break;
            }
            match &pending.run {
                Some(Ok(run)) => parts.push(Part { run: run.clone(), rows }),
                None => return,
                Some(Err(_)) => {
                    if let Some(Err(error)) = pending.run.take() {
                        lane.failed = Some((window.rows.start, error));
                    }
                    return;
                }
            }
        }
        let covered: u64 = parts.iter().map(|part| part.rows.end - part.rows.start).sum();
        if covered < window.rows.end - window.rows.start {
            return;
        }
        let (Some(window), Some(cursor)) = (lane.queue.pop_front(), lane.cursor.take()) else {
            return;
        };
        // The parts hold what the job needs; a run whose end is decoded is not needed again.
        while lane.runs.front().is_some_and(|run| run.rows.end <= window.rows.end) {
            lane.runs.pop_front();
        }
        self.n_jobs += 1;
        let _ = self.jobs.send(Job::Decode {
            lane: key,
            window,
            cursor,
            parts,
        });
    }

    /// Hands planned batches whose windows are decoded to the workers, in order.
    fn start_ready(&mut self) {
        while (self.n_started - self.n_delivered) < self.context.plan.prefetch as u64 {
            let Some((n_new, batch)) = self.planned.front() else {
                return;
            };
            for Pick { window, .. } in batch.picks.iter().filter(|pick| pick.window.decoded.get().is_none()) {
                let lane = self.lanes.get_mut(&(window.pass.id, window.lane));
                // What failed behind the windows of this batch is no concern of it.
                let failed = lane.and_then(|lane| lane.failed.take_if(|(start, _)| *start <= window.rows.start));
                if let Some((_, error)) = failed {
                    self.fail(error);
                    return;
                }
            }
            if batch.picks.iter().any(|pick| pick.window.decoded.get().is_none()) {
                return;
            }
            self.windows_ahead -= n_new;
            let Some((_, batch)) = self.planned.pop_front() else {
                return;
            };
            self.n_jobs += 1;
            let _ = self.jobs.send(Job::Build {
                seq: self.n_started,
                batch,
            });
            self.n_started += 1;
            self.in_work += 1;
        }
    }

    /// Puts the error in the place of the next batch to start; nothing is planned behind it.
    fn fail(&mut self, error: Error) {
        self.schedule = None;
        self.planned.clear();
        self.done.retain(|seq, _| *seq < self.n_started);
        self.done.insert(self.n_started, Err(error));
        self.n_started += 1;
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Fetched { .. } => self.n_fetches -= 1,
            Event::Decoded { .. } | Event::Built { .. } => self.n_jobs -= 1,
            Event::Stop => {}
        }
        match event {
            Event::Fetched {
                lane: key,
                start,
                result,
            } => {
                let Some(lane) = self.lanes.get_mut(&key) else {
                    return;
                };
                if let Some(pending) = lane.runs.iter_mut().find(|run| run.rows.start == start) {
                    pending.run = Some(result.map(|fetched| {
                        tracing::trace!(lane = key.1, start, bytes = fetched.bytes.held(), "fetched");
                        Arc::new(Run {
                            rows: pending.rows.clone(),
                            piece: pending.piece,
                            set: pending.set.clone(),
                            samples: pending.samples.clone(),
                            fetched,
                        })
                    }));
                }
                self.decode(key);
            }
            Event::Decoded {
                lane: key,
                start,
                cursor,
                result,
            } => {
                let Some(lane) = self.lanes.get_mut(&key) else {
                    return;
                };
                lane.cursor = Some(cursor);
                match result {
                    Ok(()) => self.decode(key),
                    Err(error) => lane.failed = Some((start, error)),
                }
                self.close_lane(key);
            }
            Event::Built { seq, result } => {
                self.in_work -= 1;
                self.done.insert(seq, result);
            }
            Event::Stop => {}
        }
    }

    /// Forgets a lane that has nothing to do and holds nothing that it will need.
    fn close_lane(&mut self, key: LaneKey) {
        let idle = self.lanes.get(&key).is_some_and(|lane| {
            let Some(cursor) = &lane.cursor else {
                return false;
            };
            let holds_nothing = cursor.open.is_none() && lane.runs.is_empty();
            lane.queue.is_empty() && lane.failed.is_none() && (holds_nothing || key.0 < self.newest[lane.pass.source])
        });
        if idle {
            self.lanes.remove(&key);
        }
    }
}
