//! What a conversion wrote, in lines or as JSON.

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use squall::convert::Converted;

use crate::{Failure, Format};

/// With the executor of each file, where a cluster wrote them.
#[cfg(feature = "ballista")]
fn with_writers(mut facts: serde_json::Value, converted: &Converted) -> serde_json::Value {
    let writers = converted.writers().iter();
    let writers: Vec<_> = writers
        .map(|written| json!({"file": written.file, "executor": written.executor, "process": written.process}))
        .collect();
    if !writers.is_empty() {
        facts["writers"] = writers.into();
    }
    facts
}

pub(crate) fn print(converted: &Converted, began: Instant, format: Format) -> Result<(), Failure> {
    let bytes: u64 = converted.files().iter().map(|file| file.size).sum();
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            let facts = json!({
                "url": converted.url(),
                "rows": converted.rows(),
                "files": converted.files().len(),
                "row_groups": converted.n_row_groups(),
                "bytes": bytes,
                "fingerprint": converted.fingerprint(),
                "schema": converted.schema(),
                "found": converted.is_hit(),
                "resumed": converted.resumed(),
                "seconds": began.elapsed().as_secs_f64(),
            });
            #[cfg(feature = "ballista")]
            let facts = with_writers(facts, converted);
            writeln!(out, "{facts}")?;
        }
        Format::Text => {
            writeln!(
                out,
                "{}: {} rows in {} files and {} row groups, {bytes} bytes, {:.2} s{}",
                converted.url(),
                converted.rows(),
                converted.files().len(),
                converted.n_row_groups(),
                began.elapsed().as_secs_f64(),
                if converted.is_hit() { ", found in the cache" } else { "" }
            )?;
            if converted.resumed() > 0 {
                writeln!(
                    out,
                    "{} parts were done by a conversion that was killed",
                    converted.resumed()
                )?;
            }
            writeln!(out, "{}", converted.schema())?;
            #[cfg(feature = "ballista")]
            for written in converted.writers() {
                let (executor, process) = (&written.executor, written.process);
                writeln!(out, "{} written by {executor}, process {process}", written.file)?;
            }
        }
    }
    Ok(())
}
