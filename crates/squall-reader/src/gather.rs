//! The rows of a batch, picked from the windows of its lanes.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, RecordBatch};
use arrow_select::interleave::interleave;
use squall_schema::{Error, Result, RowId, Schema};

use crate::plan::{Pass, PlannedBatch};
use crate::random::Permutation;
use crate::transform::record_batch;

/// A window of a lane: rows that are shuffled together.
pub(crate) struct Window {
    pub(crate) pass: Arc<Pass>,
    pub(crate) lane: u64,
    /// Its rows, counted in the lane.
    pub(crate) rows: Range<u64>,
    pub(crate) permutation: Permutation,
    /// Its rows in stored order, once they are decoded.
    pub(crate) decoded: OnceLock<Chunks>,
}

/// Rows in several batches.
pub(crate) struct Chunks {
    batches: Vec<RecordBatch>,
    /// The first row of each batch.
    starts: Vec<u64>,
}

impl Chunks {
    pub(crate) fn new(batches: Vec<RecordBatch>) -> Self {
        let mut next = 0;
        let start = |batch: &RecordBatch| {
            let start = next;
            next += batch.num_rows() as u64;
            start
        };
        Self {
            starts: batches.iter().map(start).collect(),
            batches,
        }
    }

    /// The batch that holds this row, and the row's place there.
    fn locate(&self, row: u64) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, (row - self.starts[batch]) as usize)
    }
}

/// Rows of a window, by their places in the lane.
pub(crate) struct Pick {
    pub(crate) window: Arc<Window>,
    /// The place of its stretch in the batch.
    pub(crate) stretch: usize,
    pub(crate) rows: Range<u64>,
}

/// Which row of which window each row of a batch is.
pub(crate) struct Picked<'a> {
    windows: Vec<&'a Window>,
    /// For each row its window, and its place in stored order there.
    rows: Vec<(u32, u64)>,
    pub(crate) ids: Vec<RowId>,
}

impl<'a> Picked<'a> {
    /// The rows of the batch in its order.
    pub(crate) fn new(batch: &'a PlannedBatch) -> Self {
        let mut windows: Vec<&Window> = Vec::new();
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        for pick in &batch.picks {
            let window = &*pick.window;
            if windows.last().is_none_or(|last| !std::ptr::eq(*last, window)) {
                windows.push(window);
            }
            let (order, stretch) = (&window.pass.order, &batch.stretches[pick.stretch]);
            for q in pick.rows.clone() {
                let stored = window.permutation.get(q - window.rows.start);
                rows.push((windows.len() as u32 - 1, stored));
                let number = stretch.number(q * order.lanes() + window.lane);
                ids.push(row_id(window, stored, batch.epoch, number, stretch.layer > 0));
            }
        }
        let permuted = |i: usize| batch.permutation.get(i as u64) as usize;
        Self {
            rows: (0..rows.len()).map(|i| rows[permuted(i)]).collect(),
            ids: (0..ids.len()).map(|i| ids[permuted(i)]).collect(),
            windows,
        }
    }

    /// Rows of the window that a row is from.
    pub(crate) fn window_len(&self, row: usize) -> u64 {
        let window = &self.windows[self.rows[row].0 as usize].rows;
        window.end - window.start
    }

    /// Puts the next row of its window in a row's place, around the window's end.
    pub(crate) fn substitute(&mut self, row: usize) {
        let (place, stored) = &mut self.rows[row];
        let window = self.windows[*place as usize];
        *stored = (*stored + 1) % (window.rows.end - window.rows.start);
        let RowId {
            epoch, sample, padded, ..
        } = self.ids[row];
        self.ids[row] = row_id(window, *stored, epoch, sample, padded);
    }

    /// The rows of the batch that come from a dataset of the plan.
    pub(crate) fn rows_of(&self, source: usize) -> Vec<usize> {
        let own = |row: &usize| self.windows[self.rows[*row].0 as usize].pass.source == source;
        (0..self.rows.len()).filter(own).collect()
    }

    /// These rows, all of one dataset, in columns of `schema`.
    pub(crate) fn gather(&self, rows: &[usize], schema: &Schema) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(squall_schema::arrow::schema_to_arrow(schema)?));
        }
        let mut chunks: Vec<&RecordBatch> = Vec::new();
        let mut bases: Vec<Option<(usize, &Chunks)>> = vec![None; self.windows.len()];
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let (window, stored) = self.rows[*row];
            let base = &mut bases[window as usize];
            let (base, decoded) = match base {
                Some(base) => *base,
                None => {
                    let decoded = self.windows[window as usize].decoded.get();
                    let decoded =
                        decoded.ok_or_else(|| Error::internal("a window is gathered before it is decoded"))?;
                    chunks.extend(&decoded.batches);
                    *base.insert((chunks.len() - decoded.batches.len(), decoded))
                }
            };
            let (chunk, place) = decoded.locate(stored);
            places.push((base + chunk, place));
        }
        interleave_batches(schema, &chunks, &places)
    }
}

/// The rows at these places, batch and row, of batches with the columns of `schema`.
pub(crate) fn interleave_batches(
    schema: &Schema,
    batches: &[&RecordBatch],
    places: &[(usize, usize)],
) -> Result<RecordBatch> {
    let column = |i: usize| {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(i).as_ref()).collect();
        interleave(&parts, places).map_err(|error| Error::internal("cannot mix rows").with_source(error))
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    record_batch(schema, columns, places.len())
}

/// What the row of a window is that stands in this place in stored order.
fn row_id(window: &Window, stored: u64, epoch: u64, sample: u64, padded: bool) -> RowId {
    let pass = &window.pass;
    let (piece, n) = pass.order.locate_unshuffled(window.lane, window.rows.start + stored);
    let piece = &pass.selection.pieces()[piece as usize];
    RowId {
        epoch,
        sample,
        dataset: pass.source as u32,
        piece: piece.piece,
        row: piece.rows.nth(n),
        padded,
    }
}
