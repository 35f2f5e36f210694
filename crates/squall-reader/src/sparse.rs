//! The parts of a file that are here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, buf::Reader};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use squall_schema::{Error, Result};

use crate::budget::Permit;

/// The parts of a file that were fetched; more may come, and those that are not needed any more may go. Reading any other part
/// is an error, or fetches it where a [`Source`] is given.
#[derive(Clone)]
pub(crate) struct SparseBytes {
    held: Arc<Mutex<Held>>,
    file_size: u64,
    source: Option<Arc<dyn Source>>,
}

/// Where bytes come from that are not here: for column chunks of which nobody knows where their pages are.
pub(crate) trait Source: Send + Sync {
    /// At least these bytes of the file, and more if it is worth it; waits for them. The first of them are `here` already.
    fn load(&self, start: u64, length: usize, here: Bytes) -> Result<Bytes>;

    /// The column chunk that holds this byte.
    fn chunk_of(&self, byte: u64) -> Option<Range<u64>>;
}

#[derive(Default)]
struct Held {
    /// Each part by the place of its first byte.
    parts: BTreeMap<u64, Bytes>,
    slices: VecDeque<Slice>,
    /// Why bytes did not come: parquet hands its text on, and no more.
    failure: Option<Error>,
}

/// Parts that came together, and go together.
struct Slice {
    /// The row, counted by the decoder, that is the first to need none of them.
    end: u64,
    starts: Vec<u64>,
    _permit: Option<Permit>,
}

impl SparseBytes {
    /// These parts, each with its first byte's place.
    pub(crate) fn new(parts: Vec<(u64, Bytes)>, file_size: u64) -> Self {
        let bytes = Self {
            held: Arc::default(),
            file_size,
            source: None,
        };
        // An empty slice that never ends would keep all those behind it.
        if !parts.is_empty() {
            bytes.add(parts, u64::MAX, None);
        }
        bytes
    }

    /// Parts that are read when they are asked for.
    pub(crate) fn streamed(source: Arc<dyn Source>, file_size: u64) -> Self {
        Self {
            held: Arc::default(),
            file_size,
            source: Some(source),
        }
    }

    /// Whether what is not here is read when it is asked for.
    pub(crate) fn is_streamed(&self) -> bool {
        self.source.is_some()
    }

    /// More parts, which are not needed from row `end` on.
    pub(crate) fn add(&self, parts: Vec<(u64, Bytes)>, end: u64, permit: Option<Permit>) {
        let mut held = self.held();
        let starts = parts.iter().map(|(start, _)| *start).collect();
        held.parts.extend(parts);
        held.slices.push_back(Slice {
            end,
            starts,
            _permit: permit,
        });
    }

    /// Forgets what is not needed from this row on.
    pub(crate) fn forget(&self, row: u64) {
        let mut held = self.held();
        while let Some(slice) = held.slices.pop_front_if(|slice| slice.end <= row) {
            for start in &slice.starts {
                held.parts.remove(start);
            }
        }
    }

    /// Takes the reason why bytes did not come, if some did not.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.held().failure.take()
    }

    /// Bytes that are held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held().parts.values().map(Bytes::len).sum()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes from `start` on, at least `length` of them if that many are here or can be had.
    fn from(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let missing = || ParquetError::General(format!("byte {start} of the file was not fetched"));
        let found = |held: &Held| {
            let (offset, bytes) = held.parts.range(..=start).next_back()?;
            let skip = usize::try_from(start - offset).ok()?;
            (skip <= bytes.len()).then(|| bytes.slice(skip..))
        };
        let here = found(&self.held());
        let Some(source) = &self.source else {
            return here.ok_or_else(missing);
        };
        let here = match here {
            Some(bytes) if bytes.len() >= length => return Ok(bytes),
            here => here.unwrap_or_default(),
        };
        // A column is read forwards: of each the last part is enough.
        if let Some(chunk) = source.chunk_of(start) {
            self.held().parts.retain(|start, _| !chunk.contains(start));
        }
        let bytes = source.load(start, length, here).map_err(|error| {
            let text = ParquetError::General(error.to_string());
            self.held().failure.get_or_insert(error);
            text
        })?;
        self.held().parts.insert(start, bytes.clone());
        Ok(bytes)
    }
}

impl SparseBytes {
    /// Forgets a page that is handed out: a decoder that decompresses it needs it no longer. Little is behind it, which is copied
    /// to let go of the page.
    fn keep_behind(&self, start: u64, behind: &Bytes, length: usize) {
        let mut held = self.held();
        let place = held.parts.range(..=start).next_back().map(|(place, _)| *place);
        if let Some(place) = place {
            held.parts.remove(&place);
        }
        let behind = match behind.len() <= MOST_COPIED {
            true => Bytes::copy_from_slice(behind),
            false => behind.clone(),
        };
        held.parts.insert(start + length as u64, behind);
    }
}

impl Length for SparseBytes {
    fn len(&self) -> u64 {
        self.file_size
    }
}

impl ChunkReader for SparseBytes {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        // What is read this way is a page's header.
        let chunk = self.source.as_ref().and_then(|source| source.chunk_of(start));
        let left = chunk.map_or(0, |chunk| usize::try_from(chunk.end - start).unwrap_or(usize::MAX));
        let bytes = self.from(start, left.min(HEADER_BYTES))?;
        Ok(match self.source {
            // The reader outlives the page that is read next, which takes the place of what these are part of.
            Some(_) => Bytes::copy_from_slice(&bytes[..bytes.len().min(HEADER_BYTES)]).reader(),
            None => bytes.reader(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start, length)?;
        if self.source.is_some() && bytes.len() > length {
            self.keep_behind(start, &bytes.slice(length..), length);
        }
        if bytes.len() < length {
            let found = bytes.len();
            return Err(ParquetError::EOF(format!(
                "expected {length} bytes at {start} of the file, fetched {found}"
            )));
        }
        Ok(bytes.slice(..length))
    }
}

/// Bytes behind a page that are copied: as many as a stream reads behind it.
const MOST_COPIED: usize = 2 * HEADER_BYTES;

/// Bytes in which a page's header fits, with statistics: writers cut these off at 4 KiB or less.
pub(crate) const HEADER_BYTES: usize = 16 << 10;
