//! The first pass over rows that are brought in order: a stream of rows becomes runs, files of rows that are in order.
//!
//! A run is what fits in the memory for it. Its file is a row of chunks, each an Arrow IPC stream of one batch, compressed
//! with lz4; what is known of the chunks says which of them a range of keys needs. One file of many chunks takes the place of
//! a file for each bucket: with it, the number of buckets is bounded neither by open files nor by buffers, and need not be known
//! before the rows are.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::ipc::CompressionType;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use futures::{Stream, StreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use squall_dataset::Store;
use squall_schema::{Error, Result};
use tokio::io::AsyncWriteExt;

use crate::conform::Target;
use crate::error::store_error;
use crate::heap::give_back;
use crate::order::{Order, prefix};

/// Chunks of a run: a bucket reads no more than one chunk of each run too much at its ends.
const CHUNKS: u64 = 64;
/// A key that has this part of a run's rows gets chunks of its own: however many rows of it there are in all runs together, they
/// are passed on without being loaded at once.
const HEAVY: usize = 256;
/// Leading bits of hashes at which chunks of a shuffle end, so that its buckets need no chunk in part.
pub(crate) const HASH_CHUNK_BITS: u32 = 8;
/// Bytes of a request that writes.
const PART_BYTES: usize = 8 << 20;
/// What the column of the keys is named in a run; no column has an empty name that a user gave.
const KEY: &str = "";

/// What is known of a chunk. It is all that the second pass needs, on this machine or on another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// Which partition of the query it is of, and which run of it.
    pub(crate) run: (usize, usize),
    #[serde(with = "crate::stored_path")]
    pub(crate) path: Path,
    pub(crate) range: Range<u64>,
    /// Its rows, and their bytes in memory.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The keys of its first and its last row.
    pub(crate) first: Vec<u8>,
    pub(crate) last: Vec<u8>,
}

/// Brings the rows of a partition in order, run by run, in files below `store`.
///
/// # Cancel safety
///
/// Dropping the future leaves files behind; the caller takes the whole place away.
pub(crate) async fn scatter<S>(
    mut rows: S,
    partition: usize,
    (target, order): (&Target, &Order),
    run_bytes: u64,
    store: &Store,
) -> Result<Vec<Chunk>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let mut chunks = Vec::new();
    let (mut run, mut n_rows) = (Run::default(), 0);
    let mut n_runs = 0;
    while let Some(batch) = rows.next().await {
        let batch = target.conform(&batch?)?;
        let keys = order.keys(&batch, partition, n_rows)?;
        n_rows += batch.num_rows() as u64;
        run.push(with_keys(&batch, keys)?);
        if run.bytes >= run_bytes {
            chunks.extend(
                std::mem::take(&mut run)
                    .write((partition, n_runs), order, store)
                    .await?,
            );
            n_runs += 1;
            give_back();
        }
    }
    if !run.rows.is_empty() {
        chunks.extend(run.write((partition, n_runs), order, store).await?);
    }
    Ok(chunks)
}

/// Rows in memory, with where each stands.
#[derive(Default)]
struct Run {
    batches: Vec<RecordBatch>,
    /// The beginning of the key, the batch, the row in it.
    rows: Vec<(u64, u32, u32)>,
    bytes: u64,
}

impl Run {
    fn push(&mut self, batch: RecordBatch) {
        let keys = keys_of(&batch);
        let n = self.batches.len() as u32;
        let rows = (0..batch.num_rows()).map(|row| (prefix(keys.value(row)), n, row as u32));
        self.rows.extend(rows);
        self.bytes += memory(&batch) + (batch.num_rows() * size_of::<(u64, u32, u32)>()) as u64;
        self.batches.push(batch);
    }

    /// Where a chunk that begins at a row ends, at `end` or before: it holds rows of one key that has `heavy` of them, or none of
    /// such a key.
    fn cut(&self, start: usize, end: usize, heavy: usize) -> usize {
        let key = |i: usize| {
            let (_, batch, row) = self.rows[i];
            keys_of(&self.batches[batch as usize]).value(row as usize)
        };
        // They are in order: a key has that many rows if the one so far behind has it too.
        let is_heavy = |i: &usize| {
            let last = i + heavy - 1;
            last < self.rows.len() && self.rows[*i].0 == self.rows[last].0 && key(*i) == key(last)
        };
        match (start..end).find(is_heavy) {
            Some(first) if first == start => {
                let own = key(start);
                let is_own = |(_, batch, row): &(u64, u32, u32)| {
                    keys_of(&self.batches[*batch as usize]).value(*row as usize) == own
                };
                start + self.rows[start..end].partition_point(is_own)
            }
            Some(first) => first,
            None => end,
        }
    }

