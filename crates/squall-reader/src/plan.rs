//! All that decides what a reader delivers, resolved and checked; the last value before anything moves.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use squall_schema::{Error, Result, Schema};

use crate::bad_rows::OnBadRow;
use crate::order::Order;
use crate::picked::Pick;
use crate::random::Permutation;
use crate::resident::Resident;
use crate::select::Selection;
use crate::sequence::{Sequence, Stretch};
use crate::share::{Part, Share, SliceName};
use crate::source::Source;
use crate::state::OrderIdentity;
use crate::window::Window;

/// What a reader delivers, and with how many hands.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    /// The datasets that are read; one, or those of a mixture.
    pub(crate) sources: Arc<[Source]>,
    /// What an epoch is made of.
    pub(crate) sequence: Sequence,
    /// The columns that are delivered.
    pub(crate) schema: Arc<Schema>,
    pub(crate) seed: u64,
    pub(crate) share: Share,
    /// The rank and the number of ranks where row groups are partitioned; the rank has its order to itself then.
    pub(crate) shard: Option<(u64, u64)>,
    /// How many epochs there are; `None` is without end.
    pub(crate) epochs: Option<u64>,
    /// The epoch and the sample to begin with.
    pub(crate) start: (u64, u64),
    pub(crate) on_bad_row: OnBadRow,
    pub(crate) workers: usize,
    /// Batches that are ready or in work before they are asked for.
    pub(crate) prefetch: usize,
    /// Bytes that may be held at a time.
    pub(crate) memory_budget: u64,
    /// About how many bytes a lane fetches at a time, if that was given.
    pub(crate) slice_size: Option<u64>,
}

impl ReadPlan {
    pub(crate) fn identity(&self) -> OrderIdentity {
        OrderIdentity::new(&self.sources, &self.sequence, self.seed)
    }

    /// About how many bytes a batch takes.
    pub(crate) fn bytes_of(&self, batch: &PlannedBatch) -> u64 {
        let bytes = |pick: &Pick| {
            let source = &self.sources[pick.window.pass.source];
            (pick.rows.end - pick.rows.start).saturating_mul(source.footprint.delivered)
        };
        batch.picks.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Samples of an epoch.
    pub(crate) fn len(&self) -> u64 {
        self.sequence.len()
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.share.steps(self.len(), 0)
    }

    /// Where a reader stands that has made so many steps from a position.
    pub(crate) fn after_steps(&self, (epoch, next): (u64, u64), steps: u64) -> (u64, u64) {
        let left = self.share.steps(self.len(), next);
        let per_epoch = self.steps_per_epoch();
        let Some(beyond) = steps.checked_sub(left) else {
            return (epoch, next + steps * self.share.global_batch);
        };
        let (epochs, steps) = match per_epoch {
            0 => (beyond, 0),
            _ => (beyond / per_epoch, beyond % per_epoch),
        };
        let epoch = epoch.saturating_add(1).saturating_add(epochs);
        match self.epochs {
            Some(last) if epoch >= last => (last.max(self.start.0), 0),
            _ => (epoch, steps * self.share.global_batch),
        }
    }

    /// Refuses numbers that do not go with the rows that are selected.
    pub(crate) fn check_steps(&self) -> Result<()> {
        let rows = self.len();
        self.share.validate_for(rows)?;
        if let Sequence::Mixed(mix) = &self.sequence {
            mix.check_batch(self.share.global_batch)?;
        }
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

/// A pass over the rows of one dataset, lane by lane, forwards. An epoch has one for each dataset, and one more for each time
/// that padding goes back to its first rows.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Newer passes have larger numbers.
    pub(crate) id: u64,
    /// The place of the dataset in the plan.
    pub(crate) source: usize,
    pub(crate) order: Arc<Order>,
    /// The rows that the order permutes.
    pub(crate) selection: Arc<Selection>,
    /// Where they are, if the dataset is kept in memory.
    pub(crate) resident: Option<Arc<Resident>>,
}

/// A batch that is planned: what it is made of, and where the reader stands behind it.
pub(crate) struct PlannedBatch {
    pub(crate) epoch: u64,
    /// Its place in the epoch.
    pub(crate) step: u64,
    /// The samples of the global batch, those of the padding left out.
    pub(crate) samples: Range<u64>,
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) picks: Vec<Pick>,
    pub(crate) permutation: Permutation,
    /// Lanes of all datasets.
    pub(crate) lanes: u64,
    /// The epoch and sample that come after it.
    pub(crate) after: (u64, u64),
}

/// The planned batches of a reader, one after the other, and the windows that each is the first to need.
pub(crate) struct Schedule {
    plan: Arc<ReadPlan>,
    share: Share,
    epoch: u64,
    next: u64,
    open: Vec<Open>,
    n_passes: u64,
}

/// A pass with the last window of each lane that was needed.
struct Open {
    pass: Arc<Pass>,
    windows: HashMap<u64, Arc<Window>>,
}

impl Schedule {
    pub(crate) fn new(plan: Arc<ReadPlan>) -> Self {
        let (epoch, next) = plan.start;
        Self {
            share: plan.share,
            plan,
            epoch,
            next,
            open: Vec::new(),
            n_passes: 0,
        }
    }

