//! What Spark wrote becomes a dataset, or its next version: its files get names of ours, and are described.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow_schema::{Schema as ArrowSchema, SchemaRef};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use regex::Regex;
use squall_dataset::{
    Dataset, FileReader, OpenOptions, Scheme, Store, StoreOptions, TimeZone, footer, partition, storage_error,
};
use squall_schema::metadata::FileEntry;
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::commit::Staging;
use crate::conform::Target;
use crate::draft::Draft;
use crate::evidence::Evidence;
use crate::generate::{add_checksums, entries, same_columns};
use crate::layout::Layout;
use crate::moves::{Move, check_size, move_files};
use crate::petastorm::{Petastorm, RowGroupKeys};
use crate::scratch::nonce;
use crate::write::{FILE_PREFIX, Written};

/// Spark's names: the task, the job, the file of the task.
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^part-(\d+)-.*[.-]c(\d+)(\.[a-z0-9_]+)*\.parquet$").expect("a pattern"));
/// What Hadoop leaves where a job ended well.
const SUCCESS: &str = "_SUCCESS";
/// Files that are deleted at a time.
const DELETIONS: usize = 16;

/// What is known of the rows before Spark wrote them.
pub(super) struct Planned {
    pub(super) schema: Schema,
    /// Whether the fields are those that were declared, whatever the files have.
    pub(super) is_declared: bool,
}

/// Where Spark writes: a directory of its own, which no reader sees.
pub(super) struct Place {
    pub(super) store: Store,
    /// Where it is below the place of the conversion, if it is not that itself.
    directory: Option<String>,
    /// What the names of files begin with that a conversion gives.
    prefix: String,
    /// Whether the commit moves files out of it.
    is_of_commit: bool,
}

impl Place {
    pub(super) fn of(staging: &Staging, options: &StoreOptions) -> Result<Self> {
        let (own, prefix) = (staging.store(), staging.prefix());
        let (directory, prefix, is_of_commit) = match prefix.rsplit_once('/') {
            // The hidden directory of a next version.
            Some((directory, prefix)) => (Some(directory.to_owned()), prefix.to_owned(), true),
            None if own.url().scheme() == Scheme::File => (None, prefix, false),
            // A store has no renames: what a job writes that nobody waits for any more must not be among the files of
            // the dataset.
            None => (Some(format!("_squall-{}", nonce())), prefix, false),
        };
        let store = match &directory {
            Some(directory) => Store::create_with(&own.url().join(directory), options)?,
            None => own.clone(),
        };
        Ok(Self {
            store,
            directory,
            prefix,
            is_of_commit,
        })
    }

    /// A path in it, seen from the place of the conversion.
    fn in_staging(&self, path: &str) -> Result<Path> {
        match &self.directory {
            Some(directory) => parsed(&format!("{directory}/{path}")),
            None => parsed(path),
        }
    }

    /// Where a file of Spark's gets to, seen from the place of the conversion: as the commit expects it, or where it
    /// stays.
    fn target(&self, path: &str) -> Result<Path> {
        let named =
            settled(path, &self.prefix).ok_or_else(|| Error::internal("a file is not Spark's").at("file", path))?;
        match self.is_of_commit {
            true => self.in_staging(&named),
            false => parsed(&named),
        }
    }
}

/// Makes a draft of the files in a place. They get the names that a conversion gives, which tell neither the job nor
/// the time: here, or by the commit where it moves them anyway. What else is there is taken away: marks, checksums of
/// Hadoop, files without rows. The files are read once for their checksums; columns of lists, and those that are
/// indexed, once more for their lengths and values.
pub(super) async fn adopt<'a>(
    place: &Place,
    (staging, options): (&Staging, &StoreOptions),
    planned: &Planned,
    layout: &'a Layout,
) -> Result<Draft<'a>> {
    tidy(&place.store).await?;
    let open = OpenOptions::default().with_store(options.clone()).from_footers();
    let dataset = open_rows(&place.store, &open).await?;
    if place.directory.is_some() {
        // Before minutes go by with reading them.
        for file in dataset.files() {
            check_size(place.store.url(), file.size).map_err(|error| error.at("file", &file.path))?;
        }
    }
    let (schema, columns, mut written) = describe(&dataset, planned, layout).await?;
    let (mut moves, mut lie_at) = (Vec::new(), BTreeMap::new());
    for file in &mut written {
        let from = place.in_staging(&file.entry.path)?;
        let to = place.target(&file.entry.path)?;
        file.entry.path = to.to_string();
        lie_at.insert(to.to_string(), from.clone());
        moves.push(Move {
            from,
            to,
            size: file.entry.size,
        });
    }
    let draft = Draft::of_files(layout, schema, columns, written)?;
    if place.is_of_commit {
        return Ok(draft.lying_at(lie_at));
    }
    move_files(staging.store(), &moves).await?;
    Ok(draft)
}

