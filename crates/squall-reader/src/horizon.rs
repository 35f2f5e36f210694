//! When a row group is needed next: what a cache asks, which keeps what is needed soonest.
//!
//! The order is a function, and so is the answer. A row group's place in an epoch gives the stretches of lanes that it fills; a rank
//! fetches a stretch with the first sample that it takes of a window that reaches into it; and which places of a lane a rank takes
//! is known without walking the epoch ([`Batches`]). Of a row group that is read in slices, each slice is asked about by its
//! first row. Nothing is read here, and no clock.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use squall_dataset::cache::{Foresight, NextUse, ObjectKey};
use squall_schema::Result;

use crate::forecast::batches::Batches;
use crate::order::Order;
use crate::pipeline::slice_bytes;
use crate::plan::ReadPlan;
use crate::select::Selection;
use crate::share::Share;

/// Epochs that are looked at behind the present one. Of one dataset on one machine the next one has every row group; on several
/// machines a row group may pass some epochs on others.
const EPOCHS_AHEAD: u64 = 4;

/// Bits of a row in the number of a part: no row group has more than 2^40 rows.
const ROW_BITS: u32 = 40;

/// Orders that are kept: those of these epochs, of a few datasets.
const KEPT_ORDERS: usize = 16;

/// The number that names rows of a row group to a cache, from a row of it on.
pub(crate) fn part(row_group: usize, row: u64) -> u64 {
    ((row_group as u64) << ROW_BITS) | row.min((1 << ROW_BITS) - 1)
}

/// Which of a piece's selected rows.
pub(crate) struct Rows {
    /// The piece, by its place in the selection.
    pub(crate) piece: u32,
    pub(crate) rows: Range<u64>,
}

/// The samples with which the stretches of these rows are fetched in an epoch, by the ranks that are asked about; in no order.
pub(crate) fn uses(order: &Order, share: &Share, ranks: &[u64], Rows { piece, rows }: &Rows) -> Vec<u64> {
    let batches = Batches::new(order, *share);
    let (_, positions) = order.piece_at(order.place_of_piece(*piece));
    let mut uses = Vec::new();
    let (mut at, last) = (
        positions.start + rows.start,
        positions.end.min(positions.start + rows.end),
    );
    while at < last {
        let lane = order.lane_at(at);
        let start = order.lane_start(lane);
        let end = last.min(start + order.lane_len(lane));
        let windows = order.windows(lane);
        let places = windows.of(at - start).1.start..windows.of(end - 1 - start).1.end;
        let (regular, tail) = (batches.ranks_of_lane(lane), batches.tail(lane));
        let may_take = |rank: &&u64| regular.contains(rank) || tail.as_ref().is_some_and(|(_, own)| own.contains(rank));
        let first = |rank: &u64| batches.next_place(lane, *rank, &places);
        uses.extend(
            ranks
                .iter()
                .filter(may_take)
                .filter_map(first)
                .map(|place| place * order.lanes() + lane),
        );
        at = end;
    }
    uses
}

/// What a reader knows of the future of its datasets.
pub(crate) struct Horizon {
    plan: Arc<ReadPlan>,
    /// The ranks of this machine, as the share counts them.
    ranks: Vec<u64>,
    /// For each dataset: a piece of no more bytes is fetched whole.
    slice_bytes: Vec<u64>,
    /// The dataset and file of an object, by store and path.
    files: HashMap<(String, String), (usize, u32)>,
    state: Mutex<State>,
}

struct State {
    /// The epoch and sample that come next.
    now: (u64, u64),
    orders: VecDeque<Arc<EpochOrder>>,
}

/// The order of an epoch of a dataset.
struct EpochOrder {
    source: usize,
    epoch: u64,
    order: Order,
    selection: Arc<Selection>,
}

