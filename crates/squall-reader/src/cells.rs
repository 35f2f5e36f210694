//! From encoded cells to tensors, batch by batch.
//!
//! It comes after the shuffle, so that windows hold a jpeg of 20 kB and not its 200 kB of pixels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, MutableBuffer};
use bytes::Bytes;
use squall_schema::codec::{CellMemory, FreshMemory, decode_cells_in, decode_column};
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
pub(crate) fn decode(cells: &[Option<&[u8]>], field: &Field, used: &UsedMemory) -> Result<ArrayRef> {
    decode_cells_in(cells, field, used).map_err(in_batch)
}

/// The memory of columns that nobody holds any more. Pages of fresh memory are cleared by the system when they are touched first, which
/// takes a fifth as long as decoding images to them; a column takes the memory of one that is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsedMemory(Arc<Mutex<Vec<MutableBuffer>>>);

impl UsedMemory {
    /// Fewest bytes of a column for which it pays.
    const LEAST: usize = 256 << 10;
    /// Most bytes that are kept, of two columns or more.
    const MOST: usize = 64 << 20;

    fn kept(&self) -> MutexGuard<'_, Vec<MutableBuffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, memory: MutableBuffer) {
        let mut kept = self.kept();
        kept.push(memory);
        let mut bytes: usize = kept.iter().map(MutableBuffer::capacity).sum();
        let mut gone = Vec::new();
        while bytes > Self::MOST && kept.len() > 2 {
            let oldest = kept.remove(0);
            bytes -= oldest.capacity();
            gone.push(oldest);
        }
        // Giving memory back to the system takes long: not under the lock.
        drop(kept);
        drop(gone);
    }
}

impl CellMemory for UsedMemory {
    fn take(&self, bytes: usize) -> MutableBuffer {
        let mut kept = self.kept();
        let fits = |memory: &MutableBuffer| (bytes..=bytes.saturating_mul(2)).contains(&memory.capacity());
        // The last one may still be in a cache.
        let found = kept.iter().rposition(fits).map(|place| kept.remove(place));
        found.unwrap_or_else(|| MutableBuffer::new(0))
    }

    fn finish(&self, memory: MutableBuffer, len: usize) -> Buffer {
        if memory.capacity() < Self::LEAST {
            return FreshMemory.finish(memory, len);
        }
        let held = Held {
            memory: Some(memory),
            len,
            // Memory that comes back behind the reader's end goes.
            home: Arc::downgrade(&self.0),
        };
        Bytes::from_owner(held).into()
    }
}

/// The memory of a column that somebody holds.
struct Held {
    memory: Option<MutableBuffer>,
    len: usize,
    home: Weak<Mutex<Vec<MutableBuffer>>>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.memory
            .as_ref()
            .map_or(&[], |memory| &memory.as_slice()[..self.len])
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(memory), Some(home)) = (self.memory.take(), self.home.upgrade()) {
            UsedMemory(home).give(memory);
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

#[cfg(test)]
mod tests;
