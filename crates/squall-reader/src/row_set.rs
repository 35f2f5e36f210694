//! Rows of one row group: all of them, some runs of them, or those of a bitmap.
//!
//! A set is never larger than it needs to be: ranges of a row group of a billion rows are a few numbers, and of what a
//! filter leaves the smaller of runs and bitmap is kept.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use arrow_buffer::bit_iterator::BitSliceIterator;
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use xxhash_rust::xxh3::Xxh3;

/// Bits of a bitmap that share one entry of its rank index.
const BLOCK: usize = 512;

/// Bits that a run takes in memory: its two ends, and the rows before it.
const RUN_BITS: u64 = 3 * u64::BITS as u64;

/// Rows of a row group.
#[derive(Debug, Clone)]
pub enum RowSet {
    /// All of them.
    All(u64),
    /// Those in some runs.
    Runs(Runs),
    /// Those whose bit is set.
    Bitmap(Bitmap),
    /// Samples made of rows of a set: some of them several times, or several of them as one.
    Drawn(Drawn),
}

/// Samples, each made of `span` rows of a set that follow one another.
#[derive(Debug, Clone)]
pub struct Drawn {
    base: Arc<RowSet>,
    /// Of each sample the place of its first row in the set. Ascending; a place may stand several times.
    first: Arc<[u32]>,
    span: u64,
}

impl Drawn {
    /// Samples of `span` rows that begin at these places in `base`, in ascending order.
    pub(crate) fn new(base: Arc<RowSet>, first: Vec<u32>, span: u64) -> Self {
        debug_assert!(first.is_sorted() && first.last().is_none_or(|last| u64::from(*last) + span <= base.len()));
        Self {
            base,
            first: first.into(),
            span,
        }
    }

    /// Rows of a sample.
    pub(crate) fn span(&self) -> u64 {
        self.span
    }

    /// The place in the set of the first row of sample `n`.
    pub(crate) fn first(&self, n: u64) -> u64 {
        u64::from(self.first[n as usize])
    }

    /// The places in the set of the rows of the samples `n.start..n.end`, as runs.
    pub(crate) fn places(&self, n: &Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for first in &self.first[n.start as usize..n.end as usize] {
            let own = u64::from(*first)..u64::from(*first) + self.span;
            match runs.last_mut().filter(|last| own.start <= last.end) {
                Some(last) => last.end = own.end,
                None => runs.push(own),
            }
        }
        runs
    }
}

/// Runs of rows, in order, none empty and none beside another.
#[derive(Debug, Clone)]
pub struct Runs {
    runs: Arc<[Range<u64>]>,
    /// Rows before each run, and all of them at the end.
    before: Arc<[u64]>,
}

impl Runs {
    /// The rows that are in one of the ranges, which may overlap and stand in any order.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        let mut before = vec![0];
        let mut rows = 0;
        before.extend(ranges.iter().map(|range| {
            rows += range.end - range.start;
            rows
        }));
        Self {
            runs: ranges.into(),
            before: before.into(),
        }
    }

    fn len(&self) -> u64 {
        self.before[self.before.len() - 1]
    }

    fn nth(&self, n: u64) -> u64 {
        let run = self.before.partition_point(|before| *before <= n) - 1;
        self.runs[run].start + (n - self.before[run])
    }

    fn index_of(&self, row: u64) -> Option<u64> {
        let run = self.runs.partition_point(|run| run.start <= row).checked_sub(1)?;
        let inside = self.runs[run].contains(&row).then_some(row - self.runs[run].start)?;
        Some(self.before[run] + inside)
    }

    /// The parts of the runs that hold the selected rows `n`.
    fn part(&self, n: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.before.partition_point(|before| *before <= n.start) - 1;
        let parts = self.runs[first..].iter().zip(&self.before[first..]);
        let parts = parts.take_while(move |(_, before)| **before < n.end);
        parts.map(move |(run, before)| {
            let from = n.start.saturating_sub(*before);
            run.start + from..run.end.min(run.start + (n.end - before))
        })
    }
}

/// A bitmap with an index for finding the `n`-th set bit.
#[derive(Debug, Clone)]
pub struct Bitmap {
    /// The row of the first bit.
    start: u64,
    bits: BooleanBuffer,
    /// Set bits before each block, and all of them at the end.
    ranks: Arc<[u64]>,
}

impl Bitmap {
    /// The rows whose bit is set; the first bit is that of row 0.
    pub fn new(bits: BooleanBuffer) -> Self {
        Self::starting_at(0, bits)
    }

