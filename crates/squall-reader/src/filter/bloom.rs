//! Bloom filters: whether a row group may hold one of some constants.
//!
//! In: the parts of a clause that ask a column to be one of some values, and the row groups that statistics have left. Out: those of
//! them that hold none of the values. Only filters of such columns are fetched, and only where they are smaller than the
//! column itself.

use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::utils::Guarantee;
use parquet::basic::Type;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use squall_dataset::{DataFile, Dataset};
use squall_schema::arrow::field_from_arrow;
use squall_schema::{DType, Field, Result};

use super::conjunct::Conjuncts;
use super::place::{Place, is_integer};
use super::statistics::FileColumns;
use crate::sparse::SparseBytes;

/// Requests for one filter: its head where the footer does not tell its length, then the rest.
const MOST_REQUESTS: usize = 2;

/// That a column holds one of these values in a row group, or the part is not true.
struct Question<'a> {
    row_group: usize,
    chunk: &'a ColumnChunkMetaData,
    field: &'a Field,
    leaf_dtype: DType,
    values: &'a HashSet<ScalarValue>,
}

/// Those of the row groups, each with its open parts, in which some part is true for no row; and the bytes that were fetched.
pub(super) async fn prune(
    dataset: &Dataset,
    file: &DataFile,
    columns: &FileColumns<'_>,
    row_groups: &[(usize, &[usize])],
    conjuncts: &Conjuncts,
) -> Result<(HashSet<usize>, u64)> {
    let mut questions = Vec::new();
    for (row_group, open) in row_groups {
        for part in open.iter().filter_map(|part| conjuncts.parts[*part].prune.as_ref()) {
            for guarantee in part.literal_guarantees() {
                if guarantee.guarantee == Guarantee::In
                    && let Some(question) = question(columns, *row_group, &guarantee.column.name, &guarantee.literals)
                {
                    questions.push(question);
                }
            }
        }
    }
    let mut fetched: Vec<(u64, Bytes)> = Vec::new();
    let mut pruned = HashSet::new();
    for _ in 0..=MOST_REQUESTS {
        let bytes = SparseBytes::new(fetched.clone(), file.size);
        let mut missing = Vec::new();
        questions.retain(|question| match read(&bytes, question) {
            Read::Filter(filter) => {
                if !question.values.iter().any(|value| may_hold(&filter, question, value)) {
                    pruned.insert(question.row_group);
                }
                false
            }
            Read::Missing(range) => {
                missing.push(range);
                true
            }
            Read::Damaged => {
                tracing::warn!(
                    file = %file.path, row_group = question.row_group, column = %question.field.name,
                    "a bloom filter cannot be read and is passed over"
                );
                false
            }
        });
        questions.retain(|question| !pruned.contains(&question.row_group));
        missing.sort_by_key(|range| (range.start, range.end));
        missing.dedup();
        if missing.is_empty() {
            break;
        }
        let got = dataset.store().get_ranges(&file.path, &missing).await?;
        fetched.extend(missing.into_iter().map(|range| range.start).zip(got));
        fetched.sort_by_key(|(start, _)| *start);
    }
    let bytes = fetched.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    Ok((pruned, bytes))
}

fn question<'a>(
    columns: &'a FileColumns<'_>,
    row_group: usize,
    name: &str,
    values: &'a HashSet<ScalarValue>,
) -> Option<Question<'a>> {
    let field = columns.schema.get(name)?;
    let Place::Leaf {
        leaf,
        stored,
        has_bounds: true,
    } = &columns.places[name]
    else {
        return None;
    };
    let chunk = columns.footer.metadata().row_group(row_group).column(*leaf);
    chunk.bloom_filter_offset()?;
    let leaf_dtype = field_from_arrow(stored).ok()?.dtype;
    // Any other value is hashed in a form that is not told here.
    let is_plain = leaf_dtype == field.dtype || (is_integer(leaf_dtype) && is_integer(field.dtype));
    let is_worth = chunk
        .bloom_filter_length()
        .is_none_or(|length| i64::from(length) < chunk.compressed_size());
    (is_plain && is_worth).then_some(Question {
        row_group,
        chunk,
        field,
        leaf_dtype,
        values,
    })
}

