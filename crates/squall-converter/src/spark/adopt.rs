//! What Spark wrote becomes a dataset: its files get names of ours, and metadata.

use std::sync::{Arc, LazyLock};

use arrow_schema::Schema as ArrowSchema;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use regex::Regex;
use squall_dataset::{
    Dataset, FileReader, OpenOptions, Store, StoreOptions, TimeZone, footer, partition, storage_error,
};
use squall_schema::metadata::{DatasetMetadata, FileEntry};
use squall_schema::{DType, Error, Field, Result, Schema};
use xxhash_rust::xxh3::Xxh3;

use super::columns::Columns;
use crate::conform::Target;
use crate::draft::Description;
use crate::evidence::Evidence;
use crate::generate::{add_checksums, entries, same_columns};
use crate::layout::Layout;
use crate::petastorm::{Petastorm, RowGroupKeys};

/// Spark's names: the task, the job, the file of the task.
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^part-(\d+)-.*[.-]c(\d+)(\.[a-z0-9_]+)*\.parquet$").expect("a pattern"));

/// Gives Spark's files below `from` the names that a conversion gives, which tell neither the job nor the time, and takes away what else is
/// there: `_SUCCESS`, checksums of Hadoop.
pub(super) async fn settle(store: &Store, from: Option<&str>, prefix: &str) -> Result<()> {
    let objects = store.objects();
    let place = from.map(Path::from);
    let at = |error: object_store::Error| storage_error(error).at("URL", store.url());
    let listed: Vec<_> = objects
        .list(place.as_ref())
        .map_ok(|file| file.location)
        .try_collect()
        .await
        .map_err(at)?;
    for path in listed {
        let below = match from {
            Some(from) => path.as_ref().strip_prefix(from).unwrap_or(path.as_ref()),
            None => path.as_ref(),
        };
        let below = below.trim_start_matches('/');
        let (directory, name) = below.rsplit_once('/').unwrap_or(("", below));
        let hidden = |part: &str| part.starts_with(['.', '_']) && !part.contains('=');
        let settled = match NAME.captures(name) {
            Some(found) if !directory.split('/').any(hidden) => {
                let name = format!(
                    "{prefix}{:0>5}-{:0>4}.parquet",
                    &found[1],
                    found[2].trim_start_matches('0')
                );
                let to = match directory {
                    "" => name,
                    directory => format!("{directory}/{name}"),
                };
                let to = Path::parse(&to)
                    .map_err(|error| Error::unsupported("the partition values make no path").with_source(error))?;
                objects.rename(&path, &to).await
            }
            _ => objects.delete(&path).await,
        };
        settled.map_err(at)?;
    }
    Ok(())
}

/// Describes the files of the store. They are read once for their checksums; columns of lists, and those that are indexed, once more for
/// their lengths and values.
pub(super) async fn adopt(
    store: &Store,
    (options, prefix): (&StoreOptions, &str),
    columns: &Columns,
    layout: &Layout,
) -> Result<Description> {
    let open = OpenOptions::default().with_store(options.clone()).from_footers();
    let dataset = open_rows(store, &open).await?;
    let mut files = entries(&dataset);
    add_checksums(&dataset, &mut files).await?;
    let found = same_columns(&dataset).await?;
    let (evidence, keys) = look(&dataset, &found, layout.petastorm.as_ref()).await?;
    let schema = schema(&dataset, columns, layout, &evidence)?;
    check_partitions(&files, &schema.project(&layout.partition_by)?)?;
    let petastorm = match &layout.petastorm {
        Some(petastorm) => {
            petastorm.check(&schema)?;
            let files: Vec<_> = files.iter().zip(&keys).map(|(file, keys)| (file, &keys[..])).collect();
            let pairs = petastorm.key_values(&schema, &files)?;
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        }
        None => Vec::new(),
    };
    let metadata = DatasetMetadata {
        created_by: concat!("squall ", env!("CARGO_PKG_VERSION")).to_owned(),
        fingerprint: fingerprint(&schema, &files, prefix)?,
        schema,
        partition_by: layout.partition_by.clone(),
        files,
    };
    Ok(Description {
        columns: Arc::new(found),
        metadata,
        petastorm,
    })
}

