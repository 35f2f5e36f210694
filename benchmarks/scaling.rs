//! What more threads bring, and what many row groups cost.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin scaling
//! ```

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use clap::Parser;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use squall::{IntoLoader, Remainder, make_batch_reader};
use squall_benchmarks::limits::{Binary, raw_scan};
use squall_benchmarks::sets::Set;
use squall_benchmarks::timing::Rates;
use squall_benchmarks::{Result, process};

const BATCH_SIZE: u64 = 1024;
const FLOATS: usize = 20;
/// Parquet counts the row groups of a file in 16 bits.
const MAX_ROW_GROUPS: usize = 25_000;

/// Measures how the reader scales.
#[derive(Parser)]
struct Options {
    /// Numbers of threads, on the benchmark set `tabular`
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Numbers of row groups, on tables of the same rows
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000,100000")]
    row_groups: Vec<usize>,
    /// Rows of each of these tables
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Only reads this directory, and prints what it took
    #[arg(long, hide = true)]
    read: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(url) = &options.read {
        return print_read(url, &options);
    }
    print_threads(&options)?;
    print_row_groups(&options)
}

fn print_threads(options: &Options) -> Result<()> {
    if options.threads.is_empty() {
        return Ok(());
    }
    let set = Set::make("tabular")?;
    let mut scans = vec![Rates::default(); options.threads.len()];
    let mut loads = scans.clone();
    for _ in 0..options.repeat {
        for (i, threads) in options.threads.iter().enumerate() {
            scans[i].measure(|| raw_scan(&set, *threads, Binary::Copied))?;
            loads[i].measure(|| load(&set.url(), *threads).map(|loaded| loaded.rows))?;
        }
    }
    println!(
        "{:>8} {:>22} {:>8} {:>22} {:>8}",
        "threads", "raw scan, rows/s", "×", "squall, rows/s", "×"
    );
    for (threads, (scan, load)) in options.threads.iter().zip(scans.iter().zip(&loads)) {
        println!(
            "{threads:>8} {:>22.0} {:>8.2} {:>22.0} {:>8.2}",
            scan.best(),
            scan.best() / scans[0].best(),
            load.best(),
            load.best() / loads[0].best()
        );
    }
    Ok(())
}

fn print_row_groups(options: &Options) -> Result<()> {
    println!(
        "{:>10} {:>8} {:>12} {:>12} {:>14} {:>14} {:>12}",
        "row groups", "rows of", "open", "memory", "first batch", "rows/s", "peak memory"
    );
    for row_groups in &options.row_groups {
        let directory = tempfile::tempdir()?;
        let rows = options.rows.div_ceil(*row_groups).max(1);
        write(directory.path(), *row_groups, rows)?;
        // Peak memory is that of a process.
        let child = Command::new(std::env::current_exe()?)
            .arg("--read")
            .arg(directory.path())
            .args(["--repeat", &options.repeat.to_string()])
            .output()?;
        if !child.status.success() {
            println!(
                "{row_groups:>10} FAILED: {}",
                String::from_utf8_lossy(&child.stderr).trim()
            );
            continue;
        }
        let read: Value = serde_json::from_slice(&child.stdout)?;
        let number = |name: &str| read[name].as_f64().ok_or(format!("the child gave no {name}"));
        println!(
            "{row_groups:>10} {rows:>8} {:>9.1} ms {:>9.0} MB {:>11.1} ms {:>14.0} {:>9.0} MB",
            number("open")? * 1e3,
            number("opened")? / 1e6,
            number("first_batch")? * 1e3,
            number("rate")?,
            number("peak")? / 1e6
        );
    }
    Ok(())
}

struct Loaded {
    rows: usize,
    /// Seconds until the reader was built, and until the first batch was there.
    open: f64,
    first_batch: f64,
}

fn load(url: &str, threads: usize) -> Result<Loaded> {
    let began = Instant::now();
    let reader = make_batch_reader(url).seed(1).workers(threads).build()?;
    let open = began.elapsed().as_secs_f64();
    let (mut rows, mut first_batch) = (0, None);
    for batch in reader.into_loader(BATCH_SIZE).remainder(Remainder::Keep).build()? {
        rows += batch?.len();
        first_batch.get_or_insert_with(|| began.elapsed().as_secs_f64());
    }
    Ok(Loaded {
        rows,
        open,
        first_batch: first_batch.ok_or("no batch")?,
    })
}

fn print_read(url: &str, options: &Options) -> Result<()> {
    let threads = options.threads.iter().copied().max().unwrap_or(2);
    // Of a reader that has not read yet.
    let reader = make_batch_reader(url).build()?;
    let opened = process::memory()?;
    drop(reader);
    let (mut open, mut first_batch) = (f64::MAX, f64::MAX);
    let mut rates = Rates::default();
    for _ in 0..options.repeat {
        rates.measure(|| {
            let loaded = load(url, threads)?;
            open = open.min(loaded.open);
            first_batch = first_batch.min(loaded.first_batch);
            Ok(loaded.rows)
        })?;
    }
    let peak = process::peak_memory()?;
    println!(
        "{}",
        json!({"open": open, "opened": opened, "first_batch": first_batch, "rate": rates.best(), "peak": peak})
    );
    Ok(())
}

/// So many row groups, in as few files as Parquet allows.
fn write(directory: &Path, row_groups: usize, rows: usize) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_dictionary_enabled(false)
        .build();
    let batch = |from: usize| -> Result<RecordBatch> {
        let ids = from as i64..(from + rows) as i64;
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("id".into(), Arc::new(Int64Array::from_iter_values(ids.clone())))];
        for feature in 0..FLOATS {
            let values = ids
                .clone()
                .map(|id| (id as u32).wrapping_mul(2_654_435_761).rotate_left(feature as u32) as f32);
            columns.push((format!("f{feature}"), Arc::new(Float32Array::from_iter_values(values))));
        }
        Ok(RecordBatch::try_from_iter(columns)?)
    };
    for file in 0..row_groups.div_ceil(MAX_ROW_GROUPS) {
        let out = File::create(directory.join(format!("part-{file:05}.parquet")))?;
        let mut writer = ArrowWriter::try_new(out, batch(0)?.schema(), Some(properties.clone()))?;
        for group in file * MAX_ROW_GROUPS..row_groups.min((file + 1) * MAX_ROW_GROUPS) {
            writer.write(&batch(group * rows)?)?;
        }
        writer.close()?;
    }
    Ok(())
}
