//! Column chunks of which nobody knows where their pages are, read from their beginnings: a [`Source`] of [`SparseBytes`].
//!
//! Input are the chunks that a decoder reads, output their bytes in the order in which it asks for them. It never holds more of a chunk
//! than the page that is decoded, what was read with it, and one page read ahead where that is within its share; each is counted
//! when its size is known. Values that are views keep what was read with them, so pages are read alone where they are large. Reads
//! ahead are the only tasks that the pipeline does not begin itself: they end with their stream.
//!
//! [`SparseBytes`]: crate::sparse::SparseBytes

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::ParquetMetaData;
use squall_dataset::{Dataset, Piece};
use squall_schema::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::budget::Permit;
use crate::fetch::Chunk;
use crate::footprint::{PAGE_BYTES, PAGE_ROWS};
use crate::horizon::part;
use crate::metrics::Counters;
use crate::sparse::{HEADER_BYTES, Source};

/// Fewest and most bytes that are read at a time.
const READ_BYTES: Range<u64> = 64 << 10..1 << 20;
/// What is read behind a page: the header of the next one, wherever the page's own header ended.
const BEHIND: u64 = 2 * HEADER_BYTES as u64;

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
    /// Bytes that are read at a time, where pages are smaller.
    bytes: u64,
    /// Bytes of a chunk that may be here or on their way.
    share: u64,
    state: Mutex<State>,
}

/// What is in memory of the chunks, or will be.
struct State {
    /// By the place where a chunk begins: what is read ahead of it, and how many bytes of it are here.
    ahead: HashMap<u64, Ahead>,
    here: HashMap<u64, u64>,
    /// What was taken for them to begin with.
    expected: u64,
    permit: Permit,
}

impl State {
    /// Counts what is held, and these bytes more.
    fn count(&mut self, more: u64) {
        let ahead: u64 = self
            .ahead
            .values()
            .map(|ahead| ahead.range.end - ahead.range.start)
            .sum();
        let held = self.here.values().sum::<u64>() + ahead + more;
        self.permit.resize(held.max(self.expected));
    }
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
        (streaming, permit): (Streaming, Permit),
    ) -> Result<Self> {
        let size = streaming.dataset.files()[piece.file as usize].size;
        let columns = metadata.row_group(row_group).columns().iter().enumerate();
        let own = columns.filter(|(leaf, _)| projection.leaf_included(*leaf));
        let mut chunks = own
            .map(|(_, column)| Ok(Chunk::new(column, None, size)?.bytes))
            .collect::<Result<Vec<_>>>()?;
        chunks.sort_by_key(|chunk| chunk.start);
        // A slice and the one behind it.
        let share = most.saturating_mul(2) / chunks.len().max(1) as u64;
        let bytes = (share / 4).clamp(READ_BYTES.start, READ_BYTES.end);
        let rows = u64::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0);
        // Of each chunk a page, or what is read at a time if that is more, and the next one if there is room.
        let expected = |chunk: &Range<u64>| {
            let len = chunk.end - chunk.start;
            let page = u128::from(len) * u128::from(PAGE_ROWS) / u128::from(rows.max(1));
            let page = u64::try_from(page).unwrap_or(u64::MAX).min(PAGE_BYTES);
            let read = bytes.max(page + BEHIND);
            if read * 2 <= share { read * 2 } else { read }.min(len)
        };
        let mut state = State {
            ahead: HashMap::new(),
            here: HashMap::new(),
            expected: chunks.iter().map(expected).sum(),
            permit,
        };
        state.count(0);
        Ok(Self {
            streaming,
            file: piece.file,
            chunks,
            row_group,
            rows,
            bytes,
            share,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let ahead = self.state().ahead.remove(&chunk.start);
        ahead.filter(|ahead| ahead.range.contains(&byte))
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
        // Where pages are passed over, only their headers are read.
        let is_jump = here.is_empty() && ahead.is_none() && length <= HEADER_BYTES;
        let behind = |next: u64| match is_jump {
            true => needed,
            false => next.saturating_add(self.bytes).max(needed.saturating_add(BEHIND)),
        };
        let until = ahead.as_ref().map_or(first, |ahead| ahead.range.end);
        let until = if until < needed {
            behind(until).min(chunk.end)
        } else {
            until
        };
        let size = until - start;
        {
            let mut state = self.state();
            state.here.insert(chunk.start, size);
            // What is joined is there twice meanwhile.
            state.count(if here.is_empty() { 0 } else { until - first });
        }
        let mut parts = BytesMut::new();
        let mut whole = None;
        if !here.is_empty() {
            parts.reserve(size as usize);
            parts.extend_from_slice(&here);
        }
        // What it is part of goes before more comes.
        drop(here);
        let mut next = first;
        while next < needed {
            let read = ahead.take().unwrap_or_else(|| self.read(&chunk, next..until));
            let skip = (next - read.range.start) as usize;
            let part = self.wait(read)?.slice(skip..);
            next += part.len() as u64;
            if parts.is_empty() && next >= needed {
                whole = Some(part);
            } else {
                parts.reserve((size as usize).saturating_sub(parts.len()));
                parts.extend_from_slice(&part);
            }
        }
        // The next page is taken to be as long as this one.
        let more = next.saturating_add(self.bytes);
        let more = more.max(needed.saturating_add(length as u64 + BEHIND)).min(chunk.end);
        if next < more && !is_jump && more - start <= self.share {
            let ahead = self.read(&chunk, next..more);
            self.state().ahead.insert(chunk.start, ahead);
        }
        self.state().count(0);
        Ok(whole.unwrap_or_else(|| parts.freeze()))
    }

    fn chunk_of(&self, byte: u64) -> Option<Range<u64>> {
        let place = self
            .chunks
            .partition_point(|chunk| chunk.start <= byte)
            .checked_sub(1)?;
        Some(self.chunks[place].clone()).filter(|chunk| chunk.contains(&byte))
    }
}
