//! The options of a local cache.

use std::path::PathBuf;

use clap::Args;
use squall::{CacheOptions, ReaderBuilder};

/// Where parts of remote files are kept.
#[derive(Args)]
pub(crate) struct Cache {
    /// Keep parts of remote files in this local directory; ranks and later runs share it
    #[arg(long, value_name = "DIR", requires = "limit")]
    cache_dir: Option<PathBuf>,
    /// Most bytes that the directory of the cache holds: 10GiB, 500MB
    #[arg(id = "limit", long = "cache-limit", value_name = "SIZE", value_parser = bytes, requires = "cache_dir")]
    limit: Option<u64>,
    /// Keep parts of local files too: of a network mount
    #[arg(long, requires = "cache_dir")]
    cache_files: bool,
}

impl Cache {
    pub(crate) fn apply<R>(&self, reader: ReaderBuilder<R>) -> ReaderBuilder<R> {
        let (Some(directory), Some(limit)) = (&self.cache_dir, self.limit) else {
            return reader;
        };
        let options = CacheOptions::new(directory, limit);
        reader.local_cache_with(match self.cache_files {
            true => options.with_local_stores(),
            false => options,
        })
    }
}

/// A number of bytes, with a unit of 1,000 or of 1,024.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("expected a whole number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a whole number of bytes, as in 10GiB".to_owned())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "expected fewer than 2^64 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("7", 7),
            ("10GiB", 10 << 30),
            ("500 MB", 500_000_000),
            ("1kB", 1000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "1gib",
            "1 G",
            "20000000TiB",
            "99999999999999999999",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
