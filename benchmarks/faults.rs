//! Reads from a real S3 server over a network that does harm, until so many requests were made: every row exactly once, and
//! no read that hangs.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --example faults
//! ```
//!
//! An example, since the servers are only ever a dev-dependency. Each epoch opens the dataset anew, so that listing and footers
//! are harmed too.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use squall::{IntoLoader, Remainder, StoreOptions, make_batch_reader};
use squall_benchmarks::Result;
use squall_testkit::{Fault, FaultOptions, FaultProxy, Layout, S3Server, Table, s3_options};

const BATCH_SIZE: u64 = 256;
const FILES: usize = 4;

/// Reads over faults.
#[derive(Parser)]
struct Options {
    /// Requests that are made, at least
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// The share of the requests that are harmed, as many by each of the eight kinds of fault
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// Rows of the table
    #[arg(long, default_value_t = 40_000)]
    rows: usize,
    /// Rows of a row group
    #[arg(long, default_value_t = 200)]
    row_group: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds after which a read that gives no byte is made again
    #[arg(long, default_value_t = 300)]
    read_timeout: u64,
    /// Seconds that an answer 429 asks to wait
    #[arg(long, default_value_t = 0)]
    retry_after: u64,
    /// Seconds without a batch after which the run counts as hung
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let table = Table::write(&Layout {
        files: vec![options.rows / FILES; FILES],
        row_group: options.row_group,
        page: options.row_group / 4,
        page_index: true,
    });
    // A directory below the root is a bucket.
    let bucket = table.path().join("train");
    fs::create_dir(&bucket)?;
    for file in table.files() {
        fs::rename(&file, bucket.join(file.file_name().ok_or("a file without a name")?))?;
    }
    let server = S3Server::start(table.path());
    let calm = run(&options, &server, 0.0, 1)?;
    let harmed = run(&options, &server, options.rate, u64::MAX)?;
    println!(
        "without faults: {} requests and {:.2} s an epoch of {} rows",
        calm.requests,
        calm.seconds,
        table.n_rows()
    );
    println!(
        "with {:.0} % harmed: {} epochs in {:.1} s ({:.2} s each), {} requests, longest wait for a batch {:.2} s",
        options.rate * 100.0,
        harmed.epochs,
        harmed.seconds,
        harmed.seconds / harmed.epochs as f64,
        harmed.requests,
        harmed.longest.as_secs_f64()
    );
    let faults: Vec<_> = harmed
        .faults
        .iter()
        .map(|(fault, n)| format!("{fault:?} {n}"))
        .collect();
    println!("faults: {}; unharmed {}", faults.join(", "), harmed.passed);
    println!(
        "every row exactly once in each of the {} epochs, none hung",
        harmed.epochs
    );
    Ok(())
}

struct Outcome {
    epochs: u64,
    requests: u64,
    passed: u64,
    faults: Vec<(Fault, u64)>,
    seconds: f64,
    /// The longest time between two batches, opening included.
    longest: Duration,
}

/// Reads epochs until there are enough of them, or of requests.
fn run(options: &Options, server: &S3Server, rate: f64, epochs: u64) -> Result<Outcome> {
    let rates = Fault::ALL.map(|fault| (fault, rate / Fault::ALL.len() as f64)).to_vec();
    let proxy = FaultProxy::start(
        server.address(),
        FaultOptions {
            seed: options.seed,
            rates,
            retry_after: options.retry_after,
        },
    );
    let store = StoreOptions::default()
        .with_options(s3_options(proxy.address()))
        .with_backoff(Duration::from_millis(5), Duration::from_millis(100))
        .with_read_timeout(Duration::from_millis(options.read_timeout))
        // So many failures in a row are still to be expected, at these rates and with so many requests.
        .with_retries(20);
    let watched = Watched::start(Duration::from_secs(options.patience));
    let (began, mut longest, mut done) = (Instant::now(), Duration::ZERO, 0);
    while done < epochs && (epochs != u64::MAX || proxy.requests() < options.requests) {
        let mut times = vec![0u8; options.rows / FILES * FILES];
        let mut last = Instant::now();
        let reader = make_batch_reader("s3://train").store(store.clone()).seed(done);
        let loader = reader.workers(options.threads).build()?.into_loader(BATCH_SIZE);
        for batch in loader.remainder(Remainder::Keep).build()? {
            for id in batch?.slice::<i32>("id")? {
                times[*id as usize] += 1;
            }
            longest = longest.max(last.elapsed());
            last = Instant::now();
            watched.alive();
        }
        if let Some(id) = times.iter().position(|times| *times != 1) {
            return Err(format!("epoch {done}: row {id} came {} times", times[id]).into());
        }
        done += 1;
    }
    Ok(Outcome {
        epochs: done,
        requests: proxy.requests(),
        passed: proxy.passed(),
        faults: proxy.faults(),
        seconds: began.elapsed().as_secs_f64(),
        longest,
    })
}

/// Ends the process when nothing is heard for too long.
struct Watched {
    heard: Arc<AtomicU64>,
}

impl Watched {
    fn start(patience: Duration) -> Self {
        let heard = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&heard);
        std::thread::spawn(move || {
            let mut before = u64::MAX;
            while let Some(heard) = watched.upgrade() {
                let now = heard.load(Ordering::Relaxed);
                drop(heard);
                if now == before {
                    eprintln!("faults: no batch for {} s: the run hangs", patience.as_secs());
                    std::process::exit(1);
                }
                before = now;
                std::thread::sleep(patience);
            }
        });
        Self { heard }
    }

    fn alive(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}
