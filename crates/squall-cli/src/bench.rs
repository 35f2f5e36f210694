//! `squall bench`

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use squall::{BatchReader, BenchOptions, BenchReport, Error, bench, make_batch_reader};

use crate::options::ReadOptions;
use crate::{Failure, Format};

/// Longest time that is measured or that a step takes: more is a mistake.
const MAX_SECONDS: f64 = 86_400.0;

/// Reads a dataset as one rank of a training run would, and says how fast that is and which stage limits.
///
/// Epochs follow one another until the time is over. The trainer is made up: it copies each batch once, and takes --step-ms for
/// it. At the end it is given the same batches from memory: no loader can be faster than that.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall bench /data/train --batch-size 256 --columns pixels,label --step-ms 20 --duration 30\n  squall bench /data/table --pack features=f0,f1,f2 --workers 4 --memory-budget 512MiB --format json"
)]
pub(crate) struct Bench {
    #[command(flatten)]
    options: ReadOptions,
    /// This rank, from 0 [default: 0]
    #[arg(long)]
    rank: Option<u64>,
    /// Take rank and number of ranks from the environment: torchrun, Horovod, Open MPI, MPICH, srun. Those given must be the same
    #[arg(long)]
    rank_from_env: bool,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Stop after so many batches, if that is sooner
    #[arg(long, value_name = "N")]
    batches: Option<u64>,
    /// How often the rows are read [default: until the time is over]
    #[arg(long)]
    epochs: Option<u64>,
    /// Batches that are read before anything is measured
    #[arg(long, value_name = "N", default_value_t = BenchOptions::default().warmup)]
    warmup: u64,
    /// How long the trainer takes for a step
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds)]
    step_ms: f64,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let mut reader = self.reader()?;
        let opened = began.elapsed();
        let mut options = BenchOptions::default();
        options.warmup = self.warmup;
        options.batches = self.batches;
        options.duration = Duration::from_secs_f64(self.duration);
        options.step = Duration::from_secs_f64(self.step_ms / 1000.0);
        let report = bench(&mut reader, &options)?;
        let text = match self.format {
            Format::Text => text(&report, opened),
            Format::Json => json!({ "open_seconds": opened.as_secs_f64(), "report": report }).to_string() + "\n",
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }

    fn reader(&self) -> Result<BatchReader, Error> {
        let mut reader = self.options.apply(make_batch_reader(&self.options.url), self.rank)?;
        reader = match self.epochs {
            Some(epochs) => reader.epochs(epochs),
            None => reader.endless(),
        };
        if self.rank_from_env {
            reader = reader.rank_from_env();
        }
        reader.build()
    }
}

fn text(report: &BenchReport, opened: Duration) -> String {
    let metrics = &report.metrics;
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{}, rank {} of {}: opened in {:.3} s, the first batch after {:.3} s",
        metrics.dataset,
        metrics.rank,
        metrics.world_size,
        opened.as_secs_f64(),
        report.first_batch_seconds
    );
    let _ = writeln!(text, "{metrics}");
    for stage in &report.stages {
        if let (Some(rows), Some(bytes)) = (stage.rows_per_second, stage.bytes_per_second) {
            let name = stage.stage;
            let _ = writeln!(text, "{name} alone: {rows:.0} rows/s, {:.1} MB/s", bytes / 1e6);
        }
    }
    let replay = &report.replay;
    if replay.batches > 0 {
        let _ = writeln!(
            text,
            "bound: {:.0} rows/s, {:.1} MB/s, with the same batches from memory: reading reaches {:.0} % of it",
            replay.rows_per_second,
            replay.bytes_per_second / 1e6,
            100.0 * report.rows_per_second / replay.rows_per_second
        );
    }
    if let Some(bytes) = report.peak_memory_bytes {
        let _ = writeln!(text, "memory of the process: at most {:.1} MB", bytes as f64 / 1e6);
    }
    if report.ended {
        text += "the data ended before the time did\n";
    }
    text
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(format!("expected seconds, more than 0 and at most {MAX_SECONDS}")),
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ms) if (0.0..=MAX_SECONDS * 1000.0).contains(&ms) => Ok(ms),
        _ => Err(format!(
            "expected milliseconds, at least 0 and at most {}",
            MAX_SECONDS * 1000.0
        )),
    }
}
