//! From encoded cells to canonical columns.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

use super::room::{CellMemory, FreshMemory, Room};
use super::units::in_unit;
use super::{Codec, JPEG_QUALITY, image, npy, npz, spark};
use crate::arrow::item_field;
use crate::columns::{column_from_values, elements_from_buffer, value_at};
use crate::{DType, Error, Field, Result, Value};

/// Most bytes of the values of a column whose sizes the field does not tell, where its cells are [`FREE_RATIO`] times smaller.
pub(super) const FREE_SIZE: usize = 48 << 20;
/// What shrinks so far is all but of one value.
pub(super) const FREE_RATIO: usize = 200;

/// What a png image begins with, and a jpeg image.
const PNG_START: &[u8] = b"\x89PNG";
const JPEG_START: &[u8] = b"\xff\xd8";

/// A decoder of the cells of one field. It keeps what cells can share: the last npy header, what inflates png images.
struct Decoder<'a> {
    field: &'a Field,
    npy: npy::Reader,
    png: image::Scratch,
    /// Bytes that values which were compressed may still take.
    most: usize,
}

impl Decoder<'_> {
    /// Appends the elements of a cell to the buffer of a batch.
    fn decode_into(&mut self, cell: &[u8], buffer: &mut Room) -> Result<()> {
        match codec_of(self.field, cell) {
            Some(Codec::Ndarray) => self.array_into(cell, buffer),
            Some(Codec::CompressedNdarray) => {
                let array = self.inflate(cell)?;
                self.array_into(&array, buffer)
            }
            Some(Codec::Png) => {
                let accept = |dtype: DType, shape: &[usize]| check(self.field, dtype, shape);
                image::png(cell, buffer, &mut self.png, &accept).map(drop)
            }
            Some(Codec::Jpeg { .. }) => image::jpeg(cell, buffer, &|dtype, shape| self.check(dtype, shape)).map(drop),
            _ => Err(self.unknown()),
        }
    }

    fn array_into(&mut self, cell: &[u8], buffer: &mut Room) -> Result<()> {
        let field = self.field;
        if let Some(array) = self.npy.dense(cell)? {
            check(field, array.dtype, array.shape)?;
            return append(array.data, buffer);
        }
        match self.array(cell)? {
            Value::Tensor(tensor) => append(tensor.data(), buffer),
            other => Err(Error::corrupt(format!("expected {field}, found {}", other.kind()))),
        }
    }

    fn decode(&mut self, cell: &[u8]) -> Result<Value> {
        let accept = |dtype: DType, shape: &[usize]| {
            self.check(dtype, shape)?;
            let size = shape
                .iter()
                .product::<usize>()
                .saturating_mul(dtype.item_size().unwrap_or(1));
            self.afford(size, cell.len())
        };
        let value = match codec_of(self.field, cell) {
            Some(Codec::Ndarray) => self.array(cell)?,
            Some(Codec::CompressedNdarray) => {
                let array = self.inflate(cell)?;
                self.array(&array)?
            }
            Some(Codec::Png) => Value::Tensor(image::png_tensor(cell, &accept)?),
            Some(Codec::Jpeg { .. }) => Value::Tensor(image::jpeg_tensor(cell, &accept)?),
            _ => return Err(self.unknown()),
        };
        match value {
            Value::Tensor(tensor) => {
                if self.field.codec != Some(Codec::Ndarray) {
                    self.most = self.most.saturating_sub(tensor.data().len());
                }
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
        self.afford(array.held, cell)?;
        Ok(array.size)
    }

    /// Refuses a value that is far larger than its cell, or than what is left for all of them, where the field does not tell
    /// the size.
    fn afford(&self, held: usize, cell: usize) -> Result<()> {
        let most = match self.most {
            usize::MAX => usize::MAX,
            left => left.min(FREE_SIZE.max(FREE_RATIO.saturating_mul(cell))),
        };
        if held <= most {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "a value of {held} bytes, compressed to {cell}: expected at most {most} where the field does not tell"
        )))
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

fn append(bytes: &[u8], buffer: &mut Room) -> Result<()> {
    let none = || Error::unsupported(format!("a value of {} bytes: more than there is memory", bytes.len()));
    buffer.next(bytes.len()).ok_or_else(none)?.copy_from_slice(bytes);
    Ok(())
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
                let most = FREE_SIZE.max(FREE_RATIO.saturating_mul(cell.len()));
                match array.held > most {
                    true => Err(Error::corrupt(format!(
                        "an array of {} bytes: expected at most {most}",
                        array.held
                    ))),
                    false => Ok(array.size),
                }
            })?;
            npy.raw(&array)
        }
        other => Err(Error::internal(format!("a cell of {other} is no array of numpy's"))),
    }
}

