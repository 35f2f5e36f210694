//! From a URL to the store that holds it.
//!
//! The files stand in the order of a read: `options`, `backend` and `cloud` make the store, `version` says which state of an object
//! is read, `ranges` which requests are made, `local` and `remote` make them into buffers of `pool`, `failure` says why one
//! failed.

mod options;

mod backend;
#[cfg(any(feature = "cloud", feature = "hdfs"))]
mod cloud;
#[cfg(feature = "cloud")]
mod known;

mod failure;
mod version;

mod ranges;

mod pool;

#[cfg(unix)]
mod local;
mod remote;
mod reply;

mod metrics;

mod cached;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use squall_schema::{Error, ErrorKind, Result};

pub use self::metrics::{Retries, StoreMetrics};
pub use self::options::{
    DEFAULT_BACKOFF, DEFAULT_COALESCE_GAP, DEFAULT_CONCURRENCY, DEFAULT_CONNECT_TIMEOUT, DEFAULT_MAX_BACKOFF,
    DEFAULT_MAX_REQUEST, DEFAULT_READ_TIMEOUT, DEFAULT_RETRIES, DEFAULT_TOTAL_TIMEOUT, Provider, StoreOptions,
};
pub use self::version::ObjectVersion;

use self::backend::Purpose;
use self::failure::{Cause, Failure, shown};
use self::metrics::{Counters, add};
use self::pool::Pool;
use self::remote::Remote;
use self::reply::Reply;
use self::version::Versions;
use crate::cache::RangeCache;
use crate::{DatasetUrl, Scheme};

/// How files are named of which a URL may name one. Directories are named so too: the store is asked.
const FILE_ENDINGS: [&str; 3] = [".parquet", ".parq", ".pq"];

/// The memory stores of this process, by name.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// A dataset's place in its object store. All paths are relative to it.
///
/// [`Store::get_ranges`] gives bytes of one state of each object: of the one that was listed, or of the first that it
/// met. When the object is another, or gone, it is an error.
#[derive(Clone)]
pub struct Store {
    url: DatasetUrl,
    objects: Arc<dyn ObjectStore>,
    /// Set where the URL names one file instead of a directory.
    only: Option<Path>,
    access: Arc<Access>,
    versions: Arc<Versions>,
    counters: Arc<Counters>,
    /// Where parts of files are kept.
    cache: Option<Arc<RangeCache>>,
    /// The store as a whole, for those who keep parts of it: without secrets.
    place: String,
}

/// How objects are read.
enum Access {
    #[cfg(unix)]
    Local(Arc<LocalFileSystem>, Arc<Pool>),
    /// Without waiting: memory.
    Direct(Arc<dyn ObjectStore>),
    Remote(Box<Remote>),
}

impl Store {
    /// The store of a dataset that exists, with options of the environment.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the request; nothing is kept.
    pub async fn open(url: &DatasetUrl) -> Result<Self> {
        Self::open_with(url, &StoreOptions::default()).await
    }

