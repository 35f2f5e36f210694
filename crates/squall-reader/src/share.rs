//! A rank's slice of each global batch.
//!
//! A global batch is a run of samples of the order, sorted by lane; each of the ranks takes an equal slice of it, so
//! that a rank reads almost only its own lanes, and puts its rows in a seeded order. The batches of an epoch are the
//! same for every world size that divides the global batch.

use std::ops::Range;

use squall_schema::{Error, Result};

use crate::order::Order;
use crate::random::{Domain, Permutation, stream};

/// How often padding may repeat the rows of an epoch inside one batch.
const MAX_PASSES: u64 = 1000;

/// What happens to the rows at the end of an epoch that do not fill a global batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remainder {
    /// A last batch that is short, split over the ranks as evenly as it goes. A rank's share of it may be empty.
    #[default]
    Keep,
    /// They are left out: all batches are full.
    Drop,
    /// The last batch is filled with the first samples of the epoch, marked as padded.
    Pad,
}

/// Which ranks there are, which one this is, and how many rows they take together at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This rank, from 0.
    pub rank: u64,
    /// The number of ranks.
    pub world_size: u64,
    /// Rows that all ranks take at a step.
    pub global_batch: u64,
    /// What happens at the end of an epoch.
    pub remainder: Remainder,
}

/// A run of samples of a dataset's order that is part of a global batch.
pub(crate) struct Part<'a> {
    pub(crate) order: &'a Order,
    pub(crate) samples: Range<u64>,
    /// Parts of one layer are mixed, layers are laid end to end.
    pub(crate) layer: usize,
}

/// Places of one lane that a rank takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The place of its part in the global batch.
    pub(crate) part: usize,
    pub(crate) lane: u64,
    pub(crate) rows: Range<u64>,
}

/// A rank's slice of a global batch.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// What the rank takes.
    pub(crate) runs: Vec<Run>,
    /// The order of its rows: place `i` of the batch holds row `permutation.get(i)` of the runs laid end to end.
    pub(crate) permutation: Permutation,
}

impl Share {
    /// The share of a rank that takes `batch_size` rows at a step.
    pub fn of_batch_size(rank: u64, world_size: u64, batch_size: u64, remainder: Remainder) -> Result<Self> {
        let global_batch = batch_size.checked_mul(world_size);
        let too_large = || {
            Error::invalid(format!(
                "a batch size of {batch_size} times {world_size} ranks does not fit 64 bits"
            ))
        };
        let share = Self {
            rank,
            world_size,
            global_batch: global_batch.ok_or_else(too_large)?,
            remainder,
        };
        share.validate()?;
        Ok(share)
    }

    /// Checks the numbers against each other.
    pub fn validate(&self) -> Result<()> {
        if self.world_size == 0 {
            return Err(Error::invalid("expected a world size of at least 1, found 0"));
        }
        if self.rank >= self.world_size {
            return Err(Error::invalid(format!(
                "expected a rank below the world size {}, found {}",
                self.world_size, self.rank
            )));
        }
        if self.global_batch == 0 || !self.global_batch.is_multiple_of(self.world_size) {
            return Err(Error::invalid(format!(
                "expected a global batch that is a multiple of the world size {}, found {}",
                self.world_size, self.global_batch
            )));
        }
        Ok(())
    }

    /// Checks the numbers against the rows of an epoch.
    pub(crate) fn validate_for(&self, rows: u64) -> Result<()> {
        let times = self.global_batch / rows.max(1);
        if self.remainder == Remainder::Pad && times > MAX_PASSES {
            return Err(Error::invalid(format!(
                "padding a global batch of {} would repeat the {rows} rows of an epoch {times} times: expected at most {MAX_PASSES}",
                self.global_batch
            )));
        }
        Ok(())
    }

    /// Steps of every rank over samples `next..len` of an epoch.
    pub fn steps(&self, len: u64, next: u64) -> u64 {
        let rows = len.saturating_sub(next);
        match self.remainder {
            // Numbers that `validate` refuses give no step.
            _ if self.global_batch == 0 => 0,
            Remainder::Drop => rows / self.global_batch,
            Remainder::Keep | Remainder::Pad => rows.div_ceil(self.global_batch),
        }
    }

    /// Rows that this rank takes of an epoch of `len` samples, those of the padding counted.
    pub fn rows(&self, len: u64) -> u64 {
        if self.world_size == 0 {
            return 0;
        }
        let steps = self.steps(len, 0);
        let batch_size = self.global_batch / self.world_size;
        let short = !len.is_multiple_of(self.global_batch) && self.remainder == Remainder::Keep;
        match steps.checked_sub(1) {
            Some(full) if short => {
                let last = part(len - full * self.global_batch, self.rank, self.world_size);
                full * batch_size + (last.end - last.start)
            }
            _ => steps * batch_size,
        }
    }