    fn starting_at(start: u64, bits: BooleanBuffer) -> Self {
        let mut ranks = vec![0];
        let mut before = 0;
        for start in (0..bits.len()).step_by(BLOCK) {
            before += bits.slice(start, BLOCK.min(bits.len() - start)).count_set_bits() as u64;
            ranks.push(before);
        }
        Self {
            start,
            bits,
            ranks: ranks.into(),
        }
    }

    fn len(&self) -> u64 {
        self.ranks[self.ranks.len() - 1]
    }

    fn index_of(&self, row: u64) -> Option<u64> {
        let place = usize::try_from(row.checked_sub(self.start)?).ok();
        let place = place.filter(|place| *place < self.bits.len() && self.bits.value(*place))?;
        let start = place / BLOCK * BLOCK;
        let inside = self.bits.slice(start, place - start).count_set_bits() as u64;
        Some(self.ranks[place / BLOCK] + inside)
    }

    /// The place of the `n`-th set bit.
    fn place(&self, n: u64) -> usize {
        let block = self.ranks.partition_point(|rank| *rank <= n) - 1;
        let start = block * BLOCK;
        let length = BLOCK.min(self.bits.len() - start);
        let inside = (n - self.ranks[block]) as usize;
        let bits = self.bits.slice(start, length);
        let found = bits.set_indices().nth(inside);
        start + found.unwrap_or(length)
    }

    /// The places from the `n.start`-th set bit to that before the `n.end`-th. `n` is not empty.
    fn places(&self, n: &Range<u64>) -> Range<usize> {
        self.place(n.start)..self.place(n.end - 1) + 1
    }

    /// The runs of set bits that are the selected rows `n`, which is not empty.
    fn part(&self, n: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let places = self.places(n);
        let from = self.start + places.start as u64;
        let slices = BitSliceIterator::new(self.bits.values(), self.bits.offset() + places.start, places.len());
        slices.map(move |(start, end)| from + start as u64..from + end as u64)
    }
}

impl RowSet {
    /// How many rows are selected.
    pub fn len(&self) -> u64 {
        match self {
            Self::All(rows) => *rows,
            Self::Runs(runs) => runs.len(),
            Self::Bitmap(bitmap) => bitmap.len(),
            Self::Drawn(drawn) => drawn.first.len() as u64,
        }
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row in the row group that is the `n`-th selected one.
    pub fn nth(&self, n: u64) -> u64 {
        match self {
            Self::All(_) => n,
            Self::Runs(runs) => runs.nth(n),
            Self::Bitmap(bitmap) => bitmap.start + bitmap.place(n) as u64,
            Self::Drawn(drawn) => drawn.base.nth(drawn.first(n)),
        }
    }

    /// Which of the selected rows a row of the row group is: one, or none; several where it was drawn several times, or
    /// stands in several windows.
    pub fn indices_of(&self, row: u64) -> Range<u64> {
        let one = |index: Option<u64>| index.map_or(0..0, |index| index..index + 1);
        match self {
            Self::All(rows) => one((row < *rows).then_some(row)),
            Self::Runs(runs) => one(runs.index_of(row)),
            Self::Bitmap(bitmap) => one(bitmap.index_of(row)),
            Self::Drawn(drawn) => {
                let place = drawn.base.indices_of(row);
                // Samples that begin up to `span - 1` rows before the row hold it too.
                let begins = |place| drawn.first.partition_point(|first| u64::from(*first) < place) as u64;
                match place.is_empty() {
                    true => 0..0,
                    false => begins((place.start + 1).saturating_sub(drawn.span))..begins(place.end),
                }
            }
        }
    }

    /// The rows in the row group that are the selected ones `n.start..n.end`, as runs.
    pub fn runs(&self, n: &Range<u64>) -> Vec<Range<u64>> {
        self.iter_runs(n.clone()).collect()
    }

    /// [`RowSet::runs`], without a place for all of them.
    pub(crate) fn iter_runs(&self, n: Range<u64>) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        match self {
            Self::All(_) => Box::new(std::iter::once(n)),
            _ if n.is_empty() => Box::new(std::iter::empty()),
            Self::Runs(runs) => Box::new(runs.part(n)),
            Self::Bitmap(bitmap) => Box::new(bitmap.part(&n)),
            Self::Drawn(drawn) => {
                let places = drawn.places(&n);
                Box::new(places.into_iter().flat_map(|places| drawn.base.iter_runs(places)))
            }
        }
    }

