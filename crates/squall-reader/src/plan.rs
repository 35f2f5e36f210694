//! All that decides what a reader delivers, resolved and checked; the last value before anything moves.

use std::collections::HashMap;
use std::sync::Arc;

use squall_schema::{Error, Result};

use crate::gather::{Pass, Pick, Window};
use crate::order::{Order, OrderOptions};
use crate::random::Permutation;
use crate::share::{Share, Slice};
use crate::source::Source;
use crate::state::{OrderIdentity, ReaderState};

/// What a reader delivers, and with how many hands.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    pub(crate) source: Source,
    pub(crate) order: OrderOptions,
    pub(crate) share: Share,
    /// How many epochs there are; `None` is without end.
    pub(crate) epochs: Option<u64>,
    /// The epoch and the sample to begin with.
    pub(crate) start: (u64, u64),
    pub(crate) workers: usize,
    /// Batches that are ready or in work before they are asked for.
    pub(crate) prefetch: usize,
}

impl ReadPlan {
    pub(crate) fn identity(&self) -> OrderIdentity {
        OrderIdentity {
            dataset: self.source.dataset.fingerprint().to_owned(),
            selection: self.source.selection.digest(),
            shuffle: self.order.shuffle,
            seed: self.order.seed,
            lanes: self.order.lanes,
            window: self.order.window,
        }
    }

    pub(crate) fn state(&self, epoch: u64, next: u64) -> ReaderState {
        ReaderState::new(&self.identity(), epoch, next)
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.share.steps(self.source.selection.rows(), 0)
    }

    /// Refuses numbers that do not go with the rows that are selected.
    pub(crate) fn check_steps(&self) -> Result<()> {
        let rows = self.source.selection.rows();
        self.share.validate_for(rows)?;
        if self.start.1 > rows {
            return Err(Error::invalid(format!(
                "cannot resume: the state stands at sample {} of an epoch of {rows}",
                self.start.1
            )));
        }
        if self.epochs.is_none() && self.steps_per_epoch() == 0 {
            return Err(Error::invalid(format!(
                "an endless reader would never give a batch: {} rows are fewer than the global batch {}, and the remainder is dropped",
                rows, self.share.global_batch
            )));
        }
        Ok(())
    }
}

/// A batch that is planned: what it is made of, and where the reader stands behind it.
pub(crate) struct PlannedBatch {
    pub(crate) order: Arc<Order>,
    /// Its place in the epoch, counted from where the reader began.
    pub(crate) step: u64,
    pub(crate) picks: Vec<Pick>,
    pub(crate) permutation: Permutation,
    /// The epoch and sample that come after it.
    pub(crate) after: (u64, u64),
}

/// The planned batches of a reader, one after the other, and the windows that each is the first to need.
pub(crate) struct Schedule {
    plan: Arc<ReadPlan>,
    rows_per_piece: Vec<u64>,
    current: Option<Epoch>,
    epoch: u64,
    next: u64,
    passes: Pass,
}

struct Epoch {
    order: Arc<Order>,
    step: u64,
    pass: Pass,
    /// The last window of each lane that was needed.
    windows: HashMap<u64, Arc<Window>>,
}

/// A window that a planned batch needs first.
pub(crate) struct NewWindow {
    pub(crate) order: Arc<Order>,
    pub(crate) window: Arc<Window>,
}

impl Schedule {
    pub(crate) fn new(plan: Arc<ReadPlan>) -> Self {
        let (epoch, next) = plan.start;
        Self {
            rows_per_piece: plan.source.selection.rows_per_piece(),
            plan,
            current: None,
            epoch,
            next,
            passes: 0,
        }
    }

    /// The next batch, its new windows pushed to `new`; `None` after the last epoch.
    pub(crate) fn next(&mut self, new: &mut Vec<NewWindow>) -> Result<Option<PlannedBatch>> {
        loop {
            if self.plan.epochs.is_some_and(|epochs| self.epoch >= epochs) {
                return Ok(None);
            }
            let epoch = match &mut self.current {
                Some(epoch) => epoch,
                None => {
                    let order = Order::new(&self.rows_per_piece, &self.plan.order, self.epoch)?;
                    self.passes += 1;
                    self.current.insert(Epoch {
                        order: Arc::new(order),
                        step: 0,
                        pass: self.passes,
                        windows: HashMap::new(),
                    })
                }
            };
            if let Some(slice) = self.plan.share.slice(&epoch.order, self.next) {
                self.next = slice.samples.end;
                let picks = epoch.picks(&slice, &mut self.passes, new);
                let (order, step) = (epoch.order.clone(), epoch.step);
                epoch.step += 1;
                if self.plan.share.steps(order.len(), self.next) == 0 {
                    self.end_epoch();
                }
                return Ok(Some(PlannedBatch {
                    order,
                    step,
                    picks,
                    permutation: slice.permutation,
                    after: (self.epoch, self.next),
                }));
            }
            // An epoch without a batch: fewer rows than a global batch, and the remainder dropped.
            self.end_epoch();
        }
    }

    fn end_epoch(&mut self) {
        self.current = None;
        self.epoch = self.epoch.saturating_add(1);
        self.next = 0;
    }
}

impl Epoch {
    fn picks(&mut self, slice: &Slice, passes: &mut Pass, new: &mut Vec<NewWindow>) -> Vec<Pick> {
        let mut picks = Vec::new();
        for run in &slice.runs {
            let windows = self.order.windows(run.lane);
            let mut q = run.rows.start;
            while q < run.rows.end {
                let (index, rows) = windows.of(q);
                let end = run.rows.end.min(rows.end);
                let last = self.windows.get(&run.lane).filter(|last| last.rows == rows);
                let window = match last {
                    Some(window) => window.clone(),
                    None => {
                        if self
                            .windows
                            .get(&run.lane)
                            .is_some_and(|last| last.rows.start > rows.start)
                        {
                            // Padding goes back to the first rows: a pass of its own, for a lane is read forwards only.
                            *passes += 1;
                            self.pass = *passes;
                            self.windows.clear();
                        }
                        let window = Arc::new(Window {
                            pass: self.pass,
                            lane: run.lane,
                            permutation: self.order.window_permutation(run.lane, index, &rows),
                            rows,
                            decoded: Default::default(),
                        });
                        self.windows.insert(run.lane, window.clone());
                        new.push(NewWindow {
                            order: self.order.clone(),
                            window: window.clone(),
                        });
                        window
                    }
                };
                picks.push(Pick {
                    window,
                    rows: q..end,
                    padded: run.padded,
                });
                q = end;
            }
        }
        picks
    }
}
