//! Rows a second by index, beside a scan of the same files in the same run.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin random_access
//! ```

mod table;

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use squall::{MapDataset, make_dataset};
use table::{Result, Size, raw_scan};

const BATCH: usize = 1024;

/// Measures a map-style dataset on a table of 20 float columns, an id and a label.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    #[arg(long, default_value_t = 8)]
    files: usize,
    #[arg(long, default_value_t = 25_000)]
    row_group: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The cache, in MiB
    #[arg(long, default_value_t = 64)]
    cache: u64,
    /// Seconds a measurement takes, at least
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Indices in an order without a pattern.
fn scattered(i: u64, rows: u64) -> u64 {
    let mixed = i
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((u128::from(mixed) * u128::from(rows)) >> 64) as u64
}

fn main() -> Result<()> {
    let options = Options::parse();
    let directory = tempfile::tempdir()?;
    let (rows, files, row_group) = (options.rows, options.files, options.row_group);
    table::write(directory.path(), &Size { rows, files, row_group })?;
    let url = directory.path().display().to_string();
    let began = Instant::now();
    let mut scans = 0;
    while scans == 0 || began.elapsed() < Duration::from_secs_f64(options.seconds) {
        scans += 1;
        raw_scan(directory.path(), options.threads)?;
    }
    let limit = (scans * rows) as f64 / began.elapsed().as_secs_f64();
    println!(
        "{rows} rows, {} threads, a cache of {} MiB",
        options.threads, options.cache
    );
    println!("{:44} {:12.0} rows/s", "raw scan", limit);

    let n = rows as u64;
    // As many rows as lie in a few row groups.
    let warm = (2 * row_group as u64).min(n);
    let get = |index: fn(u64, u64) -> u64, among: u64| {
        move |dataset: &MapDataset, step: u64| -> squall::Result<usize> {
            black_box(dataset.get(index(step, among))?);
            Ok(1)
        }
    };
    let take = |index: fn(u64, u64) -> u64, among: u64| {
        move |dataset: &MapDataset, step: u64| -> squall::Result<usize> {
            let wanted: Vec<_> = (0..BATCH as u64)
                .map(|i| index(step * BATCH as u64 + i, among))
                .collect();
            Ok(dataset.take(&wanted)?.num_rows())
        }
    };
    type Step<'a> = Box<dyn Fn(&MapDataset, u64) -> squall::Result<usize> + 'a>;
    let in_order = |i: u64, n: u64| i % n;
    let measured: [(&str, Step<'_>); 6] = [
        ("get, in order", Box::new(get(in_order, n))),
        ("get, at random in two row groups", Box::new(get(scattered, warm))),
        ("get, at random in all", Box::new(get(scattered, n))),
        ("take of 1,024, in order", Box::new(take(in_order, n))),
        (
            "take of 1,024, at random in two row groups",
            Box::new(take(scattered, warm)),
        ),
        ("take of 1,024, at random in all", Box::new(take(scattered, n))),
    ];
    for (name, step) in measured {
        let dataset = make_dataset(&url)
            .workers(options.threads)
            .cache_bytes(options.cache << 20)
            .build()?;
        let (began, mut done, mut steps) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs_f64(options.seconds) {
            done += step(&dataset, steps)?;
            steps += 1;
        }
        let rate = done as f64 / began.elapsed().as_secs_f64();
        let stats = dataset.stats();
        println!(
            "{name:44} {rate:12.0} rows/s  {:6.3} of the raw scan  {:8.1} kB fetched a row",
            rate / limit,
            stats.fetched_bytes as f64 / 1e3 / done as f64
        );
    }
    Ok(())
}
