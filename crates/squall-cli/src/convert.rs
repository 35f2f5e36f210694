//! `squall convert`

use std::io::Write;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;
use squall::Error;
use squall::convert::{Compression, Converter, Petastorm, convert_directory};

use crate::options::Storage;
use crate::{Failure, Format};

/// Converts a directory of Parquet files into a dataset.
///
/// The source may be what Spark wrote: hive partitions, several files, `_SUCCESS`. The destination is visible only when it
/// is complete; after a failure nothing is there.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall convert /data/events /data/train --sql \"SELECT * FROM source WHERE day < '2024-06-01'\""
)]
pub(crate) struct Convert {
    /// Directory or file to convert: a path or a URL
    source: String,
    /// Where the dataset will be; nothing may be there yet
    destination: String,
    /// What to convert, in DataFusion's SQL; the source is the table `source`
    #[arg(long, value_name = "QUERY")]
    sql: Option<String>,
    /// About how many MiB of encoded rows a row group has
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    row_group_mib: u64,
    /// How pages are compressed
    #[arg(long, value_enum, default_value = "zstd")]
    compression: Codec,
    /// Write what Petastorm's make_reader opens: arrays as npy cells, a Unischema of this name, the row-group map
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "Schema")]
    petastorm: Option<String>,
    /// With --petastorm: index the row groups by the values of a column (SingleFieldIndexer)
    #[arg(long, value_name = "[NAME=]COLUMN", requires = "petastorm")]
    row_group_index: Vec<String>,
    /// With --petastorm: index the row groups in which a column is not always null (FieldNotNullIndexer)
    #[arg(long, value_name = "[NAME=]COLUMN", requires = "petastorm")]
    not_null_index: Vec<String>,
    /// The zone of times in the source's directory names, as Spark's session had it: Europe/Zurich, +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    #[command(flatten)]
    storage: Storage,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Codec {
    Zstd,
    Snappy,
    Lz4,
    None,
}

impl Convert {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let compression = match self.compression {
            Codec::Zstd => Compression::Zstd,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::None => Compression::None,
        };
        let mut converter = Converter::new(&self.destination)
            .row_group_bytes(self.row_group_mib << 20)
            .compression(compression)
            .time_zone(self.time_zone.parse()?)
            .storage_options(self.storage.pairs()?);
        if let Some(name) = &self.petastorm {
            let named = |index: &str| {
                let (name, column) = index.split_once('=').unwrap_or((index, index));
                (name.to_owned(), column.to_owned())
            };
            let mut petastorm = Petastorm::new(name);
            for index in &self.row_group_index {
                let (name, column) = named(index);
                petastorm = petastorm.index(name, column);
            }
            for index in &self.not_null_index {
                let (name, column) = named(index);
                petastorm = petastorm.not_null_index(name, column);
            }
            converter = converter.petastorm(petastorm);
        }
        let runtime = tokio::runtime::Runtime::new();
        let runtime =
            runtime.map_err(|error| Error::internal("cannot start the threads of the engine").with_source(error))?;
        let converted = runtime.block_on(convert_directory(&self.source, converter, self.sql.as_deref()))?;
        let bytes: u64 = converted.files().iter().map(|file| file.size).sum();
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let facts = json!({
                    "url": converted.url(),
                    "rows": converted.rows(),
                    "files": converted.files().len(),
                    "row_groups": converted.n_row_groups(),
                    "bytes": bytes,
                    "fingerprint": converted.fingerprint(),
                    "schema": converted.schema(),
                    "seconds": began.elapsed().as_secs_f64(),
                });
                writeln!(out, "{facts}")?;
            }
            Format::Text => {
                writeln!(
                    out,
                    "{}: {} rows in {} files and {} row groups, {bytes} bytes, {:.2} s",
                    converted.url(),
                    converted.rows(),
                    converted.files().len(),
                    converted.n_row_groups(),
                    began.elapsed().as_secs_f64()
                )?;
                writeln!(out, "{}", converted.schema())?;
            }
        }
        Ok(())
    }
}
