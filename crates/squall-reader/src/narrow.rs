//! The options that say which rows are read, applied one after the other.
//!
//! Each step narrows the rows of the step before it, and reads only what is left: nothing that another step has ruled out.

use std::any::Any;
use std::sync::Arc;

use squall_schema::{Result, Schema};

#[cfg(feature = "filter")]
use crate::filter::FilterOptions;
use crate::report::SelectionReport;
use crate::scan::Scan;
use crate::select::{Selection, all_pieces};

/// Which rows are read; all of them by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowOptions {
    #[cfg(feature = "filter")]
    pub(crate) filter: FilterOptions,
}

/// The rows that are read, and how they were found.
#[derive(Debug)]
pub(crate) struct Narrowed {
    pub(crate) selection: Selection,
    pub(crate) report: SelectionReport,
    /// What other readers share while this one lives.
    pub(crate) shared: Option<Arc<dyn Any + Send + Sync>>,
}

impl RowOptions {
    /// Whether any was given.
    pub(crate) fn is_given(&self) -> bool {
        #[cfg(feature = "filter")]
        if self.filter.is_given() {
            return true;
        }
        false
    }

    /// The rows that are left. Clauses may name the columns of `schema`.
    #[cfg_attr(
        not(feature = "filter"),
        allow(unused_mut, unused_variables, reason = "no option narrows the rows")
    )]
    pub(crate) fn select(&self, scan: &Scan, schema: &Schema) -> Result<Narrowed> {
        let mut pieces = all_pieces(&scan.dataset);
        let mut empty = "the dataset has no row".to_owned();
        pieces.retain(|piece| !piece.rows.is_empty());
        let mut report = SelectionReport {
            row_groups: pieces.len() as u64,
            matched: pieces.len() as u64,
            ..SelectionReport::default()
        };
        let mut shared: Option<Arc<dyn Any + Send + Sync>> = None;
        #[cfg(feature = "filter")]
        if self.filter.is_given() {
            let (filtered, source) = crate::filter::select(scan, pieces, schema, &self.filter)?;
            pieces = filtered.pieces.clone();
            empty = format!("no row fulfils the where-clause {:?}", filtered.text);
            report = SelectionReport {
                source,
                ..filtered.report
            };
            shared = Some(filtered);
        }
        let selection = Selection::new(&scan.dataset, pieces, &empty)?;
        report.rows = selection.rows();
        Ok(Narrowed {
            selection,
            report,
            shared,
        })
    }
}
