//! The options that say which rows are read, applied one after the other.
//!
//! Each step narrows the rows of the step before it, and reads only what is left: nothing that another step has ruled
//! out. The steps that need no data come first: selectors, ranges, splits by row, predicates over directory names. Then
//! the where-clause, the predicates and the splits by column, these in one scan; last
//! [`skip`](crate::ReaderBuilder::skip) and [`take`](crate::ReaderBuilder::take), which count what the others left.

use std::any::Any;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_buffer::BooleanBufferBuilder;
use squall_dataset::Dataset;
use squall_schema::{Error, ErrorKind, Result, Schema};

#[cfg(feature = "filter")]
use crate::filter::FilterOptions;
use crate::predicate::Predicate;
use crate::report::{SelectionReport, SelectionSource};
use crate::row_set::{RowSet, Runs};
use crate::scan::Scan;
use crate::select::{SelectedPiece, Selection, all_pieces};
use crate::selector::RowGroupSelector;
use crate::sieve::Sieve;
use crate::split::{Buckets, Split};

/// Most rows of a row group that is split by row: a bit each, and two billionths of a second or so.
const MAX_SPLIT_ROWS: u64 = 1 << 31;

/// Which rows are read; all of them by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowOptions {
    pub(crate) selector: Option<RowGroupSelector>,
    pub(crate) ranges: Vec<(Bound<u64>, Bound<u64>)>,
    pub(crate) splits: Vec<Split>,
    #[cfg(feature = "filter")]
    pub(crate) filter: FilterOptions,
    pub(crate) predicates: Vec<Predicate>,
    pub(crate) skip: u64,
    pub(crate) take: Option<u64>,
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
        self.selector.is_some()
            || !self.ranges.is_empty()
            || !self.splits.is_empty()
            || !self.predicates.is_empty()
            || self.skip > 0
            || self.take.is_some()
    }

    /// The rows that are left. Clauses and predicates may name the columns of `schema`.
    #[cfg_attr(
        not(feature = "filter"),
        allow(unused_mut, reason = "a where-clause says more of how it was found")
    )]
    pub(crate) fn select(&self, scan: &Scan, schema: &Schema) -> Result<Narrowed> {
        let dataset = &*scan.dataset;
        let at_url = |error: Error| error.at("URL", dataset.url());
        let ranges = self.ranges(dataset.rows()).map_err(at_url)?;
        let predicates = self.predicates(dataset, schema).map_err(at_url)?;
        let by_row: Vec<_> = self.splits.iter().filter(|split| split.column().is_none()).collect();
        let buckets = by_row.iter().map(|split| split.buckets()).collect::<Result<Vec<_>>>();
        let buckets = buckets.map_err(at_url)?;
        if self.take == Some(0) {
            return Err(Error::invalid("expected to take at least one row, found 0"));
        }

        let mut left = Left {
            dataset,
            pieces: all_pieces(dataset),
            n_before: dataset.pieces().len(),
        };
        left.check(|| "the dataset has no row".to_owned())?;
        let mut report = SelectionReport {
            row_groups: left.pieces.len() as u64,
            ..SelectionReport::default()
        };
        let footers_before = scan.footers.loaded();
        if let Some(selector) = &self.selector {
            let row_groups = selector.row_groups(&dataset.row_group_indexes()?).map_err(at_url)?;
            left.pieces.retain(|piece| row_groups.contains(&piece.piece));
            report.pruned_by_selector =
                left.check(|| format!("the row-group selector {selector} selects no row group that has rows"))?;
        }
        if let Some(ranges) = ranges {
            left.cut(&ranges);
            report.pruned_by_ranges = left.check(|| format!("no selected row group has rows in {}", shown(&ranges)))?;
        }
        for (split, buckets) in by_row.into_iter().zip(buckets) {
            for piece in &mut left.pieces {
                piece.rows = split_rows(piece, &buckets).map_err(|error| {
                    let info = &dataset.pieces()[piece.piece as usize];
                    at_url(
                        error
                            .at("row group", info.row_group)
                            .at("file", &dataset.file_of(info).path),
                    )
                })?;
            }
            report.pruned_by_split += left.check(|| format!("no row that is left is in {split}"))?;
        }

        let mut of_rows = Vec::new();
        for predicate in predicates {
            let sieve = Sieve::new(scan, vec![predicate.clone()], schema)?;
            if !sieve.in_directories_only() {
                of_rows.push(predicate);
                continue;
            }
            left.pieces = sieve.sift_directories(scan, left.pieces)?;
            report.pruned_by_partition += left.check(|| unfulfilled(&predicate))?;
        }
        report.matched = left.pieces.len() as u64;
        let mut shared: Option<Arc<dyn Any + Send + Sync>> = None;
        #[cfg(feature = "filter")]
        if self.filter.is_given() {
            let (filtered, source) = crate::filter::select(scan, left.pieces, schema, &self.filter)?;
            left.pieces = filtered.pieces.clone();
            let emptied = left.check(|| format!("no row fulfils the where-clause {:?}", filtered.text))?;
            report.add_clause(&filtered.report, source, (left.pieces.len() as u64, emptied));
            shared = Some(filtered);
        }
        if !of_rows.is_empty() {
            let sieve = Sieve::new(scan, of_rows.clone(), schema)?;
            let (pieces, n_rows) = sieve.sift(scan, left.pieces)?;
            left.pieces = pieces;
            report.scan_matched(scan.bytes.load(Ordering::Relaxed));
            let emptied = n_rows.iter().position(|rows| *rows == 0);
            left.check(|| emptied.map_or_else(String::new, |place| unfulfilled(&of_rows[place])))?;
        }
        report.skipped = self.skip_and_take(&mut left)?;
        if report.source == SelectionSource::Evaluated {
            report.footers = scan.footers.loaded() - footers_before;
        }
        let selection = Selection::new(dataset, left.pieces, "no row is selected")?;
        report.rows = selection.rows();
        Ok(Narrowed {
            selection,
            report,
            shared,
        })
    }

    /// The ranges in which rows are read; `None` for all.
    fn ranges(&self, rows: u64) -> Result<Option<Vec<Range<u64>>>> {
        let range = |(from, to): &(Bound<u64>, Bound<u64>)| {
            let start = match from {
                Bound::Included(start) => *start,
                Bound::Excluded(before) => before.saturating_add(1),
                Bound::Unbounded => 0,
            };
            let end = match to {
                Bound::Included(last) => last.saturating_add(1),
                Bound::Excluded(end) => *end,
                Bound::Unbounded => rows,
            };
            if start >= end || end > rows {
                return Err(Error::invalid(format!(
                    "expected a range of at least one row within 0..{rows}, found {start}..{end}"
                )));
            }
            Ok(start..end)
        };
        if self.ranges.is_empty() {
            return Ok(None);
        }
        let ranges = self.ranges.iter().map(range).collect::<Result<Vec<_>>>()?;
        let runs = RowSet::Runs(Runs::new(ranges));
        Ok(Some(runs.runs(&(0..runs.len()))))
    }

    /// What is asked of values: the parts of the predicates that are all to be true, then the splits by column.
    fn predicates(&self, dataset: &Dataset, schema: &Schema) -> Result<Vec<Predicate>> {
        for predicate in &self.predicates {
            check(predicate, dataset, schema)?;
        }
        let mut all: Vec<_> = self.predicates.iter().flat_map(Predicate::conjuncts).collect();
        for predicate in self.splits.iter().filter_map(Predicate::in_split) {
            check(&predicate, dataset, schema)?;
            all.push(predicate);
        }
        Ok(all)
    }

    fn skip_and_take(&self, left: &mut Left<'_>) -> Result<u64> {
        if self.skip == 0 && self.take.is_none() {
            return Ok(0);
        }
        let rows: u64 = left.pieces.iter().map(|piece| piece.rows.len()).sum();
        let (start, end) = (self.skip, self.skip.saturating_add(self.take.unwrap_or(u64::MAX)));
        let mut before = 0;
        for piece in &mut left.pieces {
            let n = piece.rows.len();
            let inside = |row: u64| row.saturating_sub(before).min(n);
            piece.rows = piece.rows.part(&(inside(start)..inside(end)));
            before += n;
        }
        left.check(|| format!("all {rows} rows that are left are skipped: expected to skip fewer, found {start}"))
    }
}

