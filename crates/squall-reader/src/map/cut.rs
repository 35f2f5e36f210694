//! Which runs some rows of a row group need, and the rows out of them.
//!
//! `load` asks for the runs before it reads, and has the rows cut out when the runs are there.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use squall_schema::{Error, Result};

use crate::decode::canonical;
use crate::gather::interleave_batches;
use crate::map::layout::Layout;
use crate::map::load::Loader;
use crate::scan::partition_values;
use crate::transform::record_batch;

/// Bytes of runs, before compression, that a row group's rows are taken from at a time.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Rows of a row group, ascending, and for each group of columns the runs that hold them.
pub(crate) struct Segment<'a> {
    pub(crate) rows: &'a [u64],
    pub(crate) runs: Vec<Vec<Range<u64>>>,
}

/// Decoded runs with their first rows, group by group.
pub(crate) type Runs = Vec<Vec<(u64, Arc<RecordBatch>)>>;

impl<'a> Segment<'a> {
    /// The first of the rows, at least one, whose runs have about [`SEGMENT_BYTES`].
    pub(crate) fn first(layout: &Layout, rows: &'a [u64]) -> Self {
        let mut runs: Vec<Vec<Range<u64>>> = vec![Vec::new(); layout.groups.len()];
        let mut bytes = 0u64;
        for (i, row) in rows.iter().enumerate() {
            let is_new =
                |(_, (_, own)): &(usize, (_, &Vec<Range<u64>>))| own.last().is_none_or(|last| last.end <= *row);
            let new = layout.groups.iter().zip(&runs).enumerate().filter(is_new);
            let new: Vec<_> = new.map(|(place, (group, _))| (place, group.run_of(*row))).collect();
            for (place, rows) in &new {
                bytes = bytes.saturating_add(layout.groups[*place].bytes_of(rows));
            }
            if i > 0 && bytes > SEGMENT_BYTES && !new.is_empty() {
                return Self { rows: &rows[..i], runs };
            }
            new.into_iter().for_each(|(place, rows)| runs[place].push(rows));
        }
        Self { rows, runs }
    }
}

/// A row whose runs are in the cache.
pub(crate) struct Cached<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) runs: Runs,
    pub(crate) place: usize,
    pub(crate) row: u64,
}

impl Cached<'_> {
    /// The row in the stored columns.
    pub(crate) fn columns(&self, loader: &Loader) -> Result<RecordBatch> {
        loader.cut_out(self.place, self.layout, &[self.row], &self.runs)
    }

    /// For each column of its run, and its place there. `None` where a column stands in no run.
    pub(crate) fn cells(&self) -> Option<Vec<(&ArrayRef, usize)>> {
        if !self.layout.constant.0.is_empty() {
            return None;
        }
        let n_fields = self.layout.groups.iter().map(|group| group.fields.len()).sum();
        let mut cells = vec![None; n_fields];
        for (group, runs) in self.layout.groups.iter().zip(&self.runs) {
            let (start, run) = runs.first()?;
            for (field, column) in group.fields.iter().zip(run.columns()) {
                *cells.get_mut(*field)? = Some((column, (self.row - start) as usize));
            }
        }
        cells.into_iter().collect()
    }
}

impl Loader {
    /// These rows, ascending, out of the runs that hold them.
    pub(crate) fn cut_out(&self, place: usize, layout: &Layout, rows: &[u64], runs: &Runs) -> Result<RecordBatch> {
        let schema = self.source.columns.schema();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
        for (group, runs) in layout.groups.iter().zip(runs) {
            let is_run = rows
                .last()
                .zip(rows.first())
                .is_some_and(|(last, first)| (last - first) as usize == rows.len() - 1);
            let batch = match &runs[..] {
                [(start, run)] if is_run => run.slice((rows[0] - start) as usize, rows.len()),
                runs => {
                    let mut run = 0;
                    let place_of = |row: &u64| {
                        while runs.get(run + 1).is_some_and(|(start, _)| start <= row) {
                            run += 1;
                        }
                        (run, (row - runs[run].0) as usize)
                    };
                    let places: Vec<_> = rows.iter().map(place_of).collect();
                    let batches: Vec<_> = runs.iter().map(|(_, run)| run.as_ref()).collect();
                    interleave_batches(group.columns.schema(), &batches, &places)?
                }
            };
            for (field, column) in group.fields.iter().zip(batch.columns()) {
                columns[*field] = Some(column.clone());
            }
        }
        let (fields, constant) = &layout.constant;
        if !fields.is_empty() {
            let none = record_batch(&squall_schema::Schema::new(Vec::new())?, Vec::new(), rows.len())?;
            let partition = partition_values(&self.source.dataset, &self.piece(place));
            let calendar = squall_dataset::calendar(layout.footer.metadata());
            let batch = canonical(&none, constant, &partition, &calendar)?;
            for (field, column) in fields.iter().zip(batch.columns()) {
                columns[*field] = Some(column.clone());
            }
        }
        let columns = columns.into_iter().collect::<Option<_>>();
        let columns = columns.ok_or_else(|| Error::internal("a column belongs to no group"))?;
        record_batch(schema, columns, rows.len())
    }
}
