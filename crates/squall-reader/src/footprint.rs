//! What rows take in memory, as far as schema and metadata tell before any is read.

use squall_dataset::Dataset;
use squall_schema::{Error, Field, Result, Schema};

use crate::decode::DECODE_ROWS;
use crate::order::OrderOptions;

/// Bytes of the rows that a lane decodes at a time, about. Decoding fewer costs more a row; more are held for longer.
const DECODE_BYTES: u64 = 256 << 10;

/// What writers make a page: so many bytes, or rows where these are fewer.
pub(crate) const PAGE_BYTES: u64 = 1 << 20;
pub(crate) const PAGE_ROWS: u64 = 20_000;

/// Fewest bytes of a slice where none are given: less is not worth a request.
pub(crate) const LEAST_SLICE_BYTES: u64 = 64 << 10;

/// The memory of a reader where none is given, if its windows and batches need no more than half of it.
pub const DEFAULT_MEMORY_BUDGET: u64 = 1 << 30;

/// What the rows of a dataset take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    /// Bytes of a sample as it is stored, and as it is delivered.
    pub(crate) stored: u64,
    pub(crate) delivered: u64,
    /// Rows that a lane decodes at a time.
    pub(crate) decode_rows: u64,
    /// Bytes of the pages that its decoder holds, about.
    pub(crate) pages: u64,
    /// Bytes of the largest row group.
    pub(crate) row_group: u64,
}

impl Footprint {
    /// Of samples with the columns `stored`, of `span` rows each, that become `delivered`.
    pub(crate) fn new(dataset: &Dataset, span: u64, stored: &Schema, delivered: &Schema, order: &OrderOptions) -> Self {
        let bytes: u64 = dataset.pieces().iter().map(|piece| piece.uncompressed_bytes).sum();
        // What the columns of no fixed width take is not known without the footers: at most all of it.
        let row = (bytes / dataset.rows().max(1)).max(1).saturating_mul(span);
        let total = |schema: &Schema| {
            let sizes: Vec<_> = schema.fields().iter().map(fixed_bytes).collect();
            let fixed = sizes.iter().flatten().fold(0u64, |sum, size| sum.saturating_add(*size));
            match sizes.iter().all(Option::is_some) {
                true => fixed,
                false => fixed.saturating_add(row),
            }
        };
        let stored_fields = stored.fields();
        let stored = total(stored).max(1);
        let decode_rows = (DECODE_BYTES * span / stored)
            .clamp(1, DECODE_ROWS)
            .min(order.window.max(1));
        let page = |field: &Field| {
            fixed_bytes(field).map_or(PAGE_BYTES, |size| size.saturating_mul(PAGE_ROWS).min(PAGE_BYTES))
        };
        let row_group = dataset.pieces().iter().map(|piece| piece.uncompressed_bytes).max();
        let row_group = row_group.unwrap_or(0);
        let pages = stored_fields.iter().map(page).fold(0, u64::saturating_add);
        Self {
            // No decoder holds more than a row group has.
            pages: pages.min(row_group),
            row_group,
            stored,
            delivered: total(delivered).max(1),
            decode_rows,
        }
    }
}

/// The least memory that these windows and batches need: a window of each lane with the rows that are decoded beyond it, the
/// pages that they come from, a slice and the one behind it, and two batches.
pub(crate) struct Least {
    /// None where rows are kept in memory: no window is read.
    pub(crate) lanes: u64,
    pub(crate) window: u64,
    pub(crate) rows_of_batch: u64,
    /// Bytes of a slice.
    pub(crate) slice: u64,
    pub(crate) footprint: Footprint,
}

impl Least {
    pub(crate) fn bytes(&self) -> u64 {
        let Footprint { stored, delivered, .. } = self.footprint;
        let rows = self
            .lanes
            .saturating_mul(self.window.saturating_add(self.footprint.decode_rows));
        let batches = self.rows_of_batch.saturating_mul(2).saturating_mul(delivered);
        let pages = self.lanes.saturating_mul(self.pages());
        rows.saturating_mul(stored)
            .saturating_add(pages)
            .saturating_add(batches)
    }

    /// Bytes of the pages that a lane holds, fetched and decompressed.
    fn pages(&self) -> u64 {
        let Footprint { pages, row_group, .. } = self.footprint;
        pages.saturating_add(self.slice.min(row_group).saturating_mul(2))
    }
}

/// The budget that was given, or one that suits; an error where the windows do not fit in it.
pub(crate) fn memory_budget(given: Option<u64>, parts: &[Least]) -> Result<u64> {
    let least = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.bytes()));
    let Some(given) = given else {
        return Ok(DEFAULT_MEMORY_BUDGET.max(least.saturating_mul(2)));
    };
    // What the budget leaves for what nobody counts.
    let needed = least.saturating_add(least / 7);
    if given >= needed {
        return Ok(given);
    }
    let of = |part: &Least| {
        let Footprint { stored, delivered, .. } = part.footprint;
        let pages = part.pages();
        if part.lanes == 0 {
            return format!("two batches of {} rows of {delivered} bytes", part.rows_of_batch);
        }
        format!(
            "{} lanes with {pages} bytes of pages and windows of {} rows of about {stored} bytes and two batches of {} rows of {delivered}",
            part.lanes, part.window, part.rows_of_batch
        )
    };
    let cure = match parts.iter().any(|part| part.lanes > 0) {
        true => "fewer lanes or columns, or a smaller window",
        false => "or smaller batches",
    };
    let parts: Vec<_> = parts.iter().map(of).collect();
    Err(Error::invalid(format!(
        "a memory budget of {given} bytes is too small: expected at least {needed}, for {} take {least} bytes; give more memory, {cure}",
        parts.join(", ")
    )))
}

/// Bytes of a value of which the schema tells the size.
pub(crate) fn fixed_bytes(field: &Field) -> Option<u64> {
    let elements = u64::try_from(field.shape.element_count()?).ok()?;
    let item = u64::try_from(field.dtype.item_size()?).ok()?;
    item.checked_mul(elements)
}
