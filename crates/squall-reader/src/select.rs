//! The rows that are read: pieces, and which rows of each.

use std::hash::Hasher;

use squall_dataset::Dataset;
use squall_schema::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::row_set::RowSet;

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

    /// These rows; an [`ErrorKind::NoData`] with the message `empty` if there is none.
    pub fn new(dataset: &Dataset, mut pieces: Vec<SelectedPiece>, empty: &str) -> Result<Self> {
        pieces.retain(|piece| !piece.rows.is_empty());
        if pieces.is_empty() {
            return Err(Error::new(ErrorKind::NoData, empty).at("URL", dataset.url()));
        }
        Ok(Self {
            digest: digest_of(&pieces),
            pieces,
        })
    }

    /// Of these rows those of the row groups whose ordinal is `rank` modulo `world_size`: the shards that Petastorm 0.13.1
    /// gives. Ordinals count all row groups of the dataset, whether any of their rows is selected or not.
    ///
    /// [`ErrorKind::NoData`] where the dataset has fewer row groups than there are ranks, and where this rank's have no
    /// selected row.
    pub fn shard(self, dataset: &Dataset, rank: u64, world_size: u64) -> Result<Self> {
        let n_pieces = dataset.pieces().len();
        if (n_pieces as u64) < world_size {
            return Err(Error::new(
                ErrorKind::NoData,
                format!(
                    "expected at least as many row groups as ranks when row groups are partitioned, found {n_pieces} for {world_size}"
                ),
            )
            .at("URL", dataset.url()));
        }
        let mut pieces = self.pieces;
        pieces.retain(|piece| u64::from(piece.piece) % world_size == rank);
        let empty = format!("no selected row is in the row groups of rank {rank} of {world_size}");
        Self::new(dataset, pieces, &empty)
    }

    /// Whether [`shard`](Self::shard) has rows for a rank.
    pub(crate) fn has_shard(&self, rank: u64, world_size: u64) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|piece| u64::from(piece.piece) % world_size == rank)
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
