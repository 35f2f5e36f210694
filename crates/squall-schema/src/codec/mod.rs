//! Values that are encoded in binary cells: npy, npz, png, jpeg.
//!
//! A codec belongs to a [`Field`](crate::Field). [`decode_column`] turns a column of encoded cells into the field's canonical
//! column; cells of fixed shape are decoded straight into the column's one buffer. [`decode_cells`] does the same for cells that
//! lie anywhere. [`encode_column`] and [`encode_value`] are the way back, with the checks of Petastorm.

mod inflate;

mod image;
mod npy;
mod npz;
mod spark;

mod units;

mod room;

mod decode;
mod encode;

pub use decode::{RawArray, cell_dtype, decode_cells, decode_cells_in, decode_column, raw_array};
pub use encode::{encode_column, encode_value};
pub use image::{ImageView, Region, decode_views, view_field};
pub(crate) use npy::scalar as npy_scalar;
pub use room::{CellMemory, FreshMemory};

use std::fmt;
use std::str::FromStr;

use arrow_buffer::MutableBuffer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{DType, Result, Tensor};

/// Petastorm's quality of jpeg images where none is given.
pub const JPEG_QUALITY: u8 = 80;

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
    /// A jpeg image: Petastorm's `CompressedImageCodec('jpeg', quality)`.
    Jpeg {
        /// From 1 to 100, for writing.
        quality: u8,
    },
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
            Self::Jpeg { quality } if *quality != JPEG_QUALITY => return write!(f, "jpeg({quality})"),
            Self::Jpeg { .. } => "jpeg",
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
            "jpeg" => Self::Jpeg { quality: JPEG_QUALITY },
            "spark-vector" => Self::SparkVector,
            other => {
                let quality = other.strip_prefix("jpeg(").and_then(|rest| rest.strip_suffix(')'));
                match quality.and_then(|quality| quality.parse().ok()) {
                    Some(quality @ 1..=100) => Self::Jpeg { quality },
                    _ => Self::Unknown(other.to_owned()),
                }
            }
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

/// Makes room for so many bytes more; `None` if there is none. Arrow's buffer itself would end the process.
fn reserve(bytes: &mut MutableBuffer, more: usize) -> Option<()> {
    let total = bytes.len().checked_add(more)?;
    if total > bytes.capacity() {
        Vec::<u8>::new().try_reserve_exact(total).ok()?;
        bytes.reserve(more);
    }
    Some(())
}

/// A tensor of a dtype, in C order, from elements in the order and byte order of a file.
fn tensor(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Tensor> {
    // Arrow's own allocations are aligned for every type; a Vec<u8> is not.
    Tensor::new(dtype, shape, arrow_buffer::Buffer::from_slice_ref(&bytes[..]))
}
