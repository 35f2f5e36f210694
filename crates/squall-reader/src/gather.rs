//! The rows of a batch, picked from the windows of its lanes.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, RecordBatch};
use arrow_select::interleave::interleave;
use squall_schema::{Error, Result, RowId, Schema};

use crate::order::Order;
use crate::random::Permutation;
use crate::select::Selection;
use crate::transform::record_batch;

/// A pass over the lanes of an epoch. An epoch has one, and one more for each time that padding wraps around.
pub(crate) type Pass = u64;

/// A window of a lane: rows that are shuffled together.
pub(crate) struct Window {
    pub(crate) pass: Pass,
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
    pub(crate) rows: Range<u64>,
    pub(crate) padded: bool,
}

/// The rows of these picks laid end to end and permuted, and where each comes from.
pub(crate) fn gather(
    order: &Order,
    selection: &Selection,
    picks: &[Pick],
    permutation: &Permutation,
    schema: &Schema,
) -> Result<(RecordBatch, Vec<RowId>)> {
    let mut chunks: Vec<&RecordBatch> = Vec::new();
    // Chunk and row in it, and the row's identity, in the order of the picks.
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut ids = Vec::new();
    let mut last: Option<(&Arc<Window>, usize)> = None;
    for pick in picks {
        let window = &pick.window;
        let decoded = window
            .decoded
            .get()
            .ok_or_else(|| Error::internal("a window is gathered before it is decoded"))?;
        let base = match last {
            Some((same, base)) if Arc::ptr_eq(same, window) => base,
            _ => {
                chunks.extend(&decoded.batches);
                chunks.len() - decoded.batches.len()
            }
        };
        last = Some((window, base));
        for q in pick.rows.clone() {
            let stored = window.permutation.get(q - window.rows.start);
            let (chunk, row) = decoded.locate(stored);
            places.push((base + chunk, row));
            let (piece, n) = order.locate_unshuffled(window.lane, window.rows.start + stored);
            let piece = &selection.pieces()[piece as usize];
            ids.push(RowId {
                epoch: order.epoch(),
                sample: q * order.lanes() + window.lane,
                piece: piece.piece,
                row: piece.rows.nth(n),
                padded: pick.padded,
            });
        }
    }
    let rows = places.len();
    let permuted = |i: usize| permutation.get(i as u64) as usize;
    let ids = (0..rows).map(|i| ids[permuted(i)]).collect();
    if rows == 0 {
        return Ok((
            RecordBatch::new_empty(squall_schema::arrow::schema_to_arrow(schema)?),
            ids,
        ));
    }
    let places: Vec<_> = (0..rows).map(|i| places[permuted(i)]).collect();
    let column = |i: usize| {
        let parts: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.column(i).as_ref()).collect();
        interleave(&parts, &places).map_err(|error| Error::internal("cannot gather a batch").with_source(error))
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    Ok((record_batch(schema, columns, rows)?, ids))
}
