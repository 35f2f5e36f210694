//! Schema and pieces of a dataset.

use std::sync::Arc;

use arrow_schema::Field as ArrowField;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::ObjectStore;
use object_store::path::Path;
use squall_schema::arrow::field_from_arrow;
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::petastorm::index::RowGroupIndex;
use squall_schema::{DType, Error, Field, Result, Schema, Value};
use xxhash_rust::xxh3::Xxh3;

use crate::cache::RangeCache;
use crate::described::{Described, Summary};
use crate::fields::{declared_fields, file_fields};
use crate::footer::{self, Footer};
use crate::{DatasetUrl, ObjectVersion, Scheme, Store, StoreOptions, TimeZone, listing, partition, peek, spark};

/// Footers that are loaded at the same time.
const FOOTER_REQUESTS: usize = 16;

/// A file that a conversion puts at its destination first and takes away last, where the store cannot rename a
/// directory. A directory with it and without metadata is half-written.
pub const WRITING_MARKER: &str = "_squall_writing";

/// A data file.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Its path below the dataset's directory.
    pub path: Path,
    /// Bytes of the file.
    pub size: u64,
    /// The values of the partition fields.
    pub partition: Vec<Value>,
}

/// A row group: the unit that a reader partitions and shuffles. Its ordinal is its place in [`Dataset::pieces`]: files
/// by path, row groups as they stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Place of its file in [`Dataset::files`].
    pub file: u32,
    /// Its place in the file.
    pub row_group: u32,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of its columns as stored.
    pub compressed_bytes: u64,
    /// Bytes of its columns before compression.
    pub uncompressed_bytes: u64,
}

/// Who described the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Squall's own metadata, written by this program and version.
    Squall(String),
    /// The footers of all files; the first file names its writer.
    Footers(Option<String>),
    /// Petastorm's metadata; the name of its Unischema.
    Petastorm(String),
}

/// A column that is there but cannot be read as scalars or tensors.
#[derive(Debug, Clone)]
pub struct UnsupportedColumn {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How a dataset is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The zone of the times in directory names, of the session in Spark; UTC if not given. Squall writes them in UTC.
    pub time_zone: TimeZone,
    /// How its store is reached.
    pub store: StoreOptions,
    /// Where parts of remote files are kept on local disk; nowhere if not given.
    pub cache: Option<Arc<RangeCache>>,
    /// Whether files and row groups are those that are there, and not those that Squall's metadata tell of.
    pub from_footers: bool,
}

impl OpenOptions {
    /// Takes the times in directory names as those of this zone.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.time_zone = time_zone;
        self
    }

    /// Reaches the store so.
    #[must_use]
    pub fn with_store(mut self, store: StoreOptions) -> Self {
        self.store = store;
        self
    }

    /// Lists the directory and reads all footers, also where Squall wrote metadata: to write them anew.
    #[must_use]
    pub fn from_footers(mut self) -> Self {
        self.from_footers = true;
        self
    }

    /// Keeps parts of remote files in this cache; of local ones only if it is made for that.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<RangeCache>) -> Self {
        self.cache = Some(cache);
        self
    }
}

/// An open dataset: all that planning needs, and no data.
#[derive(Debug, Clone)]
pub struct Dataset {
    store: Store,
    schema: Schema,
    partition_fields: Vec<Field>,
    unsupported: Vec<UnsupportedColumn>,
    columns: Option<Vec<ArrowField>>,
    old_column: Option<(Path, String)>,
    /// The files of an old Spark with timestamps of 96 bits, which have no statistics.
    old_int96: Vec<u32>,
    files: Vec<DataFile>,
    pieces: Vec<Piece>,
    fingerprint: String,
    origin: Origin,
    indexes: Option<Bytes>,
    /// Whether the row groups are others than when they were indexed.
    is_stale: bool,
    notes: Vec<String>,
}

