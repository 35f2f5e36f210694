//! A file of a store as a reader that waits: bytes are fetched a chunk ahead, and decompressed as they are read.
//!
//! What decodes text and Avro pulls; what fetches is asynchronous. They meet in a channel of one chunk, so that neither side
//! holds more, whatever the file's size and however well it is compressed.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use object_store::path::Path;
use squall_dataset::Store;
use squall_schema::{Error, Result};
use tokio::sync::mpsc;

/// Bytes of one request.
const CHUNK: u64 = 4 << 20;

/// How a whole file is compressed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compressed {
    No,
    Gzip,
    Zstd,
    Bzip2,
}

impl Compressed {
    /// The compression, and the name without its ending.
    pub(crate) fn of_name(name: &str) -> (Self, &str) {
        let endings = [
            (".gz", Self::Gzip),
            (".gzip", Self::Gzip),
            (".zst", Self::Zstd),
            (".zstd", Self::Zstd),
            (".bz2", Self::Bzip2),
        ];
        let found = endings
            .iter()
            .find_map(|(ending, compressed)| Some((*compressed, name.strip_suffix(ending)?)));
        found.unwrap_or((Self::No, name))
    }

    fn reader(self, bytes: Feed) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::No => Box::new(bytes),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            Self::Zstd => Box::new(zstd::Decoder::new(bytes)?),
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(bytes)),
        })
    }
}

/// What a fetch failed with: readers give it on as text, and lose its kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The error of the store, if there was one.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A file that is being read.
pub(crate) struct Opened {
    pub(crate) bytes: Box<dyn Read + Send>,
    pub(crate) failure: Failure,
}

/// A file to read, any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) store: Store,
    pub(crate) path: Path,
    pub(crate) size: u64,
}

impl Source {
    /// Begins to fetch the file; must be called inside a tokio runtime. What it starts ends when the reader is dropped.
    pub(crate) fn open(&self) -> Result<Opened> {
        let (sender, chunks) = mpsc::channel(1);
        let own = self.clone();
        tokio::spawn(async move {
            let mut start = 0;
            while start < own.size {
                let end = own.size.min(start + CHUNK);
                let chunk = own
                    .store
                    .get_ranges(&own.path, std::slice::from_ref(&(start..end)))
                    .await;
                let failed = chunk.is_err();
                let chunk = chunk.map(|mut chunks| chunks.swap_remove(0));
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
                start = end;
            }
        });
        let failure = Failure::default();
        let feed = Feed {
            chunks,
            current: Bytes::new(),
            failure: failure.clone(),
        };
        let name = self.path.filename().unwrap_or_default().to_ascii_lowercase();
        let (compressed, _) = Compressed::of_name(&name);
        let bytes = compressed
            .reader(feed)
            .map_err(|error| self.at(Error::internal("cannot decompress").with_source(error)))?;
        Ok(Opened { bytes, failure })
    }

    /// Names the file.
    pub(crate) fn at(&self, error: Error) -> Error {
        error.at("file", &self.path).at("URL", self.store.url())
    }
}

struct Feed {
    chunks: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
    failure: Failure,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    let told = io::Error::other(error.to_string());
                    *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(told);
                }
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
