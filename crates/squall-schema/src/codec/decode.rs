//! From encoded cells to canonical columns.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeListArray};
use arrow_buffer::MutableBuffer;

use super::units::in_unit;
use super::{Codec, image, npy, npz, spark};
use crate::arrow::item_field;
use crate::columns::{column_from_values, elements_from_buffer, value_at};
use crate::{DType, Error, Field, Result, Value};

/// Most bytes of a value whose size the field does not tell, where its cell is [`FREE_RATIO`] times smaller.
const FREE_SIZE: usize = 256 << 20;
/// Arrays that shrink so far are mostly of one value.
const FREE_RATIO: usize = 100;

/// A decoder of the cells of one field. It remembers the last npy header: the cells of a column mostly share one.
struct Decoder<'a> {
    field: &'a Field,
    npy: npy::Reader,
}

impl Decoder<'_> {
    /// Appends the elements of a cell to the buffer of a batch.
    fn decode_into(&mut self, cell: &[u8], buffer: &mut MutableBuffer) -> Result<()> {
        let dims = match &self.field.codec {
            Some(Codec::Ndarray) => return self.array_into(cell, buffer),
            Some(Codec::CompressedNdarray) => {
                let array = self.inflate(cell)?;
                return self.array_into(&array, buffer);
            }
            Some(Codec::Png) => image::png(cell, buffer)?,
            Some(Codec::Jpeg { .. }) => (DType::UInt8, image::jpeg(cell, buffer)?),
            _ => return Err(self.unknown()),
        };
        self.check(dims.0, &dims.1)
    }

    fn array_into(&mut self, cell: &[u8], buffer: &mut MutableBuffer) -> Result<()> {
        let field = self.field;
        if let Some(array) = self.npy.dense(cell)? {
            check(field, array.dtype, array.shape)?;
            buffer.extend_from_slice(array.data);
            return Ok(());
        }
        match self.array(cell)? {
            Value::Tensor(tensor) => {
                buffer.extend_from_slice(tensor.data());
                Ok(())
            }
            other => Err(Error::corrupt(format!("expected {field}, found {}", other.kind()))),
        }
    }

    fn decode(&mut self, cell: &[u8]) -> Result<Value> {
        let value = match &self.field.codec {
            Some(Codec::Ndarray) => self.array(cell)?,
            Some(Codec::CompressedNdarray) => {
                let array = self.inflate(cell)?;
                self.array(&array)?
            }
            Some(Codec::Png) => Value::Tensor(image::png_tensor(cell)?),
            Some(Codec::Jpeg { .. }) => Value::Tensor(image::jpeg_tensor(cell)?),
            _ => return Err(self.unknown()),
        };
        match value {
            Value::Tensor(tensor) => {
                self.check(tensor.dtype(), tensor.shape())?;
                if self.field.shape.is_scalar() {
                    let element = elements_from_buffer(tensor.dtype(), tensor.data().clone())?;
                    return value_at(&element, self.field, 0);
                }
                Ok(Value::Tensor(tensor))
            }
            // An array of text has no numbers, not even where it has no elements.
            other if self.field.dtype.item_size().is_some() => {
                let found = other.kind();
                Err(Error::corrupt(format!("expected {}, found {found}", self.field)))
            }
            other => in_unit(other, self.field.dtype),
        }
    }

    /// The array in an npy cell. One that the field does not hold is refused before its values are made.
    fn array(&mut self, cell: &[u8]) -> Result<Value> {
        let array = self.npy.announced(cell)?;
        self.check(array.dtype.unwrap_or(self.field.dtype), &array.shape)?;
        self.npy.read(cell)
    }

    /// The npy array in an npz cell. It is inflated only if the field can hold it.
    fn inflate(&mut self, cell: &[u8]) -> Result<Vec<u8>> {
        npz::array(cell, |head| self.announced(head, cell.len()))
    }

    /// The size of the npy array that begins with `head`.
    fn announced(&mut self, head: &[u8], cell: usize) -> Result<usize> {
        let array = self.npy.announced(head)?;
        self.check(array.dtype.unwrap_or(self.field.dtype), &array.shape)?;
        let is_free = array.dtype.is_none() || self.field.shape.as_fixed().is_none();
        if is_free {
            check_free(array.held, cell)?;
        }
        Ok(array.size)
    }

    fn check(&self, dtype: DType, shape: &[usize]) -> Result<()> {
        check(self.field, dtype, shape)
    }

    fn unknown(&self) -> Error {
        match &self.field.codec {
            Some(Codec::Unknown(name)) => Error::unsupported(format!("the codec {name:?} is not known")),
            Some(codec) => Error::internal(format!("a {codec} is no binary cell")),
            None => Error::internal("a field without a codec is decoded"),
        }
    }
}

