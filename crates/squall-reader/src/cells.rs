//! From encoded cells to tensors, batch by batch.
//!
//! It comes after the shuffle, so that windows hold a jpeg of 20 kB and not its 200 kB of pixels.

use arrow_array::{ArrayRef, RecordBatch};
use squall_schema::codec::{decode_cells as decode_all, decode_column};
use squall_schema::{Error, Field, Result, Schema};

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
pub(crate) fn decode(cells: &[Option<&[u8]>], field: &Field) -> Result<ArrayRef> {
    decode_all(cells, field).map_err(in_batch)
}

/// The error with its row as that of the batch, which tells which stored row it is.
pub(crate) fn in_batch(error: Error) -> Error {
    match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
        Some(row) => error.without_place("row").at("batch row", row),
        None => error,
    }
}