/// The codec of a cell. An image is what it begins as, whatever the field says: OpenCV looks no further.
pub(super) fn codec_of<'a>(field: &'a Field, cell: &[u8]) -> Option<&'a Codec> {
    match &field.codec {
        Some(Codec::Png) if cell.starts_with(JPEG_START) => Some(&Codec::Jpeg { quality: JPEG_QUALITY }),
        Some(Codec::Jpeg { .. }) if cell.starts_with(PNG_START) => Some(&Codec::Png),
        own => own.as_ref(),
    }
}

/// The canonical column of a field from its stored one. An error names the row, counted in the column.
pub fn decode_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let stored = || Error::internal(format!("{} is not what {field} is stored as", column.data_type()));
    if field.codec == Some(Codec::SparkVector) {
        let vectors = column.as_struct_opt().ok_or_else(stored)?;
        return spark::vectors(vectors, field).map_err(|error| error.at("column", &field.name));
    }
    let cells: Vec<_> = match column.data_type() {
        DataType::Binary => column.as_binary::<i32>().iter().collect(),
        DataType::LargeBinary => column.as_binary::<i64>().iter().collect(),
        DataType::BinaryView => column.as_binary_view().iter().collect(),
        _ => return Err(stored()),
    };
    decode_cells(&cells, field)
}

/// The canonical column of a field from its cells, wherever they lie; `None` is a null. Cells that point into the pages of a
/// file are copied once, into the column. An error names the row, counted in the cells.
pub fn decode_cells(cells: &[Option<&[u8]>], field: &Field) -> Result<ArrayRef> {
    decode_cells_in(cells, field, &FreshMemory)
}

/// [`decode_cells`]; a column of dense tensors takes its memory from `memory`.
pub fn decode_cells_in(cells: &[Option<&[u8]>], field: &Field, memory: &dyn CellMemory) -> Result<ArrayRef> {
    let is_told = field.shape.as_fixed().is_some() && field.dtype.item_size().is_some();
    let mut decoder = Decoder {
        field,
        npy: npy::Reader::default(),
        png: image::Scratch::default(),
        most: match is_told {
            true => usize::MAX,
            false => {
                let size = cells
                    .iter()
                    .flatten()
                    .fold(0usize, |size, cell| size.saturating_add(cell.len()));
                FREE_SIZE.max(FREE_RATIO.saturating_mul(size))
            }
        },
    };
    let size = field.dtype.item_size().zip(field.shape.element_count());
    let size = size.and_then(|(item, count)| item.checked_mul(count));
    let decoded = match size {
        Some(size) if !field.shape.is_scalar() => decode_dense(&mut decoder, cells, size, memory),
        _ => decode_values(&mut decoder, cells),
    };
    decoded.map_err(|error| error.at("column", &field.name))
}

/// Tensors of one size, decoded into the one buffer that holds them all.
fn decode_dense(
    decoder: &mut Decoder<'_>,
    cells: &[Option<&[u8]>],
    size: usize,
    memory: &dyn CellMemory,
) -> Result<ArrayRef> {
    let field = decoder.field;
    let too_large = || {
        let rows = cells.len();
        Error::unsupported(format!("{rows} values of {field} take more memory than there is"))
    };
    let all = size.checked_mul(cells.len()).ok_or_else(too_large)?;
    let mut bytes = Room::new(memory.take(all));
    let mut is_reserved = false;
    for (row, cell) in cells.iter().enumerate() {
        let Some(cell) = cell else {
            bytes.next(size).ok_or_else(too_large)?.fill(0);
            continue;
        };
        let decoded = decoder.decode_into(cell, &mut bytes);
        decoded.map_err(|error| error.at("row", row))?;
        // The shape is a claim of the metadata until a cell has it.
        if !is_reserved {
            bytes.reserve(size * (cells.len() - row - 1)).ok_or_else(too_large)?;
            is_reserved = true;
        }
    }
    let length = field.shape.element_count().and_then(|count| i32::try_from(count).ok());
    let length = length.ok_or_else(|| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let elements = elements_from_buffer(field.dtype, bytes.finish(memory))?;
    let item = Arc::new(item_field(field));
    let list = FixedSizeListArray::try_new_with_length(item, length, elements, validity(cells), cells.len());
    Ok(Arc::new(list.map_err(|error| {
        Error::internal("cells do not make a column").with_source(error)
    })?))
}

/// Which cells are there, if one is not.
pub(super) fn validity(cells: &[Option<&[u8]>]) -> Option<NullBuffer> {
    let is_null = cells.iter().any(Option::is_none);
    is_null.then(|| cells.iter().map(Option::is_some).collect())
}

fn decode_values(decoder: &mut Decoder<'_>, cells: &[Option<&[u8]>]) -> Result<ArrayRef> {
    let value = |(row, cell): (usize, &Option<&[u8]>)| match cell {
        None => Ok(Value::Null),
        Some(cell) => decoder.decode(cell).map_err(|error| error.at("row", row)),
    };
    let values = cells.iter().enumerate().map(value).collect::<Result<Vec<_>>>()?;
    column_from_values(decoder.field, &values.iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