/// The path below a place that a conversion gives to a file of Spark's; `None` if it is something else.
fn settled(path: &str, prefix: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_hidden = |part: &str| part.starts_with(['.', '_']) && !part.contains('=');
    let found = NAME.captures(name).filter(|_| !directory.split('/').any(is_hidden))?;
    let name = format!(
        "{prefix}{:0>5}-{:0>4}.parquet",
        &found[1],
        found[2].trim_start_matches('0')
    );
    Some(match directory {
        "" => name,
        directory => format!("{directory}/{name}"),
    })
}

fn parsed(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|error| {
        Error::unsupported("the partition values make no path")
            .with_source(error)
            .at("file", path)
    })
}

/// Takes away what are no files of rows.
async fn tidy(store: &Store) -> Result<()> {
    let listed: Vec<_> = store.list().await?.into_iter().map(|file| file.location).collect();
    let (files, others): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|path| settled(path.as_ref(), FILE_PREFIX).is_some());
    let is_done = others.iter().any(|path| path.as_ref() == SUCCESS);
    delete(store, others).await?;
    match (files.is_empty(), is_done) {
        (false, _) => Ok(()),
        (true, true) => Err(no_rows()),
        (true, false) => Err(Error::new(
            ErrorKind::Storage,
            "Spark wrote its files where this process does not find them: both must see the destination under the same path",
        )
        .at("URL", store.url())),
    }
}

async fn delete(store: &Store, paths: Vec<Path>) -> Result<()> {
    let deleted: Vec<_> = paths.iter().map(|path| delete_one(store, path).boxed()).collect();
    stream::iter(deleted).buffer_unordered(DELETIONS).try_collect().await
}

async fn delete_one(store: &Store, path: &Path) -> Result<()> {
    match store.objects().delete(path).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        deleted => deleted.map_err(|error| storage_error(error).at("file", path).at("URL", store.url())),
    }
}

fn no_rows() -> Error {
    Error::invalid("there is no row: nothing is written")
}

/// The dataset of the files that have rows; the others are taken away.
async fn open_rows(store: &Store, open: &OpenOptions) -> Result<Dataset> {
    let dataset = Dataset::open_with(store.url(), open).await?;
    if dataset.rows() == 0 {
        return Err(no_rows());
    }
    let mut rows = vec![0; dataset.files().len()];
    for piece in dataset.pieces() {
        rows[piece.file as usize] += piece.rows;
    }
    let empty = dataset.files().iter().zip(rows).filter(|(_, rows)| *rows == 0);
    let empty: Vec<_> = empty.map(|(file, _)| file.path.clone()).collect();
    if empty.is_empty() {
        return Ok(dataset);
    }
    delete(store, empty).await?;
    Dataset::open_with(store.url(), open).await
}

/// The fields of a dataset, the columns of its files, and the files, at Spark's paths.
async fn describe(dataset: &Dataset, planned: &Planned, layout: &Layout) -> Result<(Schema, SchemaRef, Vec<Written>)> {
    let mut files = entries(dataset);
    add_checksums(dataset, &mut files).await?;
    let found = same_columns(dataset).await?;
    let (evidence, keys) = look(dataset, &found, layout.petastorm.as_ref()).await?;
    let schema = schema(dataset, planned, layout, &evidence)?;
    check_partitions(&files, &schema.project(&layout.partition_by)?)?;
    if let Some(petastorm) = &layout.petastorm {
        petastorm.check(&schema)?;
    }
    let written = files.into_iter().zip(keys).map(|(entry, keys)| Written {
        name: settled(&entry.path, FILE_PREFIX).unwrap_or_else(|| entry.path.clone()),
        digest: xxh3_64(entry.checksum.as_deref().unwrap_or_default().as_bytes()),
        entry,
        keys,
    });
    Ok((schema, Arc::new(found), written.collect()))
}

