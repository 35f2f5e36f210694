//! From values to a canonical column.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::types as at;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray,
    FixedSizeListArray, ListArray, PrimitiveArray, StructArray, new_empty_array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field as ArrowField};
use half::f16;

use super::normalise::{cast, dense, mismatch};
use super::value::scalar_at;
use crate::arrow::{element_to_arrow, field_to_arrow, item_field};
use crate::{DType, Error, Field, Result, Shape, Tensor, Value};

/// A canonical column of `field` with these values, one a row.
///
/// A value of another dtype or shape, an integer that does not fit and a null where none may be are errors that name
/// the row.
pub fn column_from_values(field: &Field, values: &[&Value]) -> Result<ArrayRef> {
    build(field, values).map_err(|error| error.at("column", &field.name))
}

fn build(field: &Field, values: &[&Value]) -> Result<ArrayRef> {
    if !field.nullable
        && let Some(row) = values.iter().position(|value| **value == Value::Null)
    {
        return Err(Error::invalid(format!("null where {field} has none")).at("row", row));
    }
    if field.shape.is_scalar() {
        return build_scalars(field.dtype, values);
    }
    let validity: NullBuffer = values.iter().map(|value| **value != Value::Null).collect();
    let nulls = (validity.null_count() > 0).then_some(validity);
    if field.shape.as_fixed().is_none() && field.shape.0.len() > 1 {
        return build_tensors(field, values);
    }
    let fixed = field.shape.element_count();
    let mut lengths = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        lengths.push(match value {
            Value::Null => fixed.unwrap_or(0),
            Value::Tensor(tensor) if tensor.dtype() == field.dtype && field.shape.accepts(tensor.shape()) => {
                tensor.shape().iter().product()
            }
            Value::List(_) => {
                let (dims, items) = flatten(value);
                if !field.shape.accepts(&dims) {
                    return Err(
                        Error::invalid(format!("expected {field}, found a list of shape {dims:?}")).at("row", row),
                    );
                }
                items.len()
            }
            other => return Err(Error::invalid(format!("expected {field}, found {}", other.kind())).at("row", row)),
        });
    }
    let lists = values.iter().any(|value| matches!(value, Value::List(_)));
    let elements = match field.dtype.item_size() {
        Some(item) if !lists => {
            let mut bytes = Vec::with_capacity(item * lengths.iter().sum::<usize>());
            for (value, length) in values.iter().zip(&lengths) {
                match value {
                    Value::Tensor(tensor) => bytes.extend_from_slice(tensor.data()),
                    // The elements of a null row may be anything.
                    _ => bytes.resize(bytes.len() + item * length, 0),
                }
            }
            elements_from_bytes(field.dtype, &bytes)?
        }
        // A vector with a null element is a list where its neighbours are tensors.
        _ => {
            let mut items = Vec::new();
            for (value, length) in values.iter().zip(&lengths) {
                match value {
                    Value::List(_) => items.extend(flatten(value).1.into_iter().cloned()),
                    Value::Tensor(tensor) => items.extend(tensor_elements(tensor)?),
                    _ => items.extend(std::iter::repeat_n(Value::Null, *length)),
                }
            }
            build_scalars(field.dtype, &items.iter().collect::<Vec<_>>())?
        }
    };
    if fixed.is_some() {
        return dense(elements, nulls, values.len(), field);
    }
    if i32::try_from(elements.len()).is_err() {
        return Err(Error::unsupported(format!(
            "more than 2^31 elements in a column of {field}"
        )));
    }
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let list = ListArray::try_new(Arc::new(item_field(field)), offsets, elements, nulls);
    Ok(Arc::new(list.map_err(mismatch)?))
}

