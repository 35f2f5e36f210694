//! What a conversion wrote, in lines or as JSON.

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use squall::convert::Converted;

use crate::{Failure, Format};

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
                "seconds": began.elapsed().as_secs_f64(),
            });
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
            writeln!(out, "{}", converted.schema())?;
        }
    }
    Ok(())
}
