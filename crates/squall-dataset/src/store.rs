//! From a URL to the object store that holds it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use squall_schema::{Error, ErrorKind, Result};

use crate::cache::{ObjectKey, RangeCache};
use crate::{DatasetUrl, Scheme};

/// The memory stores of this process, by name.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// A dataset's place in its object store. All paths are relative to it.
#[derive(Clone)]
pub struct Store {
    url: DatasetUrl,
    objects: Arc<dyn ObjectStore>,
    /// Set where the URL names one file instead of a directory.
    only: Option<Path>,
    /// Where parts of files are kept.
    cache: Option<Arc<Cached>>,
}

/// A cache, and the version of each file that is read through it.
struct Cached {
    ranges: Arc<RangeCache>,
    versions: Mutex<HashMap<Path, ObjectMeta>>,
}

impl Store {
    /// The store of a dataset that exists.
    pub fn open(url: &DatasetUrl) -> Result<Self> {
        let missing = || Error::new(ErrorKind::NotFound, "no such file or directory").at("URL", url);
        match url.to_file_path() {
            Some(path) if path.is_file() => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
                else {
                    return Err(missing());
                };
                let store = Self::of_directory(url, parent)?;
                Ok(Self {
                    only: Some(Path::from(name)),
                    ..store
                })
            }
            Some(path) if path.is_dir() => Self::of_directory(url, &path),
            Some(_) => Err(missing()),
            None => Self::create(url),
        }
    }

    /// The store of a directory that is there, or of one that is made by the first write.
    pub fn create(url: &DatasetUrl) -> Result<Self> {
        if let Some(path) = url.to_file_path() {
            std::fs::create_dir_all(&path).map_err(|error| {
                Error::new(ErrorKind::Storage, "cannot create the directory")
                    .at("URL", url)
                    .with_source(error)
            })?;
            return Self::of_directory(url, &path);
        }
        let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = stores.entry(url.host().to_owned()).or_default().clone();
        Ok(Self {
            url: url.clone(),
            objects: Arc::new(PrefixStore::new(memory, url.path())),
            only: None,
            cache: None,
        })
    }

    fn of_directory(url: &DatasetUrl, path: &std::path::Path) -> Result<Self> {
        debug_assert_eq!(url.scheme(), Scheme::File);
        let files = LocalFileSystem::new_with_prefix(path).map_err(|error| storage_error(error).at("URL", url))?;
        Ok(Self {
            url: url.clone(),
            objects: Arc::new(files),
            only: None,
            cache: None,
        })
    }

    /// The URL that was opened.
    pub fn url(&self) -> &DatasetUrl {
        &self.url
    }

    /// The object store; its root is the dataset's directory.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Keeps what [`Store::get_part`] reads in this cache.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<RangeCache>) -> Self {
        self.cache = Some(Arc::new(Cached {
            ranges: cache,
            versions: Mutex::default(),
        }));
        self
    }

    /// The cache, if there is one.
    pub fn cache(&self) -> Option<&Arc<RangeCache>> {
        self.cache.as_ref().map(|cache| &cache.ranges)
    }

    /// What a cache knows a file by: the store, without secrets, and the path from its root.
    pub fn cache_place(&self, path: &Path) -> (String, String) {
        let store = match self.url.scheme() {
            Scheme::File => "file://".to_owned(),
            Scheme::Memory => format!("memory://{}", self.url.host()),
        };
        (store, format!("{}/{path}", self.url.path().trim_matches('/')))
    }

    /// The same place in another object store.
    pub(crate) fn with_objects(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.objects = wrap(self.objects);
        self
    }

    /// The one file that the URL names, if it is not a directory.
    pub fn only(&self) -> Option<&Path> {
        self.only.as_ref()
    }

    /// The bytes of an object, or `None` if there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the request; nothing is kept.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let got = match self.objects.get(path).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage_error(error).at("file", path).at("URL", &self.url)),
        }
    }

    /// The bytes of these ranges of an object, in the order asked for. Close ranges are fetched as one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let got = self.objects.get_ranges(path, ranges).await;
        let bytes = got.map_err(|error| storage_error(error).at("file", path).at("URL", &self.url))?;
        self.check(path, ranges, &bytes)?;
        Ok(bytes)
    }

    /// The bytes of these ranges of a file, from the cache where it has them. What the store gives is of the same version of the
    /// file. `part` is what [`Foresight`](crate::cache::Foresight) will be asked about.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests.
    pub async fn get_part(&self, path: &Path, part: u64, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(cache) = &self.cache else {
            return self.get_ranges(path, ranges).await;
        };
        let failed = |error| storage_error(error).at("file", path).at("URL", &self.url);
        let known = cache
            .versions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        let version = match known {
            Some(version) => version,
            None => {
                let version = self.objects.head(path).await.map_err(failed)?;
                let mut versions = cache.versions.lock().unwrap_or_else(PoisonError::into_inner);
                versions.entry(path.clone()).or_insert(version).clone()
            }
        };
        let (store, place) = self.cache_place(path);
        let etag = version.e_tag.as_deref();
        let Some(key) = ObjectKey::new(&store, &place, version.size, etag, Some(version.last_modified)) else {
            return self.get_ranges(path, ranges).await;
        };
        let fetch = |missing: Vec<Range<u64>>| async move {
            let mut got = Vec::with_capacity(missing.len());
            for range in &missing {
                let options = GetOptions::new().with_range(Some(range.clone())).with_if_match(etag);
                let bytes = self
                    .objects
                    .get_opts(path, options)
                    .await
                    .map_err(failed)?
                    .bytes()
                    .await;
                got.push(bytes.map_err(failed)?);
            }
            self.check(path, &missing, &got)?;
            Ok(got)
        };
        cache.ranges.get_ranges(&key, Some(part), ranges, fetch).await
    }

    /// Refuses fewer bytes than were asked for.
    fn check(&self, path: &Path, ranges: &[Range<u64>], found: &[Bytes]) -> Result<()> {
        for (range, bytes) in ranges.iter().zip(found) {
            if bytes.len() as u64 != range.end - range.start {
                return Err(Error::corrupt(format!(
                    "the file is shorter than its footer says: expected bytes {} to {}, found {} of them",
                    range.start,
                    range.end,
                    bytes.len()
                ))
                .at("file", path)
                .at("URL", &self.url));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

/// An error of the object store, by what the caller can do about it.
pub fn storage_error(error: object_store::Error) -> Error {
    use object_store::Error as E;
    let (kind, message) = match &error {
        E::NotFound { .. } => (ErrorKind::NotFound, "no such file"),
        E::AlreadyExists { .. } => (ErrorKind::AlreadyExists, "the file exists already"),
        E::Precondition { .. } => (ErrorKind::Corrupt, "the file was replaced while it was read"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (ErrorKind::Storage, "access is denied"),
        _ => (ErrorKind::Storage, "the store failed"),
    };
    Error::new(kind, message).with_source(error)
}