    pub(crate) fn digest(&self, digest: &mut Xxh3) {
        digest.write_u64(self.len());
        match self {
            Self::All(_) => {}
            // The same rows have the same digest, in whatever form.
            Self::Runs(_) | Self::Bitmap(_) => {
                for run in self.iter_runs(0..self.len()) {
                    digest.write_u64(run.start);
                    digest.write_u64(run.end);
                }
            }
            Self::Drawn(drawn) => {
                drawn.base.digest(digest);
                digest.write_u64(drawn.span);
                drawn.first.iter().for_each(|first| digest.write_u32(*first));
            }
        }
    }

    /// Of the selected rows those whose bit is set; there is a bit for each of them.
    pub(crate) fn narrow(&self, keep: &BooleanBuffer) -> Self {
        if keep.count_set_bits() == keep.len() {
            return self.clone();
        }
        if let Self::Drawn(drawn) = self {
            let kept = drawn.first.iter().zip(keep).filter(|(_, keep)| *keep);
            let first = kept.map(|(first, _)| *first).collect();
            return Self::Drawn(Drawn::new(drawn.base.clone(), first, drawn.span));
        }
        let (Some(first), Some(last)) = (keep.set_indices().next(), keep.set_indices().last()) else {
            return Self::Runs(Runs::new([]));
        };
        let rows = self.nth(first as u64)..self.nth(last as u64) + 1;
        let kept = || {
            let kept = keep.set_slices().map(|(start, end)| start as u64..end as u64);
            kept.flat_map(|n| self.iter_runs(n))
        };
        let most = (rows.end - rows.start) / RUN_BITS;
        let runs: Vec<_> = kept().take(most as usize + 1).collect();
        if runs.len() as u64 <= most {
            return Self::Runs(Runs::new(runs));
        }
        let mut bits = BooleanBufferBuilder::new((rows.end - rows.start) as usize);
        for run in kept() {
            bits.append_n((run.start - rows.start) as usize - bits.len(), false);
            bits.append_n((run.end - run.start) as usize, true);
        }
        Self::Bitmap(Bitmap::starting_at(rows.start, bits.finish()))
    }

