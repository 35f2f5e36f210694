//! From encoded cells to canonical columns.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeListArray};

use super::{Codec, image, npy, npz, spark};
use crate::arrow::item_field;
use crate::columns::{column_from_values, elements_from_bytes, value_at};
use crate::{DType, Error, Field, Result, TimeUnit, Value};

/// A decoder of the cells of one field. It remembers the last npy header: the cells of a column mostly share one.
struct Decoder<'a> {
    field: &'a Field,
    npy: npy::Reader,
}

impl Decoder<'_> {
    fn decode(&mut self, cell: &[u8]) -> Result<Value> {
        let value = match &self.field.codec {
            Some(Codec::Ndarray) => self.npy.read(cell)?,
            Some(Codec::CompressedNdarray) => self.npy.read(&npz::array(cell)?)?,
            Some(Codec::Png) => Value::Tensor(image::png(cell)?),
            Some(Codec::Jpeg { .. }) => Value::Tensor(image::jpeg(cell)?),
            Some(Codec::SparkVector) => return Err(Error::internal("a vector is no binary cell")),
            Some(Codec::Unknown(name)) => return Err(Error::unsupported(format!("the codec {name:?} is not known"))),
            None => return Err(Error::internal("a field without a codec is decoded")),
        };
        match value {
            Value::Tensor(tensor) => {
                check(self.field, tensor.dtype(), tensor.shape())?;
                if self.field.shape.is_scalar() {
                    let element = elements_from_bytes(tensor.dtype(), tensor.data().to_vec())?;
                    return value_at(&element, self.field, 0);
                }
                Ok(Value::Tensor(tensor))
            }
            other => in_unit(other, self.field.dtype),
        }
    }

    /// Appends the elements of a cell to the buffer of a batch.
    fn decode_into(&mut self, cell: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
        if let Some(Codec::Ndarray) = self.field.codec
            && let Some(array) = self.npy.dense(cell)?
        {
            check(self.field, array.dtype, array.shape)?;
            buffer.extend_from_slice(array.data);
            return Ok(());
        }
        match self.decode(cell)? {
            Value::Tensor(tensor) => {
                buffer.extend_from_slice(tensor.data());
                Ok(())
            }
            other => Err(Error::corrupt(format!(
                "expected {}, found {}",
                self.field,
                other.kind()
            ))),
        }
    }
}

fn check(field: &Field, dtype: DType, shape: &[usize]) -> Result<()> {
    if dtype == field.dtype && field.shape.accepts(shape) {
        return Ok(());
    }
    Err(Error::corrupt(format!("expected {field}, found {dtype}{shape:?}")))
}

/// Times in the unit of the field: an array brings its own, and Petastorm's schema does not tell it.
fn in_unit(value: Value, dtype: DType) -> Result<Value> {
    let nanoseconds = |unit| match unit {
        TimeUnit::Second => 1_000_000_000i64,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    Ok(match (value, dtype) {
        (Value::List(items), dtype) => {
            let items = items.into_iter().map(|item| in_unit(item, dtype));
            Value::List(items.collect::<Result<_>>()?)
        }
        (Value::Date(days), DType::Datetime { unit, utc }) => {
            let per_day = 86_400 * (1_000_000_000 / nanoseconds(unit));
            let value = i64::from(days).checked_mul(per_day);
            let value = value.ok_or_else(|| Error::unsupported(format!("day {days} does not fit {dtype}")))?;
            Value::Datetime { value, unit, utc }
        }
        (Value::Datetime { value, unit: own, .. }, DType::Datetime { unit, utc }) => {
            let (from, to) = (nanoseconds(own), nanoseconds(unit));
            let scaled = match from >= to {
                true => value.checked_mul(from / to),
                false => (value % (to / from) == 0).then(|| value / (to / from)),
            };
            let unfit = || {
                let own = DType::Datetime { unit: own, utc: false };
                Error::unsupported(format!("a {own} of {value} that does not fit {dtype}"))
            };
            Value::Datetime {
                value: scaled.ok_or_else(unfit)?,
                unit,
                utc,
            }
        }
        (other, _) => other,
    })
}

/// The dtype of the elements of an npy or npz cell.
pub fn cell_dtype(cell: &[u8], codec: &Codec) -> Result<DType> {
    match codec {
        Codec::Ndarray => npy::dtype(cell),
        Codec::CompressedNdarray => npy::dtype(&npz::array(cell)?),
        other => Err(Error::internal(format!("a cell of {other} is no array of numpy's"))),
    }
}

/// The canonical column of a field from its stored one. An error names the row, counted in the column.
pub fn decode_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let stored = || Error::internal(format!("{} is not what {field} is stored as", column.data_type()));
    if field.codec == Some(Codec::SparkVector) {
        let vectors = column.as_struct_opt().ok_or_else(stored)?;
        return spark::vectors(vectors, field).map_err(|error| error.at("column", &field.name));
    }
    let cells = column.as_binary_opt::<i32>().ok_or_else(stored)?;
    let mut decoder = Decoder {
        field,
        npy: npy::Reader::default(),
    };
    let decoded = match (field.shape.element_count(), field.dtype.item_size()) {
        (Some(count), Some(item)) if !field.shape.is_scalar() => decode_dense(&mut decoder, cells, count * item),
        _ => decode_values(&mut decoder, cells),
    };
    decoded.map_err(|error| error.at("column", &field.name))
}

fn decode_dense(decoder: &mut Decoder<'_>, cells: &BinaryArray, size: usize) -> Result<ArrayRef> {
    let mut bytes = Vec::with_capacity(size * cells.len());
    for row in 0..cells.len() {
        if cells.is_null(row) {
            bytes.resize(bytes.len() + size, 0);
            continue;
        }
        let decoded = decoder.decode_into(cells.value(row), &mut bytes);
        decoded.map_err(|error| error.at("row", row))?;
    }
    let length = decoder
        .field
        .shape
        .element_count()
        .and_then(|count| i32::try_from(count).ok());
    let length = length.ok_or_else(|| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let elements = elements_from_bytes(decoder.field.dtype, bytes)?;
    let item = Arc::new(item_field(decoder.field));
    let list = FixedSizeListArray::try_new_with_length(item, length, elements, cells.nulls().cloned(), cells.len());
    Ok(Arc::new(list.map_err(|error| {
        Error::internal("cells do not make a column").with_source(error)
    })?))
}

fn decode_values(decoder: &mut Decoder<'_>, cells: &BinaryArray) -> Result<ArrayRef> {
    let value = |row: usize| {
        if cells.is_null(row) {
            Ok(Value::Null)
        } else {
            decoder.decode(cells.value(row)).map_err(|error| error.at("row", row))
        }
    };
    let values = (0..cells.len()).map(value).collect::<Result<Vec<_>>>()?;
    column_from_values(decoder.field, &values.iter().collect::<Vec<_>>())
}
