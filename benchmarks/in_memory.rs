//! Epochs from memory beside epochs that are read: rows a second of each, seconds of CPU that a row takes, which other work on the
//! machine changes little, and how long it takes until the first.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --no-default-features --bin in_memory -- png tabular
//! ```

use std::time::Instant;

use clap::Parser;
use squall::{BatchReader, ByteSize, ReaderBuilder, Shuffle, make_batch_reader};
use squall_benchmarks::Result;
use squall_benchmarks::process::cpu_seconds;
use squall_benchmarks::sets::Set;

/// Measures readers that keep their rows in memory, on sets that sets.py makes.
#[derive(Parser)]
struct Options {
    /// Which sets
    #[arg(default_values = ["png", "tabular"])]
    sets: Vec<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Of the reader, for its rows and batches
    #[arg(long, default_value = "8GiB")]
    memory_budget: ByteSize,
    /// Of those behind the first the best counts: the machine may be shared
    #[arg(long, default_value_t = 4)]
    epochs: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    for name in &options.sets {
        let set = Set::make(name)?;
        for mode in [Shuffle::Windows, Shuffle::Full] {
            let reader = || {
                let reader = make_batch_reader(set.url()).shuffle(mode).seed(7);
                let reader = match name.as_str() {
                    "tabular" => reader.features((0..20).map(|i| format!("f{i}"))).batch_size(1024),
                    _ => reader.batch_size(256),
                };
                let reader = reader.epochs(options.epochs).workers(options.threads);
                reader.memory_budget(options.memory_budget)
            };
            let ways: [(_, ReaderBuilder<BatchReader>); 2] = [("read", reader()), ("in memory", reader().in_memory())];
            // A window of all rows would be read in one piece.
            let skipped = usize::from(mode == Shuffle::Full);
            for (way, reader) in ways.into_iter().skip(skipped) {
                measure(&format!("{name}, {mode:?}, {way}"), reader)?;
            }
        }
    }
    Ok(())
}

fn measure(what: &str, reader: ReaderBuilder<BatchReader>) -> Result<()> {
    let began = Instant::now();
    let mut reader = reader.build()?;
    let built = began.elapsed().as_secs_f64();
    let (mut rows, mut epoch, mut started) = (0, 0, Instant::now());
    let mut rates = Vec::new();
    let (mut cpu, mut later_rows) = (0.0, 0);
    while let Some(batch) = reader.next_samples() {
        let batch = batch?;
        if batch.epoch > epoch {
            rates.push(rows as f64 / started.elapsed().as_secs_f64());
            if epoch == 0 {
                cpu = cpu_seconds()?;
            } else {
                later_rows += rows;
            }
            (rows, epoch, started) = (0, batch.epoch, Instant::now());
        }
        rows += batch.columns.num_rows();
    }
    rates.push(rows as f64 / started.elapsed().as_secs_f64());
    let cpu = (cpu_seconds()? - cpu) * 1e9 / (later_rows + rows) as f64;
    let later = rates[1..].iter().copied().fold(0.0, f64::max);
    let held = reader.metrics().memory.high_water >> 20;
    println!(
        "{what:<28} built in {built:>6.2} s, epoch 1 {:>11.0} rows/s, later {later:>11.0} rows/s and {cpu:>6.0} ns of CPU a row, {held} MiB",
        rates[0]
    );
    Ok(())
}
