//! What the metadata files of a directory say of it: Squall's, Petastorm's, and the summary that parquet-mr writes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader};
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::petastorm::unischema::Unischema;
use squall_schema::petastorm::{INDEX_KEY, ROW_GROUPS_KEY, UNISCHEMA_KEY};
use squall_schema::{Result, panic_text};
use xxhash_rust::xxh3::xxh3_64;

use crate::Store;
use crate::footer::Footer;

/// The footers of all files in one, which parquet-mr writes on request.
const SUMMARY: &str = "_metadata";
/// The magic number behind a footer, and its length.
const TAIL: u64 = 8;

/// The key/value pairs of the metadata file, and the file.
pub(crate) struct Described {
    file: &'static str,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Described {
    /// Those of `_common_metadata`, or of `_metadata` where that stands alone, as Petastorm takes them.
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        for file in [metadata::FILE, SUMMARY] {
            if let Some(bytes) = store.get(&Path::from(file)).await? {
                match squall_schema::footer::key_values_of_file(&bytes) {
                    Ok(pairs) => return Ok(Self { file, pairs }),
                    // Nothing says that a summary has pairs: the files are read without it.
                    Err(_) if file == SUMMARY => {}
                    Err(error) => return Err(error.at("file", file).at("URL", store.url())),
                }
            }
        }
        Ok(Self {
            file: metadata::FILE,
            pairs: BTreeMap::new(),
        })
    }

    /// Squall's own description.
    pub(crate) fn squall(&self) -> Result<Option<DatasetMetadata>> {
        self.parse(metadata::KEY, DatasetMetadata::from_json)
    }

    /// Petastorm's fields.
    pub(crate) fn unischema(&self) -> Result<Option<Unischema>> {
        self.parse(UNISCHEMA_KEY, Unischema::from_pickle)
    }

    /// The pickled row-group indexes.
    pub(crate) fn indexes(&self) -> Option<Bytes> {
        self.pairs.get(INDEX_KEY.as_bytes()).cloned().map(Bytes::from)
    }

    /// What of Petastorm's row-group map the files contradict. Petastorm cannot open such a dataset, or loses rows of it;
    /// here the files are right.
    pub(crate) fn stale_row_groups(&self, listed: &[ObjectMeta], footers: &[Footer]) -> Vec<String> {
        let Some(text) = self.pairs.get(ROW_GROUPS_KEY.as_bytes()) else {
            return Vec::new();
        };
        let Ok(mut counts) = serde_json::from_slice::<BTreeMap<String, u64>>(text) else {
            return vec!["Petastorm's row-group map is not a JSON object of numbers: the footers are used".to_owned()];
        };
        let mut notes = Vec::new();
        for (file, footer) in listed.iter().zip(footers) {
            let found = footer.metadata.num_row_groups() as u64;
            match counts.remove(file.location.as_ref()) {
                Some(count) if count == found => {}
                Some(count) => notes.push(format!(
                    "Petastorm's row-group map is stale: {} has {found} row groups, not {count}",
                    file.location
                )),
                None => notes.push(format!(
                    "Petastorm's row-group map is stale: it lacks {}",
                    file.location
                )),
            }
        }
        let gone = counts
            .into_keys()
            .map(|file| format!("Petastorm's row-group map is stale: {file} is gone"));
        notes.extend(gone);
        notes
    }

    fn parse<T>(&self, key: &str, parse: impl Fn(&[u8]) -> Result<T>) -> Result<Option<T>> {
        let value = self.pairs.get(key.as_bytes());
        value
            .map(|value| parse(value).map_err(|error| error.at("file", self.file)))
            .transpose()
    }
}

/// The footers that a summary holds, by file, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Summary {
    footers: BTreeMap<String, Arc<ParquetMetaData>>,
    digest: u64,
    modified: Option<DateTime<Utc>>,
    pub(crate) notes: Vec<String>,
}

impl Summary {
    /// The summary, if there is one. One that cannot be read is passed over: the files have footers of their own.
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        let path = Path::from(SUMMARY);
        let Some(bytes) = store.get(&path).await? else {
            return Ok(Self::default());
        };
        let modified = store.head(&path).await.ok().flatten().and_then(|found| found.modified);
        let digest = xxh3_64(&bytes);
        // The parquet crate panics on some damaged footers.
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            ParquetMetaDataReader::new().parse_and_finish(&bytes)
        }));
        let summary = match parsed {
            Ok(Ok(summary)) => summary,
            Ok(Err(error)) => return Ok(Self::unreadable(&error.to_string())),
            Err(panic) => return Ok(Self::unreadable(panic_text(&*panic))),
        };
        let mut row_groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for row_group in summary.row_groups() {
            let file = row_group.columns().first().and_then(|column| column.file_path());
            match file {
                Some(file) => row_groups.entry(file.to_owned()).or_default().push(row_group.clone()),
                None => return Ok(Self::unreadable("a row group without a file")),
            }
        }
        let footer = |(file, row_groups)| {
            let footer = ParquetMetaDataBuilder::new(summary.file_metadata().clone()).set_row_groups(row_groups);
            (file, Arc::new(footer.build()))
        };
        Ok(Self {
            footers: row_groups.into_iter().map(footer).collect(),
            digest,
            modified,
            notes: Vec::new(),
        })
    }

    /// The files that it does not know. Petastorm passes over them.
    pub(crate) fn lacking(&self, listed: &[ObjectMeta]) -> Vec<String> {
        let known = |file: &&ObjectMeta| self.footers.contains_key(file.location.as_ref());
        let lacking = listed.iter().filter(|file| !self.footers.is_empty() && !known(file));
        lacking
            .map(|file| format!("{SUMMARY} is stale: it lacks {}", file.location))
            .collect()
    }

    fn unreadable(why: &str) -> Self {
        Self {
            notes: vec![format!("{SUMMARY} cannot be read, the footers are used: {why}")],
            ..Self::default()
        }
    }

    /// The footer of a file that the summary knows, that is not newer than it, and long enough.
    pub(crate) fn footer(&self, file: &ObjectMeta) -> Option<Footer> {
        if self.modified.is_none_or(|modified| modified < file.last_modified) {
            return None;
        }
        let metadata = self.footers.get(file.location.as_ref())?;
        let mut columns = metadata.row_groups().iter().flat_map(|row_group| row_group.columns());
        let end = columns.try_fold(0u64, |end, column| {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let own = u64::try_from(start)
                .ok()?
                .checked_add(u64::try_from(column.compressed_size()).ok()?)?;
            Some(end.max(own))
        });
        end.is_some_and(|end| end.saturating_add(TAIL) <= file.size)
            .then(|| Footer {
                metadata: metadata.clone(),
                digest: self.digest,
            })
    }
}

/// The key/value pairs of a dataset's metadata file: `_common_metadata`, or `_metadata` where that stands alone. None where there
/// is neither.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub async fn key_values(store: &Store) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    Ok(Described::load(store).await?.pairs)
}

/// The name of the Unischema that Petastorm finds in a directory, if it finds one.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub async fn unischema_name(store: &Store) -> Result<Option<String>> {
    if store.only().is_some() {
        return Ok(None);
    }
    let described = Described::load(store).await?;
    Ok(described.unischema()?.map(|unischema| unischema.name))
}
