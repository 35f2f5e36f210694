//! Datasets that were converted before: a directory with one for each conversion, named by its key.
//!
//! Who finds the dataset of a key takes it, and touches nothing. Of all that look for the same one in vain, one converts and the others wait:
//! on a file system for a lock on a file beside it, which the system gives back when a process dies; elsewhere for the marker of
//! the conversion, which others take over when its owner falls silent.

use std::time::{Duration, SystemTime};

use datafusion::dataframe::DataFrame;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use squall_dataset::{DatasetUrl, Store, StoreOptions, WRITING_MARKER, storage_error, stored_metadata};
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::{ByteSize, Error, ErrorKind, Field, Result};

use crate::converted::Converted;
use crate::converter::Converter;
use crate::key::Key;
use crate::lock::lock;
use crate::marker::{Lease, Marker};
use crate::scratch::discard;

/// How often one who waits for another's conversion looks whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 32;

/// What names a conversion in a cache.
#[derive(Debug, Clone)]
pub(crate) enum Keying {
    /// Its plan and what that reads.
    Plan,
    /// The user.
    Name(String),
}

/// The dataset of a conversion, from the cache at the converter's destination or converted to it.
pub(crate) async fn convert(
    converter: Converter,
    keying: Keying,
    rows: DataFrame,
    declared: &[Field],
) -> Result<Converted> {
    let key = Key::of_options(
        &format!(
            "{:?} {:?} {:?}",
            converter.layout, converter.rules, converter.source.time_zone
        ),
        declared,
    )?;
    let key = match keying {
        Keying::Plan if converter.rules.has_closures() => {
            return Err(Error::unsupported(
                "a cache cannot tell one closure from another: name the conversion by cache_key, and by another name when the closure changes",
            ));
        }
        Keying::Plan => key.plan(&rows).await?,
        Keying::Name(name) => key.name(&name),
    };
    let declared = declared.to_vec();
    take(converter, key, move |converter| {
        let (rows, declared) = (rows.clone(), declared.clone());
        async move { converter.convert_now(rows, &declared).await }.boxed()
    })
    .await
}

/// The dataset of a key, found or made.
pub(crate) async fn take(
    converter: Converter,
    key: Key,
    make: impl Fn(Converter) -> BoxFuture<'static, Result<Converted>>,
) -> Result<Converted> {
    let url = converter.url()?.join(&key.finish());
    let converter = converter.at(url.clone());
    if let Some(found) = find(&url, &converter.store).await? {
        return Ok(found);
    }
    let _lock = match url.to_file_path() {
        Some(path) => Some(lock(path).await.map_err(|error| error.at("URL", &url))?),
        None => None,
    };
    loop {
        if let Some(found) = find(&url, &converter.store).await? {
            return Ok(found);
        }
        match make(converter.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let store = Store::open_with(&url, &converter.store).await?;
                let is_written = store.head(&ObjectPath::from(WRITING_MARKER)).await?.is_some();
                // What is neither a dataset nor being made one is somebody else's.
                if !is_written && stored_metadata(&store).await?.is_none() {
                    return Err(error);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            done => return done,
        }
    }
}

async fn find(url: &DatasetUrl, options: &StoreOptions) -> Result<Option<Converted>> {
    let store = match Store::open_with(url, options).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        store => store?,
    };
    let metadata = stored_metadata(&store).await.map_err(|error| error.at("URL", url))?;
    Ok(metadata.map(|metadata| Converted::found(url.clone(), metadata, options.clone())))
}

/// A cache of conversions: the directory that [`Converter::cached`] writes to.
///
/// ```
/// use std::time::Duration;
///
/// use squall_converter::{Cache, Converter, Limits, session};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rows = session().sql("SELECT column1 AS id FROM (VALUES (1), (2), (3))").await?;
/// let converter = Converter::new("memory://cache/train").cached();
/// assert!(!converter.clone().convert(rows.clone()).await?.is_hit());
/// assert!(converter.convert(rows).await?.is_hit());
/// let cache = Cache::new("memory://cache/train");
/// let limits = Limits { older_than: Some(Duration::from_secs(30 * 86_400)), ..Limits::default() };
/// assert!(cache.evict(&limits).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Cache {
    url: String,
    store: StoreOptions,
}

/// A dataset of a cache.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    /// Where it is.
    pub url: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was complete.
    pub created: SystemTime,
}

/// What a cache keeps. Without any limit it keeps all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Datasets that were complete so long ago go.
    pub older_than: Option<Duration>,
    /// The oldest go until no more bytes are left.
    pub at_most: Option<ByteSize>,
}

