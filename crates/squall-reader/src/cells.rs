//! From encoded cells to tensors, batch by batch.
//!
//! It comes after the shuffle, so that windows hold a jpeg of 20 kB and not its 200 kB of pixels.

use std::sync::{Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, MutableBuffer};
use squall_schema::codec::{decode_cells_into, decode_column};
use squall_schema::{Error, Field, Result, Schema};

use crate::footprint::fixed_bytes;
use crate::transform::record_batch;

/// The batch with the columns of `schema`, from one with its stored columns. An error names the row of the batch.
pub(crate) fn decode_cells(batch: RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    if schema.fields().iter().all(|field| field.codec.is_none()) {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    let column = |(field, column): (&Field, &ArrayRef)| {
        if field.codec.is_none() {
            return Ok(column.clone());
        }
        decode_column(column, field).map_err(in_batch)
    };
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(column)
        .collect::<Result<Vec<_>>>()?;
    record_batch(schema, columns, rows)
}

/// The column of a field from its cells, wherever they lie. An error names the row of the batch.
pub(crate) fn decode(cells: &[Option<&[u8]>], field: &Field, used: &UsedMemory) -> Result<ArrayRef> {
    let column = decode_cells_into(cells, field, used.take(field, cells.len())).map_err(in_batch)?;
    used.watch(&column);
    Ok(column)
}

/// The memory of columns that were handed out. Pages of fresh memory are cleared by the system when they are touched first, which
/// takes a fifth as long as decoding images to them; a column takes the memory of one that nobody holds any more.
#[derive(Debug, Default)]
pub(crate) struct UsedMemory(Mutex<Vec<Buffer>>);

impl UsedMemory {
    /// Fewest bytes of a column for which it pays.
    const LEAST: usize = 256 << 10;
    /// Most columns that nobody holds and that are kept.
    const MOST_IDLE: usize = 2;

    /// Memory for a column of so many rows, or none.
    pub(crate) fn take(&self, field: &Field, rows: usize) -> MutableBuffer {
        let bytes = fixed_bytes(field).and_then(|size| usize::try_from(size).ok()?.checked_mul(rows));
        let fits = |buffer: &Buffer| {
            let Some(bytes) = bytes else { return false };
            buffer.strong_count() == 1 && (bytes..=bytes.saturating_mul(2)).contains(&buffer.len())
        };
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = buffers.iter().position(fits).map(|place| buffers.swap_remove(place));
        // Nobody else can have got hold of it meanwhile.
        let found = found.and_then(|buffer| buffer.into_mutable().ok());
        found.unwrap_or_else(|| MutableBuffer::new(0))
    }

    /// Takes a column's memory back when nobody holds it any more.
    pub(crate) fn watch(&self, column: &ArrayRef) {
        let Some(list) = column.as_fixed_size_list_opt() else {
            return;
        };
        let data = list.values().to_data();
        if let [buffer] = data.buffers()
            && buffer.len() >= Self::LEAST
        {
            let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut idle = 0;
            buffers.retain(|buffer| {
                idle += usize::from(buffer.strong_count() == 1);
                idle <= Self::MOST_IDLE || buffer.strong_count() > 1
            });
            buffers.push(buffer.clone());
        }
    }
}

/// The error with its row as that of the batch, which tells which stored row it is.
pub(crate) fn in_batch(error: Error) -> Error {
    match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
        Some(row) => error.without_place("row").at("batch row", row),
        None => error,
    }
}
