//! Columns of the canonical Arrow types, and the values in them.
//!
//! [`normalise`] brings a column of a file to the canonical type of its field, [`value_at`] reads one cell of a
//! canonical column and [`column_from_values`] builds one.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types as at;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeListArray, ListArray,
    PrimitiveArray, StructArray, UInt32Array, new_empty_array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field as ArrowField};
use half::f16;

use crate::arrow::{DATA, SHAPE, element_to_arrow, field_to_arrow, item_field, scalar_dtype};
use crate::value::Decimal;
use crate::{DType, Error, Field, Result, Shape, Tensor, TimeUnit, Value};

/// The column in the canonical type of `field`, without a copy where the layout is the same already.
///
/// A list whose length is not the field's, a null element of a tensor, a null where none may be and a number that
/// does not fit are errors that name the row, counted in this column.
pub fn normalise(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    normalise_inner(column, field).map_err(|error| error.at("column", &field.name))
}

fn normalise_inner(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if let (false, Some(nulls)) = (field.nullable, column.nulls())
        && let Some(row) = first(nulls, false)
    {
        return Err(Error::corrupt("a null in a column that is not nullable").at("row", row));
    }
    if field.dtype == DType::Nested {
        return cast(column, field_to_arrow(field)?.data_type());
    }
    if field.shape.is_scalar() {
        return cast(column, &element_to_arrow(field.dtype));
    }
    if let DataType::LargeList(item) = column.data_type() {
        return normalise_inner(&cast(column, &DataType::List(item.clone()))?, field);
    }
    match (column.data_type(), field.shape.as_fixed()) {
        (found @ DataType::Struct(_), None) if found == field_to_arrow(field)?.data_type() => Ok(column.clone()),
        (DataType::List(_), Some(_)) => list_to_tensor(column.as_list(), field),
        (DataType::FixedSizeList(..), Some(_)) => tensor_to_tensor(column.as_fixed_size_list(), field),
        (DataType::List(_), None) => {
            let list = column.as_list::<i32>();
            let values = cast(list.values(), &element_to_arrow(field.dtype))?;
            let item = Arc::new(item_field(field));
            let list = ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(list.map_err(mismatch)?))
        }
        (found, _) => Err(Error::corrupt(format!(
            "expected lists for shape {}, found {found}",
            field.shape
        ))),
    }
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    // Strict: the lenient cast turns what does not fit into a null.
    let options = CastOptions {
        safe: false,
        ..Default::default()
    };
    cast_with_options(column, to, &options).map_err(mismatch)
}

fn mismatch(error: arrow_schema::ArrowError) -> Error {
    Error::corrupt("the column does not fit its field").with_source(error)
}

/// The first position whose validity is `valid`.
fn first(nulls: &NullBuffer, valid: bool) -> Option<usize> {
    nulls.iter().position(|own| own == valid)
}

fn list_to_tensor(list: &ListArray, field: &Field) -> Result<ArrayRef> {
    let length = element_count(field)?;
    let offsets = list.value_offsets();
    for row in 0..list.len() {
        let found = (offsets[row + 1] - offsets[row]) as usize;
        if found != length && list.is_valid(row) {
            return Err(Error::corrupt(format!(
                "a list of {found} elements: expected {length} for shape {}",
                field.shape
            ))
            .at("row", row));
        }
    }
    let (first_offset, end) = (offsets[0] as usize, offsets[list.len()] as usize);
    let values = if list.null_count() == 0 {
        list.values().slice(first_offset, end - first_offset)
    } else if list.values().is_empty() {
        return Ok(arrow_array::new_null_array(
            field_to_arrow(field)?.data_type(),
            list.len(),
        ));
    } else {
        // A null row of a fixed-size list has elements too; any will do.
        let position = |row: usize| {
            (0..length).map(move |i| {
                if list.is_valid(row) {
                    offsets[row] as u32 + i as u32
                } else {
                    0
                }
            })
        };
        let positions = UInt32Array::from_iter_values((0..list.len()).flat_map(position));
        arrow_select::take::take(list.values(), &positions, None).map_err(mismatch)?
    };
    dense(values, list.nulls().cloned(), list.len(), field)
}

fn tensor_to_tensor(list: &FixedSizeListArray, field: &Field) -> Result<ArrayRef> {
    let length = element_count(field)?;
    // A list of lists holds the same elements in the same order as one flat list.
    let (mut values, mut per_row) = (list.values().clone(), list.value_length() as usize);
    while let DataType::FixedSizeList(_, inner) = values.data_type() {
        per_row *= *inner as usize;
        values = values.as_fixed_size_list().values().clone();
    }
    if per_row != length {
        return Err(Error::corrupt(format!(
            "lists of {per_row} elements: expected {length} for shape {}",
            field.shape
        )));
    }
    dense(values, list.nulls().cloned(), list.len(), field)
}

fn dense(values: ArrayRef, nulls: Option<NullBuffer>, rows: usize, field: &Field) -> Result<ArrayRef> {
    let values = cast(&values, &element_to_arrow(field.dtype))?;
    let length = element_count(field)?;
    if let Some(own) = values.nulls()
        && let Some(at) =
            (0..values.len()).find(|i| own.is_null(*i) && nulls.as_ref().is_none_or(|n| n.is_valid(*i / length)))
    {
        return Err(Error::unsupported(format!("element {} of a tensor is null", at % length)).at("row", at / length));
    }
    let values = without_nulls(&values)?;
    let item = Arc::new(item_field(field));
    let length = i32::try_from(length).map_err(|_| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let list = FixedSizeListArray::try_new_with_length(item, length, values, nulls, rows);
    Ok(Arc::new(list.map_err(mismatch)?))
}

/// The same values without a validity mask.
fn without_nulls(values: &ArrayRef) -> Result<ArrayRef> {
    if values.nulls().is_none() {
        return Ok(values.clone());
    }
    let data = values.to_data().into_builder().nulls(None);
    Ok(arrow_array::make_array(data.build().map_err(mismatch)?))
}

fn element_count(field: &Field) -> Result<usize> {
    let count = field.shape.element_count();
    count.ok_or_else(|| Error::internal(format!("shape {} has no fixed size", field.shape)))
}

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
        (DataType::FixedSizeList(..), Some(dims)) => (column.as_fixed_size_list().value(row), dims),
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
    let Some(width) = values.data_type().primitive_width() else {
        return Err(Error::internal(format!("{} has no fixed width", values.data_type())));
    };
    let data = values.to_data();
    Ok(data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width))
}

fn scalar_at(column: &dyn Array, dtype: DType, row: usize) -> Result<Value> {
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
            elements_from_bytes(field.dtype, bytes)?
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
            Value::Null => (vec![0; field.shape.0.len()], Value::List(Vec::new())),
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
    let column = elements_from_bytes(tensor.dtype(), tensor.data().to_vec())?;
    (0..column.len())
        .map(|i| scalar_at(&column, tensor.dtype(), i))
        .collect()
}

/// A column without nulls over little-endian bytes.
pub fn elements_from_bytes(dtype: DType, bytes: Vec<u8>) -> Result<ArrayRef> {
    fn primitive<T: ArrowPrimitiveType>(bytes: Vec<u8>) -> ArrayRef {
        let width = size_of::<T::Native>();
        let rows = bytes.len() / width;
        // Arrow's own allocations are aligned for every type; a Vec<u8> is not.
        let buffer = Buffer::from_slice_ref(&bytes[..]);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(buffer, 0, rows), None))
    }
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

#[cfg(test)]
mod tests;