/// A column of tensors whose dimensions differ from row to row.
fn build_tensors(field: &Field, values: &[&Value]) -> Result<ArrayRef> {
    let vector = Field::new(&field.name, field.dtype, Shape(vec![None]));
    let (mut vectors, mut dims) = (Vec::with_capacity(values.len()), Vec::new());
    for (row, value) in values.iter().enumerate() {
        let (own, elements) = match value {
            Value::Null => {
                // A list would have its neighbours taken apart to single elements.
                let none = match field.dtype.item_size() {
                    Some(_) => Value::Tensor(Tensor::new(field.dtype, vec![0], Buffer::from_vec(Vec::<u8>::new()))?),
                    None => Value::List(Vec::new()),
                };
                (vec![0; field.shape.0.len()], none)
            }
            Value::Tensor(tensor) => (
                tensor.shape().to_vec(),
                Value::Tensor(tensor.reshape(&[tensor.shape().iter().product()])?),
            ),
            other => {
                let (own, items) = flatten(other);
                (own, Value::List(items.into_iter().cloned().collect()))
            }
        };
        if **value != Value::Null && !field.shape.accepts(&own) {
            return Err(
                Error::invalid(format!("expected {field}, found {} of shape {own:?}", value.kind())).at("row", row),
            );
        }
        for dim in own {
            dims.push(i32::try_from(dim).map_err(|_| Error::unsupported("a dimension of more than 2^31"))?);
        }
        vectors.push(elements);
    }
    let DataType::Struct(columns) = field_to_arrow(field)?.data_type().clone() else {
        return Err(Error::internal(format!("{field} has no free dimensions")));
    };
    let data = build(&vector, &vectors.iter().collect::<Vec<_>>())?;
    let item = Arc::new(ArrowField::new("element", DataType::Int32, false));
    let n_dims = i32::try_from(field.shape.0.len()).map_err(|_| Error::unsupported("more than 2^31 dimensions"))?;
    let dims = Arc::new(PrimitiveArray::<at::Int32Type>::from_iter_values(dims));
    let shape = FixedSizeListArray::try_new_with_length(item, n_dims, dims, None, values.len()).map_err(mismatch)?;
    let validity: NullBuffer = values.iter().map(|value| **value != Value::Null).collect();
    let nulls = (validity.null_count() > 0).then_some(validity);
    let tensors = StructArray::try_new(columns, vec![data, Arc::new(shape)], nulls);
    Ok(Arc::new(tensors.map_err(mismatch)?))
}

/// The dimensions of nested lists, taken from the first of each, and their innermost items.
fn flatten(value: &Value) -> (Vec<usize>, Vec<&Value>) {
    let mut dims = Vec::new();
    let mut items = vec![value];
    while let Some(Value::List(first)) = items.first() {
        dims.push(first.len());
        let mut inner = Vec::new();
        for item in items {
            match item {
                Value::List(own) => inner.extend(own),
                other => inner.push(other),
            }
        }
        items = inner;
    }
    (dims, items)
}

fn tensor_elements(tensor: &Tensor) -> Result<Vec<Value>> {
    let column = elements_from_bytes(tensor.dtype(), tensor.data())?;
    (0..column.len())
        .map(|i| scalar_at(&column, tensor.dtype(), i))
        .collect()
}

/// A column without nulls over a copy of little-endian bytes.
pub fn elements_from_bytes(dtype: DType, bytes: &[u8]) -> Result<ArrayRef> {
    // Arrow's own allocations are aligned for every type; a slice of bytes is not.
    elements_from_buffer(dtype, Buffer::from_slice_ref(bytes))
}

/// A column without nulls over little-endian bytes in an allocation of Arrow's own. They are copied for bools only.
pub(crate) fn elements_from_buffer(dtype: DType, bytes: Buffer) -> Result<ArrayRef> {
    fn primitive<T: ArrowPrimitiveType>(bytes: Buffer) -> ArrayRef {
        let rows = bytes.len() / size_of::<T::Native>();
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(bytes, 0, rows), None))
    }
    let complex = |width, bytes: Buffer| {
        let numbers = FixedSizeBinaryArray::try_new(width, bytes, None).map_err(mismatch)?;
        Ok::<ArrayRef, Error>(Arc::new(numbers))
    };
    Ok(match dtype {
        DType::Bool => Arc::new(BooleanArray::from_iter(bytes.iter().map(|byte| Some(*byte != 0)))),
        DType::Int8 => primitive::<at::Int8Type>(bytes),
        DType::Int16 => primitive::<at::Int16Type>(bytes),
        DType::Int32 => primitive::<at::Int32Type>(bytes),
        DType::Int64 => primitive::<at::Int64Type>(bytes),
        DType::UInt8 => primitive::<at::UInt8Type>(bytes),
        DType::UInt16 => primitive::<at::UInt16Type>(bytes),
        DType::UInt32 => primitive::<at::UInt32Type>(bytes),
        DType::UInt64 => primitive::<at::UInt64Type>(bytes),
        DType::Float16 => primitive::<at::Float16Type>(bytes),
        DType::Float32 => primitive::<at::Float32Type>(bytes),
        DType::Float64 => primitive::<at::Float64Type>(bytes),
        DType::Complex64 => complex(8, bytes)?,
        DType::Complex128 => complex(16, bytes)?,
        other => return Err(Error::internal(format!("{other} has no fixed width"))),
    })
}

