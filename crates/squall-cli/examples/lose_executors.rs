//! Kills one of two executors at ten moments of a conversion, and shows what became of it.
//!
//! `cargo build -p squall-cli --features ballista && cargo run -p squall-cli --features ballista --example lose_executors`
//!
//! Arguments are the rows of each of the 16 files, then options of `squall convert`, as `400 --shuffle 7`; a query of its own must give
//! the column `id`, each once. With `--s3` among them the dataset is written to an S3 server in this process. The first line is an
//! undisturbed conversion; the moments of the others are tenths of its time.

#[path = "../tests/cluster/bucket.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod bucket;
#[path = "../tests/cluster/processes.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod processes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bucket::Bucket;
use processes::{Processes, end, files};
use serde_json::Value;
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

const MOMENTS: u32 = 10;
/// Rows that take a processor about a millisecond each.
const SLOW: &str =
    "SELECT id, name, x, levenshtein(repeat(coalesce(name, 'none'), 40), repeat(name, 30)) AS d FROM source";

fn main() {
    let squall = program();
    let rows = std::env::args()
        .nth(1)
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(400);
    let mut options: Vec<String> = std::env::args().skip(2).collect();
    let n = options.len();
    options.retain(|option| option != "--s3");
    let in_s3 = options.len() < n;
    let table = Table::write(&Layout {
        files: vec![rows; 16],
        row_group: 64,
        ..Layout::default()
    });
    println!(
        "{} rows in 16 files, converted in 8 units by 2 executors of one task each to {}, options {options:?}",
        table.n_rows(),
        if in_s3 { "an S3 server" } else { "a disk" }
    );
    println!("moment   killed at   took     rows      each once   orphans   files by executor");
    let run = |kill| run(&squall, &table, (&options, in_s3), kill);
    let whole = run(None);
    for moment in 0..MOMENTS {
        run(Some(whole * (2 * moment + 1) / (2 * MOMENTS)));
    }
}

/// The program beside this one.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let target = own.parent().and_then(Path::parent).expect("a target directory");
    target.join("squall")
}

/// Where a dataset is written to.
enum Place {
    Disk(TempDir),
    Bucket(Bucket),
}

impl Place {
    fn new(in_s3: bool) -> Self {
        match in_s3 {
            true => Self::Bucket(Bucket::start()),
            false => Self::Disk(TempDir::new().expect("a directory")),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Disk(directory) => directory.path().join("out").display().to_string(),
            Self::Bucket(_) => "s3://bucket/out".to_owned(),
        }
    }

    /// All files there, those of conversions that have not ended too.
    fn files(&self) -> Vec<String> {
        match self {
            Self::Disk(directory) => files(directory.path()),
            Self::Bucket(bucket) => files(&bucket.path()),
        }
    }

    /// The environment of processes, the flags of a conversion, and those of a reader.
    fn reach(&self) -> (Vec<(String, String)>, Vec<String>, Vec<String>) {
        match self {
            Self::Disk(_) => Default::default(),
            Self::Bucket(bucket) => (bucket.environment(), bucket.open_options(), bucket.options()),
        }
    }
}

fn run(squall: &Path, table: &Table, (options, in_s3): (&[String], bool), kill: Option<Duration>) -> Duration {
    let place = Place::new(in_s3);
    let (environment, open, reach) = place.reach();
    let mut processes = Processes::start(squall, 2, &environment);
    let name = place.url();
    let mut all: Vec<_> = options.iter().chain(&open).map(String::as_str).collect();
    if !all.contains(&"--sql") {
        all.extend(["--sql", SLOW]);
    }
    let began = Instant::now();
    let conversion = processes.convert(&table.url(), &name, &all);
    if let Some(at) = kill {
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        processes.executors[0].kill();
    }
    let output = end(conversion);
    let took = began.elapsed();
    let at = kill.map_or("never".to_owned(), |at| format!("{:.2} s", at.as_secs_f64()));
    if !output.status.success() {
        println!("         {at:>9}   FAILED: {}", String::from_utf8_lossy(&output.stderr));
        return took;
    }
    let facts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let writers = facts["writers"].as_array().expect("writers");
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for writer in writers {
        *by.entry(writer["executor"].as_str().expect("a name")).or_default() += 1;
    }
    let there = place.files();
    let is_known = |file: &&String| {
        let name = file.strip_prefix("out/").unwrap_or(file);
        name == "_common_metadata" || writers.iter().any(|writer| writer["file"] == name)
    };
    let orphans = there.iter().filter(|file| !is_known(file)).count();
    let read = Command::new(squall)
        .args(["read", &name, "--no-shuffle", "--columns", "id"])
        .args(reach)
        .output();
    let read = read.expect("the rows");
    let mut ids: Vec<i64> = String::from_utf8_lossy(&read.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["row"]["id"].as_i64())
        .collect();
    ids.sort_unstable();
    let once = ids == (0..table.n_rows() as i64).collect::<Vec<_>>();
    println!(
        "         {at:>9}   {:>5.1} s   {:>7}   {once:>9}   {orphans:>7}   {by:?}",
        took.as_secs_f64(),
        facts["rows"]
    );
    took
}
