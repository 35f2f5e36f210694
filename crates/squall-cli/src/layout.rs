//! The flags of `squall convert` that say how rows are laid out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use squall::ByteSize;
use squall::convert::{BloomFilter, Compression, Converter};

/// How rows are laid out, and in how much memory.
#[derive(Args)]
pub(crate) struct LayoutOptions {
    /// About how many bytes of encoded rows a row group has
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    row_group_bytes: ByteSize,
    /// About how many bytes a file has at most
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    file_bytes: ByteSize,
    /// How pages are compressed
    #[arg(long, value_enum, default_value = "zstd")]
    compression: Codec,
    /// Put all rows in a random order, the same for the same seed
    #[arg(long, value_name = "SEED", conflicts_with = "sort_by")]
    shuffle: Option<u64>,
    /// Sort all rows by these columns, ascending, nulls last
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    sort_by: Vec<String>,
    /// Put rows in directories by the values of these columns, as Hive and Spark do: a=1/b=x/
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    partition_by: Vec<String>,
    /// Write a bloom filter of this column, by which readers skip row groups; may stand several times
    #[arg(long, value_name = "COLUMN")]
    bloom_filter: Vec<String>,
    /// How much memory may be taken; what does not fit is spilled to disk
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// Where to spill to; beside the destination if not given
    #[arg(long, value_name = "DIR")]
    spill_directory: Option<PathBuf>,
}

impl LayoutOptions {
    pub(crate) fn apply(&self, converter: Converter) -> Converter {
        let mut converter = converter
            .row_group_bytes(self.row_group_bytes.bytes())
            .file_bytes(self.file_bytes.bytes())
            .compression(self.compression.into())
            .sort_by(&self.sort_by)
            .partition_by(&self.partition_by);
        for column in &self.bloom_filter {
            converter = converter.bloom_filter(column, BloomFilter::default());
        }
        if let Some(seed) = self.shuffle {
            converter = converter.shuffle(seed);
        }
        if let Some(limit) = self.memory_limit {
            converter = converter.memory_limit(limit);
        }
        match &self.spill_directory {
            Some(directory) => converter.spill_directory(directory),
            None => converter,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Codec {
    Zstd,
    Snappy,
    Lz4,
    Gzip,
    None,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Zstd => Self::Zstd,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Gzip => Self::Gzip,
            Codec::None => Self::None,
        }
    }
}
