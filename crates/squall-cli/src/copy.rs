//! `squall copy`

use std::time::Instant;

use clap::Args;
use squall::convert::{Converter, CopyOptions, Petastorm, SaveMode, copy_dataset};
use squall::{ByteSize, Error};

use crate::converted::print;
use crate::layout::Codec;
use crate::options::Storage;
use crate::{Failure, Format};

/// Copies a dataset, or some of its columns and rows.
///
/// Cells are passed on as they are: nothing is decoded. The copy of what Petastorm opens is one that Petastorm opens, with a
/// Unischema of the columns that are copied, and with the row-group indexes of the source made anew. The flags of
/// petastorm-copy-dataset.py are taken too.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall copy /data/train /data/small --columns id,image --where \"day < '2024-06-01'\" --row-group-bytes 8MiB"
)]
pub(crate) struct Copy {
    /// The dataset to copy: a path or a URL
    source: String,
    /// Where the copy will be; nothing may be there yet, but with --overwrite
    destination: String,
    /// Put the copy in the place of the dataset that is there
    #[arg(long, alias = "overwrite-output")]
    overwrite: bool,
    /// Petastorm's choice of a driver, which makes no difference here
    #[arg(long = "hdfs-driver", hide = true, value_name = "NAME")]
    _hdfs_driver: Option<String>,
    /// Columns to copy, in this order [default: all]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "columns_matching"
    )]
    columns: Vec<String>,
    /// Copy the columns whose whole names match one of these regular expressions
    #[arg(long, value_name = "RE", num_args = 1.., alias = "field-regex")]
    columns_matching: Vec<String>,
    /// Copy the rows of which this is true, in DataFusion's SQL; it may name columns that are not copied
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Copy the rows in which none of these columns is null
    #[arg(long, value_name = "NAMES", num_args = 1.., value_delimiter = ',', alias = "not-null-fields")]
    not_null: Vec<String>,
    /// About how many files the copy has, by the bytes of the source
    #[arg(long, value_name = "N", alias = "partition-count", value_parser = clap::value_parser!(u64).range(1..))]
    files: Option<u64>,
    /// About how many bytes of encoded rows a row group has [default: 32MiB]
    #[arg(long, value_name = "BYTES")]
    row_group_bytes: Option<ByteSize>,
    /// The same in MiB, as Petastorm takes it
    #[arg(long, value_name = "MIB", conflicts_with = "row_group_bytes", hide = true, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    row_group_size_mb: Option<u64>,
    /// How pages are compressed
    #[arg(long, value_enum, default_value = "zstd")]
    compression: Codec,
    /// Write what Petastorm's make_reader opens, with a Unischema of this name [default: as the source is]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "Schema")]
    petastorm: Option<String>,
    /// The zone of times in the source's directory names, as Spark's session had it: Europe/Zurich, +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    #[command(flatten)]
    storage: Storage,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Copy {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let mut converter = Converter::new(&self.destination)
            .compression(self.compression.into())
            .time_zone(self.time_zone.parse()?)
            .storage_options(self.storage.pairs()?);
        if self.overwrite {
            converter = converter.mode(SaveMode::Overwrite);
        }
        let row_group_bytes = self.row_group_bytes.map(ByteSize::bytes);
        if let Some(bytes) = row_group_bytes.or(self.row_group_size_mb.map(|mib| mib << 20)) {
            if bytes == 0 {
                return Err(Error::invalid("expected row groups of at least a byte, found 0").into());
            }
            converter = converter.row_group_bytes(bytes);
        }
        if let Some(name) = &self.petastorm {
            converter = converter.petastorm(Petastorm::new(name));
        }
        let mut copy = CopyOptions::new()
            .columns(self.columns.iter().map(|name| name.trim()))
            .columns_matching(&self.columns_matching)
            .not_null(self.not_null.iter().map(|name| name.trim()));
        if let Some(filter) = &self.filter {
            copy = copy.filter(filter);
        }
        if let Some(n) = self.files {
            copy = copy.n_files(n);
        }
        let runtime = tokio::runtime::Runtime::new();
        let runtime =
            runtime.map_err(|error| Error::internal("cannot start the threads of the engine").with_source(error))?;
        let copied = runtime.block_on(copy_dataset(&self.source, converter, &copy))?;
        print(&copied, began, self.format)
    }
}
