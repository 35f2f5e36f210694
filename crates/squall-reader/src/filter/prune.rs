//! The steps that rule out row groups, and pages of them, without a look at their rows.
//!
//! In: the row groups of one file whose rows are open, with the parts of the clause that directory names leave open. Out: what is left of
//! them after statistics, bloom filters and page index, each asked only about what the one before has left.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_buffer::BooleanBuffer;
use futures::FutureExt;
use squall_schema::{Error, Result, panic_text};

use super::conjunct::Conjuncts;
use super::parse::Clause;
use super::statistics::{FileColumns, Statistics};
use super::{Work, bloom, pages};
use crate::columns::Columns;
use crate::report::SelectionReport;
use crate::row_set::RowSet;
use crate::scan::Scan;
use crate::select::SelectedPiece;

/// What is known of the row groups of a file.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    /// Those of which every row that was in question is read.
    pub(super) matched: Vec<SelectedPiece>,
    /// Those whose rows have to be looked at.
    pub(super) open: Vec<Work>,
    pub(super) report: SelectionReport,
}

/// Asks statistics, bloom filters and page index about row groups of one file, which have the same parts open.
/// A panic on a damaged footer becomes an error.
pub(super) async fn prune_file(scan: Scan, clause: Arc<Clause>, work: Vec<Work>) -> Result<Pruned> {
    let pruned = AssertUnwindSafe(steps(scan, clause, work)).catch_unwind().await;
    pruned.unwrap_or_else(|panic| Err(Error::internal(format!("pruning panicked: {}", panic_text(&*panic)))))
}

async fn steps(scan: Scan, clause: Arc<Clause>, mut work: Vec<Work>) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let Some(first) = work.first() else {
        return Ok(pruned);
    };
    let (dataset, conjuncts) = (&scan.dataset, first.conjuncts.clone());
    let piece = dataset.pieces()[first.selected.piece as usize];
    let file = dataset.file_of(&piece);
    let at = |error: Error| error.at("file", &file.path).at("URL", dataset.url());
    let footer = scan.footers.get(dataset, &piece).await.map_err(at)?;
    for work in &work {
        // Each row group must have the rows that the plan counted.
        let piece = dataset.pieces()[work.selected.piece as usize];
        let checked = scan.footers.get(dataset, &piece).await;
        checked.map_err(|error| at(error.at("row group", piece.row_group)))?;
    }
    let own = Columns::new(dataset, clause.schema.clone())?;
    let columns = FileColumns::new(&footer, &clause.schema, &own);
    let row_group = |work: &Work| dataset.pieces()[work.selected.piece as usize].row_group as usize;

    let row_groups: Vec<_> = work.iter().map(row_group).collect();
    by_statistics(&columns.row_groups(&row_groups), &conjuncts, &mut work);
    work.retain(|work| !work.selected.rows.is_empty() || count(&mut pruned.report.pruned_by_statistics));
    let (matched, mut work): (Vec<_>, Vec<_>) = work.into_iter().partition(|work| work.open.is_empty());
    pruned.report.matched += matched.len() as u64;
    pruned.matched = matched.into_iter().map(|work| work.selected).collect();

    let left: Vec<_> = work
        .iter()
        .map(|work| (row_group(work), work.open.as_slice()))
        .collect();
    let (without, bytes) = bloom::prune(dataset, file, &columns, &left, &conjuncts).await?;
    pruned.report.bytes += bytes;
    work.retain(|work| !without.contains(&row_group(work)) || count(&mut pruned.report.pruned_by_bloom_filters));

    let left: Vec<_> = work
        .iter()
        .map(|work| (row_group(work), work.open.as_slice()))
        .collect();
    let (kept, bytes) = pages::prune(dataset, file, &columns, &left, &conjuncts).await?;
    pruned.report.bytes += bytes;
    for work in &mut work {
        if let Some(rows) = kept.get(&row_group(work)) {
            let before = work.selected.rows.len();
            work.selected.rows = intersection(&work.selected.rows, rows);
            let after = work.selected.rows.len();
            if after > 0 {
                pruned.report.rows_pruned_by_page_index += before - after;
            }
        }
    }
    work.retain(|work| !work.selected.rows.is_empty() || count(&mut pruned.report.pruned_by_page_index));
    pruned.report.scanned += work.len() as u64;
    tracing::debug!(
        file = %file.path, row_groups = row_groups.len(), open = work.len(), matched = pruned.matched.len(),
        bytes = pruned.report.bytes, "a where-clause was asked of a file's footer and indexes"
    );
    pruned.open = work;
    Ok(pruned)
}

/// Counts one that is not retained.
fn count(counter: &mut u64) -> bool {
    *counter += 1;
    false
}

/// Takes the rows of row groups where some part is true for no row, and the parts that are true for every row.
fn by_statistics(statistics: &Statistics, conjuncts: &Conjuncts, work: &mut [Work]) {
    for (number, part) in conjuncts.parts.iter().enumerate() {
        // What cannot be asked is left to the scan.
        if let Some(Ok(may_hold)) = part
            .prune
            .as_ref()
            .map(|prune| prune.prune(&statistics.view(Some(&conjuncts.bounded))))
        {
            for (work, may_hold) in work.iter_mut().zip(may_hold) {
                if !may_hold {
                    work.selected.rows = RowSet::All(0);
                }
            }
        }
        let Some(opposite) = &part.opposite else { continue };
        if let Ok(may_fail) = opposite.prune.prune(&statistics.view(None)) {
            for (place, (work, may_fail)) in work.iter_mut().zip(may_fail).enumerate() {
                if !may_fail
                    && statistics.has_no_nulls(place, &opposite.values)
                    && let Ok(place) = work.open.binary_search(&number)
                {
                    work.open.remove(place);
                }
            }
        }
    }
}

/// Of the selected rows those whose bit is set; there is a bit for each row of the row group.
fn intersection(rows: &RowSet, keep: &BooleanBuffer) -> RowSet {
    let bits: BooleanBuffer = match rows {
        RowSet::All(_) => keep.clone(),
        _ => {
            let runs = rows.runs(&(0..rows.len()));
            runs.into_iter().flatten().map(|row| keep.value(row as usize)).collect()
        }
    };
    rows.narrow(&bits)
}