    async fn write(mut self, run: (usize, usize), order: &Order, store: &Store) -> Result<Vec<Chunk>> {
        sort(&mut self.rows, &self.batches);
        let path = Path::from(format!("run-{:05}-{:05}.arrow", run.0, run.1));
        let at = |error: Error| error.at("file", &path);
        let mut out =
            BufWriter::with_capacity(store.objects().clone(), path.clone(), PART_BYTES).with_max_concurrency(1);
        let batches: Vec<_> = self.batches.iter().collect();
        let per_chunk = (self.rows.len() as u64 / CHUNKS).clamp(1, u64::from(u32::MAX)) as usize;
        let mut chunks = Vec::new();
        let (mut start, mut offset) = (0, 0);
        while start < self.rows.len() {
            let mut end = (start + per_chunk).min(self.rows.len());
            if order.is_hash() {
                let part = |row: &(u64, u32, u32)| row.0 >> (u64::BITS - HASH_CHUNK_BITS);
                let first = part(&self.rows[start]);
                end = start + self.rows[start..end].partition_point(|row| part(row) == first);
            } else {
                end = self.cut(start, end, (self.rows.len() / HEAVY).max(2));
            }
            let picked: Vec<_> = self.rows[start..end]
                .iter()
                .map(|(_, batch, row)| (*batch as usize, *row as usize))
                .collect();
            let rows = interleave_record_batch(&batches, &picked)
                .map_err(|error| Error::internal("rows cannot be put in order").with_source(error))?;
            let bytes = encode(&rows)?;
            let keys = keys_of(&rows);
            chunks.push(Chunk {
                run,
                path: path.clone(),
                range: offset..offset + bytes.len() as u64,
                rows: rows.num_rows() as u64,
                bytes: memory(&rows),
                first: keys.value(0).to_vec(),
                last: keys.value(rows.num_rows() - 1).to_vec(),
            });
            offset += bytes.len() as u64;
            out.put(bytes.into()).await.map_err(store_error).map_err(at)?;
            start = end;
        }
        out.shutdown().await.map_err(|error| at(shutdown_error(error)))?;
        Ok(chunks)
    }
}

/// Puts rows in the order of their keys; those of equal keys stay as they were.
pub(crate) fn sort(rows: &mut [(u64, u32, u32)], batches: &[RecordBatch]) {
    let keys: Vec<&BinaryArray> = batches.iter().map(keys_of).collect();
    rows.sort_unstable_by(|a, b| {
        let by_key = || {
            let key = |(_, batch, row): &(u64, u32, u32)| keys[*batch as usize].value(*row as usize);
            key(a).cmp(key(b))
        };
        a.0.cmp(&b.0).then_with(by_key).then((a.1, a.2).cmp(&(b.1, b.2)))
    });
}

/// The rows of a chunk, with their keys.
///
/// # Cancel safety
///
/// Dropping the future stops the request.
pub(crate) async fn load(chunk: &Chunk, store: &Store) -> Result<RecordBatch> {
    let bytes = store
        .get_ranges(&chunk.path, std::slice::from_ref(&chunk.range))
        .await?;
    let bytes = bytes.into_iter().next().unwrap_or_default();
    let damaged = || Error::corrupt("a spilled chunk is damaged").at("file", &chunk.path);
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| damaged().with_source(error))?;
    let rows = reader.next().ok_or_else(damaged)?;
    rows.map_err(|error| damaged().with_source(error))
}

fn encode(rows: &RecordBatch) -> Result<Vec<u8>> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME));
    let encoded = options.and_then(|options| {
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &rows.schema(), options)?;
        writer.write(rows)?;
        writer.into_inner()
    });
    encoded.map_err(|error| Error::internal("rows cannot be spilled").with_source(error))
}

/// The keys of rows of a run: its last column.
pub(crate) fn keys_of(rows: &RecordBatch) -> &BinaryArray {
    rows.column(rows.num_columns() - 1).as_binary::<i32>()
}

fn with_keys(rows: &RecordBatch, keys: BinaryArray) -> Result<RecordBatch> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(KEY, DataType::Binary, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(keys) as ArrayRef);
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns)
        .map_err(|error| Error::internal("rows have no room for keys").with_source(error))
}

/// Bytes of the rows, without those of a larger batch that they are a part of.
pub(crate) fn memory(rows: &RecordBatch) -> u64 {
    let size = |column: &ArrayRef| {
        let own = column.to_data().get_slice_memory_size();
        own.unwrap_or_else(|_| column.get_array_memory_size()) as u64
    };
    rows.columns().iter().map(size).sum()
}

/// The store's own error, which comes wrapped.
fn shutdown_error(error: std::io::Error) -> Error {
    store_error(object_store::Error::Generic {
        store: "spill",
        source: Box::new(error),
    })
}