impl Horizon {
    /// Of a reader that begins where the plan begins; `ranks` are those of this machine, as the share counts them.
    pub(crate) fn new(plan: Arc<ReadPlan>, ranks: Vec<u64>) -> Self {
        let mut files = HashMap::new();
        for (source, own) in plan.sources.iter().enumerate() {
            for (file, own_file) in (0u32..).zip(own.dataset.files()) {
                files.insert(own.dataset.store().cache_place(&own_file.path), (source, file));
            }
        }
        Self {
            ranks: match plan.shard {
                // The rank has its order to itself.
                Some(_) => vec![0],
                None => ranks,
            },
            files,
            slice_bytes: plan.sources.iter().map(|source| slice_bytes(&plan, source)).collect(),
            state: Mutex::new(State {
                now: plan.start,
                orders: VecDeque::new(),
            }),
            plan,
        }
    }

    /// Notes which epoch and sample come next.
    pub(crate) fn pass(&self, now: (u64, u64)) {
        self.state().now = now;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When rows of a row group of a file are needed next, from a row on, in samples from now; `None` where that is not known.
    fn next_use_of(&self, (source, file): (usize, u32), row_group: u32, row: u64) -> Result<Option<NextUse>> {
        let (plan, dataset) = (&self.plan, &self.plan.sources[source].dataset);
        let pieces = dataset.pieces();
        let ordinal = pieces.partition_point(|piece| (piece.file, piece.row_group) < (file, row_group));
        let found = pieces
            .get(ordinal)
            .is_some_and(|piece| (piece.file, piece.row_group) == (file, row_group));
        if !found {
            return Ok(None);
        }
        let (now, next) = self.state().now;
        let mut passed = 0;
        for epoch in now..now.saturating_add(EPOCHS_AHEAD + 1) {
            if plan.epochs.is_some_and(|epochs| epoch >= epochs) {
                return Ok(Some(NextUse::Never));
            }
            let from = if epoch == now { next } else { 0 };
            let mut first: Option<u64> = None;
            for own_epoch in plan.sequence.epochs_of(source, epoch) {
                let own = self.order(source, own_epoch)?;
                let of_piece = own
                    .selection
                    .pieces()
                    .binary_search_by_key(&ordinal, |piece| piece.piece as usize);
                let Ok(piece) = of_piece else {
                    // Row groups that other ranks have for themselves.
                    if plan.shard.is_some() {
                        return Ok(None);
                    }
                    continue;
                };
                let set = &own.selection.pieces()[piece].rows;
                let one = set.indices_of(row);
                let rows = Rows {
                    piece: piece as u32,
                    rows: match pieces[ordinal].compressed_bytes <= self.slice_bytes[source] || one.is_empty() {
                        true => 0..set.len(),
                        false => one,
                    },
                };
                let uses = uses(&own.order, &plan.share, &self.ranks, &rows);
                let numbers = uses
                    .into_iter()
                    .filter_map(|sample| plan.sequence.number(source, epoch, own_epoch, sample));
                first = first.into_iter().chain(numbers.filter(|sample| *sample >= from)).min();
            }
            if let Some(first) = first {
                return Ok(Some(NextUse::After(passed + (first - from))));
            }
            passed += plan.len().saturating_sub(from);
        }
        Ok(Some(NextUse::After(passed)))
    }

    fn order(&self, source: usize, epoch: u64) -> Result<Arc<EpochOrder>> {
        let same = |own: &&Arc<EpochOrder>| (own.source, own.epoch) == (source, epoch);
        if let Some(found) = self.state().orders.iter().find(same) {
            return Ok(found.clone());
        }
        let own = &self.plan.sources[source];
        let selection = own.rows(epoch)?;
        let made = Arc::new(EpochOrder {
            source,
            epoch,
            order: Order::new(&selection.rows_per_piece(), &own.order, epoch)?,
            selection,
        });
        let mut state = self.state();
        state.orders.push_back(made.clone());
        if state.orders.len() > KEPT_ORDERS {
            state.orders.pop_front();
        }
        Ok(made)
    }
}

impl Foresight for Horizon {
    fn next_use(&self, object: &ObjectKey, part: Option<u64>) -> Option<NextUse> {
        let place = (object.store().to_owned(), object.path().to_owned());
        let file = *self.files.get(&place)?;
        let (row_group, row) = (u32::try_from(part? >> ROW_BITS).ok()?, part? & ((1 << ROW_BITS) - 1));
        // What the reader itself will meet as an error is no concern of the cache.
        self.next_use_of(file, row_group, row).ok().flatten()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is asked for as several are")]
mod tests;
