//! Which rows, in which order, read how.
//!
//! A [`Predicate`], a [`RowGroupSelector`] and a [`Split`] narrow the rows while a reader is built; `narrow` applies them.
//!
//! The files stand in the order of the data. Up to [`Share`] all is pure, but for what `scan` reads to select rows: [`Selection`]
//! says which rows, [`Order`] in which order, [`Share`] which of them a rank takes at which step. Behind it bytes move: `columns`
//! says which, `fetch` gets them, `decode` makes columns of them and `expand` samples,
//! which lie in a `window`; `picked` says which of them a batch takes and `gather` makes its columns,
//! `cells` decodes what is encoded in it, an [`ImageSpec`] crops and resizes, a [`TransformSpec`] changes it, and `pipeline`, the only file that spawns, drives all of
//! them through the jobs of `work` and restores the order. [`make_reader`] and [`make_batch_reader`] are where a user starts;
//! [`make_dataset`] gives rows by their index instead, [`make_mixed_reader`] those of several datasets.

mod random;

mod row_set;
mod select;

mod order;

mod mix;
mod sequence;
mod share;
mod state;

mod rank;

mod view;

mod budget;

mod column_stream;
mod columns;
mod sparse;

mod fetch;
mod io;
mod slice;

mod decode;
mod scan;

mod equal;
mod python;
mod split;

mod predicate;
mod selector;

#[cfg(feature = "filter")]
mod filter;
mod report;
mod sieve;

mod narrow;

mod sampler;
mod values;

mod ngram;

mod footprint;
mod source;

mod plan;

mod horizon;

mod expand;

mod block;
mod pack;

mod window;

mod picked;

mod gather;
mod resident;

mod cells;
mod image;
mod transform;

mod bad_rows;
mod lane;
mod metrics;
mod trace;
mod work;

mod pipeline;

mod ledger;
mod options;
mod questions;

mod bench;
mod builder;
mod epochs;
mod forecast;
mod map;
mod reader;
mod stream;
mod verify;

mod integrity;

/// Expressions of DataFusion's, for where-clauses that are made by a program.
///
/// A column is named exactly as it is stored, by [`col`](expr::col): `col("a.b")` is the column of this name.
#[cfg(feature = "filter")]
pub mod expr {
    pub use datafusion_common::ScalarValue;
    pub use datafusion_expr::{Expr, ident as col, in_list, lit, not};
}

pub use squall_dataset::cache::{CacheMetrics, CacheOptions};

pub use bad_rows::{BadRow, BadRows, OnBadRow};
pub use bench::{BenchOptions, BenchReport, Replay, StageSpeed, bench};
pub use builder::{ReaderBuilder, make_batch_reader, make_dataset, make_mixed_reader, make_reader};
pub use epochs::{Epoch, Epochs};
pub use footprint::DEFAULT_MEMORY_BUDGET;
pub use forecast::{Coverage, DeliveryMap, Forecast, ForecastOptions, MapSize, Memory, Quality, RankForecast};
pub use image::ImageSpec;
pub use integrity::{
    DEFAULT_PROBLEMS, Problem, VerifyDepth, VerifyOptions, VerifyProgress, VerifyReport, verify_dataset,
};
pub use ledger::{Ledger, LedgerEntry, LedgerWriter};
pub use map::{DEFAULT_CACHE_BYTES, MapDataset, MapStats};
pub use metrics::{
    BuildTimes, CacheCounts, CpuMetrics, LoaderStage, LoaderTimes, MemoryMetrics, Meter, Metrics, QueueDepths, Stage,
    StageTimes, StorageCounts, WaitedFor,
};
#[cfg(feature = "prometheus")]
pub use metrics::{MetricsServer, serve_metrics};
pub use mix::{BLOCK as MIX_BLOCK, Ending, Mix};
pub use ngram::{NGram, Threshold};
pub use options::{DEFAULT_BATCH_SIZE, Partition};
pub use order::{ORDER_VERSION, Order, OrderOptions, Samples, Shuffle};
pub use predicate::{Predicate, Reduce, ReduceFn};
pub use questions::{Delivery, EpochPlan, SampleOrigin};
pub use rank::Topology;
pub use reader::{BatchReader, Reader, SampleBatch};
pub use report::{SelectionReport, SelectionSource};
pub use row_set::{Bitmap, Drawn, RowSet, Runs};
pub use sampler::Sampler;
pub use select::{SelectedPiece, Selection};
pub use selector::RowGroupSelector;
pub use share::{Remainder, Share};
pub use source::DEFAULT_LANES;
pub use split::Split;
pub use state::ReaderState;
pub use stream::ReaderStream;
pub use transform::TransformSpec;
pub use verify::{LedgerMismatch, LedgerReport, LedgerRow, verify_ledger};