    /// The store of a dataset that exists.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the request; nothing is kept.
    pub async fn open_with(url: &DatasetUrl, options: &StoreOptions) -> Result<Self> {
        let missing = || Error::new(ErrorKind::NotFound, "no such file or directory").at("URL", url);
        match url.to_file_path() {
            Some(path) if path.is_file() => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
                else {
                    return Err(missing());
                };
                options.check()?;
                let store = Self::of_directory(url, parent)?;
                Ok(Self {
                    only: Some(Path::from(name)),
                    ..store
                })
            }
            Some(path) if path.is_dir() => {
                options.check()?;
                Self::of_directory(url, &path)
            }
            Some(_) => Err(missing()),
            None => {
                if let Some((parent, name)) = file_of(url) {
                    let store = Self::below(url, options, parent)?;
                    if store.is_there(&name).await? {
                        return Ok(Self {
                            only: Some(name),
                            ..store
                        });
                    }
                }
                Self::create_with(url, options)
            }
        }
    }

    /// The store of a directory that is there, or of one that is made by the first write; with options of the environment.
    pub fn create(url: &DatasetUrl) -> Result<Self> {
        Self::create_with(url, &StoreOptions::default())
    }

    /// The store of a directory that is there, or of one that is made by the first write.
    pub fn create_with(url: &DatasetUrl, options: &StoreOptions) -> Result<Self> {
        options.check()?;
        if let Some(path) = url.to_file_path() {
            std::fs::create_dir_all(&path).map_err(|error| {
                Error::new(ErrorKind::Storage, "cannot create the directory")
                    .at("URL", url)
                    .with_source(error)
            })?;
            return Self::of_directory(url, &path);
        }
        Self::below(url, options, Path::from(url.path()))
    }

    fn of_directory(url: &DatasetUrl, path: &std::path::Path) -> Result<Self> {
        debug_assert_eq!(url.scheme(), Scheme::File);
        let files = LocalFileSystem::new_with_prefix(path).map_err(|error| storage_error(error).at("URL", url))?;
        let files = Arc::new(files);
        #[cfg(unix)]
        let access = Access::Local(files.clone(), Arc::default());
        #[cfg(not(unix))]
        let access = Access::Direct(files.clone());
        Ok(Self::new(url, files, access, Default::default()))
    }

    /// The store of what lies below a path of a bucket, or of a memory store.
    fn below(url: &DatasetUrl, options: &StoreOptions, prefix: Path) -> Result<Self> {
        options.check()?;
        if url.scheme() == Scheme::Memory {
            let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = stores.entry(url.host().to_owned()).or_default().clone();
            let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(memory, prefix));
            return Ok(Self::new(
                url,
                objects.clone(),
                Access::Direct(objects),
                Default::default(),
            ));
        }
        let rest = backend::build(url, options, Purpose::Rest)?;
        let objects = Arc::new(PrefixStore::new(rest, prefix.clone()));
        let state: (Arc<Versions>, Arc<Counters>) = Default::default();
        let access = Access::Remote(Box::new(Remote::new(url, options, prefix, state.clone())?));
        let mut store = Self::new(url, objects, access, state);
        store.place = cached::place(url, options);
        Ok(store)
    }

    fn new(
        url: &DatasetUrl,
        objects: Arc<dyn ObjectStore>,
        access: Access,
        (versions, counters): (Arc<Versions>, Arc<Counters>),
    ) -> Self {
        Self {
            url: url.clone(),
            objects,
            only: None,
            access: Arc::new(access),
            versions,
            counters,
            cache: None,
            place: url.root().to_owned(),
        }
    }

    /// The URL that was opened.
    pub fn url(&self) -> &DatasetUrl {
        &self.url
    }

    /// The object store; its root is the dataset's directory. It retries by itself, and does not know which state of an
    /// object was seen first.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The same place in another object store, such as one around its own. It is read without retries of ours.
    #[must_use]
    pub fn with_objects(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.objects = wrap(self.objects);
        self.access = Arc::new(Access::Direct(self.objects.clone()));
        self
    }

    /// The one file that the URL names, if it is not a directory.
    pub fn only(&self) -> Option<&Path> {
        self.only.as_ref()
    }

    /// What was read so far, by all clones of this store.
    pub fn metrics(&self) -> StoreMetrics {
        self.counters.read()
    }

    /// The state of an object that is read, as far as it is known.
    pub fn version(&self, path: &Path) -> Option<ObjectVersion> {
        self.versions.get(path)
    }

    /// From now on only this state of an object is read: one that was listed, or written down.
    pub fn pin(&self, path: &Path, version: ObjectVersion) {
        self.versions.pin(path, version);
    }

    /// The bytes of an object, or `None` if there is none. It is read as it is now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the request; nothing is kept.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let got = match &*self.access {
            Access::Remote(remote) => remote.whole(path).await,
            _ => {
                let got = match self.objects.get(path).await {
                    Ok(got) => got.bytes().await,
                    Err(error) => Err(error),
                };
                got.map_err(|error| failed(&error))
            }
        };
        self.present(path, got)
    }

    /// What an object is now, or `None` if there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the request; nothing is kept.
    pub async fn head(&self, path: &Path) -> Result<Option<ObjectVersion>> {
        let found = match &*self.access {
            Access::Remote(remote) => remote.head(path).await,
            _ => {
                let found = self.objects.head(path).await;
                found
                    .map(|meta| ObjectVersion::of(&meta))
                    .map_err(|error| failed(&error))
            }
        };
        self.present(path, found)
    }

    /// All objects, in no order.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let listed = match &*self.access {
            Access::Remote(remote) => remote.list().await,
            _ => self
                .objects
                .list(None)
                .try_collect()
                .await
                .map_err(|error| failed(&error)),
        };
        listed.map_err(|failure| match failure.cause {
            Cause::Unsupported if self.url.scheme() == Scheme::Http => Error::unsupported(
                "the web server has no listing (WebDAV): expected a dataset that Squall wrote, with its _common_metadata, \
                 or the URL of one Parquet file",
            )
            .with_source(failure.detail)
            .at("URL", &self.url),
            _ => failure.into_error(&self.url, &Path::default(), None).without_place("file"),
        })
    }

    /// The bytes of these ranges of an object, in the order asked for. Close ranges are fetched as one and share a buffer; long
    /// ones by several requests side by side.
    ///
    /// An object that is another than the first time, or gone, is an error that names both states.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let at = |error: Error| error.at("file", path).at("URL", &self.url);
        if let Some(range) = ranges.iter().find(|range| range.start > range.end) {
            return Err(at(Error::corrupt(format!(
                "a range of bytes from {} to {}",
                range.start, range.end
            ))));
        }
        let known = self.versions.get(path);
        match &*self.access {
            #[cfg(unix)]
            Access::Local(files, pool) => {
                let file = files
                    .path_to_filesystem(path)
                    .map_err(|error| at(storage_error(error)))?;
                let is_known = known.is_some();
                let read = blocking({
                    let (ranges, known, pool) = (ranges.to_vec(), known.clone(), pool.clone());
                    move || local::read(&file, &ranges, known.as_ref(), &pool)
                });
                match read.await.map_err(at)? {
                    Ok((found, bytes)) => {
                        add(&self.counters.requests, bytes.len() as u64);
                        add(&self.counters.bytes, bytes.iter().map(|bytes| bytes.len() as u64).sum());
                        if !is_known {
                            self.versions.pin(path, found);
                        } else {
                            self.versions.see(path, found).map_err(at)?;
                        }
                        Ok(bytes)
                    }
                    Err(local::Failed::Replaced(found)) => {
                        Err(at(known.unwrap_or_else(|| found.clone()).replaced(Some(&found))))
                    }
                    Err(local::Failed::Short(range, found)) => Err(at(short(&range, found))),
                    Err(local::Failed::Io(error)) => Err(at(local_error(error, known.is_some()))),
                }
            }
            Access::Direct(objects) => {
                let mut found = Vec::with_capacity(ranges.len());
                for range in ranges {
                    let bytes = self.direct(objects, path, range).await;
                    found.push(bytes.map_err(|failure| failure.into_error(&self.url, path, known.as_ref()))?);
                }
                Ok(found)
            }
            Access::Remote(remote) => {
                let size = known.as_ref().map(|known| known.size);
                if let Some(range) = ranges.iter().find(|range| size.is_some_and(|size| range.end > size)) {
                    return Err(at(short(range, size.unwrap_or(0).saturating_sub(range.start))));
                }
                let read = remote.ranges(path, ranges).await;
                read.map_err(|failure| failure.into_error(&self.url, path, self.versions.get(path).as_ref()))
            }
        }
    }

    async fn direct(&self, objects: &Arc<dyn ObjectStore>, path: &Path, range: &Range<u64>) -> Result<Bytes, Failure> {
        if range.start == range.end {
            return Ok(Bytes::new());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let got = objects.get_opts(path, options).await.map_err(|error| failed(&error))?;
        let found = ObjectVersion::of(&got.meta);
        if self.versions.see(path, found.clone()).is_err() {
            let mut failure = Failure::new(Cause::Replaced, "");
            failure.found = Some(found);
            return Err(failure);
        }
        let bytes = got.bytes().await.map_err(|error| failed(&error))?;
        add(&self.counters.requests, 1);
        add(&self.counters.bytes, bytes.len() as u64);
        match bytes.len() as u64 == range.end - range.start {
            true => Ok(bytes),
            false => Err(Failure::new(
                Cause::Outside,
                format!("found {} bytes of {range:?}", bytes.len()),
            )),
        }
    }

    /// Whether a URL names a file. Who may not look is told when the directory is listed.
    async fn is_there(&self, name: &Path) -> Result<bool> {
        let found = match &*self.access {
            Access::Remote(remote) => remote.head(name).await.map(drop),
            _ => self.objects.head(name).await.map(drop).map_err(|error| failed(&error)),
        };
        match found {
            Ok(()) => Ok(true),
            Err(failure) if matches!(failure.cause, Cause::Missing | Cause::Denied) => Ok(false),
            Err(failure) => Err(failure.into_error(&self.url, name, None)),
        }
    }

    fn present<T>(&self, path: &Path, got: Result<T, Failure>) -> Result<Option<T>> {
        match got {
            Ok(got) => Ok(Some(got)),
            Err(failure) if failure.cause == Cause::Missing => Ok(None),
            Err(failure) => Err(failure.into_error(&self.url, path, None)),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

/// An error of the object store, by what the caller can do about it, without secrets.
pub fn storage_error(error: object_store::Error) -> Error {
    use object_store::Error as E;
    let (kind, message) = match &error {
        E::NotFound { .. } => (ErrorKind::NotFound, "no such file"),
        E::AlreadyExists { .. } => (ErrorKind::AlreadyExists, "the file exists already"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (ErrorKind::Storage, "access is denied"),
        _ => (ErrorKind::Storage, "the store failed"),
    };
    Error::new(kind, message).with_source(shown(&error.to_string()))
}

/// The directory and the name of the file that a URL may name.
fn file_of(url: &DatasetUrl) -> Option<(Path, Path)> {
    let (parent, name) = url.path().rsplit_once('/').unwrap_or(("", url.path()));
    let is_file = FILE_ENDINGS.iter().any(|ending| name.ends_with(ending));
    is_file.then(|| (Path::from(parent), Path::from(name)))
}

fn failed(error: &object_store::Error) -> Failure {
    Failure::of(error, &Reply::default())
}

fn short(range: &Range<u64>, found: u64) -> Error {
    Error::corrupt(format!(
        "the file is shorter than its footer says: expected bytes {} to {}, found {found} of them",
        range.start, range.end
    ))
}

#[cfg(unix)]
fn local_error(error: std::io::Error, is_known: bool) -> Error {
    let (kind, message) = match (error.kind(), is_known) {
        (std::io::ErrorKind::NotFound, true) => {
            return Error::new(ErrorKind::NotFound, "the file was deleted since the dataset was opened");
        }
        (std::io::ErrorKind::NotFound, false) => (ErrorKind::NotFound, "no such file"),
        (std::io::ErrorKind::PermissionDenied, _) => (ErrorKind::Storage, "access is denied"),
        _ => (ErrorKind::Storage, "the file cannot be read"),
    };
    Error::new(kind, message).with_source(error)
}

/// Runs what blocks where that is allowed: on a thread for it, inside of a runtime.
#[cfg(unix)]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let done = runtime.spawn_blocking(work).await;
            done.map_err(|error| Error::internal("a read of a file did not end").with_source(error))
        }
        Err(_) => Ok(work()),
    }
}
