//! Metadata for a directory of Parquet files that others wrote.

use std::collections::BTreeMap;

use arrow_schema::Schema as ArrowSchema;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{PutMode, PutOptions, PutPayload};
use squall_dataset::{
    Checksum, DataFile, Dataset, DatasetUrl, OpenOptions, SEAL_KEY, Store, StoreOptions, footer, key_values, partition,
    storage_error, unischema_name,
};
use squall_schema::metadata::{self, DatasetMetadata, FileEntry, RowGroupEntry};
use squall_schema::petastorm::index::{Entries, RowGroupIndex};
use squall_schema::petastorm::write::{IndexKeys, WrittenIndex, index_key, index_pickle};
use squall_schema::petastorm::{INDEX_KEY, ROW_GROUPS_KEY, UNISCHEMA_KEY};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema};
use xxhash_rust::xxh3::Xxh3;

use crate::metadata_file::metadata_file;
use crate::petastorm::Petastorm;

/// Where Arrow's writers keep their own schema; it has copies of other keys, which would be old ones.
const ARROW_KEY: &[u8] = b"ARROW:schema";
/// Bytes of a file that its checksum takes at a time.
const STEP: u64 = 4 << 20;
/// Files that are read for their checksums at a time.
const FILES_AT_ONCE: usize = 4;

/// What metadata are generated.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct GenerateOptions {
    schema: Option<Schema>,
    petastorm: Option<String>,
    overwrite: bool,
    checksums: bool,
    store: StoreOptions,
}

impl GenerateOptions {
    /// Squall's metadata, with the schema that the metadata there are have, or that the files have.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fields of the dataset: what cells hold, which dtypes numbers have, which columns there are.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Petastorm's metadata too, with a Unischema of this name.
    pub fn petastorm(mut self, name: impl Into<String>) -> Self {
        self.petastorm = Some(name.into());
        self
    }

    /// Replaces metadata that are there.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    /// Reads all files for their checksums.
    pub fn checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// How the store is reached.
    pub fn store(mut self, store: StoreOptions) -> Self {
        self.store = store;
        self
    }
}

/// Metadata that were generated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Generated {
    /// What is stored.
    pub metadata: DatasetMetadata,
    /// The name of the Unischema, where Petastorm's were written too.
    pub petastorm: Option<String>,
    /// What was not kept of older metadata, and why.
    pub notes: Vec<String>,
}

