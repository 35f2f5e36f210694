//! `squall verify`

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use squall::{
    DEFAULT_PROBLEMS, Error, ErrorKind, LedgerReport, LedgerRow, StoreOptions, VerifyDepth, VerifyOptions,
    VerifyProgress, VerifyReport, make_batch_reader, verify_dataset, verify_ledger,
};

use crate::options::Storage;
use crate::rows::Rows;
use crate::{Failure, Format};

/// How often progress is told.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Finds out whether a dataset is whole; with --ledger, whether a run delivered every row of it once.
///
/// Without --ledger the dataset is read: its metadata, footers and page indexes, checksums, every page and every cell. Each thing
/// that is wrong is named, with file, row group, column and row. Petastorm's datasets and plain directories of Parquet files are
/// verified too, as far as they can be.
///
/// With --ledger the ledgers of all ranks prove that every row was delivered once, or name the rows that were not. Seed, lanes and
/// the like come from the ledger. What selects rows must be given as in the run; a state in the ledger tells where it was not.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall verify /data/train\n  squall verify s3://bucket/train --depth files --format json\n\nExample, of a run:\n  squall read /data/train --rank 0 --world-size 2 --ledger /runs/7 --format none\n  squall read /data/train --rank 1 --world-size 2 --ledger /runs/7 --format none\n  squall verify /data/train --ledger /runs/7"
)]
pub(crate) struct Verify {
    /// The dataset: a path or a URL
    url: String,
    /// The directory that the ranks of a run wrote their ledgers to, or one of these files
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// How much of the dataset is read
    #[arg(long, value_enum, default_value = "cells", conflicts_with = "ledger")]
    depth: Depth,
    /// Problems that are listed at most; all are counted
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PROBLEMS, conflicts_with = "ledger")]
    at_most: usize,
    /// Files or row groups that are read at a time [default: one for each processor, 8 at most]
    #[arg(long, value_name = "N", conflicts_with = "ledger")]
    workers: Option<usize>,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    rows: Rows,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Depth {
    /// Metadata, listing, footers and page indexes; no page
    Files,
    /// The checksums of whole files too, and each page
    Pages,
    /// Each cell is decoded too
    Cells,
}

impl Verify {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match &self.ledger {
            Some(ledger) => self.run_ledger(ledger),
            None => self.run_dataset(),
        }
    }

    fn run_dataset(&self) -> Result<(), Failure> {
        let mut options = VerifyOptions::default();
        options.depth = match self.depth {
            Depth::Files => VerifyDepth::Files,
            Depth::Pages => VerifyDepth::Pages,
            Depth::Cells => VerifyDepth::Cells,
        };
        options.at_most = self.at_most;
        options.workers = self.workers;
        options.store = StoreOptions::default().with_options(self.storage.pairs()?);
        let told = Mutex::new(Instant::now());
        options.progress = Some(Arc::new(move |progress| tell(progress, &told)));
        let report = verify_dataset(&self.url, &options)?;
        let text = match self.format {
            Format::Text => dataset_text(&report),
            Format::Json => json!({ "url": self.url, "sound": report.is_sound(), "report": report }).to_string() + "\n",
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        match report.n_problems {
            0 => Ok(()),
            n => {
                let problems = counted(n as usize, "problem");
                Err(
                    Error::new(ErrorKind::Corrupt, format!("the dataset is damaged: {problems}"))
                        .at("URL", &self.url)
                        .into(),
                )
            }
        }
    }

    fn run_ledger(&self, ledger: &Path) -> Result<(), Failure> {
        let reader = self.storage.apply(make_batch_reader(&self.url))?;
        let reader = self.rows.apply(reader)?;
        let report = verify_ledger(reader, ledger)?;
        let text = match self.format {
            Format::Text => text(&report),
            Format::Json => json!({ "exact": report.is_exact(), "report": report }).to_string() + "\n",
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        if report.is_exact() {
            return Ok(());
        }
        let error = Error::new(
            ErrorKind::Corrupt,
            format!(
                "the ledger is not exact: {} rows are missing, {} doubled, {} lines tell of other rows",
                report.n_missing,
                report.n_doubled,
                report.mismatches.len()
            ),
        );
        Err(error.at("ledger", ledger.display()).into())
    }
}

/// A line of progress now and then, where it takes long.
fn tell(progress: VerifyProgress, told: &Mutex<Instant>) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.elapsed() >= TELL_AFTER {
        *told = Instant::now();
        let percent = progress.bytes * 100 / progress.of_bytes.max(1);
        let problems = counted(progress.problems as usize, "problem");
        eprintln!(
            "squall: {percent} % of {} bytes, {} row groups, {problems}",
            progress.of_bytes, progress.row_groups
        );
    }
}

fn dataset_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{} rows in {} and {}, {} bytes",
        report.rows,
        counted(report.files as usize, "file"),
        counted(report.row_groups as usize, "row group"),
        report.bytes
    );
    let facts = [
        (report.checksums, "files with checksums"),
        (report.pages, "pages read"),
        (report.cells, "cells decoded"),
    ];
    for (count, what) in facts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "{count} {what}");
    }
    for problem in &report.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    let rest = report.n_problems - report.problems.len() as u64;
    if rest > 0 {
        let _ = writeln!(text, "and {}", counted(rest as usize, "other problem"));
    }
    for orphan in &report.orphans {
        let _ = writeln!(text, "orphan: {orphan} is not in the metadata");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if report.is_sound() {
        text += "sound: nothing is wrong\n";
    }
    text
}

fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}

fn text(report: &LedgerReport) -> String {
    let mut text = String::new();
    let (epoch, sample) = report.position;
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{} rows delivered, by {} in {}, up to sample {sample} of epoch {epoch}",
        report.delivered,
        counted(report.runs, "run"),
        counted(report.files, "file")
    );
    let facts = [
        (report.padded, "rows of padding"),
        (report.substituted, "bad rows replaced"),
        (report.rolled_back, "rows rolled back, behind a state that was resumed"),
        (report.torn.len() as u64, "files that end within a line"),
    ];
    for (count, what) in facts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "{count} {what}");
    }
    for (what, rows) in [("missing", &report.missing), ("doubled", &report.doubled)] {
        for LedgerRow { epoch, origin } in rows {
            let _ = writeln!(
                text,
                "{what}: epoch {epoch}, sample {}, {}, row group {}, row {}",
                origin.sample, origin.file, origin.row_group, origin.row
            );
        }
    }
    for (from, to) in &report.gaps {
        let _ = writeln!(text, "missing: epochs {from} to {}, whole", to - 1);
    }
    for mismatch in &report.mismatches {
        let _ = writeln!(
            text,
            "{}, line {}: {}",
            mismatch.file.display(),
            mismatch.line,
            mismatch.what
        );
    }
    if report.is_exact() {
        text += "exact: every row once an epoch, in the order that was planned\n";
    }
    text
}
