//! The npy format, versions 1 to 3: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Numbers and bools become a [`Tensor`](crate::Tensor); text, bytes and times become nested lists. Structs, objects,
//! timedeltas and times in months or years are refused.

mod read;
mod write;

pub(crate) use read::scalar;
pub(super) use read::{MAX_HEAD, Reader, dtype};
pub(super) use write::write;

use crate::{DType, Error, Result, TimeUnit};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Characters of a header that a message repeats.
const SHOWN: usize = 200;

/// One element of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element {
    /// A number or a bool. `swapped`: big-endian.
    Number { dtype: DType, swapped: bool },
    /// `S`: bytes, padded with zeros to this width.
    Bytes(usize),
    /// `U`: UCS-4 characters, padded with zeros to this number.
    Text { width: usize, swapped: bool },
    /// `M8`: so many steps of 64 bits, of which each is `factor` times the unit of the dtype.
    Time { dtype: DType, factor: i64, swapped: bool },
}

impl Element {
    fn size(self) -> Option<usize> {
        match self {
            Self::Number { dtype, .. } => dtype.item_size(),
            Self::Bytes(width) => Some(width),
            Self::Text { width, .. } => width.checked_mul(4),
            Self::Time { .. } => Some(8),
        }
    }

    /// Bytes whose order is that of a machine, and whether they have to be turned. The parts of a complex number keep their
    /// places, and so do characters.
    fn part(self) -> (usize, bool) {
        match self {
            Self::Number { dtype, swapped } => match dtype {
                DType::Complex64 => (4, swapped),
                DType::Complex128 => (8, swapped),
                _ => (dtype.item_size().unwrap_or(1), swapped),
            },
            Self::Bytes(_) => (1, false),
            Self::Text { swapped, .. } => (4, swapped),
            Self::Time { swapped, .. } => (8, swapped),
        }
    }

    /// numpy's descriptor, little-endian.
    fn descr(self) -> String {
        match self {
            Self::Number { dtype, .. } => dtype.descr().unwrap_or_default().to_owned(),
            Self::Bytes(width) => format!("|S{width}"),
            Self::Text { width, .. } => format!("<U{width}"),
            Self::Time { dtype, factor, .. } => {
                let unit = match (dtype, factor) {
                    (DType::Date, 7) => "W".to_owned(),
                    (_, 3600) => "h".to_owned(),
                    (_, 60) => "m".to_owned(),
                    (DType::Datetime { unit, .. }, _) => unit.to_string(),
                    _ => "D".to_owned(),
                };
                format!("<M8[{unit}]")
            }
        }
    }

    /// The element of numpy's descriptor, such as `<f4`.
    fn from_descr(descr: &str) -> Result<Self> {
        let shown: String = descr.chars().take(SHOWN).collect();
        let unsupported = || Error::unsupported(format!("an npy array of dtype {shown:?}"));
        let (swapped, kind) = match descr.split_at_checked(1).ok_or_else(unsupported)? {
            ("<" | "|" | "=", kind) => (false, kind),
            (">", kind) => (true, kind),
            _ => return Err(unsupported()),
        };
        if let Some(unit) = kind.strip_prefix("M8[").and_then(|kind| kind.strip_suffix(']')) {
            let datetime = |unit| DType::Datetime { unit, utc: false };
            let (dtype, factor) = match unit {
                "W" => (DType::Date, 7),
                "D" => (DType::Date, 1),
                "h" => (datetime(TimeUnit::Second), 3600),
                "m" => (datetime(TimeUnit::Second), 60),
                "s" => (datetime(TimeUnit::Second), 1),
                "ms" => (datetime(TimeUnit::Millisecond), 1),
                "us" => (datetime(TimeUnit::Microsecond), 1),
                "ns" => (datetime(TimeUnit::Nanosecond), 1),
                _ => return Err(unsupported()),
            };
            return Ok(Self::Time { dtype, factor, swapped });
        }
        let dtype = match kind {
            "b1" => DType::Bool,
            "i1" => DType::Int8,
            "i2" => DType::Int16,
            "i4" => DType::Int32,
            "i8" => DType::Int64,
            "u1" => DType::UInt8,
            "u2" => DType::UInt16,
            "u4" => DType::UInt32,
            "u8" => DType::UInt64,
            "f2" => DType::Float16,
            "f4" => DType::Float32,
            "f8" => DType::Float64,
            "c8" => DType::Complex64,
            "c16" => DType::Complex128,
            _ => {
                let (kind, width) = kind.split_at_checked(1).ok_or_else(unsupported)?;
                let width = width.parse().map_err(|_| unsupported())?;
                return match kind {
                    "S" => Ok(Self::Bytes(width)),
                    "U" => Ok(Self::Text { width, swapped }),
                    _ => Err(unsupported()),
                };
            }
        };
        Ok(Self::Number { dtype, swapped })
    }
}

#[cfg(test)]
mod tests;
