//! Column chunks of which nobody knows where their pages are, read from their beginnings.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::ParquetMetaData;
use squall_dataset::{Dataset, Piece};
use squall_schema::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::fetch::Chunk;
use crate::horizon::part;
use crate::metrics::Counters;
use crate::sparse::{HEADER_BYTES, Source};

/// Fewest and most bytes that are read at a time.
const READ_BYTES: Range<u64> = 64 << 10..1 << 20;

/// What reading takes beside the column chunks.
pub(crate) struct Streaming {
    pub(crate) counters: Arc<Counters>,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) io: Handle,
    /// Limits how many fetches are under way.
    pub(crate) fetches: Arc<Semaphore>,
    /// Changes, or is closed, when the reader is dropped.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The column chunks of a row group that are read. The thread that decodes them waits for what it needs; of each the bytes
/// behind these are read meanwhile.
pub(crate) struct ColumnStream {
    streaming: Streaming,
    file: u32,
    /// In the order of the file.
    chunks: Vec<Range<u64>>,
    row_group: usize,
    /// Rows of the row group.
    rows: u64,
    /// Bytes that are read at a time.
    bytes: u64,
    /// What is read ahead, by the place where the chunk begins.
    ahead: Mutex<HashMap<u64, Ahead>>,
}

/// Bytes that are on their way.
struct Ahead {
    range: Range<u64>,
    read: JoinHandle<Result<Bytes>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.read.abort();
    }
}

impl ColumnStream {
    /// `most` is about how many bytes may be in memory.
    pub(crate) fn new(
        metadata: &ParquetMetaData,
        (row_group, projection): (usize, &ProjectionMask),
        (piece, most): (&Piece, u64),
        streaming: Streaming,
    ) -> Result<Self> {
        let size = streaming.dataset.files()[piece.file as usize].size;
        let columns = metadata.row_group(row_group).columns().iter().enumerate();
        let own = columns.filter(|(leaf, _)| projection.leaf_included(*leaf));
        let mut chunks = own
            .map(|(_, column)| Ok(Chunk::new(column, None, size)?.bytes))
            .collect::<Result<Vec<_>>>()?;
        chunks.sort_by_key(|chunk| chunk.start);
        let bytes = (most / 2 / chunks.len().max(1) as u64).clamp(READ_BYTES.start, READ_BYTES.end);
        Ok(Self {
            streaming,
            file: piece.file,
            chunks,
            row_group,
            rows: u64::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0),
            bytes,
            ahead: Mutex::default(),
        })
    }

    /// Bytes that it holds: of each chunk those that are decoded, and those behind them.
    pub(crate) fn most(&self) -> u64 {
        let of = |chunk: &Range<u64>| (2 * self.bytes).min(chunk.end - chunk.start);
        self.chunks.iter().map(of).sum()
    }

    /// Begins to read.
    fn read(&self, chunk: &Range<u64>, range: Range<u64>) -> Ahead {
        let Streaming {
            counters,
            dataset,
            fetches,
            ..
        } = &self.streaming;
        let (counters, dataset, fetches) = (counters.clone(), dataset.clone(), fetches.clone());
        // About where the rows stand of which these are the bytes.
        let row = u128::from(self.rows) * u128::from(range.start - chunk.start) / u128::from(chunk.end - chunk.start);
        let part = part(self.row_group, row as u64);
        let (file, wanted) = (self.file as usize, range.clone());
        let mut counted = counters.fetch();
        let read = async move {
            // The semaphore is never closed.
            let _permit = fetches.acquire().await;
            counted.begin();
            let path = &dataset.files()[file].path;
            let read = dataset.store().get_part(path, part, std::slice::from_ref(&wanted));
            let bytes = read.await?.pop().filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| Error::internal("a range was fetched without bytes"))?;
            counters.fetched(bytes.len() as u64);
            Ok(bytes)
        };
        Ahead {
            range,
            read: self.streaming.io.spawn(read),
        }
    }

    /// Waits for what is read, unless the reader is dropped.
    fn wait(&self, mut ahead: Ahead) -> Result<Bytes> {
        let mut stop = self.streaming.stop.clone();
        self.streaming.io.block_on(async {
            tokio::select! {
                read = &mut ahead.read => read.map_err(|error| Error::internal("a read was given up").with_source(error))?,
                _ = stop.wait_for(|stop| *stop) => Err(Error::new(ErrorKind::Cancelled, "the reader was dropped")),
            }
        })
    }

    /// Takes what is read ahead of a chunk, if it goes on from this byte.
    fn take_ahead(&self, chunk: &Range<u64>, byte: u64) -> Option<Ahead> {
        let mut all = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&chunk.start).filter(|ahead| ahead.range.contains(&byte))
    }
}

impl Source for ColumnStream {
    fn load(&self, start: u64, length: usize, here: Bytes) -> Result<Bytes> {
        let chunk = self.chunk_of(start);
        let chunk =
            chunk.ok_or_else(|| Error::corrupt(format!("byte {start} of the file is in no column that is read")))?;
        let needed = start.saturating_add(length as u64).min(chunk.end);
        let mut next = start + here.len() as u64;
        let mut parts = vec![here];
        while next < needed {
            let ahead = self.take_ahead(&chunk, next).unwrap_or_else(|| {
                // The header of the next page comes with a page that is longer.
                let bytes = self.bytes.max(needed - next + HEADER_BYTES as u64);
                self.read(&chunk, next..next.saturating_add(bytes).min(chunk.end))
            });
            let first = ahead.range.start;
            let bytes = self.wait(ahead)?;
            let skip = (next - first) as usize;
            let left = (skip < bytes.len()).then(|| bytes.slice(skip..));
            let left = left.ok_or_else(|| Error::internal("a read brought less than was asked for"))?;
            next += left.len() as u64;
            parts.push(left);
        }
        if next < chunk.end {
            let ahead = self.read(&chunk, next..next.saturating_add(self.bytes).min(chunk.end));
            let mut all = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(chunk.start, ahead);
        }
        parts.retain(|part| !part.is_empty());
        if let [whole] = &mut parts[..] {
            return Ok(std::mem::take(whole));
        }
        let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|part| joined.extend_from_slice(part));
        Ok(joined.freeze())
    }

    fn chunk_of(&self, byte: u64) -> Option<Range<u64>> {
        let place = self
            .chunks
            .partition_point(|chunk| chunk.start <= byte)
            .checked_sub(1)?;
        Some(self.chunks[place].clone()).filter(|chunk| chunk.contains(&byte))
    }
}
