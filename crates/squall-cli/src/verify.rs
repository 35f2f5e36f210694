//! `squall verify`

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use squall::{Error, ErrorKind, LedgerReport, LedgerRow, make_batch_reader, verify_ledger};

use crate::options::Storage;
use crate::rows::Rows;
use crate::{Failure, Format};

/// Proves from the ledgers of all ranks that every row was delivered once, or names the rows that were not.
///
/// Seed, lanes and the like come from the ledger. What selects rows must be given as in the run; a state in the ledger tells
/// where it was not.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall read /data/train --rank 0 --world-size 2 --ledger /runs/7 --format none\n  squall read /data/train --rank 1 --world-size 2 --ledger /runs/7 --format none\n  squall verify /data/train --ledger /runs/7"
)]
pub(crate) struct Verify {
    /// The dataset: a path or a URL
    url: String,
    /// The directory that the ranks wrote their ledgers to, or one of these files
    #[arg(long, value_name = "DIR")]
    ledger: PathBuf,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    rows: Rows,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Verify {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let reader = self.storage.apply(make_batch_reader(&self.url))?;
        let reader = self.rows.apply(reader)?;
        let report = verify_ledger(reader, &self.ledger)?;
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
        Err(error.at("ledger", self.ledger.display()).into())
    }
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
