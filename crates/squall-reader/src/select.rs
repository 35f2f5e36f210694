//! The rows that are read: pieces, and which rows of each.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use squall_dataset::Dataset;
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::Xxh3;

/// Bits of a bitmap that share one entry of its rank index.
const BLOCK: usize = 512;

/// Rows of a row group.
#[derive(Debug, Clone)]
pub enum RowSet {
    /// All of them.
    All(u64),
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

/// A bitmap with an index for finding the `n`-th set bit.
#[derive(Debug, Clone)]
pub struct Bitmap {
    bits: BooleanBuffer,
    /// Set bits before each block, and all of them at the end.
    ranks: Arc<[u64]>,
}

impl Bitmap {
    /// The rows whose bit is set.
    pub fn new(bits: BooleanBuffer) -> Self {
        let mut ranks = vec![0];
        let mut before = 0;
        for start in (0..bits.len()).step_by(BLOCK) {
            before += bits.slice(start, BLOCK.min(bits.len() - start)).count_set_bits() as u64;
            ranks.push(before);
        }
        Self {
            bits,
            ranks: ranks.into(),
        }
    }

    /// A bit for each row of the row group.
    #[cfg(feature = "filter")]
    pub(crate) fn bits(&self) -> &BooleanBuffer {
        &self.bits
    }

    fn len(&self) -> u64 {
        self.ranks[self.ranks.len() - 1]
    }

    fn index_of(&self, row: u64) -> Option<u64> {
        let row = usize::try_from(row).ok().filter(|row| *row < self.bits.len())?;
        if !self.bits.value(row) {
            return None;
        }
        let start = row / BLOCK * BLOCK;
        let inside = self.bits.slice(start, row - start).count_set_bits() as u64;
        Some(self.ranks[row / BLOCK] + inside)
    }

    fn nth(&self, n: u64) -> u64 {
        let block = self.ranks.partition_point(|rank| *rank <= n) - 1;
        let start = block * BLOCK;
        let length = BLOCK.min(self.bits.len() - start);
        let inside = (n - self.ranks[block]) as usize;
        let bits = self.bits.slice(start, length);
        let found = bits.set_indices().nth(inside);
        (start + found.unwrap_or(length)) as u64
    }
}

impl RowSet {
    /// How many rows are selected.
    pub fn len(&self) -> u64 {
        match self {
            Self::All(rows) => *rows,
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
            Self::Bitmap(bitmap) => bitmap.nth(n),
            Self::Drawn(drawn) => drawn.base.nth(drawn.first(n)),
        }
    }

    /// Which of the selected rows a row of the row group is: one, or none; several where it was drawn several times. Of
    /// samples of several rows it is the first.
    pub fn indices_of(&self, row: u64) -> Range<u64> {
        let one = |index: Option<u64>| index.map_or(0..0, |index| index..index + 1);
        match self {
            Self::All(rows) => one((row < *rows).then_some(row)),
            Self::Bitmap(bitmap) => one(bitmap.index_of(row)),
            Self::Drawn(drawn) => {
                let place = drawn.base.indices_of(row);
                let before = |place| drawn.first.partition_point(|first| u64::from(*first) < place) as u64;
                before(place.start)..before(place.end)
            }
        }
    }

    /// Of the selected rows those whose bit is set; there is a bit for each of them.
    pub(crate) fn narrow(&self, keep: &BooleanBuffer) -> Self {
        if keep.count_set_bits() == keep.len() {
            return self.clone();
        }
        match self {
            Self::Drawn(drawn) => {
                let kept = drawn.first.iter().zip(keep).filter(|(_, keep)| *keep);
                let first = kept.map(|(first, _)| *first).collect();
                Self::Drawn(Drawn::new(drawn.base.clone(), first, drawn.span))
            }
            Self::All(_) => Self::Bitmap(Bitmap::new(keep.clone())),
            Self::Bitmap(bitmap) => {
                let mut bits = BooleanBufferBuilder::new(bitmap.bits.len());
                bits.append_n(bitmap.bits.len(), false);
                for (row, kept) in bitmap.bits.set_indices().zip(keep) {
                    bits.set_bit(row, kept);
                }
                Self::Bitmap(Bitmap::new(bits.finish()))
            }
        }
    }

    /// The rows in the row group that are the selected ones `n.start..n.end`, each once, as runs.
    pub fn runs(&self, n: &Range<u64>) -> Vec<Range<u64>> {
        match self {
            Self::All(_) => vec![n.clone()],
            Self::Bitmap(_) if n.is_empty() => Vec::new(),
            Self::Bitmap(bitmap) => {
                let (first, last) = (bitmap.nth(n.start), bitmap.nth(n.end - 1));
                let bits = bitmap.bits.slice(first as usize, (last - first + 1) as usize);
                let runs = bits
                    .set_slices()
                    .map(|(start, end)| first + start as u64..first + end as u64);
                runs.collect()
            }
            Self::Drawn(drawn) => {
                let places = drawn.places(n);
                places.iter().flat_map(|places| drawn.base.runs(places)).collect()
            }
        }
    }