/// The dataset of the files that have rows; the others are taken away.
async fn open_rows(store: &Store, open: &OpenOptions) -> Result<Dataset> {
    let unseen = || {
        Error::new(
            squall_schema::ErrorKind::Storage,
            "Spark wrote its files where this process does not find them: both must see the destination under the same path",
        )
    };
    let objects = store.objects();
    if objects
        .list(None)
        .boxed()
        .try_next()
        .await
        .map_err(storage_error)?
        .is_none()
    {
        return Err(unseen());
    }
    let dataset = Dataset::open_with(store.url(), open).await?;
    if dataset.rows() == 0 {
        return Err(Error::invalid("there is no row: nothing is written"));
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
    for path in empty {
        objects.delete(&path).await.map_err(storage_error)?;
    }
    Dataset::open_with(store.url(), open).await
}

/// The fields, in the order of the query: those of the files, with the shapes that were found, and those of directory names in the types
/// that they have in Spark.
fn schema(dataset: &Dataset, columns: &Columns, layout: &Layout, evidence: &Schema) -> Result<Schema> {
    let planned = columns.schema()?;
    let field = |own: &Field| {
        if columns.declared.is_some() || layout.partition_by.contains(&own.name) {
            return Ok(own.clone());
        }
        let stored = dataset
            .schema()
            .get(&own.name)
            .ok_or_else(|| dataset.schema().unknown(&own.name))?;
        Ok(match evidence.get(&own.name) {
            Some(seen) => Field {
                shape: seen.shape.clone(),
                ..stored.clone()
            },
            None => stored.clone(),
        })
    };
    Schema::new(planned.fields().iter().map(field).collect::<Result<_>>()?)
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

/// A digest of schema and files, whatever tells their names from those of others.
fn fingerprint(schema: &Schema, files: &[FileEntry], prefix: &str) -> Result<String> {
    let fields =
        serde_json::to_vec(schema).map_err(|error| Error::internal("a schema is not JSON").with_source(error))?;
    let mut digest = Xxh3::new();
    digest.update(&fields);
    for file in files {
        digest.update(file.path.replacen(prefix, "part-", 1).as_bytes());
        digest.update(&file.size.to_le_bytes());
        digest.update(file.checksum.as_deref().unwrap_or_default().as_bytes());
    }
    Ok(format!("{:032x}", digest.digest128()))
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
mod tests {
    use object_store::PutPayload;
    use squall_dataset::DatasetUrl;

    use super::*;

    #[tokio::test]
    async fn sparks_files_get_names_of_ours_and_the_rest_goes() {
        let store = Store::create(&DatasetUrl::parse("memory://spark/settle").expect("a URL")).expect("a store");
        let job = "8d6f4b52-1c1b-4a0b-9f3e-3c1b1c1b4a0b";
        let files = [
            format!("_squall-1/a=%5B1/part-00012-{job}.c001.zstd.parquet"),
            format!("_squall-1/a=%5B1/.part-00012-{job}.c001.zstd.parquet.crc"),
            format!("_squall-1/_temporary/0/part-00001-{job}.c000.zstd.parquet"),
            "_squall-1/_SUCCESS".to_owned(),
        ];
        for file in &files {
            let path = Path::parse(file).expect("a path");
            store
                .objects()
                .put(&path, PutPayload::from_static(b"x"))
                .await
                .expect("a file");
        }
        settle(&store, Some("_squall-1"), "part-").await.expect("settled");
        let left: Vec<_> = store
            .objects()
            .list(None)
            .map_ok(|file| file.location.to_string())
            .try_collect()
            .await
            .expect("a list");
        assert_eq!(left, ["a=%5B1/part-00012-0001.parquet"]);
    }
}
