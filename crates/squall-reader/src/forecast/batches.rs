//! Which places of a lane which rank takes at which step, each answer by itself.
//!
//! It is the rule of [`Share`] for all ranks at once and without walking the epoch: a forecast asks for single lanes, ranks
//! and steps of epochs that nobody could walk. A property test holds it to what `Share` says.

use std::cell::Cell;
use std::ops::Range;

use crate::order::Order;
use crate::share::{Remainder, Share, part, places};

/// The global batches of an epoch of one order.
pub(crate) struct Batches<'a> {
    pub(crate) order: &'a Order,
    /// Rank 0 of the ranks that take the batches.
    pub(crate) share: Share,
    /// Steps of each rank.
    pub(crate) steps: u64,
    /// Places that were looked up: what a forecast has cost.
    probes: Cell<u64>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(order: &'a Order, share: Share) -> Self {
        Self {
            steps: share.steps(order.len(), 0),
            order,
            share,
            probes: Cell::new(0),
        }
    }

    pub(crate) fn probes(&self) -> u64 {
        self.probes.get()
    }

    /// Batches that are full without padding.
    pub(crate) fn full(&self) -> u64 {
        self.order.len() / self.share.global_batch
    }

    /// The samples of a batch, those of the padding left out.
    pub(crate) fn samples(&self, batch: u64) -> Range<u64> {
        let start = batch * self.share.global_batch;
        start..start.saturating_add(self.share.global_batch).min(self.order.len())
    }

    /// Rows of a batch, padding included.
    pub(crate) fn rows(&self, batch: u64) -> u64 {
        let samples = self.samples(batch);
        match self.share.remainder {
            Remainder::Pad => self.share.global_batch,
            Remainder::Keep | Remainder::Drop => samples.end - samples.start,
        }
    }

    /// What a rank takes of the rows of a batch, which stand sorted by lane, the padding behind them.
    pub(crate) fn mine(&self, batch: u64, rank: u64) -> Range<u64> {
        part(self.rows(batch), rank, self.share.world_size)
    }

    /// Rows that a rank gets in the epoch without padding, and those of the padding.
    pub(crate) fn rows_of(&self, rank: u64) -> (u64, u64) {
        let full = self.full().min(self.steps);
        let mut rows = full * (self.share.global_batch / self.share.world_size);
        let mut padded = 0;
        if self.steps > full {
            let (mine, samples) = (self.mine(full, rank), self.samples(full));
            let without_padding = samples.end - samples.start;
            let own = mine.end.min(without_padding).saturating_sub(mine.start);
            rows += own;
            padded = mine.end - mine.start - own;
        }
        (rows, padded)
    }

    /// The places of a lane that a rank takes in a batch, without padding.
    pub(crate) fn places(&self, batch: u64, lane: u64, rank: u64) -> Range<u64> {
        self.probes.set(self.probes.get() + 1);
        let (samples, lanes) = (self.samples(batch), self.order.lanes());
        let (start, end) = (before(lanes, &samples, lane), before(lanes, &samples, lane + 1));
        let mine = self.mine(batch, rank);
        let first = places(&samples, lane, lanes).start;
        first + (mine.start.clamp(start, end) - start)..first + (mine.end.clamp(start, end) - start)
    }

    /// The first place of a lane from `range.start` on that a rank takes, if it lies before `range.end`. The range lies in
    /// the lane and is not empty.
    pub(crate) fn next_place(&self, lane: u64, rank: u64, range: &Range<u64>) -> Option<u64> {
        let batch_of = |place: u64| (place * self.order.lanes() + lane) / self.share.global_batch;
        let last = batch_of(range.end - 1).min(self.steps.checked_sub(1)?);
        (batch_of(range.start)..=last).find_map(|batch| {
            let taken = self.places(batch, lane, rank);
            let place = taken.start.max(range.start);
            (place < taken.end.min(range.end)).then_some(place)
        })
    }

    /// The last place of a lane that a rank takes, without padding.
    pub(crate) fn last_place(&self, lane: u64, rank: u64) -> Option<u64> {
        // Where lanes and ranks meet comes back after as many steps as there are lanes, the last step aside.
        let first = self.steps.saturating_sub(self.order.lanes() + 1);
        (first..self.steps)
            .rev()
            .map(|batch| self.places(batch, lane, rank))
            .find(|taken| !taken.is_empty())
            .map(|taken| taken.end - 1)
    }

    /// Ranks among which are all that take places of this lane in full batches.
    pub(crate) fn ranks_of_lane(&self, lane: u64) -> Range<u64> {
        if self.full() == 0 {
            return 0..0;
        }
        let (lanes, global_batch) = (self.order.lanes(), self.share.global_batch);
        // The lanes before this one have so many rows of the batch, and up to `lane` or `more` rows besides.
        let (each, more) = (global_batch / lanes, global_batch % lanes);
        let first = each * lane + (lane + more).saturating_sub(lanes);
        let end = each * lane + more.min(lane) + each + u64::from(more > 0);
        let batch_size = global_batch / self.share.world_size;
        first / batch_size..end.div_ceil(batch_size).min(self.share.world_size)
    }

    /// The last batch, if it is short and not left out: the places of the lane in it, and the ranks that take them.
    pub(crate) fn tail(&self, lane: u64) -> Option<(Range<u64>, Range<u64>)> {
        let last = (self.steps > self.full()).then(|| self.full())?;
        let (samples, lanes) = (self.samples(last), self.order.lanes());
        let (start, end) = (before(lanes, &samples, lane), before(lanes, &samples, lane + 1));
        if start == end {
            return None;
        }
        let rank_of = |offset| part_of(offset, self.rows(last), self.share.world_size);
        Some((places(&samples, lane, lanes), rank_of(start)..rank_of(end - 1) + 1))
    }
}

/// Which of `n` parts of `0..rows` holds this offset; see [`part`].
pub(crate) fn part_of(offset: u64, rows: u64, n: u64) -> u64 {
    let (each, longer) = (rows / n, rows % n);
    let long = longer * (each + 1);
    if offset < long {
        offset / (each + 1)
    } else {
        longer + (offset - long) / each
    }
}

/// How many of these samples are in lanes before this one.
fn before(lanes: u64, samples: &Range<u64>, lane: u64) -> u64 {
    let below = |sample: u64| sample / lanes * lane + (sample % lanes).min(lane);
    below(samples.end) - below(samples.start)
}

/// Visits the lanes, and the places in them, of a part of these samples: that of the offsets among them, which are sorted by
/// lane.
pub(crate) fn walk(lanes: u64, samples: &Range<u64>, offsets: Range<u64>, mut visit: impl FnMut(u64, Range<u64>)) {
    let (mut at, end) = (offsets.start, offsets.end.min(samples.end - samples.start));
    let mut lane = 0;
    while at < end {
        let mut start = before(lanes, samples, lane);
        let mut stop = before(lanes, samples, lane + 1);
        if !(start..stop).contains(&at) {
            // The last lane that begins at or before the offset, by halving.
            let (mut low, mut high) = (0, lanes);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if before(lanes, samples, middle) <= at {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            lane = low;
            (start, stop) = (before(lanes, samples, lane), before(lanes, samples, lane + 1));
        }
        let first = places(samples, lane, lanes).start;
        let to = stop.min(end);
        visit(lane, first + (at - start)..first + (to - start));
        at = to;
        lane = (lane + 1).min(lanes - 1);
    }
}
