//! The type of one element, named as numpy names it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// Unit of a [`DType::Datetime`], in numpy's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// `s`
    Second,
    /// `ms`
    Millisecond,
    /// `us`
    Microsecond,
    /// `ns`
    Nanosecond,
}

impl TimeUnit {
    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Millisecond => "ms",
            Self::Microsecond => "us",
            Self::Nanosecond => "ns",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Second, Self::Millisecond, Self::Microsecond, Self::Nanosecond]
            .into_iter()
            .find(|unit| unit.name() == name)
    }
}

/// The type of one element of a field.
///
/// Its text form is numpy's name: `float32`, `str`, `datetime64[us]`; `decimal(10, 2)` where numpy has none.
/// Rust's short names (`f32`, `u8`) are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// One byte in memory, one bit in Arrow.
    Bool,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 8-bit unsigned integer.
    UInt8,
    /// 16-bit unsigned integer.
    UInt16,
    /// 32-bit unsigned integer.
    UInt32,
    /// 64-bit unsigned integer.
    UInt64,
    /// IEEE 754 half precision.
    Float16,
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 double precision.
    Float64,
    /// A complex number of two `float32`: real, then imaginary. Of tensors only.
    Complex64,
    /// A complex number of two `float64`: real, then imaginary. Of tensors only.
    Complex128,
    /// UTF-8 text of any length.
    Str,
    /// Bytes of any length.
    Bytes,
    /// A decimal number: digits in all, digits after the point.
    Decimal(u8, i8),
    /// Days since 1970-01-01: `datetime64[D]`.
    Date,
    /// Time since 1970-01-01. `utc` tells an instant from a wall clock time without a zone.
    Datetime {
        /// What one step of the integer is.
        unit: TimeUnit,
        /// An instant in UTC, or a wall clock time.
        utc: bool,
    },
    /// Structs, maps, and lists of lists, kept as they are: [`Field::arrow`](crate::Field::arrow) has their Arrow type.
    Nested,
}

const PLAIN: [(DType, &str, &str); 17] = [
    (DType::Bool, "bool", "bool"),
    (DType::Int8, "int8", "i8"),
    (DType::Int16, "int16", "i16"),
    (DType::Int32, "int32", "i32"),
    (DType::Int64, "int64", "i64"),
    (DType::UInt8, "uint8", "u8"),
    (DType::UInt16, "uint16", "u16"),
    (DType::UInt32, "uint32", "u32"),
    (DType::UInt64, "uint64", "u64"),
    (DType::Float16, "float16", "f16"),
    (DType::Float32, "float32", "f32"),
    (DType::Float64, "float64", "f64"),
    (DType::Complex64, "complex64", "c64"),
    (DType::Complex128, "complex128", "c128"),
    (DType::Str, "str", "String"),
    (DType::Bytes, "bytes", "Bytes"),
    (DType::Nested, "nested", "nested"),
];

impl DType {
    /// Bytes of one element in a tensor, or `None` for types that no tensor holds.
    pub fn item_size(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 | Self::Float16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 | Self::Complex64 => 8,
            Self::Complex128 => 16,
            Self::Str | Self::Bytes | Self::Decimal(..) | Self::Date | Self::Datetime { .. } | Self::Nested => {
                return None;
            }
        })
    }

    /// numpy's array-protocol descriptor of the little-endian type: `<f4`, `|u1`, `|b1`.
    pub fn descr(self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "|b1",
            Self::Int8 => "|i1",
            Self::UInt8 => "|u1",
            Self::Int16 => "<i2",
            Self::UInt16 => "<u2",
            Self::Int32 => "<i4",
            Self::UInt32 => "<u4",
            Self::Int64 => "<i8",
            Self::UInt64 => "<u8",
            Self::Float16 => "<f2",
            Self::Float32 => "<f4",
            Self::Float64 => "<f8",
            Self::Complex64 => "<c8",
            Self::Complex128 => "<c16",
            Self::Str | Self::Bytes | Self::Decimal(..) | Self::Date | Self::Datetime { .. } | Self::Nested => {
                return None;
            }
        })
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal(precision, scale) => write!(f, "decimal({precision}, {scale})"),
            Self::Date => f.write_str("datetime64[D]"),
            Self::Datetime { unit, utc } => {
                write!(f, "datetime64[{unit}{}]", if *utc { ", UTC" } else { "" })
            }
            plain => {
                let found = PLAIN.iter().find(|(dtype, ..)| dtype == plain);
                f.write_str(found.map_or("", |(_, name, _)| name))
            }
        }
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((dtype, ..)) = PLAIN.iter().find(|(_, numpy, rust)| text == *numpy || text == *rust) {
            return Ok(*dtype);
        }
        let inside = |prefix: &str, close: char| text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(close));
        if let Some(inside) = inside("decimal(", ')')
            && let Some((precision, scale)) = inside.split_once(',')
            && let (Ok(precision), Ok(scale)) = (precision.trim().parse(), scale.trim().parse())
        {
            return Ok(Self::Decimal(precision, scale));
        }
        if let Some(inside) = inside("datetime64[", ']') {
            if inside == "D" {
                return Ok(Self::Date);
            }
            let (name, utc) = inside
                .strip_suffix(", UTC")
                .map_or((inside, false), |name| (name, true));
            if let Some(unit) = TimeUnit::from_name(name) {
                return Ok(Self::Datetime { unit, utc });
            }
        }
        Err(Error::invalid(format!(
            "unknown dtype {text:?}: expected a numpy name such as float32, str, datetime64[us]"
        )))
    }
}

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let others = [
            DType::Decimal(38, -3),
            DType::Date,
            DType::Datetime {
                unit: TimeUnit::Microsecond,
                utc: true,
            },
            DType::Datetime {
                unit: TimeUnit::Nanosecond,
                utc: false,
            },
        ];
        for dtype in PLAIN.iter().map(|(dtype, ..)| *dtype).chain(others) {
            assert_eq!(dtype.to_string().parse::<DType>().expect("own name"), dtype);
        }
        assert_eq!("f32".parse::<DType>().expect("short name"), DType::Float32);
        assert!("float128".parse::<DType>().is_err());
    }
}