fn check(field: &Field, dtype: DType, shape: &[usize]) -> Result<()> {
    if dtype == field.dtype && field.shape.accepts(shape) {
        return Ok(());
    }
    Err(Error::corrupt(format!("expected {field}, found {dtype}{shape:?}")))
}

/// The dtype of the elements of an npy or npz cell.
pub fn cell_dtype(cell: &[u8], codec: &Codec) -> Result<DType> {
    match codec {
        Codec::Ndarray => npy::dtype(cell),
        Codec::CompressedNdarray => npy::dtype(&npz::head(cell)?),
        other => Err(Error::internal(format!("a cell of {other} is no array of numpy's"))),
    }
}

/// An array as numpy holds it in memory: text and bytes padded to one width, which a [`Value`] does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawArray {
    /// numpy's descriptor of an element, little-endian: `<f4`, `<U11`, `<M8[us]`.
    pub descr: String,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements in C order, little-endian.
    pub bytes: Vec<u8>,
}

/// The array in an npy or npz cell of a field, without the checks against the field.
pub fn raw_array(cell: &[u8], codec: &Codec) -> Result<RawArray> {
    let mut npy = npy::Reader::default();
    match codec {
        Codec::Ndarray => npy.raw(cell),
        Codec::CompressedNdarray => {
            let array = npz::array(cell, |head| {
                let array = npy.announced(head)?;
                check_free(array.held, cell.len()).map(|()| array.size)
            })?;
            npy.raw(&array)
        }
        other => Err(Error::internal(format!("a cell of {other} is no array of numpy's"))),
    }
}

/// Refuses an array that is far larger than its cell.
fn check_free(held: usize, cell: usize) -> Result<()> {
    if held > FREE_SIZE && held / FREE_RATIO > cell {
        return Err(Error::corrupt(format!(
            "an array of {held} bytes, compressed to {cell}: expected at most {FREE_SIZE} where the field does not tell"
        )));
    }
    Ok(())
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
    let size = field.dtype.item_size().zip(field.shape.element_count());
    let size = size.and_then(|(item, count)| item.checked_mul(count));
    let decoded = match size {
        Some(size) if !field.shape.is_scalar() => decode_dense(&mut decoder, cells, size),
        _ => decode_values(&mut decoder, cells),
    };
    decoded.map_err(|error| error.at("column", &field.name))
}

/// Tensors of one size, decoded into the one buffer that holds them all.
fn decode_dense(decoder: &mut Decoder<'_>, cells: &BinaryArray, size: usize) -> Result<ArrayRef> {
    let field = decoder.field;
    let too_large = || {
        let rows = cells.len();
        Error::unsupported(format!("{rows} values of {field} take more memory than there is"))
    };
    size.checked_mul(cells.len()).ok_or_else(too_large)?;
    let mut bytes = MutableBuffer::new(0);
    for row in 0..cells.len() {
        if cells.is_null(row) {
            reserve(&mut bytes, size).ok_or_else(too_large)?;
            bytes.resize(bytes.len() + size, 0);
            continue;
        }
        let decoded = decoder.decode_into(cells.value(row), &mut bytes);
        decoded.map_err(|error| error.at("row", row))?;
        // The shape is a claim of the metadata until a cell has it.
        reserve(&mut bytes, size * (cells.len() - row - 1)).ok_or_else(too_large)?;
    }
    let length = field.shape.element_count().and_then(|count| i32::try_from(count).ok());
    let length = length.ok_or_else(|| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let elements = elements_from_buffer(field.dtype, bytes.into())?;
    let item = Arc::new(item_field(field));
    let list = FixedSizeListArray::try_new_with_length(item, length, elements, cells.nulls().cloned(), cells.len());
    Ok(Arc::new(list.map_err(|error| {
        Error::internal("cells do not make a column").with_source(error)
    })?))
}

/// Makes room for so many bytes more; `None` if there is none. Arrow's buffer itself would end the process.
fn reserve(bytes: &mut MutableBuffer, more: usize) -> Option<()> {
    let total = bytes.len().checked_add(more)?;
    if total > bytes.capacity() {
        Vec::<u8>::new().try_reserve_exact(total).ok()?;
        bytes.reserve(more);
    }
    Some(())
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
