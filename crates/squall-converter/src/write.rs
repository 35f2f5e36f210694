//! A stream of batches as Parquet files.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use squall_dataset::{Store, storage_error};
use squall_schema::codec::Codec as Cell;
use squall_schema::metadata::{FileEntry, RowGroupEntry};
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::conform::Target;
use crate::converter::Compression;
use crate::error::write_error;
use crate::evidence::Evidence;
use crate::petastorm::{Petastorm, RowGroupKeys};

/// Rows that are encoded between two looks at the size of the row group.
const ENCODE_ROWS: usize = 1024;

/// How rows are laid out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) row_group_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) compression: Compression,
    /// Whether Petastorm must read it.
    pub(crate) petastorm: Option<Petastorm>,
}

impl Layout {
    fn properties(&self, target: &Target) -> WriterProperties {
        let codec = match self.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::Snappy => Codec::SNAPPY,
            Compression::Lz4 => Codec::LZ4_RAW,
            Compression::None => Codec::UNCOMPRESSED,
        };
        // Row groups are closed by bytes, below. The page index is written by default.
        let mut properties = WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(None);
        for field in target.cells() {
            // No two cells are the same. What is compressed already only costs time to compress again.
            let path = ColumnPath::from(field.name.as_str());
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            if !matches!(field.codec, Some(Cell::Ndarray)) {
                properties = properties.set_column_compression(path, Codec::UNCOMPRESSED);
            }
        }
        properties.build()
    }
}

/// A file that was written, a digest of its bytes, and what its row groups hold for the indexes.
pub(crate) struct Written {
    pub(crate) entry: FileEntry,
    pub(crate) digest: u64,
    pub(crate) keys: Vec<RowGroupKeys>,
}

/// Writes one partition of a query's result to files `part-<partition>-<n>.parquet`. An empty one has none.
///
/// # Cancel safety
///
/// Dropping the future leaves an unfinished file behind; the caller takes the whole staging place away.
pub(crate) async fn write_partition<S>(
    mut rows: S,
    partition: usize,
    target: &Target,
    layout: &Layout,
    store: &Store,
) -> Result<(Vec<Written>, Evidence)>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let mut evidence = Evidence::new(&target.schema);
    let mut written = Vec::new();
    let mut open: Option<OpenFile> = None;
    while let Some(batch) = rows.next().await {
        let batch = target.conform(&batch?)?;
        evidence.see(&batch);
        for start in (0..batch.num_rows()).step_by(ENCODE_ROWS) {
            let slice = batch.slice(start, ENCODE_ROWS.min(batch.num_rows() - start));
            let file = match &mut open {
                Some(file) => file,
                None => open.insert(OpenFile::create(partition, written.len(), target, layout, store)?),
            };
            file.write(&slice, target, layout).await?;
            if file.is_full(layout)
                && let Some(file) = open.take()
            {
                written.push(file.finish(store).await?);
            }
        }
    }
    if let Some(file) = open {
        written.push(file.finish(store).await?);
    }
    Ok((written, evidence))
}

struct OpenFile {
    path: Path,
    writer: AsyncArrowWriter<HashingWriter>,
    /// Those of the row groups that are closed, and of the one that is open.
    keys: Vec<RowGroupKeys>,
    open_keys: RowGroupKeys,
    digest: Arc<Mutex<Xxh3>>,
}

impl OpenFile {
    fn create(partition: usize, n: usize, target: &Target, layout: &Layout, store: &Store) -> Result<Self> {
        let path = Path::from(format!("part-{partition:05}-{n:04}.parquet"));
        let digest = Arc::new(Mutex::new(Xxh3::new()));
        let writer = HashingWriter {
            inner: BufWriter::new(store.objects().clone(), path.clone()),
            digest: digest.clone(),
        };
        let writer = AsyncArrowWriter::try_new(writer, target.columns.clone(), Some(layout.properties(target)));
        Ok(Self {
            writer: writer.map_err(|error| write_error(error).at("file", &path))?,
            path,
            keys: Vec::new(),
            open_keys: RowGroupKeys::default(),
            digest,
        })
    }

    /// Writes rows that conform to the target.
    async fn write(&mut self, rows: &RecordBatch, target: &Target, layout: &Layout) -> Result<()> {
        let at = |error| write_error(error).at("file", &self.path);
        if let Some(petastorm) = &layout.petastorm {
            petastorm.see(target, rows, &mut self.open_keys)?;
        }
        self.writer.write(&target.store(rows)?).await.map_err(at)?;
        if self.writer.in_progress_size() as u64 >= layout.row_group_bytes {
            self.writer.flush().await.map_err(at)?;
            self.keys.push(std::mem::take(&mut self.open_keys));
        }
        Ok(())
    }

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
            .map_err(|error| storage_error(error).at("file", &self.path))?
            .size;
        self.keys.push(self.open_keys);
        self.keys.truncate(metadata.num_row_groups());
        let digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner).digest();
        Ok(Written {
            entry: FileEntry {
                path: self.path.to_string(),
                size,
                partition: Default::default(),
                row_groups: row_groups(&metadata)?,
            },
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
}

impl AsyncFileWriter for HashingWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        self.digest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(&bytes);
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