fn build_scalars(dtype: DType, values: &[&Value]) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_empty_array(&element_to_arrow(dtype)));
    }
    let ints = || {
        let one = |(row, value): (usize, &&Value)| match value {
            Value::Null => Ok(None),
            Value::Int(int) => Ok(Some(i128::from(*int))),
            Value::UInt(int) => Ok(Some(i128::from(*int))),
            other => Err(found(other, dtype, row)),
        };
        values.iter().enumerate().map(one).collect::<Result<Vec<_>>>()
    };
    macro_rules! int {
        ($native:ty, $arrow:ty) => {{
            let fit = |(row, int): (usize, Option<i128>)| {
                let too_large = |_| Error::invalid(format!("{int:?} does not fit {dtype}")).at("row", row);
                int.map(|int| <$native>::try_from(int).map_err(too_large)).transpose()
            };
            let array = ints()?
                .into_iter()
                .enumerate()
                .map(fit)
                .collect::<Result<PrimitiveArray<$arrow>>>()?;
            Ok(Arc::new(array) as ArrayRef)
        }};
    }
    macro_rules! plain {
        ($array:ty, $pattern:pat => $value:expr) => {{
            let one = |(row, value): (usize, &&Value)| match value {
                Value::Null => Ok(None),
                $pattern => Ok(Some($value)),
                other => Err(found(other, dtype, row)),
            };
            let array = values.iter().enumerate().map(one).collect::<Result<$array>>()?;
            Ok(Arc::new(array) as ArrayRef)
        }};
    }
    match dtype {
        DType::Int8 => int!(i8, at::Int8Type),
        DType::Int16 => int!(i16, at::Int16Type),
        DType::Int32 => int!(i32, at::Int32Type),
        DType::Int64 => int!(i64, at::Int64Type),
        DType::UInt8 => int!(u8, at::UInt8Type),
        DType::UInt16 => int!(u16, at::UInt16Type),
        DType::UInt32 => int!(u32, at::UInt32Type),
        DType::UInt64 => int!(u64, at::UInt64Type),
        DType::Bool => plain!(BooleanArray, Value::Bool(b) => *b),
        DType::Float16 => plain!(PrimitiveArray<at::Float16Type>, Value::Float32(x) => f16::from_f32(*x)),
        DType::Float32 => plain!(PrimitiveArray<at::Float32Type>, Value::Float32(x) => *x),
        DType::Float64 => plain!(PrimitiveArray<at::Float64Type>, Value::Float64(x) => *x),
        DType::Date => plain!(PrimitiveArray<at::Date32Type>, Value::Date(days) => *days),
        DType::Nested => Err(Error::unsupported("a nested column cannot be made of values")),
        DType::Complex64 | DType::Complex128 => Err(Error::unsupported(format!(
            "{dtype} outside a tensor: give the field a shape such as [1]"
        ))),
        DType::Str => {
            let mut builder = StringBuilder::new();
            for (row, value) in values.iter().enumerate() {
                match value {
                    Value::Null => builder.append_null(),
                    Value::Str(text) => builder.append_value(text),
                    other => return Err(found(other, dtype, row)),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        DType::Bytes => {
            let mut builder = BinaryBuilder::new();
            for (row, value) in values.iter().enumerate() {
                match value {
                    Value::Null => builder.append_null(),
                    Value::Bytes(bytes) => builder.append_value(bytes),
                    other => return Err(found(other, dtype, row)),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        DType::Decimal(precision, scale) => {
            let one = |(row, value): (usize, &&Value)| match value {
                Value::Null => Ok(None),
                Value::Decimal(decimal) if decimal.scale == scale => Ok(Some(decimal.unscaled)),
                other => Err(found(other, dtype, row)),
            };
            let unscaled = values.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
            match element_to_arrow(dtype) {
                DataType::Decimal128(..) => {
                    let digits = unscaled
                        .into_iter()
                        .map(|digits| digits.and_then(|digits| digits.to_i128()));
                    let array = digits
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(precision, scale);
                    Ok(Arc::new(array.map_err(mismatch)?))
                }
                _ => {
                    let array = unscaled.into_iter().collect::<Decimal256Array>();
                    Ok(Arc::new(
                        array.with_precision_and_scale(precision, scale).map_err(mismatch)?,
                    ))
                }
            }
        }
        DType::Datetime { unit, utc } => {
            let one = |(row, value): (usize, &&Value)| match value {
                Value::Null => Ok(None),
                Value::Datetime {
                    value,
                    unit: own,
                    utc: own_utc,
                } if *own == unit && *own_utc == utc => Ok(Some(*value)),
                other => Err(found(other, dtype, row)),
            };
            let steps = values
                .iter()
                .enumerate()
                .map(one)
                .collect::<Result<PrimitiveArray<at::Int64Type>>>()?;
            cast(&(Arc::new(steps) as ArrayRef), &element_to_arrow(dtype))
        }
    }
}

fn found(value: &Value, dtype: DType, row: usize) -> Error {
    Error::invalid(format!("expected {dtype}, found {}", value.kind())).at("row", row)
}