/// Rows that are still to be read.
struct Left<'a> {
    dataset: &'a Dataset,
    pieces: Vec<SelectedPiece>,
    /// Row groups that the step before has left.
    n_before: usize,
}

impl Left<'_> {
    /// Drops row groups without rows, and says how many the step has ruled out. An error with this message if that were all.
    fn check(&mut self, message: impl FnOnce() -> String) -> Result<u64> {
        self.pieces.retain(|piece| !piece.rows.is_empty());
        let before = std::mem::replace(&mut self.n_before, self.pieces.len());
        match self.pieces.is_empty() {
            true => Err(Error::new(ErrorKind::NoData, message()).at("URL", self.dataset.url())),
            false => Ok((before - self.pieces.len()) as u64),
        }
    }

    /// Keeps the rows in these ranges, which are in order; every row of the pieces is still there.
    fn cut(&mut self, ranges: &[Range<u64>]) {
        let mut first_rows = Vec::with_capacity(self.dataset.pieces().len());
        let mut rows = 0;
        for piece in self.dataset.pieces() {
            first_rows.push(rows);
            rows += piece.rows;
        }
        for piece in &mut self.pieces {
            let first = first_rows[piece.piece as usize];
            let end = first + piece.rows.len();
            let from = ranges.partition_point(|range| range.end <= first);
            let inside = ranges[from..].iter().take_while(|range| range.start < end);
            let inside = inside.map(|range| range.start.max(first) - first..range.end.min(end) - first);
            let runs = Runs::new(inside);
            // The same rows always have the same form, and so the same digest.
            if RowSet::Runs(runs.clone()).len() < piece.rows.len() {
                piece.rows = RowSet::Runs(runs);
            }
        }
    }
}

