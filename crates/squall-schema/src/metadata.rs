//! What Squall keeps in `_common_metadata`, under [`KEY`].
//!
//! It is all that opening a dataset needs: schema, files, row counts, sizes and partition values, so that a dataset of
//! ten thousand files opens with one request. The types here are the stored form and nothing else; they change only
//! together with the version in [`KEY`].

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Schema};

/// The file that makes a directory a dataset of Squall; its presence is the commit.
pub const FILE: &str = "_common_metadata";
/// The key of the JSON text in that file's Parquet footer.
pub const KEY: &str = "squall.dataset.v1";

/// Characters of a message of serde's that is passed on.
const SHOWN: usize = 300;

/// The stored description of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetMetadata {
    /// Program and version that wrote the dataset.
    pub created_by: String,
    /// Digest of schema and files. A dataset with the same fingerprint has the same rows in the same order.
    pub fingerprint: String,
    /// The fields, those of the partitions included.
    pub schema: Schema,
    /// Names of the schema's fields that stand in directory names.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// The files, by path.
    pub files: Vec<FileEntry>,
}

/// A Parquet file of the dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path below the dataset's directory, parts joined by `/`.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// Digest of all its bytes behind the name of the algorithm, such as `xxh3-128:99aa…`; none in datasets of before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The values in the names of its directories, as they stand there; `None` is null.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub partition: IndexMap<String, Option<String>>,
    /// Its row groups, in order.
    pub row_groups: Vec<RowGroupEntry>,
}

/// A row group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowGroupEntry {
    /// Rows in it.
    pub rows: u64,
    /// Bytes of all its columns as stored.
    pub compressed_bytes: u64,
    /// Bytes of all its columns before compression.
    pub uncompressed_bytes: u64,
}

impl DatasetMetadata {
    /// The stored JSON text.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal("the dataset's metadata is not JSON").with_source(e))
    }

    /// The description in a stored text.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| {
            // It repeats what it did not expect, of any length.
            let why: String = error.to_string().chars().take(SHOWN).collect();
            Error::corrupt(format!("{KEY} is not what Squall writes")).with_source(why)
        })
    }
}