enum Read {
    Filter(Sbbf),
    /// These bytes are needed first.
    Missing(Range<u64>),
    Damaged,
}

fn read(bytes: &SparseBytes, question: &Question<'_>) -> Read {
    let wanted = Wanted {
        bytes,
        missing: Mutex::new(None),
    };
    // The parsers of parquet panic on some damaged bytes.
    let read = catch_unwind(AssertUnwindSafe(|| {
        Sbbf::read_from_column_chunk(question.chunk, &wanted)
    }));
    let missing = wanted.missing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let most = u64::try_from(question.chunk.compressed_size()).unwrap_or(0);
    match (read, missing) {
        (Ok(Ok(Some(filter))), _) if filter.num_blocks() > 0 => Read::Filter(filter),
        (_, Some(range)) if range.end <= bytes.len() && range.end - range.start <= most.max(64) => Read::Missing(range),
        _ => Read::Damaged,
    }
}

/// Bytes that notes what it was asked for and does not have.
struct Wanted<'a> {
    bytes: &'a SparseBytes,
    missing: Mutex<Option<Range<u64>>>,
}

impl Length for Wanted<'_> {
    fn len(&self) -> u64 {
        self.bytes.len()
    }
}

impl ChunkReader for Wanted<'_> {
    type T = <SparseBytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.bytes.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.checked_add(length as u64);
        let end = end.ok_or_else(|| ParquetError::General("bytes beyond all files".to_owned()))?;
        self.bytes.get_bytes(start, length).inspect_err(|_| {
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(start..end);
        })
    }
}

/// Whether the value may be in the row group: the bytes that Parquet hashes are those of its plain encoding.
fn may_hold(filter: &Sbbf, question: &Question<'_>, value: &ScalarValue) -> bool {
    let physical = question.chunk.column_type();
    match value {
        ScalarValue::Utf8(Some(text)) if physical == Type::BYTE_ARRAY => filter.check(text.as_bytes()),
        ScalarValue::Date32(Some(day)) if physical == Type::INT32 => filter.check(day),
        ScalarValue::TimestampSecond(Some(time), _)
        | ScalarValue::TimestampMillisecond(Some(time), _)
        | ScalarValue::TimestampMicrosecond(Some(time), _)
        | ScalarValue::TimestampNanosecond(Some(time), _)
            if physical == Type::INT64 =>
        {
            filter.check(time)
        }
        _ => match (whole(value), physical) {
            (Some(number), Type::INT32 | Type::INT64) => may_hold_number(filter, number, question.leaf_dtype),
            _ => true,
        },
    }
}

/// Whether an integer may be in a column whose own type may be narrower than the dataset's.
fn may_hold_number(filter: &Sbbf, number: i128, dtype: DType) -> bool {
    match dtype {
        DType::Int8 | DType::Int16 | DType::Int32 => i32::try_from(number).is_ok_and(|number| filter.check(&number)),
        DType::Int64 => i64::try_from(number).is_ok_and(|number| filter.check(&number)),
        DType::UInt8 | DType::UInt16 | DType::UInt32 => {
            u32::try_from(number).is_ok_and(|number| filter.check(&number.cast_signed()))
        }
        DType::UInt64 => u64::try_from(number).is_ok_and(|number| filter.check(&number.cast_signed())),
        _ => true,
    }
}

fn whole(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Int8(Some(value)) => i128::from(*value),
        ScalarValue::Int16(Some(value)) => i128::from(*value),
        ScalarValue::Int32(Some(value)) => i128::from(*value),
        ScalarValue::Int64(Some(value)) => i128::from(*value),
        ScalarValue::UInt8(Some(value)) => i128::from(*value),
        ScalarValue::UInt16(Some(value)) => i128::from(*value),
        ScalarValue::UInt32(Some(value)) => i128::from(*value),
        ScalarValue::UInt64(Some(value)) => i128::from(*value),
        _ => return None,
    })
}
