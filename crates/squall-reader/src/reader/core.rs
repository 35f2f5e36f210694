//! What both readers are behind their types: a plan, where they stand in it, and the pipeline that runs.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use squall_dataset::cache::Registration;
use squall_schema::{Error, Result};

use super::SampleBatch;
use crate::bad_rows::BadRows;
use crate::budget::{Budget, Permit};
use crate::horizon::Horizon;
use crate::io::Io;
use crate::ledger::{LedgerEntry, LedgerWriter};
use crate::metrics::{About, CacheCounts, Counters, MemoryMetrics};
use crate::pipeline::Pipeline;
use crate::plan::ReadPlan;
use crate::resident::Loaded;
use crate::share::{Remainder, Share};
use crate::state::{OrderIdentity, ReaderState};
use crate::work::Delivered;

/// What a reader is made of.
pub(crate) struct Opened {
    pub(crate) plan: ReadPlan,
    pub(crate) io: Arc<Io>,
    pub(crate) ledger: Option<LedgerWriter>,
    /// The ranks of this machine, as the share counts them.
    pub(crate) neighbours: Vec<u64>,
    /// The rows that are kept in memory.
    pub(crate) loaded: Loaded,
}

/// The common part of both readers: a plan, and a pipeline once the first batch was asked for.
pub(super) struct Core {
    // Dropped before the runtime that its fetches run on.
    pipeline: Option<Pipeline>,
    pub(super) plan: Arc<ReadPlan>,
    /// Of the plan: every state has it, and digests all of its datasets.
    identity: OrderIdentity,
    io: Arc<Io>,
    pub(super) counters: Arc<Counters>,
    budget: Arc<Budget>,
    /// For the rows that are kept in memory.
    _resident: Option<Permit>,
    /// The epoch and sample that come next.
    position: (u64, u64),
    /// Where it began, or was moved to.
    pub(super) began: (u64, u64),
    /// The epoch of the last batch.
    last_epoch: Option<u64>,
    pub(super) bad_rows: BadRows,
    pub(super) ledger: Option<LedgerWriter>,
    neighbours: Vec<u64>,
    /// What caches ask while a pipeline runs.
    horizon: Option<(Arc<Horizon>, Vec<Registration>)>,
    pub(super) ended: bool,
}