    fn digest(&self, digest: &mut Xxh3) {
        digest.write_u64(self.len());
        match self {
            Self::All(_) => {}
            Self::Bitmap(bitmap) => {
                for (start, end) in bitmap.bits.set_slices() {
                    digest.write_u64(start as u64);
                    digest.write_u64(end as u64);
                }
            }
            Self::Drawn(drawn) => {
                drawn.base.digest(digest);
                digest.write_u64(drawn.span);
                drawn.first.iter().for_each(|first| digest.write_u32(*first));
            }
        }
    }
}

/// A row group that is read, whole or in part.
#[derive(Debug, Clone)]
pub struct SelectedPiece {
    /// Its ordinal in the dataset.
    pub piece: u32,
    /// Which of its rows.
    pub rows: RowSet,
}

/// The rows that are read, in the order of the dataset. Never empty.
#[derive(Debug, Clone)]
pub struct Selection {
    pieces: Vec<SelectedPiece>,
    digest: u64,
}

impl Selection {
    /// All rows.
    pub fn all(dataset: &Dataset) -> Result<Self> {
        Self::new(dataset, all_pieces(dataset), "the dataset has no row")
    }

    /// These rows; an error with the message `empty` if there is none.
    pub fn new(dataset: &Dataset, mut pieces: Vec<SelectedPiece>, empty: &str) -> Result<Self> {
        pieces.retain(|piece| !piece.rows.is_empty());
        if pieces.is_empty() {
            return Err(Error::invalid(empty).at("URL", dataset.url()));
        }
        Ok(Self {
            digest: digest_of(&pieces),
            pieces,
        })
    }

    /// Of these rows those of the row groups whose ordinal is `rank` modulo `world_size`: Petastorm's shards.
    pub fn shard(self, dataset: &Dataset, rank: u64, world_size: u64) -> Result<Self> {
        let n_pieces = dataset.pieces().len();
        if (n_pieces as u64) < world_size {
            return Err(Error::invalid(format!(
                "expected at least as many row groups as ranks when row groups are partitioned, found {n_pieces} for {world_size}"
            ))
            .at("URL", dataset.url()));
        }
        let mut pieces = self.pieces;
        pieces.retain(|piece| u64::from(piece.piece) % world_size == rank);
        Self::new(dataset, pieces, "no selected row is in the row groups of this rank")
    }

    /// The pieces, in the order of the dataset.
    pub fn pieces(&self) -> &[SelectedPiece] {
        &self.pieces
    }

    /// Rows in all pieces.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows.len()).sum()
    }

    /// Selected rows of each piece.
    pub fn rows_per_piece(&self) -> Vec<u64> {
        self.pieces.iter().map(|piece| piece.rows.len()).collect()
    }

    /// A digest that changes when other rows are selected.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

/// A digest of the rows of these pieces.
pub(crate) fn digest_of(pieces: &[SelectedPiece]) -> u64 {
    let mut digest = Xxh3::new();
    for piece in pieces {
        digest.write_u32(piece.piece);
        piece.rows.digest(&mut digest);
    }
    digest.digest()
}

/// Every row of every piece.
pub(crate) fn all_pieces(dataset: &Dataset) -> Vec<SelectedPiece> {
    let pieces = (0u32..).zip(dataset.pieces());
    let pieces = pieces.map(|(piece, info)| SelectedPiece {
        piece,
        rows: RowSet::All(info.rows),
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bitmaps_find_their_rows(bits in prop::collection::vec(prop::bool::weighted(0.3), 1..1500), a: prop::sample::Index, b: prop::sample::Index) {
            let expected: Vec<_> = (0u64..).zip(&bits).filter(|(_, bit)| **bit).map(|(row, _)| row).collect();
            let rows = RowSet::Bitmap(Bitmap::new(BooleanBuffer::from(bits)));
            prop_assert_eq!(rows.len(), expected.len() as u64);
            let found: Vec<_> = (0..rows.len()).map(|n| rows.nth(n)).collect();
            prop_assert_eq!(&found, &expected);
            for row in 0..1500 {
                let index = expected.iter().position(|own| *own == row).map(|index| index as u64);
                prop_assert_eq!(rows.indices_of(row).next(), index);
            }
            let (a, b) = (a.index(expected.len() + 1), b.index(expected.len() + 1));
            let range = a.min(b)..a.max(b);
            let runs: Vec<_> = rows.runs(&(range.start as u64..range.end as u64)).into_iter().flatten().collect();
            prop_assert_eq!(&runs, &expected[range.clone()]);
            let keep: BooleanBuffer = (0..expected.len()).map(|n| range.contains(&n)).collect();
            let narrowed = rows.narrow(&keep);
            let found: Vec<_> = (0..narrowed.len()).map(|n| narrowed.nth(n)).collect();
            prop_assert_eq!(&found, &expected[range]);
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
            let runs: Vec<_> = drawn.runs(&(start as u64..end as u64)).into_iter().flatten().collect();
            prop_assert_eq!(runs, rows.into_iter().collect::<Vec<_>>());
        }
    }
}
