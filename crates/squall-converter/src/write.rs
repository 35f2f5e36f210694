//! A stream of batches as Parquet files.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use datafusion::arrow::compute::partition;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use squall_dataset::{Store, checksum_text};
use squall_schema::metadata::{FileEntry, RowGroupEntry};
use squall_schema::{Error, Field, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::conform::Target;
use crate::error::{store_error, write_error};
use crate::evidence::Evidence;
use crate::hive::{self, Values};
use crate::layout::Layout;
use crate::memory::Memory;
use crate::petastorm::RowGroupKeys;
use crate::progress::Meter;

/// What the names of files begin with.
pub(crate) const FILE_PREFIX: &str = "part-";
/// Rows that are encoded between two looks at the size of the row group, at most.
const ENCODE_ROWS: usize = 1024;
/// Bytes of rows that are encoded between two looks, about.
const ENCODE_BYTES: usize = 4 << 20;
/// Bytes of a request that writes, and requests at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;

/// A file that was written, a digest of its bytes, and what its row groups hold for the indexes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) entry: FileEntry,
    /// Its path, but for what tells apart the files of several conversions to one place.
    pub(crate) name: String,
    pub(crate) digest: u64,
    pub(crate) keys: Vec<RowGroupKeys>,
}

/// Writes rows to files of one store. It keeps no state: several may write at the same time, on any machine.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) target: Target,
    pub(crate) layout: Layout,
    store: Store,
    /// A directory, which may be none, and what the names of the files begin with, before their numbers.
    prefix: String,
    /// And what stands behind them: of several attempts to write the same unit each has its own.
    suffix: String,
    /// What the files have: all columns but those of directory names.
    columns: SchemaRef,
    kept: Vec<usize>,
    directories: Vec<Field>,
    properties: WriterProperties,
    /// The memory at which a row group is closed in any case.
    row_group_memory: Option<u64>,
    /// Counts rows, bytes and files.
    pub(crate) meter: Meter,
}

impl Writer {
    pub(crate) fn new(
        target: &Target,
        (layout, memory): (&Layout, &Memory),
        store: &Store,
        prefix: &str,
    ) -> Result<Self> {
        let kept = kept_columns(target, layout);
        Ok(Self {
            columns: file_columns(target, layout)?,
            kept,
            directories: layout.partition_fields(&target.schema)?,
            properties: layout.properties(target, memory)?,
            row_group_memory: memory.row_group_memory(),
            target: target.clone(),
            layout: layout.clone(),
            store: store.clone(),
            prefix: prefix.to_owned(),
            suffix: String::new(),
            meter: Meter::default(),
        })
    }

    /// Counts what is written.
    pub(crate) fn with_meter(mut self, meter: &Meter) -> Self {
        self.meter = meter.clone();
        self
    }

    /// Puts this behind the numbers in the names of the files.
    #[cfg(feature = "ballista")]
    pub(crate) fn with_suffix(mut self, suffix: String) -> Self {
        self.suffix = suffix;
        self
    }

    /// Writes rows in the order in which they come, to files `<prefix><unit>-<n>.parquet`. Without rows there is no file.
    ///
    /// One file is open at a time: rows of one directory must come one after the other, or there are many small files.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves an unfinished file behind; the caller takes the whole staging place away.
    pub(crate) async fn write<S>(&self, mut rows: S, unit: usize) -> Result<(Vec<Written>, Evidence)>
    where
        S: Stream<Item = Result<RecordBatch>> + Unpin,
    {
        let mut evidence = Evidence::new(&self.target.schema);
        let mut written = Vec::new();
        let mut open: Option<OpenFile> = None;
        let mut n_rows = 0;
        while let Some(batch) = rows.next().await {
            let batch = self.target.conform(&batch?)?;
            evidence.see(&batch);
            for (values, rows) in self.by_directory(&batch)? {
                if let Some(other) = open.take_if(|file| file.values != values) {
                    written.push(self.finish(other).await?);
                }
                let step = encode_rows(&rows);
                for start in (0..rows.num_rows()).step_by(step) {
                    let slice = rows.slice(start, step.min(rows.num_rows() - start));
                    let file = match &mut open {
                        Some(file) => file,
                        None => open.insert(self.create(values.clone(), unit, written.len())?),
                    };
                    let done = self.write_rows(file, &slice).await;
                    done.map_err(|error| self.place_row(error, n_rows))?;
                    n_rows += slice.num_rows();
                    if let Some(full) = open.take_if(|file| file.is_full(&self.layout)) {
                        written.push(self.finish(full).await?);
                    }
                }
            }
        }
        if let Some(file) = open {
            written.push(self.finish(file).await?);
        }
        Ok((written, evidence))
    }

