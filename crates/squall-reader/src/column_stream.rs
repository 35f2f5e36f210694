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
use crate::footprint::{PAGE_BYTES, PAGE_ROWS};
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

    /// About how many bytes it holds: of each chunk a page, or what is read at a time if that is more, and what is behind it. A page that
    /// comes in several reads is there twice when they are joined.
    pub(crate) fn most(&self) -> u64 {
        let of = |chunk: &Range<u64>| {
            let len = chunk.end - chunk.start;
            let page = u128::from(len) * u128::from(PAGE_ROWS) / u128::from(self.rows.max(1));
            let page = u64::try_from(page).unwrap_or(u64::MAX).min(PAGE_BYTES);
            let joined = if page > self.bytes { page } else { 0 };
            (self.bytes.max(page) + self.bytes).min(len) + joined.min(len)
        };
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
            let length = wanted.end - wanted.start;
            let bytes = read.await?.pop().filter(|bytes| bytes.len() as u64 == length);
            let bytes = bytes.ok_or_else(|| Error::internal("a range was fetched without all of its bytes"))?;
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
        let first = start + here.len() as u64;
        let mut ahead = self.take_ahead(&chunk, first);
        // The header of the next page comes with a page that is longer.
        let behind = |next: u64| next.saturating_add(self.bytes.max(needed.saturating_sub(next) + HEADER_BYTES as u64));
        let until = ahead.as_ref().map_or(first, |ahead| ahead.range.end);
        let until = if until < needed {
            behind(until).min(chunk.end)
        } else {
            until
        };
        let mut bytes = here;
        while start + (bytes.len() as u64) < needed {
            let next = start + bytes.len() as u64;
            let read = ahead.take().unwrap_or_else(|| self.read(&chunk, next..until));
            let skip = (next - read.range.start) as usize;
            let part = self.wait(read)?.slice(skip..);
            bytes = match bytes.is_empty() {
                true => part,
                false => {
                    let mut joined = BytesMut::with_capacity((until - start) as usize);
                    joined.extend_from_slice(&bytes);
                    // What it is part of goes before more comes.
                    drop(bytes);
                    joined.extend_from_slice(&part);
                    joined.freeze()
                }
            };
        }
        let next = start + bytes.len() as u64;
        if next < chunk.end {
            let ahead = self.read(&chunk, next..next.saturating_add(self.bytes).min(chunk.end));
            let mut all = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(chunk.start, ahead);
        }
        Ok(bytes)
    }

    fn chunk_of(&self, byte: u64) -> Option<Range<u64>> {
        let place = self
            .chunks
            .partition_point(|chunk| chunk.start <= byte)
            .checked_sub(1)?;
        Some(self.chunks[place].clone()).filter(|chunk| chunk.contains(&byte))
    }
}
