//! What planning takes: an order of any size, single samples of it, a forecast of 1,024 ranks, and the first batch behind a
//! resume.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin order
//! ```
//!
//! Peak memory is that of the process (`VmHWM`), so each plan is made in a process of its own.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use clap::Parser;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use squall::{Order, OrderOptions, Shuffle, make_batch_reader};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LANES: u64 = 32;
/// The largest window that is shuffled as a table.
const TABLE: u64 = 4096;
/// A window that is shuffled as a Feistel network.
const FEISTEL: u64 = 8192;
const BATCH_SIZE: u64 = 256;

/// Measures the order.
#[derive(Parser)]
struct Options {
    /// Rows of the dataset on which a reader resumes
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Only make this plan, and print the seconds and the bytes that it took: row groups and rows of each
    #[arg(long, hide = true, num_args = 2)]
    plan: Option<Vec<u64>>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(plan) = &options.plan {
        return print_plan(plan[0] as usize, plan[1], options.repeat);
    }
    for (name, row_groups, rows) in [
        ("10^6 row groups, 10^12 rows", 1_000_000, 1_000_000),
        ("40 row groups, 10^9 rows", 40, 25_000_000),
    ] {
        let (row_groups, rows, repeat) = (row_groups.to_string(), rows.to_string(), options.repeat.to_string());
        let child = Command::new(std::env::current_exe()?)
            .args(["--repeat", &repeat, "--plan", &row_groups, &rows])
            .output()?;
        print!("{name}: {}", String::from_utf8(child.stdout)?);
        if !child.status.success() {
            return Err(String::from_utf8_lossy(&child.stderr).into());
        }
    }
    for (name, shuffle, window) in [
        ("stored order", Shuffle::None, TABLE),
        ("table windows", Shuffle::Windows, TABLE),
        ("Feistel windows", Shuffle::Windows, FEISTEL),
        ("one permutation", Shuffle::Full, FEISTEL),
    ] {
        let order = order(vec![25_000_000; 40], shuffle, window)?;
        println!(
            "{name:16} {:9.1} ns to locate any sample, {:6.1} ns to locate the next one",
            locate_any(&order),
            locate_next(&order)
        );
    }
    resume(&options)
}

fn order(rows: Vec<u64>, shuffle: Shuffle, window: u64) -> Result<Order> {
    let options = OrderOptions {
        shuffle,
        seed: 7,
        lanes: LANES,
        window,
    };
    Ok(Order::new(&rows, &options, 3)?)
}

/// The best time of some runs.
fn best(repeat: usize, mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..repeat {
        let began = Instant::now();
        run()?;
        best = best.min(began.elapsed());
    }
    Ok(best)
}

fn print_plan(row_groups: usize, rows: u64, repeat: usize) -> Result<()> {
    let rows = vec![rows; row_groups];
    let options = OrderOptions {
        shuffle: Shuffle::Windows,
        seed: 7,
        lanes: LANES,
        window: FEISTEL,
    };
    let plan = best(repeat, || {
        let order = Order::new(&rows, &options, 3)?;
        // A plan that gives the first, the last and some sample between is a plan.
        for sample in [0, order.len() / 3, order.len() - 1] {
            black_box(order.locate(sample));
        }
        Ok(())
    })?;
    println!(
        "planned in {:.3} ms, peak memory {:.1} MB",
        plan.as_secs_f64() * 1e3,
        peak()? / 1e6
    );
    Ok(())
}

/// Peak resident memory of this process in bytes.
fn peak() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("/proc/self/status has no VmHWM")?.parse::<f64>()? * 1024.0)
}

/// Nanoseconds a sample, one here and one there.
fn locate_any(order: &Order) -> f64 {
    let samples = 20_000;
    let began = Instant::now();
    for i in 0..samples {
        // An odd stride goes everywhere.
        black_box(order.locate((i * 48_271_000_003) % order.len()));
    }
    began.elapsed().as_secs_f64() * 1e9 / samples as f64
}

/// Nanoseconds a sample, one after the other, in batches.
fn locate_next(order: &Order) -> f64 {
    let samples = 10_000_000;
    let start = order.len() / 3;
    let began = Instant::now();
    for located in order.samples(start..start + samples) {
        black_box(located);
    }
    began.elapsed().as_secs_f64() * 1e9 / samples as f64
}

/// The time to the first batch, from the start of an epoch and behind resumes.
fn resume(options: &Options) -> Result<()> {
    let directory = tempfile::tempdir()?;
    write_table(directory.path(), options.rows)?;
    let url = directory.path().display().to_string();
    let reader = || make_batch_reader(&url).batch_size(BATCH_SIZE).seed(1);
    println!("first batch of {BATCH_SIZE} of {} rows:", options.rows);
    for percent in [0, 1, 50, 99] {
        let next = options.rows as u64 * percent / 100 / BATCH_SIZE * BATCH_SIZE;
        let mut state = reader().build()?.state();
        state.next = next;
        let first = best(options.repeat, || {
            let mut reader = reader().resume(state.clone()).build()?;
            let batch = reader.next_samples().ok_or("no batch")??;
            match batch
                .ids
                .iter()
                .all(|id| (next..next + BATCH_SIZE).contains(&id.sample))
            {
                true => Ok(()),
                false => Err("other samples than those behind the state".into()),
            }
        })?;
        println!("  at {percent:2} % of the epoch {:8.1} ms", first.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn write_table(directory: &Path, rows: usize) -> Result<()> {
    let ids = 0..rows as i64;
    let x = ids
        .clone()
        .map(|id| ((id as u32).wrapping_mul(2_654_435_761) >> 8) as f32);
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("x", Arc::new(Float32Array::from_iter_values(x))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(20_000))
        .build();
    let file = File::create(directory.join("part-00000.parquet"))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
