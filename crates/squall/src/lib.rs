//! Squall: the data loader for tables.
//!
//! A **converter** turns a DataFusion `DataFrame`, or a directory that Spark wrote, into a Parquet dataset with schema
//! metadata. A **reader** partitions it across ranks and epochs, applies a [`TransformSpec`], shuffles, and feeds
//! training: every row exactly once an epoch, in an order that does not depend on the number of ranks or threads, resumable
//! anywhere.
//!
//! | feature | what it brings |
//! |---|---|
//! | `reader` (default) | [`make_reader`], [`make_batch_reader`], [`make_dataset`], [`Loader`] |
//! | `filter` | where-clauses in the reader |
//! | `convert` | [`convert`]: the converter, with DataFusion embedded |
//! | `spark` | Spark `DataFrame`s in the converter, through Spark Connect |
//! | `ballista` | the converter on a cluster: its scheduler, its executors |
//! | `torch` | [`torch`]: batches as libtorch tensors |
//! | `prometheus` | [`Metrics`] in the text format of Prometheus, and `serve_metrics` |
//! | `s3`, `gcs`, `azure`, `http` (default), `hdfs` | datasets in these stores: [`StoreOptions`] |
//!
//! With `reader` alone neither DataFusion nor libtorch is compiled.
//!
#![cfg_attr(
    all(feature = "convert", feature = "reader"),
    doc = r#"
```
use squall::convert::{Converter, session};
use squall::{IntoLoader, TransformSpec, field, make_reader};

# fn main() -> Result<(), Box<dyn std::error::Error>> {
# let runtime = tokio::runtime::Runtime::new()?;
// Once: a query becomes a dataset.
let train = runtime.block_on(async {
    let rows = session().sql("SELECT value AS id, value * 0.5 AS x FROM generate_series(0, 999)").await?;
    Ok::<_, Box<dyn std::error::Error>>(Converter::new("memory://tour/train").convert(rows).await?)
})?;

// On every rank: rows become batches.
let to_f32 = TransformSpec::per_row(|row| {
    let x = row["x"].as_f64().unwrap_or_default() as f32;
    row.set("x", x);
    Ok(())
});
let reader = make_reader(train.url()).rank(0, 2).epochs(3).seed(7).transform(to_f32.edit(field!("x": f32))).build()?;
let mut steps = 0;
for batch in reader.into_loader(50).build()? {
    assert_eq!(batch?.slice::<f32>("x")?.len(), 50);
    steps += 1;
}
assert_eq!(steps, 3 * 10);
# Ok(())
# }
```
"#
)]

#[cfg(all(feature = "convert", feature = "reader"))]
mod converted;

pub use squall_dataset::{
    DataFile, Dataset, DatasetUrl, OpenOptions, Origin, Piece, StoreMetrics, StoreOptions, TimeZone, key_values,
};
pub use squall_schema::{
    ByteSize, DType, Decimal, Element, Error, ErrorKind, Field, Result, Row, RowId, Schema, Shape, Tensor, TimeUnit,
    Value, field,
};

#[cfg(feature = "reader")]
pub use squall_loader::{
    Host, HostBatch, HostColumn, HostTensor, IntoLoader, Loader, LoaderBuilder, LoaderStream, Sink,
};
#[cfg(feature = "reader")]
pub use squall_reader::{
    BadRow, BadRows, BatchReader, BenchOptions, BenchReport, Bitmap, BuildTimes, CacheCounts, CacheMetrics,
    CacheOptions, Coverage, CpuMetrics, DEFAULT_BATCH_SIZE, DEFAULT_CACHE_BYTES, DEFAULT_LANES, DEFAULT_PROBLEMS,
    Delivery, DeliveryMap, Drawn, Ending, Epoch, EpochPlan, Epochs, Forecast, ForecastOptions, ImageSpec, Ledger,
    LedgerEntry, LedgerMismatch, LedgerReport, LedgerRow, LedgerWriter, LoaderStage, LoaderTimes, MIX_BLOCK,
    MapDataset, MapSize, MapStats, Memory, MemoryMetrics, Meter, Metrics, Mix, NGram, ORDER_VERSION, OnBadRow, Order,
    OrderOptions, Partition, Predicate, Problem, Quality, QueueDepths, RankForecast, Reader, ReaderBuilder,
    ReaderState, ReaderStream, Reduce, ReduceFn, Remainder, Replay, RowGroupSelector, RowSet, Runs, SampleBatch,
    SampleOrigin, Sampler, Samples, SelectedPiece, Selection, SelectionReport, SelectionSource, Share, Shuffle, Split,
    Stage, StageSpeed, StageTimes, StorageCounts, Threshold, Topology, TransformSpec, VerifyDepth, VerifyOptions,
    VerifyProgress, VerifyReport, WaitedFor, bench, make_batch_reader, make_dataset, make_mixed_reader, make_reader,
    verify_dataset, verify_ledger,
};

/// Metrics at an address, in the text format of Prometheus.
#[cfg(feature = "prometheus")]
pub use squall_reader::{MetricsServer, serve_metrics};

/// How values are encoded in binary cells.
pub use squall_schema::codec;
/// Row-group indexes, as Petastorm keeps them.
pub mod petastorm {
    pub use squall_schema::petastorm::index::{Entries, RowGroupIndex};
}
/// Spark's own schemas, from JSON and to JSON.
pub use squall_schema::spark;

/// Expressions of DataFusion's, for where-clauses that are made by a program.
#[cfg(feature = "filter")]
pub use squall_reader::expr;

/// The columns of a batch and the values in them, for those who work on Arrow arrays.
pub use squall_schema::columns;

/// The converter: a DataFusion `DataFrame`, or a directory of Parquet files, to a dataset.
#[cfg(feature = "convert")]
pub mod convert {
    pub use squall_converter::{
        BloomFilter, Cache, CacheEntry, Compression, Converted, Converter, CopyOptions, FloatPrecision,
        GenerateOptions, Generated, ImageFormat, ImageRule, Inferred, Limits, Petastorm, Phase, Progress, SaveMode,
        SourceFormat, SourceTable, Statistics, Temporary, TextOptions, convert_directory, convert_sources,
        copy_dataset, generate_metadata, infer_sources, session,
    };

    /// Spark `DataFrame`s, through Spark Connect.
    #[cfg(feature = "spark")]
    pub mod spark {
        pub use squall_converter::spark::{connect, convert_spark_sources, spark_connect};
    }

    #[cfg(feature = "ballista")]
    pub use squall_converter::{Cluster, ExecutorOptions, FileWriter, SchedulerOptions, run_executor, run_scheduler};

    #[cfg(feature = "reader")]
    pub use crate::converted::IntoReader;
}

/// Batches as libtorch tensors on a device.
#[cfg(feature = "torch")]
pub mod torch {
    pub use squall_torch::{TensorBatch, ToDevice, TorchSink};
}
