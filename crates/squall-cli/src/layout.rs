//! The flags of `squall convert` that say how rows are laid out.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use squall::ByteSize;
use squall::convert::{BloomFilter, Compression, Converter, Statistics};

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
    /// Write a bloom filter of this column, by which readers skip row groups; may stand several times. FPP is the share of values that
    /// pass though they are not there, 0.01 if not given; NDV the most distinct values that a row group has
    #[arg(long, value_name = "COLUMN[:FPP[:NDV]]", value_parser = bloom_filter)]
    bloom_filter: Vec<(String, BloomFilter)>,
    /// For what the least and the greatest value are kept, by which readers skip: pages, row-groups, none
    #[arg(long, value_enum, default_value = "pages")]
    statistics: Kept,
    /// Whether a column is written as a dictionary of its values where that is smaller: COLUMN=on or COLUMN=off; may stand several times
    #[arg(long, value_name = "COLUMN=on|off", value_parser = dictionary)]
    dictionary: Vec<(String, bool)>,
    /// In how many partitions the query runs, the same on every machine; on a cluster some for each task slot
    #[arg(long, value_name = "N", default_value = "8")]
    partitions: NonZeroUsize,
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
            .statistics(self.statistics.into())
            .partitions(self.partitions)
            .sort_by(&self.sort_by)
            .partition_by(&self.partition_by);
        for (column, filter) in &self.bloom_filter {
            converter = converter.bloom_filter(column, *filter);
        }
        for (column, enabled) in &self.dictionary {
            converter = converter.dictionary(column, *enabled);
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

/// A column, and behind colons what its bloom filter is to be. Names of columns may have colons themselves.
fn bloom_filter(text: &str) -> Result<(String, BloomFilter), String> {
    let mut filter = BloomFilter::default();
    let mut column = text;
    if let Some((before, ndv)) = column.rsplit_once(':')
        && let (Ok(ndv), Some((name, fpp))) = (ndv.parse(), before.rsplit_once(':'))
        && let Ok(fpp) = fpp.parse()
    {
        (column, filter) = (name, filter.fpp(fpp).ndv(ndv));
    } else if let Some((name, fpp)) = column.rsplit_once(':')
        && let Ok(fpp) = fpp.parse()
    {
        (column, filter) = (name, filter.fpp(fpp));
    }
    match column.is_empty() {
        true => Err("expected a column before the colon".to_owned()),
        false => Ok((column.to_owned(), filter)),
    }
}

fn dictionary(text: &str) -> Result<(String, bool), String> {
    match text.rsplit_once('=') {
        Some((column, "on")) if !column.is_empty() => Ok((column.to_owned(), true)),
        Some((column, "off")) if !column.is_empty() => Ok((column.to_owned(), false)),
        _ => Err("expected COLUMN=on or COLUMN=off".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kept {
    Pages,
    RowGroups,
    None,
}

impl From<Kept> for Statistics {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Pages => Self::Pages,
            Kept::RowGroups => Self::RowGroups,
            Kept::None => Self::None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bloom_filters_have_shares_and_numbers() {
        let of = |text| bloom_filter(text).expect("a filter");
        let plain = BloomFilter::default();
        assert_eq!(of("user"), ("user".to_owned(), plain));
        assert_eq!(of("user:0.001"), ("user".to_owned(), plain.fpp(0.001)));
        assert_eq!(of("user:0.001:500"), ("user".to_owned(), plain.fpp(0.001).ndv(500)));
        assert_eq!(of("ns:user"), ("ns:user".to_owned(), plain));
        assert!(bloom_filter(":0.1").is_err());
        assert!(dictionary("a=maybe").is_err() && dictionary("=on").is_err());
        assert_eq!(dictionary("a=b=off"), Ok(("a=b".to_owned(), false)));
    }
}
