//! Rows a second of the reader, beside the limit of the same machine in the same run: all threads decoding Parquet and
//! throwing the rows away.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin scan
//! ```

mod table;

use std::time::Instant;

use clap::Parser;
use squall::{IntoLoader, Remainder, Shuffle, make_batch_reader};

use table::{Result, Size, raw_scan};

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
    table::write(
        directory.path(),
        &Size {
            rows: options.rows,
            files: options.files,
            row_group: options.row_group,
        },
    )?;
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
