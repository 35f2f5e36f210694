//! A dataset that a conversion gave, whether it was written or found.

use squall_dataset::{DatasetUrl, StoreOptions};
use squall_schema::metadata::{DatasetMetadata, FileEntry};
use squall_schema::{Result, Schema};

use crate::cache::{self, Temporary};

/// A dataset that was written.
#[derive(Debug, Clone)]
pub struct Converted {
    url: DatasetUrl,
    metadata: DatasetMetadata,
    store: StoreOptions,
    is_hit: bool,
    resumed: usize,
    #[cfg(feature = "ballista")]
    writers: Vec<crate::ballista::FileWriter>,
}

impl Converted {
    pub(crate) fn new(url: DatasetUrl, metadata: DatasetMetadata, store: StoreOptions) -> Self {
        Self {
            url,
            metadata,
            store,
            is_hit: false,
            resumed: 0,
            #[cfg(feature = "ballista")]
            writers: Vec::new(),
        }
    }

    pub(crate) fn into_hit(self) -> Self {
        Self { is_hit: true, ..self }
    }

    pub(crate) fn with_resumed(self, resumed: usize) -> Self {
        Self { resumed, ..self }
    }

    #[cfg(feature = "ballista")]
    pub(crate) fn with_writers(self, writers: Vec<crate::ballista::FileWriter>) -> Self {
        Self { writers, ..self }
    }

    /// Its files and the executors of the cluster that wrote them; nothing if it was written by this process, or found in a
    /// cache.
    #[cfg(feature = "ballista")]
    pub fn writers(&self) -> &[crate::ballista::FileWriter] {
        &self.writers
    }

    /// Whether it was found in a cache.
    pub fn is_hit(&self) -> bool {
        self.is_hit
    }

    /// How many parts of the work a killed conversion of the same rows had done, which were not done again.
    pub fn resumed(&self) -> usize {
        self.resumed
    }

    /// Deletes it. Readers that have it open fail when they read on.
    ///
    /// # Cancel safety
    ///
    /// Once begun, the dataset is no longer found, though files of it may be left.
    pub async fn delete(self) -> Result<()> {
        cache::delete(&self.url, &self.store).await
    }

    /// Deletes it when the value that is given is dropped. What a process that is killed leaves is evicted by age: [`Cache::evict`](crate::Cache::evict).
    pub fn delete_on_drop(self) -> Temporary {
        Temporary::new(self)
    }

    /// Its rows, as Petastorm's converters count them: [`Converted::rows`].
    #[expect(clippy::len_without_is_empty, reason = "a conversion without rows is refused")]
    pub fn len(&self) -> u64 {
        self.rows()
    }

    /// How its store is reached.
    pub fn store_options(&self) -> &StoreOptions {
        &self.store
    }

    /// Where it is; a reader opens this.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Its fields, with the shapes that were found.
    pub fn schema(&self) -> &Schema {
        &self.metadata.schema
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.files()
            .iter()
            .flat_map(|file| &file.row_groups)
            .map(|row_group| row_group.rows)
            .sum()
    }

    /// Its row groups.
    pub fn n_row_groups(&self) -> usize {
        self.files().iter().map(|file| file.row_groups.len()).sum()
    }

    /// Its files.
    pub fn files(&self) -> &[FileEntry] {
        &self.metadata.files
    }

    /// A digest of schema and bytes.
    pub fn fingerprint(&self) -> &str {
        &self.metadata.fingerprint
    }
}
