//! What the files of a source are, by their names and their first bytes.

use std::fmt;
use std::str::FromStr;

use futures::StreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use squall_dataset::{Scheme, Store, listing};
use squall_schema::{Error, ErrorKind, Result, metadata};

use crate::records::Compressed;

/// Files that are looked into where their names say nothing.
const PEEKED_FILES: usize = 3;
/// Bytes of a file that are looked at.
const PEEKED_BYTES: u64 = 64;
/// The folder that makes a Delta table of a directory of Parquet files.
const DELTA_LOG: &str = "_delta_log";

/// What the files of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceFormat {
    /// Parquet, of any writer: Squall's and Petastorm's datasets too.
    Parquet,
    /// Values between delimiters, a record a line. `.tsv` files have tabs.
    Csv,
    /// A JSON object a line.
    Json,
    /// Avro object container files.
    Avro,
    /// A Delta table: Parquet files, of which a log says those that count. It needs the feature `delta`.
    Delta,
}

impl SourceFormat {
    const ALL: [(Self, &str); 5] = [
        (Self::Parquet, "parquet"),
        (Self::Csv, "csv"),
        (Self::Json, "json"),
        (Self::Avro, "avro"),
        (Self::Delta, "delta"),
    ];

    /// What the name of a file says of it.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let name = path.filename()?.to_ascii_lowercase();
        let (_, name) = Compressed::of_name(&name);
        let (_, extension) = name.rsplit_once('.')?;
        Some(match extension {
            "parquet" | "parq" | "pq" => Self::Parquet,
            "csv" | "tsv" => Self::Csv,
            "json" | "jsonl" | "ndjson" => Self::Json,
            "avro" => Self::Avro,
            _ => return None,
        })
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let text = bytes.trim_ascii_start();
        match bytes {
            _ if bytes.starts_with(b"PAR1") || bytes.starts_with(b"PARE") => Some(Self::Parquet),
            _ if bytes.starts_with(b"Obj\x01") => Some(Self::Avro),
            _ if text.starts_with(b"{") => Some(Self::Json),
            _ => None,
        }
    }

    /// What the files of a store are. Files of two kinds are an error that names one of each.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub(crate) async fn detect(store: &Store) -> Result<Self> {
        let at = |error: Error| error.at("URL", store.url());
        // Of a web server only what Squall wrote, or one file, can be read; neither needs a listing.
        if store.only().is_none() {
            if store.url().scheme() == Scheme::Http || store.head(&Path::from(metadata::FILE)).await?.is_some() {
                return Ok(Self::Parquet);
            }
            if is_delta(store).await? {
                return Ok(Self::Delta);
            }
        }
        let files = match listing::data_files(store).await {
            // The reader of Parquet says it better.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Parquet),
            files => files?,
        };
        let mut found: Option<(Self, &ObjectMeta)> = None;
        let mut nameless = Vec::new();
        for file in &files {
            match Self::of_name(&file.location) {
                Some(format) => agree(&mut found, (format, file)).map_err(at)?,
                None => nameless.push(file),
            }
        }
        for file in nameless.into_iter().take(PEEKED_FILES) {
            let size = file.size.min(PEEKED_BYTES);
            let bytes = store
                .get_ranges(&file.location, std::slice::from_ref(&(0..size)))
                .await?
                .swap_remove(0);
            match Self::of_bytes(&bytes) {
                Some(format) => agree(&mut found, (format, file)).map_err(at)?,
                // A file that is cut short or damaged is Parquet's to name, as long as no other kind is there.
                None => {
                    let (format, _) = found.get_or_insert((Self::Parquet, file));
                    if *format != Self::Parquet {
                        return Err(at(Error::unsupported(format!(
                            "a file that is not {format}, as others of the source are: name the format with --source-format"
                        ))
                        .at("file", &file.location)));
                    }
                }
            }
        }
        Ok(found.map_or(Self::Parquet, |(format, _)| format))
    }
}

fn agree<'a>(found: &mut Option<(SourceFormat, &'a ObjectMeta)>, own: (SourceFormat, &'a ObjectMeta)) -> Result<()> {
    let (format, first) = found.get_or_insert(own);
    if *format == own.0 {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the directory holds files of two kinds: {} is {}, {} is {}; convert them one after the other, or name one file",
        first.location, format, own.1.location, own.0
    )))
}

async fn is_delta(store: &Store) -> Result<bool> {
    let log = Path::from(DELTA_LOG);
    let mut entries = store.objects().list(Some(&log));
    match entries.next().await {
        None => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(error)) => Err(squall_dataset::storage_error(error).at("URL", store.url())),
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(format, _)| format == self)
            .map(|(_, name)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

impl FromStr for SourceFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(format, _)| *format).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            Error::invalid(format!("no source format {text:?}: expected one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_tell_the_format() {
        for (name, format) in [
            ("a/part-0.snappy.parquet", Some(SourceFormat::Parquet)),
            ("x.CSV.gz", Some(SourceFormat::Csv)),
            ("x.tsv", Some(SourceFormat::Csv)),
            ("x.jsonl.zst", Some(SourceFormat::Json)),
            ("x.avro", Some(SourceFormat::Avro)),
            ("a=1.csv/000000_0", None),
            ("gz", None),
        ] {
            assert_eq!(SourceFormat::of_name(&Path::from(name)), format, "{name}");
        }
        assert_eq!(SourceFormat::of_bytes(b"\n {\"a\": 1}"), Some(SourceFormat::Json));
        assert_eq!(SourceFormat::of_bytes(b"Obj\x01"), Some(SourceFormat::Avro));
        assert_eq!(SourceFormat::of_bytes(b"a,b"), None);
    }
}
