//! A file of a store, as the parquet crate reads it: a window at a time, however large the file is.

use std::io::{Error as IoError, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use squall_dataset::Store;
use squall_schema::{Error, Result};
use tokio::runtime::Handle;

/// Bytes that are fetched at once where fewer are asked for.
const WINDOW: u64 = 1 << 20;

/// A file, read on a thread that may be blocked.
#[derive(Clone)]
pub(super) struct Source(Arc<Inner>);

struct Inner {
    store: Store,
    path: Path,
    size: u64,
    runtime: Handle,
    /// The window that was fetched last, and where it begins.
    window: Mutex<(u64, Bytes)>,
}

impl Source {
    /// Must be called inside the runtime that reads.
    pub(super) fn new(store: &Store, path: &Path, size: u64) -> Self {
        Self(Arc::new(Inner {
            store: store.clone(),
            path: path.clone(),
            size,
            runtime: Handle::current(),
            window: Mutex::default(),
        }))
    }

    /// The same file with a window of its own: columns are read side by side.
    pub(super) fn fresh(&self) -> Self {
        let own = &self.0;
        Self(Arc::new(Inner {
            store: own.store.clone(),
            path: own.path.clone(),
            size: own.size,
            runtime: own.runtime.clone(),
            window: Mutex::default(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn size(&self) -> u64 {
        self.0.size
    }

    /// These bytes; fewer where the file ends before.
    pub(super) fn bytes(&self, start: u64, length: u64) -> Result<Bytes> {
        let own = &*self.0;
        let end = start.saturating_add(length).min(own.size);
        if start >= end {
            return Ok(Bytes::new());
        }
        let mut window = own.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, bytes) = &*window;
        if start >= *first && end <= first + bytes.len() as u64 {
            return Ok(bytes.slice((start - first) as usize..(end - first) as usize));
        }
        let fetch_end = end.max(start.saturating_add(WINDOW)).min(own.size);
        let range = start..fetch_end;
        let got = own.runtime.block_on(own.store.get_ranges(&own.path, &[range]))?;
        let bytes = got.into_iter().next().unwrap_or_default();
        let part = bytes.slice(..(end - start) as usize);
        *window = (start, bytes);
        Ok(part)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.0.size
    }
}

impl ChunkReader for Source {
    type T = Reading;

    fn get_read(&self, start: u64) -> ParquetResult<Reading> {
        Ok(Reading {
            source: self.clone(),
            at: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.bytes(start, length as u64).map_err(external)?;
        match bytes.len() == length {
            true => Ok(bytes),
            false => Err(ParquetError::EOF(format!(
                "expected {length} bytes from {start} on, but the file has {}",
                self.0.size
            ))),
        }
    }
}

/// What the store said, on its way through the parquet crate.
fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// A file read from somewhere on.
pub(super) struct Reading {
    source: Source,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.source.bytes(self.at, out.len() as u64).map_err(IoError::other)?;
        out[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}