impl Core {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened {
            plan,
            io,
            ledger,
            neighbours,
            loaded,
        } = opened;
        let counters = Arc::new(Counters::new(about(&plan), io.threads()));
        let mut caches: Vec<_> = plan
            .sources
            .iter()
            .filter_map(|source| source.dataset.store().cache().cloned())
            .collect();
        caches.dedup_by(|a, b| Arc::ptr_eq(a, b));
        if !caches.is_empty() {
            counters.probe(Box::new(move |metrics| metrics.cache = Some(CacheCounts::of(&caches))));
        }
        counters.fetched(loaded.fetched);
        let budget = Budget::new(plan.memory_budget);
        let stores: Vec<_> = plan
            .sources
            .iter()
            .map(|source| source.dataset.store().clone())
            .collect();
        counters.probe(Box::new(move |metrics| {
            stores.iter().for_each(|store| metrics.storage.add(&store.metrics()));
        }));
        let held = budget.clone();
        counters.probe(Box::new(move |metrics| {
            metrics.memory = MemoryMetrics {
                budget: Some(held.limit()),
                in_use: held.used(),
                high_water: held.most(),
            };
        }));
        Self {
            pipeline: None,
            position: plan.start,
            began: plan.start,
            last_epoch: None,
            bad_rows: BadRows::new(plan.on_bad_row),
            identity: plan.identity(),
            counters,
            _resident: (loaded.held > 0).then(|| budget.take(loaded.held)),
            budget,
            plan: Arc::new(plan),
            io,
            ledger,
            neighbours,
            horizon: None,
            ended: false,
        }
    }

    /// Goes on from an epoch and sample.
    pub(super) fn seek(&mut self, position: (u64, u64)) -> Result<()> {
        self.pipeline = None;
        self.position = position;
        self.began = position;
        self.last_epoch = None;
        self.ended = false;
        match &mut self.ledger {
            Some(ledger) => ledger.restart(),
            None => Ok(()),
        }
    }

    pub(super) fn skip_steps(&mut self, steps: u64) -> Result<()> {
        let position = self.plan.after_steps(self.position, steps);
        self.seek(position)
    }

    pub(super) fn resume(&mut self, state: &ReaderState) -> Result<()> {
        state.check(&self.identity)?;
        let plan = ReadPlan {
            start: (state.epoch, state.next),
            ..ReadPlan::clone(&self.plan)
        };
        plan.check_steps()?;
        self.seek(plan.start)
    }

    /// The epoch of the last batch, or of the first where there was none.
    pub(super) fn now(&self) -> u64 {
        self.last_epoch.unwrap_or(self.position.0)
    }

    /// The epoch of the next batch.
    pub(super) fn epoch(&self) -> Option<u64> {
        let (epoch, next) = self.position;
        // An epoch that is over for want of a full batch is not the one that comes next.
        let epoch = epoch.saturating_add(u64::from(next > 0 && self.plan.share.steps(self.plan.len(), next) == 0));
        let is_over = self.ended || self.plan.epochs.is_some_and(|epochs| epoch >= epochs);
        (!is_over).then_some(epoch)
    }

    pub(super) fn next(&mut self) -> Option<Result<SampleBatch>> {
        if let Err(error) = self.start() {
            return self.end(Some(Err(error)));
        }
        let next = self.pipeline.as_mut()?.next();
        self.take(next)
    }

    /// The next batch, if it is here; the task is woken when it is. Nothing is lost where nobody polls again.
    pub(super) fn poll_next(&mut self, task: &Context<'_>) -> Poll<Option<Result<SampleBatch>>> {
        if let Err(error) = self.start() {
            return Poll::Ready(self.end(Some(Err(error))));
        }
        let Some(pipeline) = &mut self.pipeline else {
            return Poll::Ready(None);
        };
        let next = ready!(pipeline.poll_next(task));
        Poll::Ready(self.take(next))
    }

    /// Starts the pipeline where there is none, unless the reader has ended.
    fn start(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.counters.ask();
        if self.pipeline.is_none() {
            let plan = ReadPlan {
                start: self.position,
                ..ReadPlan::clone(&self.plan)
            };
            let plan = Arc::new(plan);
            self.horizon = self.foresee(&plan);
            let pipeline = Pipeline::start(plan, self.io.handle(), self.counters.clone(), self.budget.clone())?;
            self.pipeline = Some(pipeline);
        }
        Ok(())
    }

    /// Hands out what the pipeline gave.
    fn take(&mut self, next: Option<Result<Delivered>>) -> Option<Result<SampleBatch>> {
        match next {
            Some(Ok(Delivered {
                epoch,
                step,
                samples,
                ids,
                columns,
                bad,
                after,
                _permit: permit,
            })) => {
                // Who has a batch holds it on his own account.
                drop(permit);
                let substitutes = LedgerEntry::substitutes(&bad);
                let mut noted = self.bad_rows.add(bad.clone());
                let batch = SampleBatch {
                    epoch,
                    step,
                    samples,
                    ids,
                    columns,
                    bad_rows: bad,
                    substitutes,
                };
                if let (Some(ledger), Ok(())) = (&mut self.ledger, &noted) {
                    let before = ReaderState::new(&self.identity, self.position.0, self.position.1);
                    noted = ledger.write(batch.entry(before));
                }
                if let Err(error) = noted {
                    return self.end(Some(Err(error)));
                }
                self.position = after;
                if let Some((horizon, _)) = &self.horizon {
                    horizon.pass(after);
                }
                self.last_epoch = Some(batch.epoch);
                self.counters.take(batch.ids.len() as u64, batch.bad_rows.len() as u64);
                Some(Ok(batch))
            }
            last => self.end(last.map(|error| error.map(|_| unreachable!("a batch is matched above")))),
        }
    }

    /// Tells the caches of the datasets what will be needed when.
    fn foresee(&self, plan: &Arc<ReadPlan>) -> Option<(Arc<Horizon>, Vec<Registration>)> {
        let caches = plan.sources.iter().filter_map(|source| source.dataset.store().cache());
        let caches: Vec<_> = caches.collect();
        (!caches.is_empty()).then(|| {
            let horizon = Arc::new(Horizon::new(plan.clone(), self.neighbours.clone()));
            let registered = caches
                .into_iter()
                .map(|cache| cache.register(horizon.clone()))
                .collect();
            (horizon, registered)
        })
    }

    fn end(&mut self, last: Option<Result<SampleBatch>>) -> Option<Result<SampleBatch>> {
        self.ended = true;
        self.pipeline = None;
        self.counters.end();
        last
    }

    pub(super) fn state(&self) -> ReaderState {
        ReaderState::new(&self.identity, self.position.0, self.position.1)
    }

    /// The same reader with other batches, before it has delivered one.
    pub(super) fn with_batches(mut self, batch_size: u64, remainder: Remainder) -> Result<Self> {
        if self.pipeline.is_some() || self.ended {
            return Err(Error::invalid("the batch size cannot change once the reader has begun"));
        }
        let Share { rank, world_size, .. } = self.plan.share;
        let share = Share::of_batch_size(rank, world_size, batch_size, remainder)?;
        let plan = ReadPlan {
            share,
            ..ReadPlan::clone(&self.plan)
        };
        plan.check_steps()?;
        if let Some(ledger) = &mut self.ledger {
            ledger.rebatch(share);
        }
        self.plan = Arc::new(plan);
        Ok(self)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Whoever still looks at the meter sees no time pass.
        self.counters.end();
    }
}

/// Which reader it is, for its metrics.
fn about(plan: &ReadPlan) -> About {
    let (rank, world_size) = plan.shard.unwrap_or((plan.share.rank, plan.share.world_size));
    let urls: Vec<_> = plan
        .sources
        .iter()
        .map(|source| source.dataset.url().to_string())
        .collect();
    About {
        dataset: urls.join(","),
        rank,
        world_size,
        workers: plan.workers,
    }
}
