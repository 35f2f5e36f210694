//! Squall beside the limits of the machine and its peers, in one run, on the sets of `sets.py`.
//!
//! ```text
//! eval "$(cargo xtask env)"
//! cargo run --release -p squall-benchmarks --no-default-features --bin engine -- --json engine.json
//! ```
//!
//! Without `--no-default-features` jpeg is decoded by libjpeg-turbo, which is fast where nasm was there when it was built.
//!
//! Limits and Squall take turns, run by run, so that what else the machine does hits all of them; a rate is that of whole
//! epochs, opening the dataset included. Peers have processes of their own, and their clocks start at their first batch. On a
//! machine that other work shares, the CPU that a row takes is the figure to compare.

mod peers;
mod report;
mod squall_side;

use std::path::PathBuf;

use clap::Parser;
use squall::{DEFAULT_LANES, Shuffle};
use squall_benchmarks::limits::{self, Binary};
use squall_benchmarks::sets::Set;
use squall_benchmarks::timing::Rates;
use squall_benchmarks::{Result, process};

use report::{Measured, Report};
use squall_side::{Read, read_epoch};

/// Row groups among whose rows the table is shuffled, by Squall and by Petastorm.
const MIXED: u64 = 8;

/// Measures Squall beside limits and peers.
#[derive(Parser)]
struct Options {
    /// Which sets
    #[arg(long, value_delimiter = ',', default_value = "tabular,png,jpeg,npy")]
    sets: Vec<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 7)]
    repeat: usize,
    /// Lanes of the shuffled readers, if not the default
    #[arg(long)]
    lanes: Option<u64>,
    /// Window of the shuffled readers, if not the default
    #[arg(long)]
    window: Option<u64>,
    /// Limits and Squall only
    #[arg(long)]
    no_peers: bool,
    /// Runs of each peer with each of its settings
    #[arg(long, default_value_t = 2)]
    peer_repeat: usize,
    /// Writes the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only reads this epoch again and again, for a profiler: shuffled or stored
    #[arg(long, hide = true)]
    only: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let sets: Vec<Set> = options.sets.iter().map(|name| Set::make(name)).collect::<Result<_>>()?;
    if let Some(only) = &options.only {
        return read_only(&options, &sets[0], only == "shuffled");
    }
    let mut report = Report::new(options.threads, options.repeat);
    for set in &sets {
        measure_set(&options, set, &mut report)?;
    }
    report.print();
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    Ok(())
}

fn read_only(options: &Options, set: &Set, shuffled: bool) -> Result<()> {
    let read = read(options, set, shuffled)?;
    for _ in 0..options.repeat {
        let mut rates = Rates::default();
        rates.measure(|| read_epoch(&read).map(|epoch| epoch.rows))?;
        println!("{:.0} rows/s", rates.best());
    }
    println!("{} MB at the peak", process::peak_memory()? / 1_000_000);
    Ok(())
}

fn read<'a>(options: &Options, set: &'a Set, shuffled: bool) -> Result<Read<'a>> {
    let mut window = options.window;
    if set.name == "tabular" && window.is_none() {
        // The windows of all lanes together hold at least so many rows as MIXED row groups.
        let rows = MIXED * limits::largest_row_group(set)?;
        window = Some(rows.div_ceil(options.lanes.unwrap_or(DEFAULT_LANES)));
    }
    Ok(Read {
        set,
        threads: options.threads,
        shuffle: if shuffled { Shuffle::Windows } else { Shuffle::None },
        lanes: options.lanes,
        window,
    })
}

fn measure_set(options: &Options, set: &Set, report: &mut Report) -> Result<()> {
    let name = set.name.as_str();
    let threads = options.threads;
    eprintln!("engine: measuring {name}");
    let shuffled = read(options, set, true)?;
    let stored = read(options, set, false)?;
    let images = matches!(name, "png" | "jpeg");
    let cells = match images {
        true => limits::cells(set, "x")?,
        false => Vec::new(),
    };
    let row_bytes = match name {
        "tabular" => 20 * 4 + 8 + 4,
        "png" => 28 * 28 * 4,
        "jpeg" => 256 * 256 * 3,
        _ => 64 * 64 * 4,
    };
    let (mut scan, mut view, mut bare, mut copy) = Default::default();
    let (mut squall, mut squall_stored) = (Rates::default(), Rates::default());
    let mut first = Vec::new();
    let rows = limits::raw_scan(set, threads, Binary::Copied)?;
    for _ in 0..options.repeat {
        Rates::measure(&mut scan, || limits::raw_scan(set, threads, Binary::Copied))?;
        if name != "tabular" {
            Rates::measure(&mut view, || limits::raw_scan(set, threads, Binary::Viewed))?;
        }
        if images {
            Rates::measure(&mut bare, || limits::bare_decode(&cells, threads))?;
        }
        Rates::measure(&mut copy, || limits::copy(rows, row_bytes, threads))?;
        for (rates, read) in [(&mut squall, &shuffled), (&mut squall_stored, &stored)] {
            let read_rows = rates.measure(|| {
                let epoch = read_epoch(read)?;
                if read.shuffle != Shuffle::None {
                    first.push(epoch.first_batch);
                }
                Ok(epoch.rows)
            })?;
            if read_rows != rows {
                return Err(format!("{name}: read {read_rows} of {rows} rows").into());
            }
        }
    }
    first.sort();
    let mut add = |system: &str, rates: Rates| {
        if rates.best() > 0.0 {
            report.add(Measured::new(name, system, rates));
        }
    };
    add("copy", copy);
    add("raw scan, views", view);
    add("raw scan", scan);
    add("bare decode", bare);
    add("squall, stored order", squall_stored);
    let mut own = Measured::new(name, "squall", squall);
    own.first_batch = first.get(first.len() / 2).copied();
    let mixed = squall_side::rows_in_windows(&shuffled)? / limits::largest_row_group(set)?;
    own.note = format!("shuffled over {mixed} row groups at a time");
    if name == "jpeg" {
        own.note += &format!(", {}", limits::JPEG_LIBRARY);
    }
    report.add(own);
    if !options.no_peers {
        let queue = MIXED * limits::largest_row_group(set)?;
        for measured in peers::measure(set, threads, options.peer_repeat, queue)? {
            report.add(measured);
        }
    }
    Ok(())
}
