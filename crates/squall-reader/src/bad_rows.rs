//! What becomes of a row that cannot be decoded or transformed.

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
    /// order and around the window's end. So it depends on the order alone, not on ranks or threads.
    Skip {
        /// How many bad rows a rank puts up with; the next one fails.
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

/// The bad rows of the batches that were delivered.
#[derive(Debug, Default)]
pub(crate) struct BadRows(Vec<BadRow>);

impl BadRows {
    pub(crate) fn rows(&self) -> &[BadRow] {
        &self.0
    }

    /// Takes those of a batch; an error where they are too many.
    pub(crate) fn add(&mut self, rows: Vec<BadRow>, policy: OnBadRow) -> Result<()> {
        for bad in rows {
            tracing::warn!(
                epoch = bad.row.epoch,
                sample = bad.row.sample,
                piece = bad.row.piece,
                row = bad.row.row,
                substitute_row = bad.substitute.row,
                "skipped a bad row: {}",
                bad.error
            );
            if let OnBadRow::Skip { at_most } = policy
                && self.0.len() as u64 >= at_most
            {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("more than {at_most} rows are bad: {}", bad.error),
                ));
            }
            self.0.push(bad);
        }
        Ok(())
    }
}
