//! Values that are encoded in binary cells: npy, npz, png, jpeg.
//!
//! A codec belongs to a [`Field`]. [`decode_column`] turns a column of encoded cells into the field's canonical
//! column; cells of fixed shape are decoded straight into the column's one buffer.

// Its encoders are for the writers of cells; so far cells are only read.
#[allow(dead_code, unused_imports)]
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
use crate::{Error, Field, Result, Tensor, Value};

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
            Some(Codec::Jpeg) => Value::Tensor(image::jpeg(cell)?),
            Some(Codec::SparkVector) => return Err(Error::internal("a vector is no binary cell")),
            Some(Codec::Unknown(name)) => return Err(Error::unsupported(format!("the codec {name:?} is not known"))),
            None => return Err(Error::internal("a field without a codec is decoded")),
        };
        self.check(&value)?;
        Ok(value)
    }

    fn check(&self, value: &Value) -> Result<()> {
        if let Value::Tensor(tensor) = value
            && (tensor.dtype() != self.field.dtype || !self.field.shape.accepts(tensor.shape()))
        {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
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
        match decoder.decode(cells.value(row)).map_err(|error| error.at("row", row))? {
            Value::Tensor(tensor) => bytes.extend_from_slice(tensor.data()),
            other => {
                return Err(
                    Error::corrupt(format!("expected {}, found {}", decoder.field, other.kind())).at("row", row),
                );
            }
        }
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

/// A tensor of a dtype, in C order, from elements in the order and byte order of a file.
fn tensor(dtype: crate::DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Tensor> {
    // Arrow's own allocations are aligned for every type; a Vec<u8> is not.
    Tensor::new(dtype, shape, arrow_buffer::Buffer::from_slice_ref(&bytes[..]))
}
