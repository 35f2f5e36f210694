//! What units leave in the staging place: a record when they are done, signs of life before.
//!
//! A record is put where none is, so that of several attempts at one unit the first counts and the others learn that they came
//! late. Nothing that the engine says of tasks and their results is needed to know what was written.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use squall_dataset::{Store, storage_error};
use squall_schema::{Error, Result};
use tokio::time::Instant;

use crate::error::store_error;
use crate::evidence::Evidence;
use crate::run::Chunk;
use crate::write::Written;

/// The directory of all that is taken away at the end.
pub(crate) const DIRECTORY: &str = "_units";
/// Files that are read at a time.
const AT_ONCE: usize = 32;

/// Who wrote a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct By {
    /// The address of the executor, or the name that it was given.
    pub(crate) executor: String,
    pub(crate) process: u32,
}

/// A unit that is done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) unit: usize,
    pub(crate) by: By,
    pub(crate) rows: u64,
    pub(crate) files: Vec<Written>,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) chunks: Vec<Chunk>,
}

/// A sign of life of an attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) unit: usize,
    pub(crate) token: String,
    /// Another number each time.
    pub(crate) n: u64,
    /// Rows, bytes and files so far.
    pub(crate) counted: [u64; 3],
}

/// The files of one pass.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) store: Store,
    directory: Path,
}

impl Ledger {
    pub(crate) fn new(store: &Store, pass: &str) -> Self {
        Self {
            store: store.clone(),
            directory: Path::from(DIRECTORY).join(pass),
        }
    }

    fn record_path(&self, unit: usize) -> Path {
        self.directory.clone().join("records").join(format!("{unit:05}.json"))
    }

    fn beat_path(&self, unit: usize, token: &str) -> Path {
        self.directory
            .clone()
            .join("beats")
            .join(format!("{unit:05}-{token}.json"))
    }

    /// Puts the record of a unit; false if there is one.
    pub(crate) async fn put(&self, record: &Record) -> Result<bool> {
        let path = self.record_path(record.unit);
        let options = PutOptions::from(PutMode::Create);
        match self.store.objects().put_opts(&path, json(record)?, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                // It may be ours: an answer that was lost on its way, and a request that was made again.
                let found: Option<Record> = read(&self.store, &path).await?;
                let same = |own: &Record| own.by == record.by && paths(own).eq(paths(record));
                Ok(found.as_ref().is_some_and(same))
            }
            Err(error) => Err(store_error(error).at("file", path)),
        }
    }

    /// Whether a unit is done.
    pub(crate) async fn has(&self, unit: usize) -> Result<bool> {
        match self.store.objects().head(&self.record_path(unit)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store_error(error).at("file", self.record_path(unit))),
        }
    }

    /// Says that an attempt lives. It does not matter if that is not heard.
    pub(crate) async fn beat(&self, beat: &Beat) {
        if let Ok(text) = json(beat) {
            let path = self.beat_path(beat.unit, &beat.token);
            let _ = self.store.objects().put(&path, text).await;
        }
    }

    pub(crate) async fn end(&self, unit: usize, token: &str) {
        let _ = self.store.objects().delete(&self.beat_path(unit, token)).await;
    }

    /// The numbers of the units that are done, and the paths of all signs of life.
    pub(crate) async fn list(&self) -> Result<(Vec<usize>, Vec<Path>)> {
        let listed = self.store.objects().list(Some(&self.directory));
        let listed: Vec<_> = listed.try_collect().await.map_err(storage_error)?;
        let (mut done, mut beats) = (Vec::new(), Vec::new());
        for path in listed.into_iter().map(|file| file.location) {
            match path.parts().nth(2).as_ref().map(AsRef::as_ref) {
                Some("records") => done.extend(path.filename().and_then(|name| name.get(..5)?.parse::<usize>().ok())),
                Some("beats") => beats.push(path),
                _ => {}
            }
        }
        Ok((done, beats))
    }

    /// The records of units that are done.
    pub(crate) async fn records(&self, units: Vec<usize>) -> Result<Vec<Record>> {
        let records = stream::iter(units).map(|unit| self.record(unit));
        records.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn record(&self, unit: usize) -> Result<Record> {
        let path = self.record_path(unit);
        let found = read(&self.store, &path).await?;
        found.ok_or_else(|| Error::corrupt("the record of a unit is gone").at("file", path))
    }

    /// The signs of life at these paths that are still there, each with the time at which it was read: where there are many, that
    /// of the first is not that of the last.
    pub(crate) async fn heard(&self, paths: Vec<Path>) -> BTreeMap<Path, (Beat, Instant)> {
        let read = |path: Path| async move {
            let beat = self.beat_at(&path).await?;
            Some((path, (beat, Instant::now())))
        };
        let read = stream::iter(paths).map(read).buffer_unordered(AT_ONCE);
        read.filter_map(std::future::ready).collect().await
    }

    /// A sign of life, if it is still there and whole.
    pub(crate) async fn beat_at(&self, path: &Path) -> Option<Beat> {
        read(&self.store, path).await.ok().flatten()
    }
}

fn paths(record: &Record) -> impl Iterator<Item = &str> {
    let chunks = record.chunks.iter().map(|chunk| chunk.path.as_ref());
    record.files.iter().map(|file| file.entry.path.as_str()).chain(chunks)
}

fn json(value: &impl Serialize) -> Result<PutPayload> {
    let text = serde_json::to_vec(value);
    Ok(text
        .map_err(|error| Error::internal("a record is not JSON").with_source(error))?
        .into())
}

/// Writes a file of JSON.
pub(crate) async fn write(store: &Store, path: &Path, value: &impl Serialize) -> Result<()> {
    let put = store.objects().put(path, json(value)?).await;
    put.map(|_| ()).map_err(|error| store_error(error).at("file", path))
}

/// Reads a file of JSON, if there is one.
pub(crate) async fn read<T: DeserializeOwned>(store: &Store, path: &Path) -> Result<Option<T>> {
    let at = |error: object_store::Error| storage_error(error).at("file", path);
    let bytes = match store.objects().get(path).await {
        Ok(found) => found.bytes().await.map_err(at)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let value = serde_json::from_slice(&bytes);
    Ok(Some(value.map_err(|error| {
        Error::corrupt("a record is damaged")
            .at("file", path)
            .with_source(error)
    })?))
}
