//! What a conversion has done already, so that the next one to its place goes on from there when its process is killed.
//!
//! A conversion is known by its plan, its options and what it reads. Of each unit that is done, a partition or a range of keys, a record is put
//! beside what it wrote, which names its files; what no record names is taken away by whoever goes on. Only what comes out the
//! same each time is resumed, so it does not matter which attempt did a unit. Records go before the dataset is visible.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use squall_dataset::{Store, storage_error};
use squall_schema::{Error, Result};

use crate::error::store_error;
use crate::sweep::sweep;
use crate::sync::{sync_files, synced};

/// Where records are, below the place: readers look at nothing that begins so.
const DIRECTORY: &str = "_squall";
/// The record that is there from the beginning: what the first attempt named its files by.
const BEGUN: &str = "begun";

/// The directory of the records of a conversion that is known by `mark`, below its place.
pub(crate) fn directory(mark: &str) -> Path {
    Path::from(DIRECTORY).join(mark)
}

/// The records of a conversion below one place.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    store: Store,
    directory: Path,
    /// What the first attempt named its files by.
    pub(crate) name: String,
    found: Arc<HashMap<String, Record>>,
    /// Units that need not be done again.
    resumed: Arc<AtomicUsize>,
}

/// What a unit left.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    files: Vec<String>,
    done: Value,
}

impl Checkpoint {
    /// The records that are there, if any; takes away all files that none of them names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves some of those files.
    pub(crate) async fn open(store: &Store, mark: &str, name: &str) -> Result<Self> {
        let directory = directory(mark);
        let at = |error| storage_error(error).at("URL", store.url());
        let listed = store.objects().list(Some(&directory)).map_ok(|file| file.location);
        let listed: Vec<_> = listed.try_collect().await.map_err(at)?;
        let (mut found, mut kept) = (HashMap::new(), HashSet::new());
        for path in listed {
            let bytes = store
                .objects()
                .get(&path)
                .await
                .map_err(at)?
                .bytes()
                .await
                .map_err(at)?;
            // A record that a loss of power cut short is none.
            let (Some(unit), Ok(record)) = (unit_of(&path), serde_json::from_slice::<Record>(&bytes)) else {
                continue;
            };
            kept.insert(path.to_string());
            kept.extend(record.files.iter().cloned());
            found.insert(unit, record);
        }
        sweep(store, &kept).await?;
        let begun = found
            .remove(BEGUN)
            .and_then(|record| record.done.as_str().map(str::to_owned));
        let is_new = begun.is_none();
        let checkpoint = Self {
            store: store.clone(),
            directory,
            name: begun.unwrap_or_else(|| name.to_owned()),
            found: Arc::new(found),
            resumed: Arc::default(),
        };
        if is_new {
            checkpoint.put(BEGUN, Vec::new(), &checkpoint.name).await?;
        }
        Ok(checkpoint)
    }

    /// How many units need not be done again.
    pub(crate) fn resumed(&self) -> usize {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Counts one that need not be done again.
    pub(crate) fn count(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// Has this one count with another.
    pub(crate) fn count_with(&mut self, other: &Self) {
        self.resumed = other.resumed.clone();
    }

    /// What a unit that is done gave.
    pub(crate) fn get<T: DeserializeOwned>(&self, unit: &str) -> Result<Option<T>> {
        let Some(record) = self.found.get(unit) else {
            return Ok(None);
        };
        let done = serde_json::from_value(record.done.clone());
        let done = done.map_err(|error| Error::internal("a record of a unit is not what it was").with_source(error))?;
        Ok(Some(done))
    }

    /// Records that a unit is done, once its files are safe.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave no record.
    pub(crate) async fn put<T: Serialize>(&self, unit: &str, files: Vec<String>, done: &T) -> Result<()> {
        if let Some(root) = self.store.url().to_file_path() {
            let paths: Vec<_> = files.iter().map(|file| root.join(file)).collect();
            synced(move || sync_files(&paths)).await?;
        }
        let path = self.directory.clone().join(format!("{unit}.json"));
        let record = serde_json::to_value(done).and_then(|done| serde_json::to_vec(&Record { files, done }));
        let record = record.map_err(|error| Error::internal("a unit has no record").with_source(error))?;
        let put = self.store.objects().put(&path, PutPayload::from(record)).await;
        put.map(|_| ()).map_err(|error| store_error(error).at("file", &path))
    }

    /// Takes away all that was recorded, and what the records name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves some of it.
    pub(crate) async fn forget(&mut self) -> Result<()> {
        sweep(&self.store, &HashSet::new()).await?;
        self.found = Arc::default();
        self.put(BEGUN, Vec::new(), &self.name).await
    }

    /// Takes away the records, and leaves the files.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves some of them.
    pub(crate) async fn end(self) -> Result<()> {
        let at = |error| storage_error(error).at("URL", self.store.url());
        if let Some(root) = self.store.url().to_file_path() {
            let records = root.join(DIRECTORY);
            return synced(move || fs::remove_dir_all(records)).await;
        }
        let listed = self
            .store
            .objects()
            .list(Some(&self.directory))
            .map_ok(|file| file.location);
        let listed: Vec<_> = listed.try_collect().await.map_err(at)?;
        for path in listed {
            self.store.objects().delete(&path).await.map_err(at)?;
        }
        Ok(())
    }
}

fn unit_of(path: &Path) -> Option<String> {
    Some(path.filename()?.strip_suffix(".json")?.to_owned())
}

#[cfg(test)]
mod tests {
    use squall_dataset::DatasetUrl;

    use super::*;

    #[tokio::test]
    async fn what_is_recorded_stays_and_the_rest_goes() {
        let store = Store::create(&DatasetUrl::parse("memory://checkpoint/one").expect("a URL")).expect("a store");
        let put = async |name: &str| {
            let path = Path::from(name);
            store
                .objects()
                .put(&path, PutPayload::from_static(b"x"))
                .await
                .expect("a file");
        };
        let left = async || {
            let listed = store.objects().list(None).map_ok(|file| file.location.to_string());
            let mut left: Vec<String> = listed.try_collect().await.expect("a list");
            left.retain(|file| !file.starts_with(DIRECTORY));
            left.sort();
            left
        };
        let first = Checkpoint::open(&store, "key", "first").await.expect("a checkpoint");
        for name in ["part-0", "part-1", "part-2"] {
            put(name).await;
        }
        first
            .put("write-0", vec!["part-0".to_owned()], &7u32)
            .await
            .expect("a record");
        put("_squall/key/write-1.json").await;
        let mut second = Checkpoint::open(&store, "key", "second").await.expect("a checkpoint");
        assert_eq!(
            (second.name.as_str(), left().await),
            ("first", vec!["part-0".to_owned()])
        );
        assert_eq!(second.get::<u32>("write-0").expect("a record"), Some(7));
        assert_eq!(second.get::<u32>("write-1").expect("no record"), None);
        second.forget().await.expect("nothing left");
        assert_eq!(second.get::<u32>("write-0").expect("no record"), None);
        assert!(left().await.is_empty());
        put("part-3").await;
        second.end().await.expect("no records");
        let listed: Vec<_> = store.objects().list(None).try_collect().await.expect("a list");
        assert_eq!(listed.len(), 1);
        // Another conversion starts from nothing.
        let other = Checkpoint::open(&store, "other", "third").await.expect("a checkpoint");
        assert_eq!((other.name.as_str(), left().await.len()), ("third", 0));
    }
}
