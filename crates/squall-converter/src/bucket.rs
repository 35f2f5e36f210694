//! The second pass over rows that are brought in order: ranges of keys, each of which fits in memory, one after the other.
//!
//! What is planned depends on the chunks of the first pass alone. A unit, some buckets that lie next to each other, is written
//! without any other: on another machine, or once more after a failure.

use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{interleave_record_batch, take_record_batch};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use squall_dataset::Store;
use squall_schema::{Error, Result};

use crate::heap::give_back;
use crate::run::{Chunk, HASH_CHUNK_BITS, keys_of, load, memory, sort};

/// Bytes of rows that are handed on at a time.
const BATCH_BYTES: u64 = 2 << 20;
/// Bytes of rows after which what is free is given back.
const GIVE_BACK_BYTES: u64 = 16 << 20;
/// Rows that are handed on at a time, at most.
const BATCH_ROWS: usize = 8192;

/// The keys from `low` on, and those below `high`; open where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    /// One key and no other: its rows are in order already, and need not fit in memory.
    is_single: bool,
    /// About what its rows take in memory.
    pub(crate) bytes: u64,
}

impl Bucket {
    fn holds(&self, key: &[u8]) -> bool {
        key >= &self.low[..] && self.high.as_deref().is_none_or(|high| key < high)
    }

    fn meets(&self, chunk: &Chunk) -> bool {
        chunk.last >= self.low && self.high.as_ref().is_none_or(|high| chunk.first < *high)
    }
}

/// Buckets of about so many bytes, by their keys, which together hold all keys.
pub(crate) fn buckets(chunks: &[Chunk], is_hash: bool, bucket_bytes: u64) -> Vec<Bucket> {
    let total: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    let mut cuts: Vec<(Vec<u8>, u64)> = Vec::new();
    if is_hash {
        // Evenly spread, with ends where chunks end as long as they are no finer.
        let n = total.div_ceil(bucket_bytes.max(1)).next_power_of_two().max(1);
        let bits = n.trailing_zeros();
        let cut = |i: u64| (i << (u64::BITS - bits)).to_be_bytes().to_vec();
        cuts.extend((1..n).map(|i| (cut(i), total / n)));
    } else {
        let mut sorted: Vec<_> = chunks.iter().collect();
        sorted.sort_by(|a, b| (&a.first, &a.last, a.run).cmp(&(&b.first, &b.last, b.run)));
        let mut bytes = 0;
        for of_key in sorted.chunk_by(|a, b| a.first == b.first) {
            let key = &of_key[0].first;
            let own: u64 = of_key.iter().map(|chunk| chunk.bytes).sum();
            if bytes > 0 && bytes + own > bucket_bytes {
                cuts.push((key.clone(), std::mem::take(&mut bytes)));
            }
            bytes += own;
            let alone: u64 = of_key
                .iter()
                .filter(|chunk| chunk.last == *key)
                .map(|chunk| chunk.bytes)
                .sum();
            if alone > bucket_bytes / 2 {
                // The next key there is: a key and a zero.
                let next = [&key[..], &[0]].concat();
                if cuts.last().is_none_or(|(last, _)| last != key) {
                    cuts.push((key.clone(), bytes - own));
                }
                cuts.push((next, alone));
                bytes = own - alone;
            }
        }
    }
    let rest = total.saturating_sub(cuts.iter().map(|(_, bytes)| bytes).sum());
    let mut low = Vec::new();
    let mut buckets = Vec::with_capacity(cuts.len() + 1);
    for (high, bytes) in cuts {
        let is_single = high.len() == low.len() + 1 && high.last() == Some(&0) && high.starts_with(&low);
        buckets.push(Bucket {
            low: std::mem::replace(&mut low, high.clone()),
            high: Some(high),
            is_single,
            bytes,
        });
    }
    buckets.push(Bucket {
        low,
        high: None,
        is_single: false,
        bytes: rest,
    });
    buckets
}

/// Buckets that are written one after the other, of about as many bytes in each of `n` units.
pub(crate) fn units(buckets: Vec<Bucket>, n: usize) -> Vec<Vec<Bucket>> {
    let total: u64 = buckets.iter().map(|bucket| bucket.bytes).sum::<u64>().max(1);
    let mut units: Vec<Vec<Bucket>> = vec![Vec::new(); n.max(1)];
    let mut before = 0u64;
    for bucket in buckets {
        let middle = u128::from(before) + u128::from(bucket.bytes / 2);
        let unit = (middle * n as u128 / u128::from(total)) as usize;
        before += bucket.bytes;
        units[unit.min(n.max(1) - 1)].push(bucket);
    }
    units.retain(|unit| !unit.is_empty());
    units
}

