//! Conversions under a memory limit, beside Spark's own write of the same rows.
//!
//! ```text
//! cargo build --release -p squall-cli
//! eval "$(cargo xtask env)"
//! cargo run --release -p squall-benchmarks --no-default-features --bin convert -- --gib 10 --memory-limit 512MiB
//! ```
//!
//! The rows, an id and 20 floats, are computed by each engine's SQL, so that nobody reads a source. Each conversion is a
//! process of its own, whose peak (`VmHWM`) is looked at until it ends; what it wrote is counted by `squall verify` and removed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use squall::ByteSize;
use squall_benchmarks::Result;

const FLOATS: usize = 20;
/// Bytes of a row in memory.
const ROW_BYTES: u64 = 8 + 4 * FLOATS as u64;
/// Ranges of rows that are made side by side.
const PARTS: u64 = 8;
/// How often the peak is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Measures conversions under a memory limit beside Spark's.
#[derive(Parser)]
struct Options {
    /// GiB of rows in memory
    #[arg(long, default_value_t = 10.0)]
    gib: f64,
    #[arg(long, default_value = "512MiB")]
    memory_limit: ByteSize,
    /// The memory of Spark's driver, which needs more
    #[arg(long, default_value = "4g")]
    spark_memory: String,
    /// Only rows whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// The command; that which lies beside this program if not given
    #[arg(long)]
    squall: Option<PathBuf>,
    /// Where datasets are written to; a temporary directory if not given
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Writes the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let rows = (options.gib * f64::from(1 << 30)) as u64 / ROW_BYTES;
    let scratch = match &options.scratch {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let squall = match &options.squall {
        Some(path) => path.clone(),
        None => env::current_exe()?.with_file_name("squall"),
    };
    if !squall.is_file() {
        return Err(format!("no {}: cargo build --release -p squall-cli makes it", squall.display()).into());
    }
    println!(
        "{rows} rows of {ROW_BYTES} bytes, a limit of {}, {} cores\n",
        options.memory_limit,
        std::thread::available_parallelism()?
    );
    println!(
        "{:<32} {:>8} {:>12} {:>10} {:>12}",
        "", "s", "rows/s", "MiB/s", "peak MiB"
    );
    let mut figures = Vec::new();
    for order in ["as it comes", "shuffled"] {
        for engine in ["squall", "spark"] {
            let name = format!("{engine}, {order}");
            if !name.contains(&options.only) {
                continue;
            }
            let destination = scratch.path().join("out");
            let is_shuffled = order == "shuffled";
            let command = match engine {
                "squall" => convert(&squall, scratch.path(), &destination, rows, &options, is_shuffled)?,
                _ => match write(&destination, rows, &options, is_shuffled) {
                    Some(command) => command,
                    None => {
                        println!("{name:<32} not run: SQUALL_PYSPARK_PYTHON is not set");
                        continue;
                    }
                },
            };
            let (seconds, peak) = measure(command)?;
            let found = count(&squall, &destination)?;
            if found != rows {
                return Err(format!("{name}: {found} rows written, expected {rows}").into());
            }
            fs::remove_dir_all(&destination)?;
            let rate = rows as f64 / seconds;
            let mib = rate * ROW_BYTES as f64 / f64::from(1 << 20);
            let peak_mib = peak as f64 / f64::from(1 << 20);
            println!("{name:<32} {seconds:>8.1} {rate:>12.0} {mib:>10.1} {peak_mib:>12.0}");
            figures.push(json!({
                "name": name, "rows": rows, "seconds": seconds, "rows_per_second": rate, "peak_bytes": peak,
            }));
        }
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&Value::from(figures))?)?;
    }
    Ok(())
}

/// A column of numbers that repeat late, the same in both dialects of SQL.
fn columns(id: &str) -> String {
    let float = |i: usize| {
        let factor = 2_654_435_761 + 7919 * i;
        format!("CAST(CAST({id} * {factor} % 1000003 AS DOUBLE) / 1000003 AS FLOAT) AS f{i}")
    };
    let floats: Vec<_> = (0..FLOATS).map(float).collect();
    format!("{id} AS id, {}", floats.join(", "))
}

fn convert(
    squall: &Path,
    scratch: &Path,
    destination: &Path,
    rows: u64,
    options: &Options,
    is_shuffled: bool,
) -> Result<Command> {
    // The command wants a source, which the query does not name.
    let source = scratch.join("source.csv");
    fs::write(&source, "unused\n1\n")?;
    let part = |i: u64| {
        let (first, end) = (rows * i / PARTS, rows * (i + 1) / PARTS);
        format!(
            "SELECT {} FROM generate_series({first}, {})",
            columns("value"),
            end as i64 - 1
        )
    };
    let parts: Vec<_> = (0..PARTS).map(part).collect();
    let mut command = Command::new(squall);
    command.arg("convert").arg(&source).arg(destination).arg("--quiet");
    command.args(["--sql", &parts.join(" UNION ALL ")]);
    command.args(["--memory-limit", &options.memory_limit.to_string().replace(' ', "")]);
    if is_shuffled {
        command.args(["--shuffle", "7"]);
    }
    Ok(command)
}

fn write(destination: &Path, rows: u64, options: &Options, is_shuffled: bool) -> Option<Command> {
    let python = env::var_os("SQUALL_PYSPARK_PYTHON")?;
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("spark_write.py"));
    command.arg(destination).arg(rows.to_string()).arg(columns("id"));
    command.args(["--memory", &options.spark_memory]);
    if is_shuffled {
        command.arg("--shuffle");
    }
    Some(command)
}

/// Seconds that it takes, and the greatest sum of the peaks of its processes.
fn measure(mut command: Command) -> Result<(f64, u64)> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    let status = loop {
        peak = peak.max(memory(&child));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        sleep(LOOK);
    };
    match status.success() {
        true => Ok((began.elapsed().as_secs_f64(), peak)),
        false => Err(format!("{command:?} failed").into()),
    }
}

/// The peaks of a process and of those that it started, in bytes.
fn memory(child: &Child) -> u64 {
    let mut bytes = 0;
    let mut left = vec![child.id().to_string()];
    while let Some(process) = left.pop() {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        bytes += kib.unwrap_or_default() * 1024;
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        left.extend(children.split_whitespace().map(str::to_owned));
    }
    bytes
}

fn count(squall: &Path, dataset: &Path) -> Result<u64> {
    let output = Command::new(squall)
        .arg("verify")
        .arg(dataset)
        .args(["--depth", "files", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    if report["sound"] != true {
        return Err(format!("{} is damaged: {report}", dataset.display()).into());
    }
    Ok(report["report"]["rows"].as_u64().ok_or("a report without rows")?)
}