    /// Counts the row of an error from the first one of the unit. Of rows that were put in order the number would say nothing.
    fn place_row(&self, error: Error, before: usize) -> Error {
        match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
            Some(row) if !self.layout.is_ordered() => error.replace_place("row", before + row),
            _ => error,
        }
    }

    async fn finish(&self, file: OpenFile) -> Result<Written> {
        let written = file.finish(&self.store).await?;
        self.meter.add_file();
        Ok(written)
    }

    /// The rows cut where the directory changes.
    fn by_directory(&self, rows: &RecordBatch) -> Result<Vec<(Values, RecordBatch)>> {
        if self.directories.is_empty() || rows.num_rows() == 0 {
            return Ok(vec![(Values::default(), rows.clone())]);
        }
        let columns = self.directories.iter().map(|field| {
            let column = rows.column_by_name(&field.name).cloned();
            column.ok_or_else(|| Error::internal("a partition column is lost"))
        });
        let ranges = partition(&columns.collect::<Result<Vec<_>>>()?)
            .map_err(|error| Error::internal("partition columns cannot be compared").with_source(error))?;
        let cut = |range: std::ops::Range<usize>| {
            let values = hive::values(rows, &self.directories, range.start)?;
            Ok((values, rows.slice(range.start, range.len())))
        };
        ranges.ranges().into_iter().map(cut).collect()
    }

    fn create(&self, values: Values, unit: usize, n: usize) -> Result<OpenFile> {
        let directory = hive::directory(&values)?;
        let (base, prefix) = self.prefix.rsplit_once('/').unwrap_or(("", &self.prefix));
        let name = directory
            .clone()
            .join(format!("{prefix}{unit:05}-{n:04}{}.parquet", self.suffix));
        let path = Path::from_iter(Path::from(base).parts().chain(name.parts()));
        let digest = Arc::new(Mutex::new(Xxh3::new()));
        let out = BufWriter::with_capacity(self.store.objects().clone(), path.clone(), PART_BYTES);
        let out = HashingWriter {
            inner: out.with_max_concurrency(PARTS_AT_ONCE),
            digest: digest.clone(),
            meter: self.meter.clone(),
        };
        let writer = AsyncArrowWriter::try_new(out, self.columns.clone(), Some(self.properties.clone()));
        Ok(OpenFile {
            writer: writer.map_err(|error| write_error(error).at("file", &path))?,
            name: directory.join(format!("part-{unit:05}-{n:04}.parquet")).to_string(),
            path,
            values,
            keys: Vec::new(),
            open_keys: RowGroupKeys::default(),
            digest,
        })
    }

    /// Writes rows that conform to the target.
    async fn write_rows(&self, file: &mut OpenFile, rows: &RecordBatch) -> Result<()> {
        let at = |error| write_error(error).at("file", &file.path);
        if let Some(petastorm) = &self.layout.petastorm {
            petastorm.see(&self.target, rows, &mut file.open_keys)?;
        }
        let stored = self.target.store(rows)?;
        let stored = stored
            .project(&self.kept)
            .map_err(|error| Error::internal("a column is lost").with_source(error))?;
        file.writer.write(&stored).await.map_err(at)?;
        let is_full = file.writer.in_progress_size() as u64 >= self.layout.row_group_bytes;
        let is_large = |most| file.writer.memory_size() as u64 >= most;
        if is_full || self.row_group_memory.is_some_and(is_large) {
            file.writer.flush().await.map_err(at)?;
            file.keys.push(std::mem::take(&mut file.open_keys));
        }
        Ok(())
    }
}

