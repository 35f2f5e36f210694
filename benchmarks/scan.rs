//! Rows a second of the reader, beside the limit of the same machine in the same run: all threads decoding Parquet and
//! throwing the rows away.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin scan
//! ```

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use clap::Parser;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use squall::{IntoLoader, Remainder, Shuffle, make_batch_reader};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const FEATURES: usize = 20;
const BATCH_SIZE: u64 = 1024;

/// Measures the reader on a table of 20 float columns, an id and a label.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    #[arg(long, default_value_t = 8)]
    files: usize,
    #[arg(long, default_value_t = 25_000)]
    row_group: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 5)]
    repeat: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let directory = tempfile::tempdir()?;
    write_table(directory.path(), &options)?;
    let url = directory.path().display().to_string();
    let best = |run: &dyn Fn() -> Result<usize>| -> Result<f64> {
        let mut best = 0.0f64;
        for _ in 0..options.repeat {
            let began = Instant::now();
            let rows = run()?;
            if rows != options.rows {
                return Err(format!("read {rows} of {} rows", options.rows).into());
            }
            best = best.max(rows as f64 / began.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let limit = best(&|| raw_scan(directory.path(), options.threads))?;
    let reader = |shuffle| {
        make_batch_reader(&url)
            .shuffle(shuffle)
            .batch_size(BATCH_SIZE)
            .workers(options.threads)
            .seed(1)
    };
    let read = |shuffle| {
        let mut rows = 0;
        for batch in reader(shuffle).build()? {
            rows += batch?.num_rows();
        }
        Ok(rows)
    };
    let load = || {
        let mut rows = 0;
        for batch in reader(Shuffle::Windows)
            .build()?
            .into_loader(BATCH_SIZE)
            .remainder(Remainder::Keep)
            .build()?
        {
            rows += batch?.len();
        }
        Ok(rows)
    };
    let measured = [
        ("raw scan", limit),
        ("reader, not shuffled", best(&|| read(Shuffle::None))?),
        ("reader, shuffled", best(&|| read(Shuffle::Windows))?),
        ("loader, shuffled", best(&load)?),
    ];
    println!(
        "{} rows, {} threads, batches of {BATCH_SIZE}, best of {}",
        options.rows, options.threads, options.repeat
    );
    for (name, rate) in measured {
        println!(
            "{name:22} {:8.2} million rows/s  {:5.2} of the raw scan",
            rate / 1e6,
            rate / limit
        );
    }
    Ok(())
}

fn write_table(directory: &Path, options: &Options) -> Result<()> {
    let per_file = options.rows.div_ceil(options.files);
    for file in 0..options.files {
        let ids = (file * per_file) as i64..((file + 1) * per_file).min(options.rows) as i64;
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
            .set_max_row_group_row_count(Some(options.row_group))
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
fn raw_scan(directory: &Path, threads: usize) -> Result<usize> {
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
