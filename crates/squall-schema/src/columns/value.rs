//! From a cell of a canonical column to a value.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types as at;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow_buffer::{Buffer, i256};
use arrow_schema::DataType;

use crate::arrow::{DATA, SHAPE, scalar_dtype};
use crate::value::Decimal;
use crate::{DType, Error, Field, Result, Tensor, TimeUnit, Value};

/// The value in this row of a canonical column of `field`.
pub fn value_at(column: &dyn Array, field: &Field, row: usize) -> Result<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    if field.dtype == DType::Nested {
        return nested_at(column, row);
    }
    if field.shape.is_scalar() {
        return scalar_at(column, field.dtype, row);
    }
    let (values, dims) = match (column.data_type(), field.shape.as_fixed()) {
        (DataType::FixedSizeList(..), Some(dims)) => {
            let list = column.as_fixed_size_list();
            // An array made for one row costs more than its tensor.
            let count = list.value_length() as usize;
            if let Some(bytes) = elements_at(list.values(), list.value_offset(row) as usize, count) {
                return Ok(Value::Tensor(Tensor::new(field.dtype, dims, bytes)?));
            }
            (list.value(row), dims)
        }
        (DataType::List(_), None) => {
            let values = column.as_list::<i32>().value(row);
            let dims = vec![values.len()];
            (values, dims)
        }
        (DataType::Struct(_), None) => {
            let tensors = column.as_struct();
            let part = |name| {
                tensors
                    .column_by_name(name)
                    .ok_or_else(|| Error::internal(format!("a tensor without {name}")))
            };
            let values = part(DATA)?.as_list::<i32>().value(row);
            let dims = part(SHAPE)?.as_fixed_size_list().value(row);
            let dims = dims
                .as_primitive::<at::Int32Type>()
                .values()
                .iter()
                .map(|dim| *dim as usize)
                .collect();
            (values, dims)
        }
        (found, _) => return Err(Error::internal(format!("{found} is not the canonical type of {field}"))),
    };
    if values.null_count() == 0 && field.dtype.item_size().is_some() {
        return Ok(Value::Tensor(Tensor::new(field.dtype, dims, element_bytes(&values)?)?));
    }
    let items = (0..values.len()).map(|i| {
        if values.is_null(i) {
            Ok(Value::Null)
        } else {
            scalar_at(&values, field.dtype, i)
        }
    });
    Ok(Value::nested(items.collect::<Result<_>>()?, &dims))
}

/// A value made of structs and lists. A map is the list of its entries.
fn nested_at(column: &dyn Array, row: usize) -> Result<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |items: ArrayRef| {
        let items = (0..items.len()).map(|i| nested_at(&items, i));
        Ok(Value::List(items.collect::<Result<_>>()?))
    };
    match column.data_type() {
        // It has no validity mask.
        DataType::Null => Ok(Value::Null),
        DataType::List(_) => list(column.as_list::<i32>().value(row)),
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row)),
        DataType::Map(..) => list(Arc::new(column.as_map().value(row))),
        DataType::Struct(fields) => {
            let members = fields.iter().zip(column.as_struct().columns());
            let members = members.map(|(field, column)| Ok((field.name().clone(), nested_at(column, row)?)));
            Ok(Value::Struct(members.collect::<Result<_>>()?))
        }
        scalar => {
            let dtype =
                scalar_dtype(scalar).ok_or_else(|| Error::internal(format!("{scalar} inside a nested value")))?;
            scalar_at(column, dtype, row)
        }
    }
}

/// The bytes of a column of fixed-width elements without nulls: little-endian, one byte for a bool. No copy is made
/// but for bools.
pub fn element_bytes(values: &dyn Array) -> Result<Buffer> {
    if let Some(bools) = values.as_boolean_opt() {
        return Ok(bools.values().iter().map(u8::from).collect::<Vec<u8>>().into());
    }
    let width = match values.data_type() {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    };
    let Some(width) = width else {
        return Err(Error::internal(format!("{} has no fixed width", values.data_type())));
    };
    let data = values.to_data();
    Ok(data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width))
}