/// The fields, in the order of the query: those of the files, with the shapes that were found, and those of directory names in the types
/// that they have in Spark.
fn schema(dataset: &Dataset, planned: &Planned, layout: &Layout, evidence: &Schema) -> Result<Schema> {
    let field = |own: &Field| {
        if planned.is_declared || layout.partition_by.contains(&own.name) {
            return Ok(own.clone());
        }
        let stored = dataset
            .schema()
            .get(&own.name)
            .ok_or_else(|| dataset.schema().unknown(&own.name))?;
        let shape = evidence.get(&own.name).map_or(&stored.shape, |seen| &seen.shape);
        Ok(Field {
            shape: shape.clone(),
            // What Spark checks while it writes makes a column of the files one that may be null.
            nullable: own.nullable,
            ..stored.clone()
        })
    };
    Schema::new(planned.schema.fields().iter().map(field).collect::<Result<_>>()?)
}

/// Refuses values of directory names that are others when they are read back.
fn check_partitions(files: &[FileEntry], fields: &Schema) -> Result<()> {
    for file in files {
        for field in fields.fields() {
            let text = file.partition.get(&field.name).and_then(Option::as_deref);
            partition::value(text, field, TimeZone::default()).map_err(|error| error.at("file", &file.path))?;
        }
    }
    Ok(())
}

/// Reads the columns whose values the metadata tell of. Gives their fields with the shapes that were found, and what the row groups
/// of each file hold for Petastorm's indexes.
async fn look(
    dataset: &Dataset,
    columns: &ArrowSchema,
    petastorm: Option<&Petastorm>,
) -> Result<(Schema, Vec<Vec<RowGroupKeys>>)> {
    let is_wanted = |name: &str| {
        let field = dataset.schema().get(name);
        let is_list = field.is_some_and(|field| field.dtype != DType::Nested && !field.shape.is_scalar());
        is_list || petastorm.is_some_and(|petastorm| petastorm.indexed().any(|own| own == name))
    };
    if let Some(name) = petastorm.and_then(|petastorm| petastorm.indexed().find(|name| columns.index_of(name).is_err()))
    {
        return Err(Error::unsupported(format!(
            "a row-group index is for columns of the files, and {name:?} is none"
        )));
    }
    let names: Vec<_> = columns
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .filter(|name| is_wanted(name))
        .collect();
    if names.is_empty() {
        let keys = dataset.files().iter().map(|_| Vec::new());
        return Ok((Schema::new(Vec::new())?, keys.collect()));
    }
    let wanted: Vec<_> = columns
        .fields()
        .iter()
        .filter(|field| names.contains(&field.name().as_str()))
        .cloned()
        .collect();
    let target = Target::of_query(&ArrowSchema::new(wanted), &[], None)?;
    let mut evidence = Evidence::new(&target.schema);
    let mut keys = Vec::with_capacity(dataset.files().len());
    for file in dataset.files() {
        let at = |error: Error| error.at("file", &file.path);
        let decoded = |error: ParquetError| at(Error::corrupt("what Spark wrote cannot be decoded").with_source(error));
        let footer = footer::load(dataset.store(), &file.path, file.size, false).await?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::try_new(footer.metadata.clone(), options).map_err(decoded)?;
        let mut of_file = Vec::new();
        for row_group in 0..footer.metadata.num_row_groups() {
            let reader = FileReader {
                store: dataset.store().clone(),
                path: file.path.clone(),
                footer: footer.metadata.clone(),
            };
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata.clone());
            let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
            let rows = builder.with_projection(mask).with_row_groups(vec![row_group]).build();
            let mut rows = rows.map_err(decoded)?;
            let mut seen = RowGroupKeys::default();
            while let Some(batch) = rows.next().await {
                let batch = target.conform(&batch.map_err(decoded)?).map_err(at)?;
                evidence.see(&batch);
                if let Some(petastorm) = petastorm {
                    petastorm.see(&target, &batch, &mut seen).map_err(at)?;
                }
            }
            of_file.push(seen);
        }
        keys.push(of_file);
    }
    Ok((evidence.shapes(&target.schema)?, keys))
}

#[cfg(test)]
mod tests;
