//! How much of the memory limit each part of a conversion may take.
//!
//! The query's operators, the runs and buckets of rows that are ordered, and the row groups that are encoded share one
//! limit. What Squall itself takes is reserved in the engine's pool, so that its operators spill earlier.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use datafusion::common::config::SpillCompression;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use parquet::file::properties::DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT;
use squall_schema::{ByteSize, Error, Result};

use crate::error::{limited, query_error};

/// What rows that are ordered take when there is no limit: enough for large runs, and never all of a table.
const UNLIMITED: u64 = 1 << 30;
/// What a writer has in requests beside its row group.
const WRITER_BYTES: u64 = 16 << 20;
/// What the program and the lists of files and chunks take, and the part of a small limit that is taken for it.
const PROGRAM_BYTES: u64 = 64 << 20;
const LEAST_LEFT: u64 = 8;
/// The part of a row group's bytes that the dictionaries of all its columns may take.
const DICTIONARY_SHARE: u64 = 2;
/// What the table of a dictionary takes beside its values of four bytes, which are the worst.
const DICTIONARY_FOOTPRINT: u64 = 6;
/// Below, a dictionary does not pay.
const LEAST_DICTIONARY: usize = 16 << 10;
/// Fewest bytes of a run that several are made of at the same time: smaller ones are many, and have requests beside them.
const LEAST_RUN_BYTES: u64 = 32 << 20;
/// What the query has left at least.
const QUERY_BYTES: u64 = 32 << 20;
/// Rows of the query's batches under a limit.
const BATCH_ROWS: usize = 1024;
/// Consumers of memory that an error names.
const NAMED: usize = 3;
/// The part of the limit that rows take which are ordered.
const ORDER_SHARE: u64 = 5;

/// The memory that a conversion may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    limit: Option<ByteSize>,
    row_group_bytes: u64,
    cores: usize,
}

impl Memory {
    /// Refuses a limit in which not even one row group can be written.
    pub(crate) fn new(limit: Option<ByteSize>, row_group_bytes: u64) -> Result<Self> {
        let memory = Self {
            limit,
            row_group_bytes,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let least = memory.writer_bytes().saturating_add(QUERY_BYTES);
        match limit {
            Some(limit) if limit.bytes() < least => Err(Error::invalid(format!(
                "a memory limit of {limit} is too small to write row groups of {}: expected {} or more, or smaller row groups",
                ByteSize::new(row_group_bytes),
                ByteSize::new(least)
            ))),
            _ => Ok(memory),
        }
    }

    pub(crate) fn limit(&self) -> Option<ByteSize> {
        self.limit
    }

    /// What the writer of one file takes: the pages of a row group, the same once more on their way to the store, dictionaries.
    fn writer_bytes(&self) -> u64 {
        let pages = self.row_group_bytes.saturating_mul(2).saturating_add(WRITER_BYTES);
        pages.saturating_add(self.dictionaries())
    }

    fn dictionaries(&self) -> u64 {
        self.row_group_bytes / DICTIONARY_SHARE
    }

    /// Under a limit, how large the dictionary of one of `n` columns may be: with all of Parquet's own MiB for each, those of twenty
    /// columns took five times the pages of a row group.
    pub(crate) fn dictionary_bytes(&self, n: usize) -> Option<usize> {
        self.limit?;
        let own = self.dictionaries() / n.max(1) as u64 / DICTIONARY_FOOTPRINT;
        Some(
            usize::try_from(own)
                .unwrap_or(usize::MAX)
                .clamp(LEAST_DICTIONARY, DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT),
        )
    }

    /// Under a limit, the memory at which a row group is closed however few bytes its pages have by then.
    pub(crate) fn row_group_memory(&self) -> Option<u64> {
        self.limit?;
        Some(self.row_group_bytes.saturating_add(2 * self.dictionaries()))
    }

    /// What the program itself leaves of the limit.
    fn left(&self) -> Option<u64> {
        let limit = self.limit?.bytes();
        Some(limit - PROGRAM_BYTES.min(limit / LEAST_LEFT))
    }

    fn order_bytes(&self) -> u64 {
        self.left().unwrap_or(UNLIMITED) / ORDER_SHARE
    }

    /// How many partitions of a query are written at the same time.
    pub(crate) fn writers(&self) -> usize {
        match self.left() {
            Some(left) => self.at_once(left / 2),
            None => self.cores,
        }
    }

    /// How many partitions of a query are scattered to runs at the same time.
    pub(crate) fn scatterers(&self) -> usize {
        let fit = self.order_bytes() / LEAST_RUN_BYTES;
        usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, self.cores)
    }

    /// Bytes of a run of one of them.
    pub(crate) fn run_bytes(&self) -> u64 {
        (self.order_bytes() / self.scatterers() as u64).max(1)
    }

    /// How many units of ordered rows are written at the same time.
    pub(crate) fn ordered_writers(&self) -> usize {
        match self.left() {
            Some(left) => self.at_once(left / 4 * 3 - self.order_bytes()),
            None => self.cores,
        }
    }

    /// Bytes of a bucket of one of them.
    pub(crate) fn bucket_bytes(&self) -> u64 {
        (self.order_bytes() / self.ordered_writers() as u64).max(1)
    }

    fn at_once(&self, bytes: u64) -> usize {
        let fit = bytes / self.writer_bytes().max(1);
        usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, self.cores)
    }

    /// The context of a query whose operators stay within the limit and spill to `directory`.
    pub(crate) fn context(&self, context: TaskContext, directory: &Path) -> Result<TaskContext> {
        let Some(limit) = self.limit else {
            return Ok(context);
        };
        let bytes = usize::try_from(limit.bytes()).unwrap_or(usize::MAX);
        let named = NonZeroUsize::new(NAMED).unwrap_or(NonZeroUsize::MIN);
        let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), named));
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![directory.to_owned()]));
        let runtime = RuntimeEnvBuilder::from_runtime_env(&context.runtime_env())
            .with_memory_pool(pool)
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(query_error)?;
        let mut config: SessionConfig = context.session_config().clone().with_batch_size(BATCH_ROWS);
        config.options_mut().execution.spill_compression = SpillCompression::Lz4Frame;
        Ok(context.with_session_config(config).with_runtime(runtime))
    }

    /// Takes what so many writers, or rows that are ordered, will take from what the query's operators may have.
    pub(crate) fn reserve(
        &self,
        context: &TaskContext,
        writers: usize,
        ordered: bool,
    ) -> Result<Option<MemoryReservation>> {
        if self.limit.is_none() {
            return Ok(None);
        }
        let own = self.writer_bytes() * writers as u64 + if ordered { self.order_bytes() } else { 0 };
        let reservation = MemoryConsumer::new("squall writers").register(context.memory_pool());
        reservation
            .try_grow(usize::try_from(own).unwrap_or(usize::MAX))
            .map_err(|error| limited(error, self.limit))?;
        Ok(Some(reservation))
    }
}