/// The bytes of some elements of a column of numbers without nulls, without a copy; `None` for other columns.
fn elements_at(values: &dyn Array, start: usize, count: usize) -> Option<Buffer> {
    fn slice<T: ArrowPrimitiveType>(values: &dyn Array, start: usize, count: usize) -> Option<Buffer> {
        let width = size_of::<T::Native>();
        let all = values.as_primitive_opt::<T>()?.values().inner();
        Some(all.slice_with_length(start * width, count * width))
    }
    if values.null_count() != 0 {
        return None;
    }
    let slice = match values.data_type() {
        DataType::Int8 => slice::<at::Int8Type>,
        DataType::Int16 => slice::<at::Int16Type>,
        DataType::Int32 => slice::<at::Int32Type>,
        DataType::Int64 => slice::<at::Int64Type>,
        DataType::UInt8 => slice::<at::UInt8Type>,
        DataType::UInt16 => slice::<at::UInt16Type>,
        DataType::UInt32 => slice::<at::UInt32Type>,
        DataType::UInt64 => slice::<at::UInt64Type>,
        DataType::Float16 => slice::<at::Float16Type>,
        DataType::Float32 => slice::<at::Float32Type>,
        DataType::Float64 => slice::<at::Float64Type>,
        _ => return None,
    };
    slice(values, start, count)
}

pub(super) fn scalar_at(column: &dyn Array, dtype: DType, row: usize) -> Result<Value> {
    fn get<T: ArrowPrimitiveType>(column: &dyn Array, row: usize) -> Result<T::Native> {
        let array = column.as_primitive_opt::<T>();
        array
            .map(|array| array.value(row))
            .ok_or_else(|| Error::internal(format!("expected {}, found {}", T::DATA_TYPE, column.data_type())))
    }
    let other = || Error::internal(format!("{} is not the canonical type of {dtype}", column.data_type()));
    Ok(match dtype {
        DType::Bool => Value::Bool(column.as_boolean_opt().ok_or_else(other)?.value(row)),
        DType::Int8 => get::<at::Int8Type>(column, row)?.into(),
        DType::Int16 => get::<at::Int16Type>(column, row)?.into(),
        DType::Int32 => get::<at::Int32Type>(column, row)?.into(),
        DType::Int64 => get::<at::Int64Type>(column, row)?.into(),
        DType::UInt8 => get::<at::UInt8Type>(column, row)?.into(),
        DType::UInt16 => get::<at::UInt16Type>(column, row)?.into(),
        DType::UInt32 => get::<at::UInt32Type>(column, row)?.into(),
        DType::UInt64 => get::<at::UInt64Type>(column, row)?.into(),
        DType::Float16 => get::<at::Float16Type>(column, row)?.to_f32().into(),
        DType::Float32 => get::<at::Float32Type>(column, row)?.into(),
        DType::Float64 => get::<at::Float64Type>(column, row)?.into(),
        DType::Str => column.as_string_opt::<i32>().ok_or_else(other)?.value(row).into(),
        DType::Bytes => column
            .as_binary_opt::<i32>()
            .ok_or_else(other)?
            .value(row)
            .to_vec()
            .into(),
        DType::Decimal(precision, scale) => {
            let unscaled = match column.data_type() {
                DataType::Decimal128(..) => i256::from_i128(get_decimal::<at::Decimal128Type>(column, row)),
                DataType::Decimal256(..) => get_decimal::<at::Decimal256Type>(column, row),
                _ => return Err(other()),
            };
            Value::Decimal(Decimal {
                unscaled,
                precision,
                scale,
            })
        }
        DType::Date => Value::Date(get::<at::Date32Type>(column, row)?),
        DType::Nested => return nested_at(column, row),
        DType::Complex64 | DType::Complex128 => return Err(Error::unsupported(format!("{dtype} outside a tensor"))),
        DType::Datetime { unit, utc } => {
            let value = match unit {
                TimeUnit::Second => get::<at::TimestampSecondType>(column, row),
                TimeUnit::Millisecond => get::<at::TimestampMillisecondType>(column, row),
                TimeUnit::Microsecond => get::<at::TimestampMicrosecondType>(column, row),
                TimeUnit::Nanosecond => get::<at::TimestampNanosecondType>(column, row),
            }?;
            Value::Datetime { value, unit, utc }
        }
    })
}

fn get_decimal<T: ArrowPrimitiveType>(column: &dyn Array, row: usize) -> T::Native {
    column.as_primitive::<T>().value(row)
}
