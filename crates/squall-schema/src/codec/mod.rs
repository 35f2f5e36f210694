//! Values that are encoded in binary cells: npy, npz, png, jpeg.
//!
//! A codec belongs to a [`Field`]. [`decode_column`] turns a column of encoded cells into the field's canonical
//! column; cells of fixed shape are decoded straight into the column's one buffer.

mod image;
mod npy;
mod npz;
mod spark;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeListArray};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::arrow::item_field;
use crate::columns::{column_from_values, elements_from_bytes};
use crate::{DType, Error, Field, Result, Tensor, Value};

/// How a value is encoded in a binary cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// `numpy.save`: Petastorm's `NdarrayCodec`.
    Ndarray,
    /// `numpy.savez_compressed` with one array `arr`: Petastorm's `CompressedNdarrayCodec`.
    CompressedNdarray,
    /// A png image: Petastorm's `CompressedImageCodec('png')`.
    Png,
    /// A jpeg image: Petastorm's `CompressedImageCodec('jpeg')`.
    Jpeg,
    /// Spark ML's `VectorUDT`: a struct of type, size, indices and values, dense or sparse.
    SparkVector,
    /// One that is not known here. Its column can be listed, and read by nobody.
    Unknown(String),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ndarray => "npy",
            Self::CompressedNdarray => "npz",
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::SparkVector => "spark-vector",
            Self::Unknown(name) => name,
        })
    }
}

impl FromStr for Codec {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text {
            "npy" => Self::Ndarray,
            "npz" => Self::CompressedNdarray,
            "png" => Self::Png,
            "jpeg" => Self::Jpeg,
            "spark-vector" => Self::SparkVector,
            other => Self::Unknown(other.to_owned()),
        })
    }
}

impl Serialize for Codec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Codec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

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
    fn decode(&mut self, cell: &[u8]) -> Result<Value> {
        let value = match &self.field.codec {
            Some(Codec::Ndarray) => self.npy.read(cell)?,
            Some(Codec::CompressedNdarray) => {
                let npy = npz::array(cell, |head| self.announced(head, cell.len()))?;
                self.npy.read(&npy)?
            }
            Some(Codec::Png) => Value::Tensor(image::png(cell)?),
            Some(Codec::Jpeg) => Value::Tensor(image::jpeg(cell)?),
            Some(Codec::SparkVector) => return Err(Error::internal("a vector is no binary cell")),
            Some(Codec::Unknown(name)) => return Err(Error::unsupported(format!("the codec {name:?} is not known"))),
            None => return Err(Error::internal("a field without a codec is decoded")),
        };
        match &value {
            Value::Tensor(tensor) => self.check(tensor.dtype(), tensor.shape())?,
            // An array of text has no numbers, not even where it has no elements.
            other if self.field.dtype.item_size().is_some() => {
                let found = other.kind();
                return Err(Error::corrupt(format!("expected {}, found {found}", self.field)));
            }
            _ => {}
        }
        Ok(value)
    }

    /// The size of the npy array that begins with `head`, if the field can hold it. It is inflated only then.
    fn announced(&mut self, head: &[u8], cell: usize) -> Result<usize> {
        let array = self.npy.announced(head)?;
        self.check(array.dtype.unwrap_or(self.field.dtype), &array.shape)?;
        let is_free = array.dtype.is_none() || self.field.shape.as_fixed().is_none();
        if is_free && array.held > FREE_SIZE && array.held / FREE_RATIO > cell {
            return Err(Error::corrupt(format!(
                "an array of {} bytes, compressed to {cell}: expected at most {FREE_SIZE} where the field does not tell",
                array.held
            )));
        }
        Ok(array.size)
    }

    fn check(&self, dtype: DType, shape: &[usize]) -> Result<()> {
        if dtype != self.field.dtype || !self.field.shape.accepts(shape) {
            return Err(Error::corrupt(format!(
                "expected {}, found {dtype}{shape:?}",
                self.field
            )));
        }
        Ok(())
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
    let size = field.dtype.item_size().zip(field.shape.element_count());
    let size = size.and_then(|(item, count)| item.checked_mul(count));
    let decoded = match size {
        Some(size) if !field.shape.is_scalar() => decode_dense(&mut decoder, cells, size),
        _ => decode_values(&mut decoder, cells),
    };
    decoded.map_err(|error| error.at("column", &field.name))
}

fn decode_dense(decoder: &mut Decoder<'_>, cells: &BinaryArray, size: usize) -> Result<ArrayRef> {
    let field = decoder.field;
    let too_large = || {
        let rows = cells.len();
        Error::unsupported(format!("{rows} values of {field} take more memory than there is"))
    };
    let total = size.checked_mul(cells.len()).ok_or_else(too_large)?;
    let mut bytes = Vec::new();
    for row in 0..cells.len() {
        // The shape is a claim of the metadata until a cell has it.
        if cells.is_null(row) {
            bytes.try_reserve(size).map_err(|_| too_large())?;
            bytes.resize(bytes.len() + size, 0);
            continue;
        }
        match decoder.decode(cells.value(row)).map_err(|error| error.at("row", row))? {
            Value::Tensor(tensor) => {
                bytes.try_reserve(total - bytes.len()).map_err(|_| too_large())?;
                bytes.extend_from_slice(tensor.data());
            }
            other => {
                return Err(Error::corrupt(format!("expected {field}, found {}", other.kind())).at("row", row));
            }
        }
    }
    let length = field.shape.element_count().and_then(|count| i32::try_from(count).ok());
    let length = length.ok_or_else(|| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let elements = elements_from_bytes(field.dtype, bytes)?;
    let item = Arc::new(item_field(field));
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

/// A tensor of a dtype, in C order, from elements in the order and byte order of a file.
fn tensor(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Tensor> {
    // Arrow's own allocations are aligned for every type; a Vec<u8> is not.
    Tensor::new(dtype, shape, arrow_buffer::Buffer::from_slice_ref(&bytes[..]))
}
