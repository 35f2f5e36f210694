//! Where the fields of a clause stand in a file, and whether what it says of their values means what it says.
//!
//! In: a field, and a file's footer. Out: its [`Place`].

use arrow_schema::{DataType, Field as ArrowField, TimeUnit};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::{ColumnOrder, ConvertedType, LogicalType, SortOrder, TimeUnit as ParquetUnit, Type};
use parquet::schema::types::ColumnDescriptor;
use squall_schema::arrow::field_from_arrow;
use squall_schema::calendar::HybridCalendar;
use squall_schema::{DType, Field};

/// Where a field of a clause stands in a file.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The file does not have it: it is null in all rows.
    Missing,
    /// One leaf that no list holds, directly or in structs.
    Leaf {
        leaf: usize,
        /// Its Arrow type in this file.
        stored: ArrowField,
        /// Whether least and greatest values mean what they say.
        has_bounds: bool,
    },
    /// Anything else. Nothing is known of it.
    Elsewhere,
}

/// Where the field at the end of a path stands. `is_complete` says that each file has all columns.
pub(super) fn find(
    footer: &ArrowReaderMetadata,
    field: &Field,
    path: &[String],
    is_complete: bool,
    calendar: &HybridCalendar,
) -> Place {
    if !field.shape.is_scalar() {
        return Place::Elsewhere;
    }
    let file = footer.metadata().file_metadata();
    let parquet = file.schema_descr();
    let mut below = (0..parquet.num_columns()).filter(|leaf| parquet.column(*leaf).path().parts().starts_with(path));
    let (leaf, more) = (below.next(), below.next());
    let Some(leaf) = leaf else {
        // A file that lacks what it should have is an error, which the scan gives.
        return match field.nullable && !is_complete {
            true => Place::Missing,
            false => Place::Elsewhere,
        };
    };
    let descriptor = parquet.column(leaf);
    let stored = stored_column(footer, path);
    let (None, 0, true, Some(stored)) = (
        more,
        descriptor.max_rep_level(),
        descriptor.path().parts() == path,
        stored,
    ) else {
        return Place::Elsewhere;
    };
    let order = file.column_orders().and_then(|orders| orders.get(leaf)).copied();
    let is_ordered = match order {
        Some(ColumnOrder::TYPE_DEFINED_ORDER(order)) => order != SortOrder::UNDEFINED,
        Some(ColumnOrder::UNKNOWN) => false,
        // Of a time when all was compared as signed.
        Some(ColumnOrder::UNDEFINED) | None => is_signed(&stored),
        #[allow(unreachable_patterns, reason = "kinds of order that a later parquet may add")]
        _ => false,
    };
    let is_old = match field.dtype {
        DType::Date => calendar.dates,
        DType::Datetime { .. } => !calendar.is_gregorian(),
        _ => false,
    };
    let has_bounds = is_ordered && !is_old && is_as_stored(&stored, &descriptor) && keeps_order(&stored, field.dtype);
    Place::Leaf {
        leaf,
        stored,
        has_bounds,
    }
}

/// The column at the end of a path through structs.
fn stored_column(footer: &ArrowReaderMetadata, path: &[String]) -> Option<ArrowField> {
    let (root, members) = path.split_first()?;
    let (_, root) = footer.schema().fields().find(root)?;
    let column = members.iter().try_fold(root, |column, name| match column.data_type() {
        DataType::Struct(members) => members.find(name).map(|(_, member)| member),
        _ => None,
    })?;
    (!column.data_type().is_nested()).then(|| column.as_ref().clone().with_nullable(true))
}

/// Whether the numbers in a file are those of the Arrow type. A program may have stored times in another unit than it had them
/// in, and told Arrow so; timestamps of 96 bits have none.
fn is_as_stored(stored: &ArrowField, descriptor: &ColumnDescriptor) -> bool {
    let DataType::Timestamp(unit, _) = stored.data_type() else {
        return *stored.data_type() != DataType::Date64;
    };
    let own = match (descriptor.logical_type_ref(), descriptor.converted_type()) {
        (Some(LogicalType::Timestamp(own)), _) => match own.unit {
            ParquetUnit::MILLIS => Some(TimeUnit::Millisecond),
            ParquetUnit::MICROS => Some(TimeUnit::Microsecond),
            ParquetUnit::NANOS => Some(TimeUnit::Nanosecond),
        },
        (None, ConvertedType::TIMESTAMP_MILLIS) => Some(TimeUnit::Millisecond),
        (None, ConvertedType::TIMESTAMP_MICROS) => Some(TimeUnit::Microsecond),
        _ => None,
    };
    descriptor.physical_type() == Type::INT64 && own.as_ref() == Some(unit)
}

/// Whether Parquet compares its values as signed numbers.
pub(super) fn is_signed(stored: &ArrowField) -> bool {
    matches!(
        stored.data_type(),
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Date32
            | DataType::Timestamp(..)
    )
}

/// Whether values of a file stand in the same order when they are brought to the dtype. Never of bytes: they may be cells.
fn keeps_order(stored: &ArrowField, dtype: DType) -> bool {
    use DType::{Bool, Date, Datetime, Decimal, Float32, Float64, Str};
    let Ok(own) = field_from_arrow(stored) else {
        return false;
    };
    match (own.dtype, dtype) {
        (Bool, Bool) | (Str, Str) | (Date, Date) | (Decimal(..), Decimal(..)) => true,
        (Float32 | Float64, Float32 | Float64) => true,
        (Datetime { utc: one, .. }, Datetime { utc: other, .. }) => one == other,
        (own, dtype) => is_integer(own) && (is_integer(dtype) || matches!(dtype, Float32 | Float64)),
    }
}

pub(super) fn is_integer(dtype: DType) -> bool {
    use DType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    matches!(dtype, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64)
}
