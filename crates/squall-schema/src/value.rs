//! One cell of a row.

use std::fmt;

use arrow_array::temporal_conversions as temporal;
use arrow_array::types::{Decimal256Type, DecimalType};
use arrow_buffer::i256;

use crate::{Tensor, TimeUnit};

/// A decimal number: its digits as an integer, and how many of them stand after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// All digits, as an integer.
    pub unscaled: i256,
    /// Digits in all that the column has room for.
    pub precision: u8,
    /// Digits after the point.
    pub scale: i8,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Decimal256Type::format_decimal(
            self.unscaled,
            self.precision,
            self.scale,
        ))
    }
}

/// One cell of a row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A missing value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any dtype but `uint64`.
    Int(i64),
    /// An integer of dtype `uint64`.
    UInt(u64),
    /// A `float16` or `float32`.
    Float32(f32),
    /// A `float64`.
    Float64(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A decimal number.
    Decimal(Decimal),
    /// Days since 1970-01-01.
    Date(i32),
    /// Time since 1970-01-01.
    Datetime {
        /// Steps of `unit`.
        value: i64,
        /// What one step is.
        unit: TimeUnit,
        /// An instant in UTC, or a wall clock time.
        utc: bool,
    },
    /// A dense array.
    Tensor(Tensor),
    /// A vector whose elements no tensor holds: text, dates, nulls among numbers. Of more dimensions, lists of lists.
    List(Vec<Value>),
    /// Named values: of a struct column, or of an entry of a map, whose names are those of its Arrow type.
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(_) => "bool".into(),
            Self::Int(_) => "int".into(),
            Self::UInt(_) => "uint64".into(),
            Self::Float32(_) => "float32".into(),
            Self::Float64(_) => "float64".into(),
            Self::Str(_) => "str".into(),
            Self::Bytes(_) => "bytes".into(),
            Self::Decimal(_) => "decimal".into(),
            Self::Date(_) => "date".into(),
            Self::Datetime { .. } => "datetime".into(),
            Self::Tensor(tensor) => format!("{tensor:?}"),
            Self::List(items) => format!("list of {}", items.len()),
            Self::Struct(members) => format!("struct of {}", members.len()),
        }
    }

    /// Lists of lists, as deep as the shape.
    pub(crate) fn nested(mut items: Vec<Self>, shape: &[usize]) -> Self {
        let Some((_, inner)) = shape.split_first() else {
            return items.pop().unwrap_or(Self::Null);
        };
        for dim in inner.iter().rev() {
            let mut rest = items.into_iter();
            let mut lists = Vec::new();
            while rest.len() > 0 && *dim > 0 {
                lists.push(Self::List(rest.by_ref().take(*dim).collect()));
            }
            items = lists;
        }
        Self::List(items)
    }

    /// The ISO 8601 text of a date or a datetime; `None` for others and for times outside chrono's range.
    pub fn to_iso(&self) -> Option<String> {
        const CLOCK: &str = "%Y-%m-%dT%H:%M:%S%.f";
        match self {
            Self::Date(days) => Some(temporal::date32_to_datetime(*days)?.date().to_string()),
            Self::Datetime { value, unit, utc } => {
                let time = match unit {
                    TimeUnit::Second => temporal::timestamp_s_to_datetime(*value),
                    TimeUnit::Millisecond => temporal::timestamp_ms_to_datetime(*value),
                    TimeUnit::Microsecond => temporal::timestamp_us_to_datetime(*value),
                    TimeUnit::Nanosecond => temporal::timestamp_ns_to_datetime(*value),
                }?;
                Some(format!("{}{}", time.format(CLOCK), if *utc { "Z" } else { "" }))
            }
            _ => None,
        }
    }

    /// The integer, whatever its width.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::UInt(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The number as a `f64`, of any numeric dtype.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::UInt(value) => Some(*value as f64),
            Self::Float32(value) => Some(f64::from(*value)),
            Self::Float64(value) => Some(*value),
            _ => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The tensor.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($native:ty => $value:expr),*) => { $(impl From<$native> for Value {
        fn from(native: $native) -> Self { $value(native.into()) }
    })* };
}
from!(bool => Value::Bool, i8 => Value::Int, i16 => Value::Int, i32 => Value::Int, i64 => Value::Int,
    u8 => Value::Int, u16 => Value::Int, u32 => Value::Int, u64 => Value::UInt, f32 => Value::Float32,
    f64 => Value::Float64, &str => Value::Str, String => Value::Str, Vec<u8> => Value::Bytes, Tensor => Value::Tensor);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_print_as_iso() {
        let instant = Value::Datetime {
            value: 1_500_000,
            unit: TimeUnit::Microsecond,
            utc: true,
        };
        assert_eq!(instant.to_iso().as_deref(), Some("1970-01-01T00:00:01.500Z"));
        assert_eq!(Value::Date(-1).to_iso().as_deref(), Some("1969-12-31"));
        let decimal = Decimal {
            unscaled: i256::from_i128(-1234),
            precision: 10,
            scale: 3,
        };
        assert_eq!(decimal.to_string(), "-1.234");
    }
}
