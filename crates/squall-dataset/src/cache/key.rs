//! Which object bytes were read from, and in which version of it.

use chrono::{DateTime, Utc};
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::xxh3_128;

/// An object as it was at one time. An object that is replaced has another key from then on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    store: String,
    path: String,
    version: String,
    size: u64,
    digest: u128,
}

impl ObjectKey {
    /// The key of an object of `size` bytes; `None` where nothing tells its versions apart, so that it must not be cached.
    ///
    /// `store` names the store as a whole, without secrets: scheme, endpoint, bucket. `path` is the object's path from the root
    /// of the store. The version is the ETag, with or without quotes: listings of Azure have none. Where there is none, or a weak
    /// one (`W/"…"`), which a store may keep while bytes change, it is the time of the last change too, in seconds: some stores
    /// tell no more.
    pub fn new(
        store: &str,
        path: &str,
        size: u64,
        etag: Option<&str>,
        modified: Option<DateTime<Utc>>,
    ) -> Option<Self> {
        let etag = etag.filter(|etag| !etag.is_empty());
        let version = match (etag, modified) {
            (Some(etag), _) if !etag.starts_with("W/") => etag.trim_matches('"').to_owned(),
            (etag, Some(modified)) => format!("{}@{}", etag.unwrap_or_default(), modified.timestamp()),
            (_, None) => return None,
        };
        Some(Self::of_parts(store.to_owned(), path.to_owned(), version, size))
    }

    fn of_parts(store: String, path: String, version: String, size: u64) -> Self {
        let mut key = Self {
            store,
            path,
            version,
            size,
            digest: 0,
        };
        key.digest = xxh3_128(key.to_text().as_bytes());
        key
    }

    /// The store.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The object's path from the root of its store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes of the object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// XXH3 of 128 bits of all parts.
    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    /// The key as an entry has it: a JSON array.
    pub(super) fn to_text(&self) -> String {
        serde_json::json!([self.store, self.path, self.version, self.size]).to_string()
    }

    pub(super) fn from_text(text: &[u8]) -> Result<Self> {
        let (store, path, version, size): (String, String, String, u64) = serde_json::from_slice(text)
            .map_err(|error| Error::corrupt("not the key of an object").with_source(error))?;
        Ok(Self::of_parts(store, path, version, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_makes_another_key() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        let key = |store, path, size, etag, modified| ObjectKey::new(store, path, size, etag, modified).expect("a key");
        let keys = [
            key("s3://a", "x", 7, Some("\"1\""), at(1)),
            key("s3://b", "x", 7, Some("\"1\""), at(1)),
            key("s3://a", "y", 7, Some("\"1\""), at(1)),
            key("s3://a", "x", 8, Some("\"1\""), at(1)),
            key("s3://a", "x", 7, Some("\"2\""), at(1)),
            key("s3://a", "x", 7, Some("W/\"1\""), at(1)),
            key("s3://a", "x", 7, Some("W/\"1\""), at(2)),
            key("s3://a", "x", 7, None, at(1)),
            key("s3://a", "x", 7, None, at(2)),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a.digest() != b.digest()), "{a:?}");
            assert_eq!(ObjectKey::from_text(a.to_text().as_bytes()).expect("a key"), *a);
        }
        // A listing and a response may tell the time in another precision, but never another strong ETag.
        assert_eq!(keys[0], key("s3://a", "x", 7, Some("\"1\""), at(2)));
        assert_eq!(keys[0], key("s3://a", "x", 7, Some("1"), None));
        for (etag, modified) in [(None, None), (Some(""), None), (Some("W/\"1\""), None)] {
            assert_eq!(ObjectKey::new("s3://a", "x", 7, etag, modified), None);
        }
        assert!(ObjectKey::from_text(b"[1]").is_err());
    }
}
