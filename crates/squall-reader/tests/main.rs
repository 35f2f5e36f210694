//! The reader from outside: real files, every row counted.

mod caching;
#[cfg(feature = "filter")]
mod clauses;
mod damage;
#[cfg(feature = "filter")]
mod filter;
mod forecast;
mod golden;
mod images;
mod ledger;
mod legacy;
mod map;
mod metrics;
mod mixing;
mod ngrams;
mod order;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "filter")]
mod pruning;
mod questions;
mod reading;
mod resident;
mod rows;
mod sampling;
mod slices;
mod spark;
mod state;
mod stores;
mod streams;
#[cfg(feature = "filter")]
mod stress;
mod tracing;
mod transforms;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use squall_reader::{BatchReader, ReaderBuilder};
use squall_schema::RowId;

/// The ids of a reader's batches, in order.
pub(crate) fn batches(mut reader: BatchReader) -> Vec<Vec<(i32, RowId)>> {
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_samples() {
        let batch = batch.expect("a batch");
        let ids = batch
            .columns
            .column_by_name("id")
            .expect("column id")
            .as_primitive::<Int32Type>();
        batches.push(ids.values().iter().copied().zip(batch.ids).collect());
    }
    batches
}

pub(crate) fn ids(reader: ReaderBuilder<BatchReader>) -> Vec<i32> {
    let reader = reader.build().expect("a reader");
    batches(reader).into_iter().flatten().map(|(id, _)| id).collect()
}

pub(crate) fn sorted(mut ids: Vec<i32>) -> Vec<i32> {
    ids.sort_unstable();
    ids
}

pub(crate) fn error<R>(builder: squall_schema::Result<R>) -> squall_schema::Error {
    builder.err().expect("an error")
}
