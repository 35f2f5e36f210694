//! A [`Row`] as any type that serde can deserialize.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::{DType, Error, Result, Row, Tensor, Value};

impl Row {
    /// The row as a struct with a field for each column that it wants; a tensor becomes a flat `Vec`.
    ///
    /// ```
    /// # use squall_schema::{Row, RowId, Tensor};
    /// #[derive(serde::Deserialize)]
    /// struct Digit {
    ///     pixels: Vec<f32>,
    ///     digit: u8,
    /// }
    ///
    /// # fn main() -> squall_schema::Result<()> {
    /// let mut row = Row::new(RowId::default(), Vec::new());
    /// row.set("pixels", Tensor::from_vec(&[2, 2], vec![0.0f32, 0.5, 0.5, 1.0])?);
    /// row.set("digit", 7);
    /// let digit: Digit = row.deserialize()?;
    /// assert_eq!((digit.pixels[1], digit.digit), (0.5, 7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T> {
        let cells = self.iter().map(|(name, value)| (name, Cell(value)));
        T::deserialize(MapDeserializer::<_, Unfit>::new(cells))
            .map_err(|Unfit(why)| Error::invalid(format!("the row does not fit {}: {why}", std::any::type_name::<T>())))
    }
}

/// Why a value does not fit the type asked for.
#[derive(Debug)]
pub(crate) struct Unfit(pub(crate) String);

impl serde::ser::Error for Unfit {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl serde::de::Error for Unfit {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Cell<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Unfit> for Cell<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Cell<'_> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::UInt(value) => visitor.visit_u64(*value),
            Value::Float32(value) => visitor.visit_f32(*value),
            Value::Float64(value) => visitor.visit_f64(*value),
            Value::Str(text) => visitor.visit_str(text),
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            Value::Decimal(decimal) => visitor.visit_string(decimal.to_string()),
            Value::Date(days) => match self.0.to_iso() {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_i32(*days),
            },
            Value::Datetime { value, .. } => match self.0.to_iso() {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_i64(*value),
            },
            Value::Tensor(tensor) => visit_tensor(tensor, visitor),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Cell))),
            Value::Struct(members) => {
                let members = members.iter().map(|(name, value)| (name.as_str(), Cell(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

fn visit_tensor<'de, V: Visitor<'de>>(tensor: &Tensor, visitor: V) -> Result<V::Value, Unfit> {
    macro_rules! seq {
        ($native:ty) => {{
            let elements = tensor.as_slice::<$native>().map_err(Unfit::custom)?;
            visitor.visit_seq(SeqDeserializer::<_, Unfit>::new(elements.iter().copied()))
        }};
    }
    match tensor.dtype() {
        DType::Int8 => seq!(i8),
        DType::Int16 => seq!(i16),
        DType::Int32 => seq!(i32),
        DType::Int64 => seq!(i64),
        DType::UInt8 => seq!(u8),
        DType::UInt16 => seq!(u16),
        DType::UInt32 => seq!(u32),
        DType::UInt64 => seq!(u64),
        DType::Float32 => seq!(f32),
        DType::Float64 => seq!(f64),
        DType::Float16 => {
            let elements = tensor.as_slice::<half::f16>().map_err(Unfit::custom)?;
            visitor.visit_seq(SeqDeserializer::<_, Unfit>::new(elements.iter().map(|x| x.to_f32())))
        }
        // Real and imaginary parts take turns.
        DType::Complex64 => {
            let parts = tensor.data().as_chunks::<4>().0.iter();
            let parts = parts.map(|part| f32::from_le_bytes(*part));
            visitor.visit_seq(SeqDeserializer::<_, Unfit>::new(parts))
        }
        DType::Complex128 => {
            let parts = tensor.data().as_chunks::<8>().0.iter();
            visitor.visit_seq(SeqDeserializer::<_, Unfit>::new(
                parts.map(|part| f64::from_le_bytes(*part)),
            ))
        }
        DType::Bool => {
            let elements = tensor.data().iter().map(|byte| *byte != 0);
            visitor.visit_seq(SeqDeserializer::<_, Unfit>::new(elements))
        }
        other => Err(Unfit(format!("a tensor of {other}"))),
    }
}

/// A value on its own deserializes like a cell of a row.
impl Value {
    /// The value as any type that fits it.
    pub fn deserialize<'de, T: Deserialize<'de>>(&self) -> Result<T> {
        T::deserialize(Cell(self)).map_err(|Unfit(why)| {
            Error::invalid(format!(
                "{} does not fit {}: {why}",
                self.kind(),
                std::any::type_name::<T>()
            ))
        })
    }
}
