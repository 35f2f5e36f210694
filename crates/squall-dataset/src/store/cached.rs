//! Reads that a cache on local disk answers where it can.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use squall_schema::{Error, ErrorKind, Result};

use super::{Store, StoreOptions};
use crate::DatasetUrl;
use crate::cache::{ObjectKey, RangeCache};

/// Where the AWS tools and object_store take the endpoint of S3 from.
const ENDPOINT_VARIABLES: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

impl Store {
    /// Keeps what [`Store::get_part`] reads in this cache.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<RangeCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The cache, if there is one.
    pub fn cache(&self) -> Option<&Arc<RangeCache>> {
        self.cache.as_ref()
    }

    /// What a cache knows a file by: the store, without secrets, and the path from its root.
    pub fn cache_place(&self, path: &Path) -> (String, String) {
        (
            self.place.clone(),
            format!("{}/{path}", self.url.path().trim_matches('/')),
        )
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
        let version = match self.version(path) {
            Some(version) => version,
            None => {
                let gone = || {
                    let gone = Error::new(ErrorKind::NotFound, "no such file");
                    gone.at("file", path).at("URL", &self.url)
                };
                let version = self.head(path).await?.ok_or_else(gone)?;
                self.pin(path, version.clone());
                version
            }
        };
        let (store, place) = self.cache_place(path);
        let key = ObjectKey::new(&store, &place, version.size, version.e_tag.as_deref(), version.modified);
        let Some(key) = key else {
            return self.get_ranges(path, ranges).await;
        };
        // The store gives bytes of the version that is pinned, or an error.
        let fetch = |missing: Vec<Range<u64>>| async move { self.get_ranges(path, &missing).await };
        cache.get_ranges(&key, Some(part), ranges, fetch).await
    }
}

/// The store of a URL, told from others that have a bucket of the same name.
pub(super) fn place(url: &DatasetUrl, options: &StoreOptions) -> String {
    let given = options.options.iter();
    let mut given = given.filter(|(name, _)| name.ends_with("endpoint") || name.ends_with("endpoint_url"));
    let endpoint = given.next().map(|(_, endpoint)| endpoint.clone());
    let endpoint = endpoint.or_else(|| ENDPOINT_VARIABLES.iter().find_map(|name| std::env::var(name).ok()));
    let Some(endpoint) = endpoint else {
        return url.root().to_owned();
    };
    // A user and a password in it are not part of the name.
    let endpoint = match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => endpoint,
    };
    format!("{} at {endpoint}", url.root())
}