/// Names a column that cannot be read as such, and not as one that is not there.
fn check(predicate: &Predicate, dataset: &Dataset, schema: &Schema) -> Result<()> {
    let fields = predicate.fields();
    match dataset
        .unsupported()
        .iter()
        .find(|column| fields.contains(column.name.as_str()))
    {
        Some(column) => Err(
            Error::unsupported(format!("column {:?} cannot be read: {}", column.name, column.reason))
                .at("predicate", predicate),
        ),
        None => predicate.check(schema),
    }
}

fn unfulfilled(predicate: &Predicate) -> String {
    match predicate.is_split() {
        true => format!("no row that is left is in {predicate}"),
        false => format!("no row fulfils the predicate {predicate}"),
    }
}

/// The rows of a subset.
fn split_rows(piece: &SelectedPiece, buckets: &Buckets) -> Result<RowSet> {
    let n = piece.rows.len();
    if n > MAX_SPLIT_ROWS {
        return Err(Error::unsupported(format!(
            "expected no more than {MAX_SPLIT_ROWS} rows in a row group that is split by row, found {n}"
        )));
    }
    // It grows with the work: the number of rows is a claim of the metadata.
    let mut bits = BooleanBufferBuilder::new(0);
    for row in piece.rows.iter_runs(0..n).flatten() {
        bits.append(buckets.has_row(piece.piece, row));
    }
    Ok(piece.rows.narrow(&bits.finish()))
}

fn shown(ranges: &[Range<u64>]) -> String {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|range| format!("{}..{}", range.start, range.end))
        .collect();
    ranges.join(", ")
}