    /// The samples of the global batch that begins with sample `next` of an epoch of `len`, and how often samples from the
    /// epoch's beginning follow it as padding. `None` at the end of the epoch.
    pub(crate) fn batch(&self, len: u64, next: u64) -> Option<(Range<u64>, Vec<Range<u64>>)> {
        if self.steps(len, next) == 0 {
            return None;
        }
        let samples = next..next.saturating_add(self.global_batch).min(len);
        let mut rows = samples.end - samples.start;
        let mut padding = Vec::new();
        while self.remainder == Remainder::Pad && rows < self.global_batch {
            let more = (self.global_batch - rows).min(len);
            padding.push(0..more);
            rows += more;
        }
        Some((samples, padding))
    }

    /// This rank's slice of the global batch that is made of these parts, in layers: within a layer each part is sorted by
    /// lane, and the parts are mixed in proportion to their lengths; the layers are laid end to end.
    pub(crate) fn slice(&self, parts: &[Part<'_>], name: SliceName) -> Slice {
        let length = |part: &Part<'_>| part.samples.end - part.samples.start;
        let mine = part(parts.iter().map(length).sum(), self.rank, self.world_size);
        let mut runs = Vec::new();
        let (mut before, mut first) = (0, 0);
        for layer in parts.chunk_by(|part, next| part.layer == next.layer) {
            let lengths: Vec<_> = layer.iter().map(length).collect();
            let all: u64 = lengths.iter().sum();
            let inside = |at: u64| at.clamp(before, before + all) - before;
            let starts = cut(&lengths, inside(mine.start));
            let ends = cut(&lengths, inside(mine.end));
            for (place, part) in layer.iter().enumerate() {
                lane_runs(first + place, part, starts[place]..ends[place], &mut runs);
            }
            before += all;
            first += layer.len();
        }
        let permutation = if parts.iter().any(|part| part.order.shuffles()) {
            let mut rng = stream(name.seed, name.epoch, Domain::Slice, name.next + mine.start);
            Permutation::new(mine.end - mine.start, &mut rng)
        } else {
            Permutation::Identity
        };
        Slice { runs, permutation }
    }
}

#[cfg(test)]
impl Share {
    /// This rank's slice of the global batch of one order that begins with sample `next`, and the sample behind the batch.
    pub(crate) fn slice_of(&self, order: &Order, next: u64) -> Option<(Slice, u64)> {
        let (samples, padding) = self.batch(order.len(), next)?;
        let name = SliceName {
            seed: order.seed(),
            epoch: order.epoch(),
            next,
        };
        let end = samples.end;
        let part = |(layer, samples)| Part { order, samples, layer };
        let parts: Vec<_> = std::iter::once(samples).chain(padding).enumerate().map(part).collect();
        Some((self.slice(&parts, name), end))
    }
}

/// What names the random choice of a slice's order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SliceName {
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
    /// The first sample of the global batch.
    pub(crate) next: u64,
}

/// Pushes the runs that the rows `mine` of a part are, when its rows are sorted by lane.
fn lane_runs(part: usize, Part { order, samples, .. }: &Part<'_>, mine: Range<u64>, runs: &mut Vec<Run>) {
    let mut before = 0;
    for lane in 0..order.lanes() {
        let places = places(samples, lane, order.lanes());
        let count = places.end - places.start;
        let start = mine.start.clamp(before, before + count);
        let end = mine.end.clamp(before, before + count);
        if start < end {
            runs.push(Run {
                part,
                lane,
                rows: places.start + (start - before)..places.start + (end - before),
            });
        }
        before += count;
        if before >= mine.end {
            return;
        }
    }
}

/// How many rows of each part are among the first `n` of all, when parts of these lengths are mixed in proportion.
///
/// One part after the other takes its share, rounded, of what the parts before it left. As `n` grows by one, so does one of
/// the numbers.
fn cut(lengths: &[u64], mut n: u64) -> Vec<u64> {
    let mut all: u64 = lengths.iter().sum();
    let mut first = Vec::with_capacity(lengths.len());
    for length in lengths {
        let share = match all {
            0 => 0,
            _ => (u128::from(n) * u128::from(*length) + u128::from(all / 2)) / u128::from(all),
        };
        // A share is never more than its part.
        first.push(share as u64);
        n -= share as u64;
        all -= length;
    }
    first
}

/// The `i`-th of `n` parts of `0..rows`; the first ones have one more where it does not divide.
pub(crate) fn part(rows: u64, i: u64, n: u64) -> Range<u64> {
    let start = |i: u64| i * (rows / n) + i.min(rows % n);
    start(i)..start(i + 1)
}

