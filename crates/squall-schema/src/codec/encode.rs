//! From values to encoded cells, with the checks of Petastorm's codecs: the dtype is the field's, and so is the shape.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{Array, ArrayRef};

use super::{Codec, image, npy, npz};
use crate::columns::value_at;
use crate::{DType, Error, Field, Result, Tensor, Value};

/// The cell of a value that is not null.
pub fn encode_value(value: &Value, field: &Field) -> Result<Vec<u8>> {
    let encoded = match &field.codec {
        Some(Codec::Ndarray) => npy::write(&array(value, field)?, field.dtype),
        Some(Codec::CompressedNdarray) => npz::write(&npy::write(&array(value, field)?, field.dtype)?),
        Some(Codec::Png) => image::encode_png(pixels(value, field)?),
        Some(Codec::Jpeg { quality }) => image::encode_jpeg(pixels(value, field)?, *quality),
        Some(Codec::SparkVector) => Err(Error::unsupported("vectors of Spark ML are read, not written")),
        Some(Codec::Unknown(name)) => Err(Error::unsupported(format!("the codec {name:?} is not known"))),
        None => Err(Error::internal("a field without a codec is encoded")),
    };
    encoded.map_err(|error| error.at("column", &field.name))
}

/// The column of cells from a canonical one. An error names the row, counted in the column.
pub fn encode_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let mut cells = BinaryBuilder::new();
    for row in 0..column.len() {
        match value_at(column, field, row)? {
            Value::Null if field.nullable => cells.append_null(),
            Value::Null => {
                let null = Error::invalid(format!("null where {field} has none"));
                return Err(null.at("row", row).at("column", &field.name));
            }
            value => {
                let cell = encode_value(&value, field).map_err(|error| error.at("row", row))?;
                cells.append_value(cell);
            }
        }
    }
    Ok(Arc::new(cells.finish()))
}

/// The value as an array of the field.
fn array(value: &Value, field: &Field) -> Result<Value> {
    let (dtype, shape) = match value {
        Value::Tensor(tensor) => (tensor.dtype(), tensor.shape().to_vec()),
        // The dtype of text, bytes and times is checked item by item.
        Value::List(_) => (field.dtype, dims(value)),
        scalar => (field.dtype, dims(scalar)),
    };
    if dtype != field.dtype || !field.shape.accepts(&shape) {
        return Err(Error::invalid(format!("expected {field}, found {dtype}{shape:?}")));
    }
    match (value, field.dtype.item_size()) {
        (Value::Tensor(_), _) | (_, None) => Ok(value.clone()),
        // Numbers that came one by one.
        (_, Some(_)) => {
            let column = crate::columns::column_from_values(&field.clone().with_codec(None), &[value])?;
            match value_at(&column, field, 0)? {
                tensor @ Value::Tensor(_) => Ok(tensor),
                scalar if field.shape.is_scalar() => zero_dimensional(&column, &scalar, field.dtype),
                other => Err(Error::invalid(format!(
                    "expected {field} without null elements, found {}",
                    other.kind()
                ))),
            }
        }
    }
}

fn zero_dimensional(column: &ArrayRef, scalar: &Value, dtype: DType) -> Result<Value> {
    if *scalar == Value::Null {
        return Err(Error::internal("a null is encoded"));
    }
    let bytes = crate::columns::element_bytes(column)?;
    Ok(Value::Tensor(Tensor::new(dtype, Vec::new(), bytes)?))
}

fn dims(value: &Value) -> Vec<usize> {
    match value {
        Value::List(items) => {
            let inner = items.first().map(dims).unwrap_or_default();
            [vec![items.len()], inner].concat()
        }
        _ => Vec::new(),
    }
}

fn pixels<'a>(value: &'a Value, field: &Field) -> Result<&'a Tensor> {
    let found = match value {
        Value::Tensor(tensor) if tensor.dtype() == field.dtype && field.shape.accepts(tensor.shape()) => {
            return Ok(tensor);
        }
        Value::Tensor(tensor) => format!("{}{:?}", tensor.dtype(), tensor.shape()),
        other => other.kind(),
    };
    Err(Error::invalid(format!("expected {field}, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_column;
    use crate::{Shape, TimeUnit};

    /// Encodes and decodes a column of these values.
    fn check(field: &Field, values: &[Value]) {
        let column =
            crate::columns::column_from_values(&field.clone().with_codec(None), &values.iter().collect::<Vec<_>>());
        let cells = encode_column(&column.expect("a column"), field).expect("cells");
        let decoded = decode_column(&cells, field).expect("a column");
        for (row, value) in values.iter().enumerate() {
            assert_eq!(
                value_at(&decoded, field, row).expect("a value"),
                *value,
                "{field} row {row}"
            );
        }
    }

    fn tensor(shape: &[usize]) -> Value {
        let n: usize = shape.iter().product();
        Value::Tensor(Tensor::from_vec(shape, (0..n).map(|i| i as f32).collect()).expect("a tensor"))
    }

    #[test]
    fn columns_survive() {
        for codec in [Codec::Ndarray, Codec::CompressedNdarray] {
            let field = |dtype, shape| {
                Field::new("x", dtype, Shape(shape))
                    .with_codec(Some(codec.clone()))
                    .with_nullable(true)
            };
            check(
                &field(DType::Float32, vec![Some(2), Some(3)]),
                &[tensor(&[2, 3]), Value::Null, tensor(&[2, 3])],
            );
            check(
                &field(DType::Float32, vec![None, Some(2)]),
                &[tensor(&[0, 2]), tensor(&[3, 2]), Value::Null],
            );
            check(&field(DType::Int64, vec![]), &[Value::Int(-7), Value::Null]);
            let words = Value::List(vec![Value::from("é"), Value::from(""), Value::from("zwölf")]);
            check(&field(DType::Str, vec![Some(3)]), &[words, Value::Null]);
            let (unit, utc) = (TimeUnit::Millisecond, false);
            let times = Value::List(vec![Value::Datetime { value: -5, unit, utc }, Value::Null]);
            check(&field(DType::Datetime { unit, utc }, vec![None]), &[times]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_as_petastorm_does() {
        let field = Field::new("x", DType::Float32, Shape::fixed(&[2])).with_codec(Some(Codec::Ndarray));
        let error = |value: Value| encode_value(&value, &field).expect_err("unfit").to_string();
        assert!(error(tensor(&[3])).contains("found float32[3]"));
        let ints = Tensor::from_vec(&[2], vec![1i32, 2]).expect("a tensor");
        assert!(error(Value::Tensor(ints)).contains("found int32[2]"));
        assert!(error(Value::from("text")).contains("expected x: float32[2]"));
        let null =
            crate::columns::column_from_values(&field.clone().with_codec(None).with_nullable(true), &[&Value::Null]);
        let error = encode_column(&null.expect("a column"), &field).expect_err("a null");
        assert_eq!((error.place("row"), error.place("column")), (Some("0"), Some("x")));
    }
}