impl Cache {
    /// The cache at a URL or a path.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            store: StoreOptions::default(),
        }
    }

    /// How its store is reached.
    pub fn store(mut self, store: StoreOptions) -> Self {
        self.store = store;
        self
    }

    /// The datasets that are complete, the oldest first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn entries(&self) -> Result<Vec<CacheEntry>> {
        let parent = DatasetUrl::parse(&self.url)?;
        let store = match Store::open_with(&parent, &self.store).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            store => store?,
        };
        let failed = |error| storage_error(error).at("URL", &parent);
        let listed = store.objects().list_with_delimiter(None).await.map_err(failed)?;
        let mut entries = Vec::new();
        for directory in listed.common_prefixes {
            let is_key = |name: &str| name.len() == KEY_DIGITS && name.bytes().all(|digit| digit.is_ascii_hexdigit());
            let Some(name) = directory.filename().filter(|name| is_key(name)) else {
                continue;
            };
            let url = parent.join(name);
            let file = directory.clone().join(metadata::FILE);
            let created = match store.objects().head(&file).await {
                Ok(found) => found.last_modified.into(),
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(failed(error)),
            };
            // It may have gone meanwhile.
            if let Some(found) = find(&url, &self.store).await? {
                entries.push(CacheEntry {
                    url: url.to_string(),
                    rows: found.rows(),
                    bytes: found.files().iter().map(|file| file.size).sum(),
                    created,
                });
            }
        }
        entries.sort_by(|a, b| (a.created, &a.url).cmp(&(b.created, &b.url)));
        Ok(entries)
    }

    /// Deletes what goes beyond the limits; gives what was deleted. Readers that have a dataset open fail when they read on.
    ///
    /// # Cancel safety
    ///
    /// A dataset whose deletion was begun is no longer found, though files of it may be left.
    pub async fn evict(&self, limits: &Limits) -> Result<Vec<CacheEntry>> {
        let entries = self.entries().await?;
        let now = SystemTime::now();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut gone = Vec::new();
        for entry in entries {
            let age = now.duration_since(entry.created).unwrap_or_default();
            let is_old = limits.older_than.is_some_and(|most| age >= most);
            let is_too_much = limits.at_most.is_some_and(|most| bytes > most.bytes());
            if is_old || is_too_much {
                let name = entry.url.rsplit('/').next().unwrap_or_default();
                delete(&DatasetUrl::parse(&self.url)?.join(name), &self.store).await?;
                bytes -= entry.bytes;
                gone.push(entry);
            }
        }
        Ok(gone)
    }
}

/// Deletes a dataset, while nobody converts to its place: on a file system it is renamed first, elsewhere its metadata go first under a
/// marker, so that nobody finds it half gone, and the next conversion to this place takes away what a killed one left.
pub(crate) async fn delete(url: &DatasetUrl, options: &StoreOptions) -> Result<()> {
    let store = match Store::open_with(url, options).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        store => store?,
    };
    let at = |error: Error| error.at("URL", url);
    if let Some(directory) = url.to_file_path() {
        let _lock = lock(directory.clone()).await.map_err(at)?;
        return discard(&directory)
            .map_err(|error| at(Error::new(ErrorKind::Storage, "cannot delete the dataset").with_source(error)));
    }
    let marker = Marker::take(&store, Lease::default()).await?;
    let failed = |error| at(storage_error(error));
    let objects = store.objects();
    let is_gone = |done: object_store::Result<()>| match done {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        done => done.map_err(failed),
    };
    is_gone(objects.delete(&ObjectPath::from(metadata::FILE)).await)?;
    let files = objects.list(None).map_ok(|file| file.location);
    let files: Vec<_> = files.try_collect().await.map_err(failed)?;
    for file in files.iter().filter(|file| file.as_ref() != WRITING_MARKER) {
        is_gone(objects.delete(file).await)?;
    }
    marker.release().await
}

/// A dataset that is deleted when this is dropped.
#[derive(Debug)]
pub struct Temporary {
    converted: Option<Converted>,
}

impl Temporary {
    pub(crate) fn new(converted: Converted) -> Self {
        Self {
            converted: Some(converted),
        }
    }

    /// The dataset.
    pub fn dataset(&self) -> &Converted {
        // It is taken by the drop alone.
        self.converted
            .as_ref()
            .unwrap_or_else(|| unreachable!("a dropped value is used"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(converted) = self.converted.take() else {
            return;
        };
        // Whoever drops it may run on a thread of a runtime, which must not wait: another thread does.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(converted.delete()))
        });
        // Nobody is left to be told; what remains is a dataset like any other.
        let _ = deleted.join();
    }
}

impl Converted {
    fn found(url: DatasetUrl, metadata: DatasetMetadata, store: StoreOptions) -> Self {
        Self::new(url, metadata, store).into_hit()
    }
}
