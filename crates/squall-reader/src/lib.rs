//! Which rows, in which order, read how.
//!
//! The files stand in the order of the data. Up to [`Share`] all is pure: [`Selection`] says which rows, [`Order`] in
//! which order, [`Share`] which of them a rank takes at which step. Behind it bytes move: `columns` says which, `fetch` gets them, `decode`
//! makes columns of them, `gather` picks a batch from the windows, `cells` decodes what is encoded in it, a [`TransformSpec`] changes it, and `pipeline`, the
//! only file that spawns, drives all of them through the jobs of `work` and restores the order. [`make_reader`] and [`make_batch_reader`] are where
//! a user starts.

mod random;

mod select;

mod mix;
mod order;
mod sequence;
mod share;
mod state;

mod rank;

mod view;

#[cfg(feature = "filter")]
mod filter;
mod narrow;
mod ngram;
mod report;
mod sampler;
mod scan;
mod values;

mod plan;
mod source;

mod columns;
mod fetch;

mod decode;
mod expand;
mod gather;

mod cells;
mod transform;

mod bad_rows;
mod work;

mod pipeline;

mod ledger;
mod questions;

mod builder;
mod epochs;
mod reader;
mod verify;

/// Expressions of DataFusion's, for where-clauses that are made by a program.
///
/// A column is named exactly as it is stored, by [`col`](expr::col): `col("a.b")` is the column of this name.
#[cfg(feature = "filter")]
pub mod expr {
    pub use datafusion_common::ScalarValue;
    pub use datafusion_expr::{Expr, ident as col, in_list, lit, not};
}

pub use bad_rows::{BadRow, OnBadRow};
pub use builder::{DEFAULT_BATCH_SIZE, Partition, ReaderBuilder, make_batch_reader, make_mixed_reader, make_reader};
pub use epochs::{Epoch, Epochs};
pub use ledger::{Ledger, LedgerEntry, LedgerWriter};
pub use mix::{BLOCK as MIX_BLOCK, Ending, Mix};
pub use ngram::{NGram, Threshold};
pub use order::{ORDER_VERSION, Order, OrderOptions, Samples, Segment, Shuffle};
pub use questions::{Delivery, EpochPlan, SampleOrigin};
pub use rank::Topology;
pub use reader::{BatchReader, Reader, SampleBatch};
pub use sampler::Sampler;
pub use select::{Bitmap, Drawn, RowSet, SelectedPiece, Selection};
pub use report::{SelectionReport, SelectionSource};
pub use share::{Remainder, Share};
pub use source::DEFAULT_LANES;
pub use state::ReaderState;
pub use transform::TransformSpec;
pub use verify::{LedgerMismatch, LedgerReport, LedgerRow, verify_ledger};
