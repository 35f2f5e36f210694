//! The options that say which rows are read, applied one after the other.
//!
//! Each step narrows the rows of the step before it, and reads only what is left: nothing that another step has ruled out.

use squall_schema::{Result, Schema};

use crate::scan::Scan;
use crate::select::{Selection, all_pieces};

/// Which rows are read; all of them by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowOptions {
    #[cfg(feature = "filter")]
    pub(crate) filter: Option<String>,
}

impl RowOptions {
    /// Whether any was given.
    pub(crate) fn is_given(&self) -> bool {
        #[cfg(feature = "filter")]
        if self.filter.is_some() {
            return true;
        }
        false
    }

    /// The rows that are left. Clauses may name the columns of `schema`.
    pub(crate) fn select(&self, scan: &Scan, schema: &Schema) -> Result<Selection> {
        let mut pieces = all_pieces(&scan.dataset);
        let mut empty = "the dataset has no row".to_owned();
        pieces.retain(|piece| !piece.rows.is_empty());
        #[cfg(feature = "filter")]
        if let Some(sql) = &self.filter {
            pieces = crate::filter::select(scan, pieces, schema, sql)?;
            empty = format!("no row fulfils the where-clause {sql:?}");
        }
        Selection::new(&scan.dataset, pieces, &empty)
    }
}
