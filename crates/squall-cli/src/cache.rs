//! The options of what is kept: a local cache of remote files, rows in memory.

use std::path::PathBuf;

use clap::Args;
use squall::{ByteSize, CacheOptions, ReaderBuilder};

/// What is kept of what was read, and where.
#[derive(Args)]
pub(crate) struct Cache {
    /// Keep parts of remote files in this local directory; ranks and later runs share it
    #[arg(long, value_name = "DIR", requires = "cache_limit")]
    cache_dir: Option<PathBuf>,
    /// Most bytes that the directory of the cache holds: 10GiB, 500MB
    #[arg(long, value_name = "SIZE", requires = "cache_dir")]
    cache_limit: Option<ByteSize>,
    /// Keep parts of local files too: of a network mount
    #[arg(long, requires = "cache_dir")]
    cache_files: bool,
    /// Read the selected rows once, decode them, and keep them in memory for all epochs
    #[arg(long)]
    in_memory: bool,
}

impl Cache {
    pub(crate) fn apply<R>(&self, mut reader: ReaderBuilder<R>) -> ReaderBuilder<R> {
        if self.in_memory {
            reader = reader.in_memory();
        }
        let (Some(directory), Some(limit)) = (&self.cache_dir, self.cache_limit) else {
            return reader;
        };
        let options = CacheOptions::new(directory, limit.bytes());
        reader.local_cache_with(match self.cache_files {
            true => options.with_local_stores(),
            false => options,
        })
    }
}
