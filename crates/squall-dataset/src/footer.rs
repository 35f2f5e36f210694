//! What a Parquet file says of itself.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice::Iter;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema, TimeUnit};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use parquet::arrow::async_reader::MetadataFetch;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::ColumnDescPtr;
use squall_schema::{Error, Result, panic_text};
use xxhash_rust::xxh3::Xxh3;

use crate::Store;

/// Bytes from the end of a file that are asked for first: most footers fit, and need no second request.
const FOOTER_GUESS: usize = 64 * 1024;

/// The shortest Parquet file: the magic number twice and the footer's length.
const SHORTEST_FILE: u64 = 12;

/// A file's footer, and a digest of the bytes it was read from.
pub struct Footer {
    /// The parsed footer.
    pub metadata: Arc<ParquetMetaData>,
    /// XXH3 of the bytes.
    pub digest: u64,
}

/// Loads the footer of a file of `size` bytes; with the offset index where `page_index` asks for it and the file has
/// one.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub async fn load(store: &Store, path: &Path, size: u64, page_index: bool) -> Result<Footer> {
    let place = |error: Error| error.at("file", path).at("URL", store.url());
    if size < SHORTEST_FILE {
        return Err(place(Error::corrupt(format!(
            "not a Parquet file: expected at least {SHORTEST_FILE} bytes, found {size}"
        ))));
    }
    let policy = if page_index {
        PageIndexPolicy::Optional
    } else {
        PageIndexPolicy::Skip
    };
    let mut fetch = HashingFetch {
        store,
        path,
        digest: Xxh3::new(),
    };
    let load = ParquetMetaDataReader::new()
        .with_prefetch_hint(Some(FOOTER_GUESS))
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(policy)
        .load_and_finish(&mut fetch, size);
    let metadata = match AssertUnwindSafe(load).catch_unwind().await {
        Ok(loaded) => loaded.map_err(|error| place(footer_error(error)))?,
        Err(panic) => return Err(place(damaged(&*panic))),
    };
    Ok(Footer {
        metadata: Arc::new(metadata),
        digest: fetch.digest.digest(),
    })
}

/// The Arrow columns of a file, as its footer describes them. Timestamps of 96 bits are instants, as Spark and Hive mean
/// them, in microseconds: nanoseconds reach from the year 1677 to 2262 only. Dictionaries are what they hold.
pub fn arrow_schema(metadata: &ParquetMetaData) -> Result<ArrowSchema> {
    let schema = described_schema(metadata)?;
    let mut leaves = metadata.file_metadata().schema_descr().columns().iter();
    let column = |column: &Arc<ArrowField>| with_instants(column, &mut leaves);
    Ok(ArrowSchema::new(schema.fields().iter().map(column).collect::<Vec<_>>()))
}

/// The column with its timestamps of 96 bits as instants. Arrow's leaves stand in the order of Parquet's.
fn with_instants(column: &ArrowField, leaves: &mut Iter<'_, ColumnDescPtr>) -> Arc<ArrowField> {
    let data_type = match column.data_type() {
        DataType::List(item) => DataType::List(with_instants(item, leaves)),
        DataType::LargeList(item) => DataType::LargeList(with_instants(item, leaves)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(with_instants(item, leaves), *n),
        DataType::Map(entries, sorted) => DataType::Map(with_instants(entries, leaves), *sorted),
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| with_instants(member, leaves)).collect())
        }
        // Which values were dictionaries in the writer's memory matters to nobody.
        DataType::Dictionary(_, value) => {
            leaves.next();
            value.as_ref().clone()
        }
        leaf => match leaves.next() {
            Some(stored) if stored.physical_type() == Type::INT96 => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            _ => leaf.clone(),
        },
    };
    Arc::new(column.clone().with_data_type(data_type))
}

fn described_schema(metadata: &ParquetMetaData) -> Result<ArrowSchema> {
    let file = metadata.file_metadata();
    let convert = || parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
    match catch_unwind(AssertUnwindSafe(convert)) {
        Ok(schema) => {
            schema.map_err(|error| Error::unsupported("the Parquet schema has no Arrow schema").with_source(error))
        }
        Err(panic) => Err(damaged(&*panic)),
    }
}

/// The parsers of parquet and of Arrow's stored schemas panic on some damaged bytes; that is no reason to end a program.
fn damaged(panic: &(dyn Any + Send)) -> Error {
    Error::corrupt(format!(
        "cannot read the Parquet footer: it is damaged ({})",
        panic_text(panic)
    ))
}

fn footer_error(error: ParquetError) -> Error {
    match error {
        // What the store said travels through the parquet crate and comes back whole.
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(store) => *store,
            Err(other) => Error::corrupt("cannot read the Parquet footer").with_source(other),
        },
        other => Error::corrupt("cannot read the Parquet footer: the file is damaged, cut short or not Parquet")
            .with_source(other),
    }
}

struct HashingFetch<'a> {
    store: &'a Store,
    path: &'a Path,
    digest: Xxh3,
}

impl MetadataFetch for &mut HashingFetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let got = self.store.get_ranges(self.path, &[range]).await;
            let mut bytes = got.map_err(|error| ParquetError::External(Box::new(error)))?;
            let bytes = bytes.pop().unwrap_or_default();
            self.digest.update(&bytes);
            Ok(bytes)
        }
        .boxed()
    }
}
