//! The keys by which rows are brought in order: bytes that compare as the rows do.
//!
//! A key holds the values of the partition columns, then either those of the columns to sort by or a hash. The hash is one of
//! the seed, the partition of the query and the number of the row in it: the same in every run, whatever the threads, and
//! never one of the clock or of a generator that the process shares. Rows of equal keys keep the order of the query. Where the query
//! has no order that is the same each time, the hash is one of the seed and of what the row holds, and it parts rows of equal values too.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::row::{Row, RowConverter, SortField};
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::conform::Target;
use crate::layout::Layout;

/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 8;
/// Keeps the seeds of the order apart from those of other hashes.
const SALT: u64 = 0x7371_7561_6c6c_0001;

/// How rows are compared.
#[derive(Clone)]
pub(crate) struct Order {
    columns: Vec<usize>,
    converter: Option<Arc<RowConverter>>,
    hash: Hash,
}

/// What the hash at the end of a key is of.
#[derive(Clone)]
enum Hash {
    None,
    /// The place of the row in the query.
    Place {
        seed: u64,
    },
    /// What the row holds.
    Content {
        seed: u64,
        rows: Arc<RowConverter>,
    },
}

impl Order {
    /// The order that a layout asks for, of rows that conform to the target.
    pub(crate) fn of(layout: &Layout, target: &Target) -> Result<Self> {
        let names = layout.partition_by.iter().chain(&layout.sort_by);
        let place = |name: &String| target.schema.position(name).ok_or_else(|| target.schema.unknown(name));
        let columns: Vec<_> = names.map(place).collect::<Result<_>>()?;
        let types = target.memory_schema()?;
        let nulls_last = SortOptions::new(false, false);
        let field = |i: &usize| SortField::new_with_options(types.field(*i).data_type().clone(), nulls_last);
        let of_columns = |columns: Vec<usize>| {
            RowConverter::new(columns.iter().map(field).collect())
                .map_err(|error| Error::unsupported("columns that have no order").with_source(error))
        };
        let converter = match columns.is_empty() {
            true => None,
            false => Some(Arc::new(of_columns(columns.clone())?)),
        };
        Ok(Self {
            columns,
            converter,
            hash: match (layout.by_content, layout.shuffle) {
                (true, seed) => Hash::Content {
                    seed: seed.unwrap_or_default(),
                    rows: Arc::new(of_columns((0..types.fields().len()).collect())?),
                },
                (false, Some(seed)) => Hash::Place { seed },
                (false, None) => Hash::None,
            },
        })
    }

    /// Whether the keys are nothing but hashes, which are spread evenly.
    pub(crate) fn is_hash(&self) -> bool {
        self.columns.is_empty() && !matches!(self.hash, Hash::None)
    }

    /// The keys of rows of a partition of the query, of which the first is the `first`-th.
    pub(crate) fn keys(&self, rows: &RecordBatch, partition: usize, first: u64) -> Result<BinaryArray> {
        let failed = |error| Error::internal("rows cannot be compared").with_source(error);
        let columns: Vec<ArrayRef> = self.columns.iter().map(|i| rows.column(*i).clone()).collect();
        let values = match &self.converter {
            Some(converter) => Some(converter.convert_columns(&columns).map_err(failed)?),
            None => None,
        };
        let content = match &self.hash {
            Hash::Content { rows: converter, .. } => Some(converter.convert_columns(rows.columns()).map_err(failed)?),
            _ => None,
        };
        let mut keys = BinaryBuilder::with_capacity(rows.num_rows(), rows.num_rows() * HASH_BYTES);
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            key.clear();
            if let Some(values) = &values {
                key.extend_from_slice(values.row(row).data());
            }
            match (&self.hash, &content) {
                (Hash::Place { seed }, _) => {
                    key.extend_from_slice(&hash(*seed, partition, first + row as u64).to_be_bytes());
                }
                (Hash::Content { seed, .. }, Some(content)) => {
                    key.extend_from_slice(&content_hash(*seed, content.row(row)).to_be_bytes());
                }
                _ => {}
            }
            keys.append_value(&key);
        }
        Ok(keys.finish())
    }
}

/// The hash of what a row holds, from bytes that are the same on every machine. Of 64 bits some would be equal in a billion rows.
fn content_hash(seed: u64, row: Row<'_>) -> u128 {
    xxh3_128_with_seed(row.data(), seed ^ SALT)
}

/// Where a row stands in the shuffle of this seed.
fn hash(seed: u64, partition: usize, row: u64) -> u64 {
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&(partition as u64).to_le_bytes());
    identity[8..].copy_from_slice(&row.to_le_bytes());
    xxh3_64_with_seed(&identity, seed ^ SALT)
}

/// The first bytes of a key as a number: most comparisons need no more.
pub(crate) fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = key.len().min(8);
    bytes[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(bytes)
}
