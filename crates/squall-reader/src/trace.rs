//! Spans of `tracing`: one for each fetch, each window that is decoded, each batch that is built, and what a loader does with it.
//!
//! Their level is DEBUG, their targets are `squall::fetch`, `squall::decode`, `squall::build` and `squall::loader`. Where nobody listens, a span is a
//! look at a static; its fields are made only where somebody does.

use squall_dataset::{Dataset, Piece};
use tracing::{Span, debug_span};

use crate::metrics::LoaderStage;
use crate::plan::PlannedBatch;
use crate::window::Window;

/// The span of fetching a part of a lane from a row group.
pub(crate) fn fetch(dataset: &Dataset, piece: &Piece, (epoch, lane): (u64, u64)) -> Span {
    debug_span!(
        target: "squall::fetch",
        "fetch",
        epoch,
        lane,
        file = %dataset.file_of(piece).path,
        row_group = piece.row_group
    )
}

/// The span of decoding a window, with the row group that it begins in.
pub(crate) fn decode(dataset: &Dataset, piece: Option<&Piece>, window: &Window) -> Span {
    debug_span!(
        target: "squall::decode",
        "decode",
        epoch = window.pass.order.epoch(),
        lane = window.lane,
        rows = window.rows.end - window.rows.start,
        file = piece.map(|piece| tracing::field::display(&dataset.file_of(piece).path)),
        row_group = piece.map(|piece| piece.row_group)
    )
}

/// The span of building a batch.
pub(crate) fn build(batch: &PlannedBatch) -> Span {
    debug_span!(
        target: "squall::build",
        "build",
        epoch = batch.epoch,
        step = batch.step,
        rows = batch.picks.iter().map(|pick| pick.rows.end - pick.rows.start).sum::<u64>()
    )
}

/// The span of a stage of a loader.
pub(crate) fn load(stage: LoaderStage) -> Span {
    match stage {
        LoaderStage::Collate => debug_span!(target: "squall::loader", "collate"),
        LoaderStage::Sink => debug_span!(target: "squall::loader", "sink"),
        LoaderStage::Blocked => Span::none(),
    }
}