fn kept_columns(target: &Target, layout: &Layout) -> Vec<usize> {
    let fields = target.schema.fields().iter().enumerate();
    let kept = fields.filter(|(_, field)| !layout.partition_by.contains(&field.name));
    kept.map(|(i, _)| i).collect()
}

/// The columns of the files: those of directory names are not in them.
pub(crate) fn file_columns(target: &Target, layout: &Layout) -> Result<SchemaRef> {
    let columns = target.columns.project(&kept_columns(target, layout));
    Ok(Arc::new(columns.map_err(|error| {
        Error::internal("a column is lost").with_source(error)
    })?))
}

/// Rows that are encoded at once: no more than a few MiB, however large a row is.
fn encode_rows(rows: &RecordBatch) -> usize {
    let per_row = rows.get_array_memory_size() / rows.num_rows().max(1);
    (ENCODE_BYTES / per_row.max(1)).clamp(1, ENCODE_ROWS)
}

struct OpenFile {
    path: Path,
    name: String,
    values: Values,
    writer: AsyncArrowWriter<HashingWriter>,
    /// Those of the row groups that are closed, and of the one that is open.
    keys: Vec<RowGroupKeys>,
    open_keys: RowGroupKeys,
    digest: Arc<Mutex<Xxh3>>,
}

impl OpenFile {
    fn is_full(&self, layout: &Layout) -> bool {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64 >= layout.file_bytes
    }

    async fn finish(mut self, store: &Store) -> Result<Written> {
        let metadata = self
            .writer
            .finish()
            .await
            .map_err(|error| write_error(error).at("file", &self.path))?;
        let size = store
            .objects()
            .head(&self.path)
            .await
            .map_err(|error| store_error(error).at("file", &self.path))?
            .size;
        self.keys.push(self.open_keys);
        self.keys.truncate(metadata.num_row_groups());
        let bytes = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let (digest, checksum) = (bytes.digest(), checksum_text(bytes.digest128()));
        drop(bytes);
        Ok(Written {
            entry: FileEntry {
                path: self.path.to_string(),
                size,
                checksum: Some(checksum),
                partition: self.values,
                row_groups: row_groups(&metadata)?,
            },
            name: self.name,
            digest,
            keys: self.keys,
        })
    }
}

fn row_groups(metadata: &ParquetMetaData) -> Result<Vec<RowGroupEntry>> {
    let number = |n: i64| u64::try_from(n).map_err(|_| Error::internal("a row group of negative size"));
    let entry = |row_group: &parquet::file::metadata::RowGroupMetaData| {
        Ok(RowGroupEntry {
            rows: number(row_group.num_rows())?,
            compressed_bytes: number(row_group.compressed_size())?,
            uncompressed_bytes: number(row_group.total_byte_size())?,
        })
    };
    metadata.row_groups().iter().map(entry).collect()
}

/// Digests what goes through it: the fingerprint of a dataset is that of its bytes.
struct HashingWriter {
    inner: BufWriter,
    digest: Arc<Mutex<Xxh3>>,
    meter: Meter,
}

impl AsyncFileWriter for HashingWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        self.digest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(&bytes);
        self.meter.add_bytes(bytes.len());
        async move {
            let put = self.inner.put(bytes).await;
            put.map_err(|error| parquet::errors::ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        AsyncFileWriter::complete(&mut self.inner)
    }
}
