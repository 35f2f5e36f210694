//! Kills one of two executors at ten moments of a conversion, and shows what became of it.
//!
//! `cargo build -p squall-cli --features ballista && cargo run -p squall-cli --features ballista --example lose_executors`
//!
//! Arguments are the rows of each of the 16 files, then options of `squall convert`, as `400 --shuffle 7`; a query of its own must give
//! the column `id`, each once. The first line is an undisturbed conversion; the moments of the others are tenths of its time.

#[path = "../tests/cluster/processes.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod processes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    let options: Vec<String> = std::env::args().skip(2).collect();
    let table = Table::write(&Layout {
        files: vec![rows; 16],
        row_group: 64,
        ..Layout::default()
    });
    println!(
        "{} rows in 16 files, converted in 8 units by 2 executors of one task each, options {options:?}",
        table.n_rows()
    );
    println!("moment   killed at   took     rows      each once   orphans   files by executor");
    let whole = run(&squall, &table, &options, None);
    for moment in 0..MOMENTS {
        run(
            &squall,
            &table,
            &options,
            Some(whole * (2 * moment + 1) / (2 * MOMENTS)),
        );
    }
}

/// The program beside this one.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let target = own.parent().and_then(Path::parent).expect("a target directory");
    target.join("squall")
}

fn run(squall: &Path, table: &Table, options: &[String], kill: Option<Duration>) -> Duration {
    let mut processes = Processes::start(squall, 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("out");
    let name = url.display().to_string();
    let mut all: Vec<_> = options.iter().map(String::as_str).collect();
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
    let there = files(directory.path());
    let is_known = |file: &&String| {
        let name = file.strip_prefix("out/").unwrap_or(file);
        name == "_common_metadata" || writers.iter().any(|writer| writer["file"] == name)
    };
    let orphans = there.iter().filter(|file| !is_known(file)).count();
    let read = Command::new(squall)
        .args(["read", &name, "--no-shuffle", "--columns", "id"])
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
