//! What a conversion has done already, so that the next one to its place goes on from there when its process is killed.
//!
//! A conversion is known by its plan, its options and what it reads. Of each unit that is done, a partition or a range of keys, a record is put
//! beside what it wrote, which names its files; what no record names is taken away by whoever goes on. Only what comes out the
//! same each time is resumed, so it does not matter which attempt did a unit. It is for directories, whose lock the system
//! gives back when a process dies: in a store an owner may live that was taken for dead, and write where another goes on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::{ObjectStoreExt, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use squall_dataset::Store;
use squall_schema::{Error, ErrorKind, Result};

use crate::error::store_error;
use crate::sweep::sweep;
use crate::sync::{sync_files, synced};

/// Where records are, below the place: readers look at nothing that begins so.
const DIRECTORY: &str = "_squall";

/// The directory of the records of a conversion that is known by `mark`, below its place.
pub(crate) fn directory(mark: &str) -> PathBuf {
    Path::new(DIRECTORY).join(mark)
}

/// What a record outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Its process. Files may be no more than pages in the memory of the system.
    Process,
    /// A loss of power too: files are brought to the disk before it is put.
    Disk,
}

/// The records of a conversion in one directory.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    store: Store,
    root: PathBuf,
    mark: String,
    durability: Durability,
    found: Arc<HashMap<String, Record>>,
    /// Units that need not be done again.
    resumed: Arc<AtomicUsize>,
}

/// What a unit left.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Its files and their bytes.
    files: Vec<(String, u64)>,
    done: Value,
}

impl Record {
    /// Whether its files are there: they may have been on their way out when a process was killed.
    fn is_whole(&self, root: &Path) -> bool {
        let is_there =
            |(file, bytes): &(String, u64)| fs::metadata(root.join(file)).is_ok_and(|found| found.len() == *bytes);
        self.files.iter().all(is_there)
    }
}

impl Checkpoint {
    /// The records that are there, if any, in a directory that is this process's; takes away all files that none of them names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves some of those files.
    pub(crate) async fn open(store: &Store, mark: &str, durability: Durability) -> Result<Self> {
        let root = store.url().to_file_path();
        let root = root.ok_or_else(|| Error::internal("only directories are resumed").at("URL", store.url()))?;
        let unusable = |error: std::io::Error| {
            Error::new(ErrorKind::Storage, "cannot keep records of what is done")
                .at("URL", store.url())
                .with_source(error)
        };
        let directory = root.join(directory(mark));
        fs::create_dir_all(&directory).map_err(unusable)?;
        let (mut found, mut kept) = (HashMap::new(), HashSet::new());
        for entry in fs::read_dir(&directory).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            let unit = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
            // A record that was cut short is none.
            let record = fs::read(&path).map(|bytes| serde_json::from_slice::<Record>(&bytes));
            let (Some(unit), Ok(Ok(record))) = (unit, record) else {
                continue;
            };
            if record.is_whole(&root) {
                kept.extend(record.files.iter().map(|(file, _)| file.clone()));
                kept.insert(format!("{DIRECTORY}/{mark}/{unit}.json"));
                found.insert(unit.to_owned(), record);
            }
        }
        sweep(store, &kept).await?;
        // The next one finds the directory by it.
        fs::create_dir_all(&directory).map_err(unusable)?;
        Ok(Self {
            store: store.clone(),
            root,
            mark: mark.to_owned(),
            durability,
            found: Arc::new(found),
            resumed: Arc::default(),
        })
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
        let done = T::deserialize(&record.done);
        done.map(Some)
            .map_err(|error| Error::internal("a record of a unit is not what it was").with_source(error))
    }

    /// Records that a unit is done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave no record.
    pub(crate) async fn put<T: Serialize>(&self, unit: &str, files: Vec<(String, u64)>, done: &T) -> Result<()> {
        if self.durability == Durability::Disk {
            let paths: Vec<_> = files.iter().map(|(file, _)| self.root.join(file)).collect();
            synced(move || sync_files(&paths)).await?;
        }
        let path = object_store::path::Path::from_iter([DIRECTORY, &self.mark, &format!("{unit}.json")]);
        let record = serde_json::to_value(done).and_then(|done| serde_json::to_vec(&Record { files, done }));
        let record = record.map_err(|error| Error::internal("a unit has no record").with_source(error))?;
        // A put is a rename: whole, or not at all.
        let put = self.store.objects().put(&path, PutPayload::from(record)).await;
        put.map(|_| ()).map_err(|error| store_error(error).at("file", &path))
    }

    /// Takes away all that was recorded, and what the records name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves some of it.
    pub(crate) async fn forget(&mut self) -> Result<()> {
        let resumed = self.resumed.clone();
        *self = Self {
            resumed,
            ..Self::cleared(&self.store, &self.mark, self.durability).await?
        };
        Ok(())
    }

    async fn cleared(store: &Store, mark: &str, durability: Durability) -> Result<Self> {
        sweep(store, &HashSet::new()).await?;
        Self::open(store, mark, durability).await
    }

    /// Takes away the records, and leaves the files.
    ///
    /// # Cancel safety
    ///
    /// Once begun, it ends on a thread of its own.
    pub(crate) async fn end(self) -> Result<()> {
        let records = self.root.join(DIRECTORY);
        synced(move || fs::remove_dir_all(records)).await
    }
}

#[cfg(test)]
mod tests {
    use squall_dataset::DatasetUrl;

    use super::*;

    #[tokio::test]
    async fn what_is_recorded_stays_and_the_rest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().to_str().expect("UTF-8");
        let store = Store::create(&DatasetUrl::parse(root).expect("a URL")).expect("a store");
        let put = |name: &str| fs::write(directory.path().join(name), b"x").expect("a file");
        let left = || {
            let entries = fs::read_dir(directory.path()).expect("a directory");
            let mut left: Vec<_> = entries
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .filter(|name| name != DIRECTORY)
                .collect();
            left.sort();
            left
        };
        let open = async |mark: &str| {
            Checkpoint::open(&store, mark, Durability::Disk)
                .await
                .expect("a checkpoint")
        };
        let file = |name: &str| vec![(name.to_owned(), 1)];
        let first = open("key").await;
        for name in ["part-0", "part-1", "part-2"] {
            put(name);
        }
        first.put("write-0", file("part-0"), &7u32).await.expect("a record");
        first.put("write-1", file("part-1"), &8u32).await.expect("a record");
        put("_squall/key/write-2.json");
        // Killed while it took away what it wrote.
        fs::remove_file(directory.path().join("part-1")).expect("a file");
        let mut second = open("key").await;
        assert_eq!(left(), ["part-0"]);
        assert_eq!(second.get::<u32>("write-0").expect("a record"), Some(7));
        for unit in ["write-1", "write-2"] {
            assert_eq!(second.get::<u32>(unit).expect("no record"), None, "{unit}");
        }
        second.forget().await.expect("nothing left");
        assert_eq!(second.get::<u32>("write-0").expect("no record"), None);
        assert!(left().is_empty());
        put("part-3");
        second.end().await.expect("no records");
        assert!(left() == ["part-3"] && !directory.path().join(DIRECTORY).exists());
        // Another conversion starts from nothing.
        open("other").await;
        assert!(left().is_empty());
    }
}