/// The rows of some buckets, in order, without their keys.
///
/// # Cancel safety
///
/// Dropping the stream stops the requests; nothing is kept.
pub(crate) fn rows(
    buckets: Vec<Bucket>,
    chunks: Arc<Vec<Chunk>>,
    store: Store,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::iter(buckets).flat_map(move |bucket| {
        let mut own: Vec<_> = chunks.iter().filter(|chunk| bucket.meets(chunk)).cloned().collect();
        own.sort_by_key(|chunk| (chunk.run, chunk.range.start));
        match bucket.is_single {
            true => passed_on(bucket, own, store.clone()).boxed(),
            false => sorted(bucket, own, store.clone()).boxed(),
        }
    })
}

/// The rows of one key: run after run, as they lie there.
fn passed_on(bucket: Bucket, chunks: Vec<Chunk>, store: Store) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::iter(chunks).then(move |chunk| {
        let (bucket, store) = (bucket.clone(), store.clone());
        async move { without_keys(&within(&bucket, load(&chunk, &store).await?)?) }
    })
}

fn sorted(bucket: Bucket, chunks: Vec<Chunk>, store: Store) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let loaded = async move {
        // The rows of the bucket before are written.
        give_back();
        let mut batches = Vec::with_capacity(chunks.len());
        for chunk in &chunks {
            batches.push(within(&bucket, load(chunk, &store).await?)?);
        }
        Loaded::new(batches)
    };
    stream::once(loaded).map_ok(stream::iter).try_flatten()
}

/// The rows of a chunk that the bucket holds.
fn within(bucket: &Bucket, rows: RecordBatch) -> Result<RecordBatch> {
    let keys = keys_of(&rows);
    let n = rows.num_rows();
    let all = n == 0 || (bucket.holds(keys.value(0)) && bucket.holds(keys.value(n - 1)));
    if all {
        return Ok(rows);
    }
    let first = lower_bound(n, |row| keys.value(row) < &bucket.low[..]);
    let end = match &bucket.high {
        Some(high) => lower_bound(n, |row| keys.value(row) < &high[..]),
        None => n,
    };
    // Copied: a slice would keep all of the chunk.
    let picked = UInt32Array::from_iter_values(first as u32..end.max(first) as u32);
    take_record_batch(&rows, &picked).map_err(|error| Error::internal("rows cannot be taken").with_source(error))
}

/// The first row for which it does not hold, where it holds for those before it only.
fn lower_bound(n: usize, is_below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        match is_below(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

fn without_keys(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns: Vec<_> = (0..rows.num_columns() - 1).collect();
    rows.project(&columns)
        .map_err(|error| Error::internal("a column is lost").with_source(error))
}

/// A bucket in memory, handed on in order.
struct Loaded {
    batches: Vec<RecordBatch>,
    order: Vec<(u64, u32, u32)>,
    at: usize,
    step: usize,
    /// Rows that were handed on since memory was given back, and how many may be.
    handed_on: usize,
    give_back: usize,
}

impl Loaded {
    fn new(batches: Vec<RecordBatch>) -> Result<Self> {
        let mut order = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for (n, batch) in batches.iter().enumerate() {
            let keys = keys_of(batch);
            order
                .extend((0..batch.num_rows()).map(|row| (crate::order::prefix(keys.value(row)), n as u32, row as u32)));
        }
        sort(&mut order, &batches);
        let bytes: u64 = batches.iter().map(memory).sum();
        let per_row = (bytes / order.len().max(1) as u64).max(1);
        Ok(Self {
            batches: batches.iter().map(without_keys).collect::<Result<_>>()?,
            order,
            at: 0,
            handed_on: 0,
            give_back: (GIVE_BACK_BYTES / per_row) as usize,
            step: ((BATCH_BYTES / per_row) as usize).clamp(1, BATCH_ROWS),
        })
    }
}

impl Iterator for Loaded {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.at + self.step).min(self.order.len());
        let picked = self.order[self.at..end]
            .iter()
            .map(|(_, batch, row)| (*batch as usize, *row as usize));
        let picked: Vec<_> = picked.collect();
        if picked.is_empty() {
            return None;
        }
        self.at = end;
        self.handed_on += picked.len();
        if self.handed_on >= self.give_back {
            self.handed_on = 0;
            give_back();
        }
        let batches: Vec<_> = self.batches.iter().collect();
        let rows = interleave_record_batch(&batches, &picked);
        Some(rows.map_err(|error| Error::internal("rows cannot be put in order").with_source(error)))
    }
}

// The buckets of a shuffle end where chunks end.
const _: () = assert!(HASH_CHUNK_BITS < u64::BITS);