/// Writes `_common_metadata` for the Parquet files in a directory, which Spark, pandas or others wrote, so that it opens with one
/// request, and for Petastorm where that is asked for, or was written for it. No data file is touched, and no page is read but for
/// checksums.
///
/// The files must have the same columns: a reader takes what the metadata say of one for all.
///
/// # Cancel safety
///
/// Dropping the future leaves the metadata as they were, or the new ones.
pub async fn generate_metadata(url: &str, options: &GenerateOptions) -> Result<Generated> {
    let url = DatasetUrl::parse(url)?;
    let at = |error: Error| error.at("URL", &url);
    let open = OpenOptions::default().with_store(options.store.clone()).from_footers();
    let dataset = Dataset::open_with(&url, &open).await?;
    let store = dataset.store();
    if store.only().is_some() {
        return Err(at(Error::invalid("expected a directory, found a file")));
    }
    let is_there = store.head(&Path::from(metadata::FILE)).await?.is_some();
    if is_there && !options.overwrite {
        let message = format!(
            "the directory has metadata already, in {}: overwrite them explicitly",
            metadata::FILE
        );
        return Err(at(Error::new(ErrorKind::AlreadyExists, message)));
    }
    let found = key_values(store).await.map_err(at)?;
    let name = match &options.petastorm {
        Some(name) => Some(name.clone()),
        None => unischema_name(store).await.map_err(at)?,
    };
    let columns = same_columns(&dataset).await?;
    let schema = schema(&dataset, options, &found).map_err(at)?;
    let mut notes = Vec::new();
    let stored = describe(&dataset, &schema, options.checksums).await?;
    let mut pairs = Vec::new();
    if let Some(name) = &name {
        let petastorm = Petastorm::new(name);
        petastorm.check(&schema).map_err(at)?;
        let files: Vec<_> = stored.files.iter().map(|file| (file, &[][..])).collect();
        let made = petastorm.key_values(&schema, &files).map_err(at)?;
        pairs.extend(made.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }
    let own = [metadata::KEY, SEAL_KEY, UNISCHEMA_KEY, ROW_GROUPS_KEY, INDEX_KEY].map(str::as_bytes);
    for (key, value) in found {
        if own.contains(&&key[..]) || key == ARROW_KEY {
            continue;
        }
        match (String::from_utf8(key), String::from_utf8(value)) {
            (Ok(key), Ok(value)) => pairs.push((key, value)),
            (Ok(key), Err(_)) => notes.push(format!("the value of {key:?} is no text and was not kept")),
            (Err(_), _) => notes.push("a key that is no text was not kept".to_owned()),
        }
    }
    match dataset.row_group_indexes() {
        Ok(indexes) if indexes.is_empty() || name.is_none() => {}
        Ok(indexes) => match written(&indexes, &schema) {
            Ok(written) => pairs.push((INDEX_KEY.to_owned(), index_pickle(&written))),
            Err(error) => notes.push(format!("the row-group indexes were not kept: {error}")),
        },
        Err(error) => notes.push(format!("the row-group indexes were not kept: {}", error.message())),
    }
    let file = metadata_file(columns.into(), &stored, pairs)?;
    let mode = match options.overwrite {
        true => PutMode::Overwrite,
        false => PutMode::Create,
    };
    let put = store
        .objects()
        .put_opts(
            &Path::from(metadata::FILE),
            PutPayload::from(file),
            PutOptions::from(mode),
        )
        .await;
    put.map_err(|error| at(storage_error(error).at("file", metadata::FILE)))?;
    Ok(Generated {
        metadata: stored,
        petastorm: name,
        notes,
    })
}

/// The columns of the files, which must be the same.
pub(crate) async fn same_columns(dataset: &Dataset) -> Result<ArrowSchema> {
    let mut first: Option<ArrowSchema> = None;
    for file in dataset.files() {
        let loaded = footer::load(dataset.store(), &file.path, file.size, false).await?;
        let own = footer::arrow_schema(&loaded.metadata)?;
        let Some(first) = &first else {
            first = Some(own);
            continue;
        };
        let types = |schema: &ArrowSchema| -> BTreeMap<String, _> {
            schema
                .fields()
                .iter()
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect()
        };
        let (here, there) = (types(&own), types(first));
        let differs = here.iter().find(|(name, own)| there.get(*name) != Some(own));
        let differs = differs.or_else(|| there.iter().find(|(name, _)| !here.contains_key(*name)));
        if let Some((name, _)) = differs {
            let shown = |own: Option<&_>| {
                own.map_or_else(|| "missing".to_owned(), |own: &arrow_schema::DataType| own.to_string())
            };
            return Err(Error::unsupported(format!(
                "the files differ: column {name:?} is {} here and {} in {}; convert the directory instead",
                shown(here.get(name)),
                shown(there.get(name)),
                dataset.files()[0].path
            ))
            .at("file", &file.path)
            .at("URL", dataset.url()));
        }
    }
    first.ok_or_else(|| Error::invalid("the dataset has no file"))
}

/// The schema that was given, or that the metadata have, or the files.
fn schema(dataset: &Dataset, options: &GenerateOptions, found: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Schema> {
    let (schema, whose) = match (&options.schema, found.get(metadata::KEY.as_bytes())) {
        (Some(given), _) => (given.clone(), "the given schema"),
        (None, Some(text)) => (
            DatasetMetadata::from_json(text)?.schema,
            "the schema of the metadata there are",
        ),
        (None, None) => return Ok(dataset.schema().clone()),
    };
    for field in schema.fields() {
        let stored = dataset
            .columns()
            .unwrap_or_default()
            .iter()
            .find(|column| *column.name() == field.name);
        let stored = match stored {
            Some(column) => squall_schema::arrow::field_from_arrow(column)?,
            None => {
                let own = dataset.partition_fields().iter().find(|own| own.name == field.name);
                own.cloned().ok_or_else(|| {
                    Error::invalid(format!(
                        "{whose} has the field {:?}, and no file has such a column",
                        field.name
                    ))
                })?
            }
        };
        if !fits(field, &stored) {
            return Err(Error::invalid(format!(
                "{whose} has the field {field}, and the files have {stored}"
            )));
        }
    }
    let lacking = dataset
        .partition_fields()
        .iter()
        .find(|own| schema.get(&own.name).is_none());
    match lacking {
        Some(field) => Err(Error::invalid(format!(
            "{whose} lacks the partition field {:?}",
            field.name
        ))),
        None => Ok(schema),
    }
}

/// Whether what is stored can be what a field says; whether each value is, `squall verify` tells.
fn fits(field: &Field, stored: &Field) -> bool {
    let is_number = |dtype: DType| {
        dtype.item_size().is_some() && !matches!(dtype, DType::Bool | DType::Date | DType::Datetime { .. })
    };
    match field.codec {
        Some(_) => stored.dtype == DType::Bytes || stored.dtype == DType::Nested,
        None => field.dtype == stored.dtype || (is_number(field.dtype) && is_number(stored.dtype)),
    }
}

async fn describe(dataset: &Dataset, schema: &Schema, checksums: bool) -> Result<DatasetMetadata> {
    let mut files = entries(dataset);
    if checksums {
        add_checksums(dataset, &mut files).await?;
    }
    let fields =
        serde_json::to_vec(schema).map_err(|error| Error::internal("a schema is not JSON").with_source(error))?;
    let mut digest = Xxh3::new();
    digest.update(&fields);
    digest.update(dataset.fingerprint().as_bytes());
    Ok(DatasetMetadata {
        created_by: concat!("squall ", env!("CARGO_PKG_VERSION")).to_owned(),
        fingerprint: format!("{:032x}", digest.digest128()),
        schema: schema.clone(),
        partition_by: dataset
            .partition_fields()
            .iter()
            .map(|field| field.name.clone())
            .collect(),
        files,
    })
}

/// The files of a dataset as metadata describe them, without checksums.
pub(crate) fn entries(dataset: &Dataset) -> Vec<FileEntry> {
    let mut pieces = dataset.pieces().iter().peekable();
    let mut row_groups = |place| {
        let mut found = Vec::new();
        while let Some(piece) = pieces.next_if(|piece| piece.file == place) {
            found.push(RowGroupEntry {
                rows: piece.rows,
                compressed_bytes: piece.compressed_bytes,
                uncompressed_bytes: piece.uncompressed_bytes,
            });
        }
        found
    };
    let entry = |(place, file): (u32, &DataFile)| FileEntry {
        path: file.path.to_string(),
        size: file.size,
        checksum: None,
        partition: partition::parse(file.path.as_ref()),
        row_groups: row_groups(place),
    };
    (0u32..).zip(dataset.files()).map(entry).collect()
}

/// Reads the files, some at a time, for their checksums.
pub(crate) async fn add_checksums(dataset: &Dataset, entries: &mut [FileEntry]) -> Result<()> {
    // Boxed here, for the compiler does not see otherwise that a stream of them may be sent to another thread.
    let checksums: Vec<_> = dataset
        .files()
        .iter()
        .map(|file| checksum(dataset.store(), file).boxed())
        .collect();
    let checksums: Vec<_> = stream::iter(checksums).buffered(FILES_AT_ONCE).try_collect().await?;
    for (entry, checksum) in entries.iter_mut().zip(checksums) {
        entry.checksum = Some(checksum);
    }
    Ok(())
}

async fn checksum(store: &Store, file: &DataFile) -> Result<String> {
    let (mut checksum, mut at) = (Checksum::new(), 0);
    while at < file.size {
        let end = (at + STEP).min(file.size);
        let bytes = store.get_ranges(&file.path, std::slice::from_ref(&(at..end))).await?;
        bytes.iter().for_each(|bytes| checksum.update(bytes));
        at = end;
    }
    Ok(checksum.text())
}

/// Indexes that were read, as they are written.
fn written(indexes: &[RowGroupIndex], schema: &Schema) -> Result<Vec<WrittenIndex>> {
    let index = |index: &RowGroupIndex| {
        let field = schema.get(&index.column).ok_or_else(|| schema.unknown(&index.column))?;
        let keys = match &index.entries {
            Entries::NotNull(row_groups) => IndexKeys::NotNull(row_groups.clone()),
            Entries::Values(values) => {
                let key = |(value, row_groups): &(_, std::collections::BTreeSet<u32>)| {
                    Ok((index_key(value, field.dtype)?, row_groups.clone()))
                };
                IndexKeys::Values(values.iter().map(key).collect::<Result<_>>()?)
            }
            other => {
                return Err(Error::unsupported(format!(
                    "the row-group index {:?} is {other:?}",
                    index.name
                )));
            }
        };
        Ok(WrittenIndex {
            name: index.name.clone(),
            column: index.column.clone(),
            keys,
        })
    };
    indexes.iter().map(index).collect()
}
