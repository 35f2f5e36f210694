//! Which state of an object is read: one for the life of a store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use squall_schema::{Error, Result};

/// A state of an object, as its store tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectVersion {
    /// Bytes of it.
    pub size: u64,
    /// Its ETag. Local files have one of inode, time and size.
    pub e_tag: Option<String>,
    /// When it was written, if it is known. Listings and responses may tell it to different parts of a second.
    pub modified: Option<DateTime<Utc>>,
}

impl ObjectVersion {
    /// An object of which only the size is known.
    pub fn of_size(size: u64) -> Self {
        Self {
            size,
            e_tag: None,
            modified: None,
        }
    }

    /// What a listing or a response says.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            size: meta.size,
            e_tag: meta.e_tag.clone(),
            // A web server that does not tell is taken to have said 1970.
            modified: (meta.last_modified.timestamp() != 0).then_some(meta.last_modified),
        }
    }

    /// Whether nothing speaks against both being the same state: equal sizes, and equal ETags, or times where one of them has
    /// none.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let same = match (&self.e_tag, &other.e_tag) {
            (Some(own), Some(other)) => opaque(own) == opaque(other),
            _ => match (self.modified, other.modified) {
                (Some(own), Some(other)) => own.timestamp() == other.timestamp(),
                _ => true,
            },
        };
        same && self.size == other.size
    }

    /// The error of finding another state than this. Names both.
    pub(super) fn replaced(&self, found: Option<&Self>) -> Error {
        let found = found.map_or("a later one".to_owned(), Self::to_string);
        Error::corrupt(format!(
            "the file was replaced since the dataset was opened: expected {self}, found {found}"
        ))
    }
}

impl fmt::Display for ObjectVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.e_tag, self.modified) {
            (Some(tag), _) => write!(f, "ETag {tag} of {} bytes", self.size),
            (None, Some(modified)) => write!(f, "{} bytes of {}", self.size, modified.to_rfc3339()),
            (None, None) => write!(f, "{} bytes", self.size),
        }
    }
}

/// An ETag without quotes and the mark of a weak one. Azure's listings have no quotes, its responses do.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The state of each object that was seen first. Later ones are refused.
#[derive(Debug, Default)]
pub(super) struct Versions(RwLock<HashMap<Path, ObjectVersion>>);

impl Versions {
    pub(super) fn get(&self, path: &Path) -> Option<ObjectVersion> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(path).cloned()
    }

    pub(super) fn pin(&self, path: &Path, version: ObjectVersion) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(path.clone(), version);
    }

    /// Compares what was found with what was seen before, and keeps what that did not tell.
    pub(super) fn see(&self, path: &Path, found: ObjectVersion) -> Result<()> {
        match self.get(path) {
            Some(known) if !known.agrees_with(&found) => Err(known.replaced(Some(&found))),
            Some(known) if known.e_tag.is_some() || found.e_tag.is_none() => Ok(()),
            _ => {
                self.pin(path, found);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(size: u64, e_tag: Option<&str>, modified: Option<i64>) -> ObjectVersion {
        ObjectVersion {
            size,
            e_tag: e_tag.map(str::to_owned),
            modified: modified.and_then(DateTime::from_timestamp_millis),
        }
    }

    #[test]
    fn states_agree_unless_something_speaks_against_it() {
        let tagged = version(3, Some("\"a\""), Some(5_001));
        for same in [
            version(3, Some("a"), Some(9_000)),
            version(3, Some("W/\"a\""), None),
            version(3, None, Some(5_999)),
            ObjectVersion::of_size(3),
        ] {
            assert!(tagged.agrees_with(&same) && same.agrees_with(&tagged), "{same}");
        }
        for other in [
            version(3, Some("\"b\""), Some(5_001)),
            version(4, Some("\"a\""), None),
            version(3, None, Some(6_000)),
        ] {
            assert!(!tagged.agrees_with(&other) && !other.agrees_with(&tagged), "{other}");
        }
    }

    #[test]
    fn the_first_state_stays() {
        let (versions, path) = (Versions::default(), Path::from("a"));
        versions.pin(&path, ObjectVersion::of_size(3));
        versions
            .see(&path, version(3, Some("\"a\""), Some(1_000)))
            .expect("the first");
        versions.see(&path, version(3, Some("\"a\""), None)).expect("the same");
        let error = versions
            .see(&path, version(3, Some("\"b\""), None))
            .expect_err("another");
        assert_eq!(
            error.to_string(),
            "the file was replaced since the dataset was opened: expected ETag \"a\" of 3 bytes, found ETag \"b\" of 3 bytes"
        );
    }
}