/// The places in a lane that a range of samples covers: sample `s` is place `s / lanes` of lane `s % lanes`.
pub(crate) fn places(samples: &Range<u64>, lane: u64, lanes: u64) -> Range<u64> {
    let before = |sample: u64| (sample + lanes - 1 - lane) / lanes;
    before(samples.start)..before(samples.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::order::{OrderOptions, Shuffle};

    fn order(pieces: &[u64], lanes: u64, shuffle: Shuffle) -> Order {
        let options = OrderOptions {
            shuffle,
            seed: 5,
            lanes,
            window: 7,
        };
        Order::new(pieces, &options, 2).expect("order")
    }

    /// The samples of every batch of a rank, in its order, with their padding marks.
    fn batches(order: &Order, share: Share, mut next: u64) -> Vec<Vec<(u64, bool)>> {
        let mut batches = Vec::new();
        while let Some((slice, end)) = share.slice_of(order, next) {
            next = end;
            let flat: Vec<_> = (slice.runs.iter())
                .flat_map(|run| run.rows.clone().map(|q| (q * order.lanes() + run.lane, run.part > 0)))
                .collect();
            batches.push(
                (0..flat.len() as u64)
                    .map(|i| flat[slice.permutation.get(i) as usize])
                    .collect(),
            );
        }
        batches
    }

    #[test]
    fn parts_are_cut_in_proportion() {
        assert_eq!(cut(&[10], 3), [3]);
        assert_eq!(cut(&[6, 3, 1], 5), [3, 2, 0]);
        assert_eq!(cut(&[0, 4, 0], 4), [0, 4, 0]);
        for lengths in [vec![1, 1, 1, 1, 1], vec![700, 0, 299, 1], vec![5, 3, 3]] {
            let all: u64 = lengths.iter().sum();
            let mut last = cut(&lengths, 0);
            assert!(last.iter().all(|n| *n == 0));
            for n in 1..=all {
                let next = cut(&lengths, n);
                let grown: u64 = next.iter().zip(&last).map(|(next, last)| next - last).sum();
                assert!(
                    grown == 1 && next.iter().zip(&lengths).all(|(n, length)| n <= length),
                    "{next:?}"
                );
                last = next;
            }
            assert_eq!(last, lengths);
        }
    }

    #[test]
    fn wrong_numbers_are_refused() {
        let share = |rank, world_size, global_batch| Share {
            rank,
            world_size,
            global_batch,
            remainder: Remainder::Keep,
        };
        assert!(share(0, 1, 1).validate().is_ok());
        for (share, found) in [
            (share(0, 0, 1), "found 0"),
            (share(2, 2, 2), "found 2"),
            (share(0, 3, 4), "found 4"),
        ] {
            let error = share.validate().expect_err("wrong");
            assert!(error.to_string().contains(found), "{error}");
        }
    }

    #[test]
    fn one_rank_without_shuffling_reads_in_order() {
        let share = Share {
            rank: 0,
            world_size: 1,
            global_batch: 4,
            remainder: Remainder::Pad,
        };
        let order = order(&[3, 3], 1, Shuffle::None);
        let expected = [
            vec![(0, false), (1, false), (2, false), (3, false)],
            vec![(4, false), (5, false), (0, true), (1, true)],
        ];
        assert_eq!(batches(&order, share, 0), expected);
    }

    proptest! {
        #[test]
        fn ranks_partition_every_global_batch(
            pieces in prop::collection::vec(0u64..60, 1..8), lanes in 1u64..9, world_size in 1u64..9,
            batch_size in 1u64..9, skip in 0u64..30,
            remainder in prop::sample::select(vec![Remainder::Keep, Remainder::Drop, Remainder::Pad]),
        ) {
            let order = order(&pieces, lanes, Shuffle::Windows);
            let next = skip.min(order.len());
            let global_batch = batch_size * world_size;
            let share = |rank, world_size| Share { rank, world_size, global_batch, remainder };
            let ranks: Vec<_> = (0..world_size).map(|rank| batches(&order, share(rank, world_size), next)).collect();
            let alone = batches(&order, share(0, 1), next);
            for (rank, own) in (0..).zip(&ranks) {
                if next == 0 {
                    let rows: usize = own.iter().map(Vec::len).sum();
                    prop_assert_eq!(share(rank, world_size).rows(order.len()), rows as u64);
                }
                prop_assert_eq!(own.len() as u64, share(0, world_size).steps(order.len(), next));
            }
            let mut seen = Vec::new();
            for (step, expected) in alone.iter().enumerate() {
                let mut together: Vec<_> = ranks.iter().flat_map(|own| own[step].clone()).collect();
                let mut expected = expected.clone();
                together.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(&together, &expected);
                let sizes: Vec<_> = ranks.iter().map(|own| own[step].len() as u64).collect();
                let full = sizes.iter().all(|size| *size == batch_size);
                prop_assert!(full || (remainder == Remainder::Keep && step + 1 == alone.len()), "{:?}", sizes);
                seen.extend(expected.into_iter().filter(|(_, padded)| !padded).map(|(sample, _)| sample));
            }
            seen.sort_unstable();
            let rows = order.len() - next;
            let end = if remainder == Remainder::Drop { next + rows / global_batch * global_batch } else { order.len() };
            prop_assert_eq!(seen, (next..end).collect::<Vec<_>>());
        }
    }
}
