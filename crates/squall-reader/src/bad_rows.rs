//! What becomes of a row that cannot be decoded or transformed.

use std::collections::HashSet;
use std::fmt;

use squall_schema::{Error, ErrorKind, Result, RowId};

/// What happens when a row cannot be decoded or transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBadRow {
    /// The reader fails with an error that names the row.
    #[default]
    Fail,
    /// A substitute takes its place, so that no rank makes a step less: the next row of its window that is good, in stored
    /// order and around the window's end. So it depends on the order alone, not on ranks or threads. Where all rows of a window
    /// are bad, the reader fails. Of an n-gram the row is the first of its window.
    Skip {
        /// How many bad rows a rank puts up with, each counted once however often it comes; the next one fails.
        at_most: u64,
    },
}

/// A row that could not be delivered, and the one that was in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The row.
    pub row: RowId,
    /// The row that took its place. It has the bad row's epoch and sample.
    pub substitute: RowId,
    /// What was wrong, with file, row group and row.
    pub error: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// The bad rows of the batches that were handed out, and how many there may be.
#[derive(Debug)]
pub struct BadRows {
    policy: OnBadRow,
    rows: Vec<BadRow>,
    /// Dataset, piece and row of each.
    known: HashSet<(u32, u32, u64)>,
}

impl BadRows {
    pub(crate) fn new(policy: OnBadRow) -> Self {
        Self {
            policy,
            rows: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// Each of them once.
    pub fn rows(&self) -> &[BadRow] {
        &self.rows
    }

    /// Takes those of a batch; an error where they are too many. A row that comes again, in another epoch say, is known.
    pub fn add(&mut self, rows: Vec<BadRow>) -> Result<()> {
        for bad in rows {
            if self.known.contains(&(bad.row.dataset, bad.row.piece, bad.row.row)) {
                continue;
            }
            if let OnBadRow::Skip { at_most } = self.policy
                && self.rows.len() as u64 >= at_most
            {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("more than {at_most} rows are bad: {}", bad.error),
                ));
            }
            tracing::warn!(
                epoch = bad.row.epoch,
                sample = bad.row.sample,
                piece = bad.row.piece,
                row = bad.row.row,
                substitute_row = bad.substitute.row,
                "skipped a bad row: {}",
                bad.error
            );
            self.known.insert((bad.row.dataset, bad.row.piece, bad.row.row));
            self.rows.push(bad);
        }
        Ok(())
    }
}