impl Dataset {
    /// Opens the dataset at `url`: with one request where Squall wrote it, by listing it and reading all footers
    /// otherwise.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn open(url: &DatasetUrl) -> Result<Self> {
        Self::open_with(url, &OpenOptions::default()).await
    }

    /// Opens the dataset at `url` with these options, as [`Dataset::open`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn open_with(url: &DatasetUrl, options: &OpenOptions) -> Result<Self> {
        let mut store = Store::open_with(url, &options.store).await?;
        let is_local = matches!(url.scheme(), Scheme::File | Scheme::Memory);
        if let Some(cache) = &options.cache
            && (!is_local || cache.takes_local_stores())
        {
            store = store.with_cache(cache.clone());
        }
        let at = |error: Error| error.at("URL", url);
        if store.only().is_none() && !options.from_footers {
            let described = Described::load(&store).await.map_err(at)?;
            if let Some(stored) = described.squall().map_err(at)? {
                return Self::from_stored(store, stored, described.indexes())?
                    .with_nested()
                    .await;
            }
            if is_being_written(&store).await? {
                return Err(
                    Error::corrupt("the dataset is half-written: its conversion runs still, or was killed")
                        .at("URL", url),
                );
            }
        }
        let described = Described::load(&store).await.map_err(at)?;
        // A conversion that ended between the two looks.
        match described.squall().map_err(at)? {
            Some(stored) if store.only().is_none() && !options.from_footers => {
                Self::from_stored(store, stored, described.indexes())?
                    .with_nested()
                    .await
            }
            _ => Self::from_footers(store, &described, options).await,
        }
    }

    fn from_stored(store: Store, stored: DatasetMetadata, indexes: Option<Bytes>) -> Result<Self> {
        let at = |error: Error| error.at("file", metadata::FILE).at("URL", store.url());
        let partition_fields = stored.schema.project(&stored.partition_by).map_err(at)?;
        let mut files = Vec::with_capacity(stored.files.len());
        let mut pieces = Vec::new();
        for entry in stored.files {
            let text = |name: &str| entry.partition.get(name).and_then(Option::as_deref);
            let values = partition_fields
                .fields()
                .iter()
                .map(|field| partition::value(text(&field.name), field, TimeZone::default()));
            for (i, row_group) in entry.row_groups.iter().enumerate() {
                pieces.push(Piece {
                    file: ordinal(files.len())?,
                    row_group: ordinal(i)?,
                    rows: row_group.rows,
                    compressed_bytes: row_group.compressed_bytes,
                    uncompressed_bytes: row_group.uncompressed_bytes,
                });
            }
            let path = Path::parse(&entry.path);
            let path = path.map_err(|error| at(Error::corrupt("not a path").with_source(error)))?;
            // The rest of what its store says of it comes with the first answer.
            store.pin(&path, ObjectVersion::of_size(entry.size));
            files.push(DataFile {
                path,
                size: entry.size,
                partition: values.collect::<Result<_>>().map_err(at)?,
            });
        }
        check_totals(&pieces).map_err(at)?;
        Ok(Self {
            store,
            partition_fields: partition_fields.fields().to_vec(),
            schema: stored.schema,
            unsupported: Vec::new(),
            columns: None,
            old_column: None,
            old_int96: Vec::new(),
            files,
            pieces,
            fingerprint: stored.fingerprint,
            origin: Origin::Squall(stored.created_by),
            indexes,
            is_stale: false,
            notes: Vec::new(),
        })
    }

    /// Takes the types of nested columns, which metadata do not have, from the first file: one request more, where there are any.
    async fn with_nested(mut self) -> Result<Self> {
        let lacks = |field: &Field| field.arrow.is_none() && field.stored().dtype == DType::Nested;
        let Some(first) = self.files.first().filter(|_| self.schema.fields().iter().any(lacks)) else {
            return Ok(self);
        };
        let footer = footer::load(&self.store, &first.path, first.size, false).await?;
        let columns = footer::arrow_schema(&footer.metadata)?;
        let field = |own: &Field| match columns.field_with_name(&own.name) {
            Ok(column) if lacks(own) => Ok(Field {
                arrow: field_from_arrow(column)?.arrow,
                ..own.clone()
            }),
            _ => Ok(own.clone()),
        };
        let fields = self.schema.fields().iter().map(field).collect::<Result<_>>();
        self.schema = Schema::new(fields.map_err(|error| error.at("URL", self.store.url()))?)?;
        Ok(self)
    }

    async fn from_footers(store: Store, described: &Described, options: &OpenOptions) -> Result<Self> {
        let listed = listing::data_files(&store).await?;
        let unischema = described.unischema().map_err(|error| error.at("URL", store.url()))?;
        let summary = match store.only() {
            Some(_) => Summary::default(),
            None => Summary::load(&store).await?,
        };
        let load = |file: &ObjectMeta| {
            let (store, path, size) = (store.clone(), file.location.clone(), file.size);
            let known = summary.footer(file);
            async move {
                match known {
                    Some(footer) => Ok(footer),
                    None => footer::load(&store, &path, size, false).await,
                }
            }
        };
        let footers: Vec<Footer> = stream::iter(listed.iter().map(load))
            .buffered(FOOTER_REQUESTS)
            .try_collect()
            .await?;

        let mut notes = described.stale_row_groups(&listed, &footers);
        let is_stale = !notes.is_empty();
        notes.extend(summary.lacking(&listed));
        notes.extend(summary.notes);

        let paths: Vec<_> = listed.iter().map(|file| file.location.to_string()).collect();
        let parsed: Vec<_> = match store.only() {
            // Of one named file the directories above are not looked at.
            Some(_) => vec![Default::default()],
            None => paths.iter().map(|path| partition::parse(path)).collect(),
        };
        let named: Vec<_> = paths.iter().map(String::as_str).zip(&parsed).collect();
        let mut partition_fields = partition::infer(&named).map_err(|error| error.at("URL", store.url()))?;

        let at = |error: Error| error.at("URL", store.url());
        let stored = file_fields(&listed, &footers, &partition_fields).map_err(at)?;
        let (mut fields, unsupported) = match &unischema {
            Some(unischema) => declared_fields(unischema, &stored, &partition_fields).map_err(at)?,
            None => {
                let fields = stored.fields.iter().chain(&partition_fields).cloned().collect();
                (fields, stored.unsupported)
            }
        };
        if unischema.is_some() {
            peek::resolve_times(&store, &listed, &footers, &mut fields).await?;
            for own in &mut partition_fields {
                if let Some(field) = fields.iter().find(|field: &&Field| field.name == own.name) {
                    *own = field.clone();
                }
            }
        }

        let mut old = listed.iter().zip(&footers);
        let old_column =
            old.find_map(|(file, footer)| Some((file.location.clone(), spark::old_column(&footer.metadata)?)));
        let old_int96 = (0u32..)
            .zip(&footers)
            .filter(|(_, footer)| spark::has_old_int96(&footer.metadata));
        let old_int96 = old_int96.map(|(file, _)| file).collect();
        let mut digest = Xxh3::new();
        let mut files = Vec::with_capacity(listed.len());
        let mut pieces = Vec::new();
        for ((listed, footer), parsed) in listed.iter().zip(&footers).zip(&parsed) {
            let version = listed
                .e_tag
                .clone()
                .unwrap_or_else(|| listed.last_modified.to_rfc3339());
            for part in [listed.location.as_ref(), &version] {
                digest.update(part.as_bytes());
                digest.update(&[0]);
            }
            digest.update(&listed.size.to_le_bytes());
            digest.update(&footer.digest.to_le_bytes());
            for (i, row_group) in footer.metadata.row_groups().iter().enumerate() {
                let size = |bytes: i64| {
                    let size = u64::try_from(bytes);
                    size.map_err(|_| {
                        Error::corrupt("a row group of negative size")
                            .at("row group", i)
                            .at("file", &listed.location)
                    })
                };
                pieces.push(Piece {
                    file: ordinal(files.len())?,
                    row_group: ordinal(i)?,
                    rows: size(row_group.num_rows())?,
                    compressed_bytes: size(row_group.compressed_size())?,
                    uncompressed_bytes: size(row_group.total_byte_size())?,
                });
            }
            let values = partition_fields
                .iter()
                .map(|field| partition::value(parsed[&field.name].as_deref(), field, options.time_zone));
            files.push(DataFile {
                path: listed.location.clone(),
                size: listed.size,
                partition: values.collect::<Result<_>>()?,
            });
        }
        check_totals(&pieces).map_err(|error| error.at("URL", store.url()))?;
        let writer = footers
            .first()
            .and_then(|footer| footer.metadata.file_metadata().created_by());
        Ok(Self {
            schema: Schema::new(fields).map_err(|error| error.at("URL", store.url()))?,
            partition_fields,
            unsupported,
            columns: Some(stored.columns),
            old_column,
            old_int96,
            files,
            pieces,
            fingerprint: format!("{:032x}", digest.digest128()),
            origin: match unischema {
                Some(unischema) => Origin::Petastorm(unischema.name),
                None => Origin::Footers(writer.map(str::to_owned)),
            },
            indexes: described.indexes(),
            is_stale,
            notes,
            store,
        })
    }

    /// The store that holds the files.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same dataset, read through another store: one that is slow or fails, in tests.
    #[must_use]
    pub fn with_objects(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = self.store.with_objects(wrap);
        self
    }

    /// The URL that was opened.
    pub fn url(&self) -> &DatasetUrl {
        self.store.url()
    }

    /// The columns that can be read, in the order of the files and then of the directory names, or as Petastorm declares them.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The fields whose values stand in directory names.
    pub fn partition_fields(&self) -> &[Field] {
        &self.partition_fields
    }

    /// The columns that are there but cannot be read.
    pub fn unsupported(&self) -> &[UnsupportedColumn] {
        &self.unsupported
    }

    /// The columns of all files merged, in Arrow's types; those that cannot be read too. `None` where Squall wrote the
    /// dataset: its files are alike, and their footers were not read.
    pub fn columns(&self) -> Option<&[ArrowField]> {
        self.columns.as_deref()
    }

    /// A file and a column of it with dates or times that a reader brings from the calendar of an old Spark to today's: for
    /// programs that read the files by other means. See [`calendar`](crate::calendar). Statistics tell it, but of timestamps of
    /// 96 bits, which have none: those of the files concerned are read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn old_column(&self) -> Result<Option<(Path, String)>> {
        if self.old_column.is_some() {
            return Ok(self.old_column.clone());
        }
        for file in &self.old_int96 {
            let file = &self.files[*file as usize];
            let footer = footer::load(&self.store, &file.path, file.size, false).await?;
            if let Some(column) = peek::old_int96(&self.store, &file.path, &footer).await? {
                return Ok(Some((file.path.clone(), column)));
            }
        }
        Ok(None)
    }

    /// The data files, by path.
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// The row groups, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Row groups of a file, by its place in [`Dataset::files`].
    pub fn n_row_groups(&self, file: u32) -> usize {
        let before = |n| self.pieces.partition_point(|piece| u64::from(piece.file) < n);
        before(u64::from(file) + 1) - before(u64::from(file))
    }

    /// The file of a piece.
    pub fn file_of(&self, piece: &Piece) -> &DataFile {
        &self.files[piece.file as usize]
    }

    /// Rows in all pieces.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows).sum()
    }

    /// A digest that changes when a row may have changed.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Who described the dataset.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Petastorm's row-group indexes; their ordinals are places in [`Dataset::pieces`]. None where there are none. Those of
    /// other row groups than are there now, as the row-group map shows, are refused: they would lose rows.
    pub fn row_group_indexes(&self) -> Result<Vec<RowGroupIndex>> {
        match &self.indexes {
            Some(_) if self.is_stale => Err(Error::corrupt(
                "the row-group indexes are stale: the row groups are others than those that were indexed",
            )
            .at("URL", self.url())),
            Some(pickle) => RowGroupIndex::from_pickle(pickle).map_err(|error| error.at("URL", self.url())),
            None => Ok(Vec::new()),
        }
    }

    /// What is wrong with metadata that was passed over: a stale row-group map, a summary that cannot be read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Refuses counts whose sums do not fit: they are summed in many places.
fn check_totals(pieces: &[Piece]) -> Result<()> {
    let fits = |count: fn(&Piece) -> u64| {
        let total = pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(count(piece)));
        total.is_some_and(|total| i64::try_from(total).is_ok())
    };
    if fits(|piece| piece.rows) && fits(|piece| piece.compressed_bytes) && fits(|piece| piece.uncompressed_bytes) {
        return Ok(());
    }
    Err(Error::corrupt("the row groups count more than 2^63 rows or bytes"))
}

/// What Squall wrote of the dataset in a store; `None` if it has not, or not yet.
///
/// # Cancel safety
///
/// Dropping the future stops the request; nothing is kept.
pub async fn stored_metadata(store: &Store) -> Result<Option<DatasetMetadata>> {
    Described::load(store).await?.squall()
}

async fn is_being_written(store: &Store) -> Result<bool> {
    Ok(store.head(&Path::from(WRITING_MARKER)).await?.is_some())
}

fn ordinal(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::unsupported("a dataset of more than 2^32 files or row groups in a file"))
}