    /// The next batch, its new windows pushed to `new`; `None` after the last epoch.
    pub(crate) fn next(&mut self, new: &mut Vec<Arc<Window>>) -> Result<Option<PlannedBatch>> {
        let plan = self.plan.clone();
        loop {
            if plan.epochs.is_some_and(|epochs| self.epoch >= epochs) {
                return Ok(None);
            }
            if let Some((samples, padding)) = self.share.batch(plan.len(), self.next) {
                let (epoch, next) = (self.epoch, self.next);
                self.next = samples.end;
                if self.share.steps(plan.len(), self.next) == 0 {
                    self.end_epoch();
                }
                let mut stretches = plan.sequence.stretches(epoch, samples.clone(), 0);
                for (layer, samples) in (1..).zip(padding) {
                    stretches.extend(plan.sequence.stretches(epoch, samples, layer));
                }
                let name = SliceName {
                    seed: plan.seed,
                    epoch,
                    next,
                };
                return self.batch(samples, stretches, name, new).map(Some);
            }
            // An epoch without a batch: fewer rows than a global batch, and the remainder dropped.
            self.end_epoch();
        }
    }

    /// The batch of a rank that begins with this sample of an epoch, whatever came before; `None` where there is none.
    pub(crate) fn batch_at(&mut self, rank: u64, epoch: u64, next: u64) -> Result<Option<PlannedBatch>> {
        if (self.share.rank, self.epoch, self.next) != (rank, epoch, next) {
            self.share.rank = rank;
            (self.epoch, self.next) = (epoch, next);
            // Orders are kept, windows are not: they are only ever passed forwards.
            self.open.iter_mut().for_each(|open| open.windows.clear());
        }
        match self.share.batch(self.plan.len(), next) {
            Some(_) => self.next(&mut Vec::new()),
            None => Ok(None),
        }
    }

    fn end_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.next = 0;
    }

    fn batch(
        &mut self,
        samples: Range<u64>,
        stretches: Vec<Stretch>,
        name: SliceName,
        new: &mut Vec<Arc<Window>>,
    ) -> Result<PlannedBatch> {
        let mut orders = Vec::with_capacity(stretches.len());
        for stretch in &stretches {
            let open = self.open(stretch)?;
            orders.push(self.open[open].pass.order.clone());
        }
        let part = |(stretch, order): (&Stretch, _)| Part {
            order,
            samples: stretch.samples.clone(),
            layer: stretch.layer,
        };
        let parts: Vec<_> = stretches.iter().zip(orders.iter().map(Arc::as_ref)).map(part).collect();
        let slice = self.share.slice(&parts, name);
        let mut picks = Vec::new();
        for run in slice.runs {
            let mut q = run.rows.start;
            while q < run.rows.end {
                let window = self.window(&stretches[run.part], run.lane, q, new)?;
                let end = run.rows.end.min(window.rows.end);
                picks.push(Pick {
                    window,
                    stretch: run.part,
                    rows: q..end,
                });
                q = end;
            }
        }
        // Of each dataset the newest pass is the one that goes on.
        let newest: HashMap<_, _> = self.open.iter().map(|open| (open.pass.source, open.pass.id)).collect();
        self.open.retain(|open| newest[&open.pass.source] == open.pass.id);
        Ok(PlannedBatch {
            epoch: name.epoch,
            step: name.next.div_ceil(self.share.global_batch),
            samples,
            stretches,
            picks,
            permutation: slice.permutation,
            lanes: self.open.iter().map(|open| open.pass.order.lanes()).sum(),
            after: (self.epoch, self.next),
        })
    }

    /// The place in `open` of the newest pass over the dataset and epoch of a stretch.
    fn open(&mut self, stretch: &Stretch) -> Result<usize> {
        let same = |open: &Open| (open.pass.source, open.pass.order.epoch()) == (stretch.source, stretch.epoch);
        if let Some(found) = self.open.iter().rposition(same) {
            return Ok(found);
        }
        let source = &self.plan.sources[stretch.source];
        let selection = source.rows(stretch.epoch)?;
        let order = Order::new(&selection.rows_per_piece(), &source.order, stretch.epoch)?;
        Ok(self.push(stretch.source, Arc::new(order), selection))
    }

    fn push(&mut self, source: usize, order: Arc<Order>, selection: Arc<Selection>) -> usize {
        self.n_passes += 1;
        self.open.push(Open {
            pass: Arc::new(Pass {
                id: self.n_passes,
                source,
                order,
                selection,
                resident: self.plan.sources[source].resident.clone(),
            }),
            windows: HashMap::new(),
        });
        self.open.len() - 1
    }

    /// The window that holds row `q` of a lane.
    fn window(&mut self, stretch: &Stretch, lane: u64, q: u64, new: &mut Vec<Arc<Window>>) -> Result<Arc<Window>> {
        let mut open = self.open(stretch)?;
        let pass = &self.open[open].pass;
        let (index, rows) = pass.order.windows(lane).of(q);
        match self.open[open].windows.get(&lane) {
            Some(last) if last.rows == rows => return Ok(last.clone()),
            Some(last) if last.rows.start > rows.start => {
                // Padding goes back to the first rows: a pass of its own, for a lane is read forwards only.
                let (order, selection) = (pass.order.clone(), pass.selection.clone());
                open = self.push(stretch.source, order, selection);
            }
            _ => {}
        }
        let Open { pass, windows } = &mut self.open[open];
        let window = Arc::new(Window {
            pass: pass.clone(),
            lane,
            permutation: pass.order.window_permutation(lane, index, &rows),
            rows,
            decoded: Default::default(),
        });
        windows.insert(lane, window.clone());
        new.push(window.clone());
        Ok(window)
    }
}
