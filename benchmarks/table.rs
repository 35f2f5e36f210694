//! The table of the benchmarks, and the limit of the machine: all threads decoding it and throwing the rows away.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const FEATURES: usize = 20;

/// How large a table is.
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) files: usize,
    /// Rows of a row group.
    pub(crate) row_group: usize,
}

/// Writes a table of 20 float columns, an id and a label.
pub(crate) fn write(directory: &Path, size: &Size) -> Result<()> {
    let per_file = size.rows.div_ceil(size.files);
    for file in 0..size.files {
        let ids = (file * per_file) as i64..((file + 1) * per_file).min(size.rows) as i64;
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("id".into(), Arc::new(Int64Array::from_iter_values(ids.clone())))];
        for feature in 0..FEATURES {
            // No structure that an encoding could use.
            let values = ids
                .clone()
                .map(|id| ((id as u32).wrapping_mul(2_654_435_761).rotate_left(feature as u32) >> 8) as f32);
            columns.push((format!("f{feature}"), Arc::new(Float32Array::from_iter_values(values))));
        }
        columns.push((
            "label".into(),
            Arc::new(Int64Array::from_iter_values(ids.map(|id| id % 10))),
        ));
        let batch = RecordBatch::try_from_iter(columns)?;
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(size.row_group))
            .set_compression(Compression::SNAPPY)
            .build();
        let out = File::create(directory.join(format!("part-{file:05}.parquet")))?;
        let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
    }
    Ok(())
}

/// Decodes all row groups on all threads and counts the rows.
pub(crate) fn raw_scan(directory: &Path, threads: usize) -> Result<usize> {
    let mut files: Vec<_> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> Result<usize> {
            let mut rows = 0;
            while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
                for batch in builder.with_batch_size(8192).build()? {
                    rows += batch?.num_rows();
                }
            }
            Ok(rows)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .sum()
    })
}