    /// The selected rows `n.start..n.end`.
    pub(crate) fn part(&self, n: &Range<u64>) -> Self {
        if *n == (0..self.len()) {
            return self.clone();
        }
        if n.is_empty() {
            return Self::Runs(Runs::new([]));
        }
        match self {
            Self::All(_) | Self::Runs(_) => Self::Runs(Runs::new(self.iter_runs(n.clone()))),
            Self::Bitmap(bitmap) => {
                let places = bitmap.places(n);
                let bits = bitmap.bits.slice(places.start, places.len());
                Self::Bitmap(Bitmap::starting_at(bitmap.start + places.start as u64, bits))
            }
            Self::Drawn(drawn) => {
                let first = drawn.first[n.start as usize..n.end as usize].to_vec();
                Self::Drawn(Drawn::new(drawn.base.clone(), first, drawn.span))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rows: &RowSet, expected: &[u64]) {
        assert_eq!(rows.len(), expected.len() as u64);
        let found: Vec<_> = (0..rows.len()).map(|n| rows.nth(n)).collect();
        assert_eq!(found, expected);
        for (n, row) in (0..).zip(expected) {
            assert_eq!(rows.indices_of(*row), n..n + 1);
            assert!(
                row.checked_sub(1)
                    .is_none_or(|before| expected.binary_search(&before).is_ok() || rows.indices_of(before).is_empty())
            );
            assert!(expected.binary_search(&(row + 1)).is_ok() || rows.indices_of(row + 1).is_empty());
        }
        let runs = rows.runs(&(0..rows.len()));
        assert!(runs.is_sorted_by(|a, b| a.end < b.start), "{runs:?}");
        assert_eq!(runs.into_iter().flatten().collect::<Vec<_>>(), expected);
    }

    proptest! {
        /// The same rows in each of the forms, narrowed, and narrowed again.
        #[test]
        fn every_form_finds_its_rows(
            bits in prop::collection::vec(prop::bool::weighted(0.3), 1..1500),
            hole in 0u64..2000,
            a: prop::sample::Index,
            b: prop::sample::Index,
            every in 1usize..700,
        ) {
            let place = |i: u64| if i < 700 { i } else { i + hole };
            let expected: Vec<_> = (0u64..).zip(&bits).filter(|(_, bit)| **bit).map(|(i, _)| place(i)).collect();
            let n_bits = place(bits.len() as u64 - 1) + 1;
            let bitmap = (0..n_bits).map(|row| expected.binary_search(&row).is_ok()).collect();
            let runs = Runs::new(expected.iter().map(|row| *row..row + 1));
            let forms = [RowSet::Runs(runs), RowSet::Bitmap(Bitmap::new(bitmap))];
            let (a, b) = (a.index(expected.len() + 1), b.index(expected.len() + 1));
            let range = a.min(b)..a.max(b);
            let n = range.start as u64..range.end as u64;
            for rows in forms {
                check(&rows, &expected);
                let runs: Vec<_> = rows.runs(&n).into_iter().flatten().collect();
                prop_assert_eq!(&runs, &expected[range.clone()]);
                check(&rows.part(&n), &expected[range.clone()]);
                let keep: BooleanBuffer = (0..expected.len()).map(|n| range.contains(&n)).collect();
                let narrowed = rows.narrow(&keep);
                check(&narrowed, &expected[range.clone()]);
                let keep: BooleanBuffer = (0..range.len()).map(|n| n % every == every / 2).collect();
                let kept = expected[range.clone()].iter().zip(&keep).filter(|(_, kept)| *kept);
                let expected: Vec<_> = kept.map(|(row, _)| *row).collect();
                check(&narrowed.narrow(&keep), &expected);
                check(&rows.part(&n).narrow(&keep), &expected);
            }
        }

        #[test]
        fn drawn_rows_are_found(
            bits in prop::collection::vec(prop::bool::weighted(0.5), 8..300), mut first in prop::collection::vec(0u32..300, 1..60),
            span in 1u64..4,
        ) {
            let base = RowSet::Bitmap(Bitmap::new(BooleanBuffer::from(bits)));
            first.retain(|first| u64::from(*first) + span <= base.len());
            first.sort_unstable();
            let drawn = RowSet::Drawn(Drawn::new(Arc::new(base.clone()), first.clone(), span));
            prop_assert_eq!(drawn.len(), first.len() as u64);
            for (n, first) in (0..).zip(&first) {
                let row = base.nth(u64::from(*first));
                prop_assert_eq!(drawn.nth(n), row);
                prop_assert!(drawn.indices_of(row).contains(&n));
            }
            let (start, end) = (first.len() / 3, first.len());
            let rows: std::collections::BTreeSet<_> = first[start..end].iter()
                .flat_map(|first| (0..span).map(|k| base.nth(u64::from(*first) + k))).collect();
            let range = start as u64..end as u64;
            let runs: Vec<_> = drawn.runs(&range).into_iter().flatten().collect();
            prop_assert_eq!(&runs, &rows.into_iter().collect::<Vec<_>>());
            let part = drawn.part(&range);
            prop_assert_eq!(part.runs(&(0..part.len())).into_iter().flatten().collect::<Vec<_>>(), runs);
        }

        #[test]
        fn runs_are_the_union_of_ranges(ranges in prop::collection::vec((0u64..200, 0u64..40), 0..12)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, rows)| start..start + rows).collect();
            let expected: Vec<_> = (0..240).filter(|row| ranges.iter().any(|range| range.contains(row))).collect();
            check(&RowSet::Runs(Runs::new(ranges)), &expected);
        }
    }

    /// Some rows at both ends of the largest row group there can be.
    #[test]
    fn ranges_of_huge_row_groups_take_no_room() {
        let end = 1 << 62;
        let rows = RowSet::Runs(Runs::new([5..9, end - 3..end]));
        let keep: BooleanBuffer = (0..7).map(|n| n % 2 == 0).collect();
        check(&rows.narrow(&keep), &[5, 7, end - 3, end - 1]);
        check(&RowSet::All(end).part(&(7..9)), &[7, 8]);
        let RowSet::Bitmap(bitmap) = RowSet::All(end)
            .part(&(end - 300..end))
            .narrow(&(0..300).map(|n| n % 2 == 0).collect())
        else {
            panic!("runs of single rows");
        };
        assert_eq!((bitmap.start, bitmap.bits.len()), (end - 300, 299));
    }

    /// A bitmap of few rows, all far from each other, becomes runs.
    #[test]
    fn the_smaller_form_is_kept() {
        let keep: BooleanBuffer = (0..10_000).map(|n| n % 1000 == 1).collect();
        assert!(matches!(RowSet::All(10_000).narrow(&keep), RowSet::Runs(_)));
        let keep: BooleanBuffer = (0..10_000).map(|n| n % 10 == 1).collect();
        assert!(matches!(RowSet::All(10_000).narrow(&keep), RowSet::Bitmap(_)));
    }
}
