//! From stored rows to what the user gets: put in order, cells decoded, transformed.
//!
//! The rows come from `load`, in stored order; which of them stand where is `map`'s. It is what the workers of a reader do with a batch,
//! in parts side by side where that pays.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use squall_schema::{Result, RowId};

use crate::gather::interleave_batches;
use crate::map::load::{blocking, compact};
use crate::source::Source;
use crate::transform::record_batch;
use crate::work::{guard, name_row};

/// Fewest rows whose cells are worth a thread of their own.
const PART_ROWS: usize = 32;

/// What is done to stored rows.
pub(crate) struct Assembler {
    pub(crate) source: Source,
    pub(crate) seed: u64,
    /// Parts of a batch that are worked on at the same time.
    pub(crate) workers: usize,
}

/// Which stored rows a batch is made of.
pub(crate) struct Picked {
    /// Stored rows, cells still encoded.
    pub(crate) batches: Vec<RecordBatch>,
    /// For each row of the batch where it is: the stored batch, and the row there.
    pub(crate) places: Vec<(usize, usize)>,
    pub(crate) ids: Vec<RowId>,
}

impl Assembler {
    /// One stored row.
    pub(crate) fn row(&self, stored: RecordBatch, id: RowId) -> Result<RecordBatch> {
        let ids = [id];
        let assemble = || self.transform(self.decode(&stored)?, &ids);
        guard(assemble).map_err(|error| name_row(error, &self.source, &ids))
    }

    /// The rows of a batch, of which there is at least one.
    pub(crate) async fn batch(self: &Arc<Self>, picked: &Arc<Picked>) -> Result<RecordBatch> {
        let source = &self.source;
        let n_rows = picked.ids.len();
        // A closure over batches sees all of it.
        let is_per_row = source.is_changed() && !source.transform.is_per_batch();
        let n_parts = match is_per_row || source.has_cells() {
            true => self.workers.min(n_rows.div_ceil(PART_ROWS)).max(1),
            false => 1,
        };
        let named = |error| name_row(error, source, &picked.ids);
        if n_parts == 1 {
            let whole = || self.transform(self.part(picked, 0..n_rows)?, &picked.ids);
            return guard(whole).map_err(named);
        }
        let part = |i| {
            let rows = i * n_rows / n_parts..(i + 1) * n_rows / n_parts;
            let (own, picked) = (self.clone(), picked.clone());
            blocking(move || {
                let first = rows.start;
                let made = || {
                    let columns = own.part(&picked, rows.clone())?;
                    match is_per_row {
                        true => own.transform(columns, &picked.ids[rows]),
                        false => Ok(columns),
                    }
                };
                made().map_err(
                    |error| match error.place("batch row").and_then(|row| row.parse::<usize>().ok()) {
                        Some(row) => error.replace_place("batch row", first + row),
                        None => error,
                    },
                )
            })
        };
        let work: Vec<_> = (0..n_parts).map(part).collect();
        let parts: Vec<RecordBatch> = stream::iter(work)
            .buffered(n_parts)
            .try_collect()
            .await
            .map_err(named)?;
        let schema = if is_per_row { &source.schema } else { &source.decoded };
        let column = |i| compact(parts.iter().map(|part| part.column(i).as_ref()));
        let columns = (0..schema.fields().len()).map(column).collect::<Result<_>>()?;
        let columns = record_batch(schema, columns, n_rows)?;
        match is_per_row {
            true => Ok(columns),
            false => guard(|| self.transform(columns, &picked.ids)).map_err(named),
        }
    }

    /// Some rows of a batch, decoded.
    fn part(&self, picked: &Picked, rows: Range<usize>) -> Result<RecordBatch> {
        let batches: Vec<_> = picked.batches.iter().collect();
        let cells = interleave_batches(self.source.columns.schema(), &batches, &picked.places[rows])?;
        self.decode(&cells)
    }

    fn decode(&self, stored: &RecordBatch) -> Result<RecordBatch> {
        self.source.gathering.decode(stored, &self.source.decoded)
    }

    fn transform(&self, columns: RecordBatch, ids: &[RowId]) -> Result<RecordBatch> {
        match self.source.is_changed() {
            true => self.source.transform(columns, ids, self.seed),
            false => Ok(columns),
        }
    }
}
