//! A [`Row`] from any type that serde can serialize.

use arrow_array::types::{Date32Type, Decimal256Type};
use arrow_buffer::Buffer;
use arrow_cast::parse::{Parser, parse_decimal, string_to_timestamp_nanos};
use half::f16;
use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeStruct, SerializeTuple, Serializer};

use crate::deserialize::Unfit;
use crate::{DType, Decimal, Error, Field, Result, Row, RowId, Schema, Tensor, TimeUnit, Value};

impl Row {
    /// The row that a struct is, by the dtypes and shapes of a schema: the other way of [`Row::deserialize`].
    ///
    /// A tensor is a `Vec` or an array of its elements, flat or nested; text makes dates, times and decimals in ISO form; an enum
    /// without values is its variant's name. A field that the schema does not have is an error.
    ///
    /// ```
    /// # use squall_schema::{Row, Schema, field};
    /// #[derive(serde::Serialize)]
    /// struct Digit {
    ///     pixels: [[f32; 2]; 2],
    ///     digit: u8,
    /// }
    ///
    /// # fn main() -> squall_schema::Result<()> {
    /// let schema = Schema::new(vec![field!("pixels": f32[2, 2]), field!("digit": u8)])?;
    /// let row = Row::serialize(&Digit { pixels: [[0.0, 0.5], [0.5, 1.0]], digit: 7 }, &schema)?;
    /// assert_eq!(row.tensor("pixels")?.as_slice::<f32>()?, [0.0, 0.5, 0.5, 1.0]);
    /// assert_eq!(row.int("digit")?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn serialize<T: Serialize + ?Sized>(value: &T, schema: &Schema) -> Result<Self> {
        let row = Names {
            schema,
            row: Row::new(RowId::default(), Vec::with_capacity(schema.fields().len())),
        };
        value.serialize(row).map_err(|Unfit(why)| {
            Error::invalid(format!(
                "a {} does not fit the schema: {why}",
                std::any::type_name::<T>()
            ))
        })
    }
}

/// The methods of a serializer that takes none of these.
macro_rules! refuse {
    ($ok:ty, $what:literal, $($name:ident($($kind:ty),*) -> $made:ty;)*) => { $(
        fn $name(self, $(_: $kind),*) -> Result<$made, Unfit> {
            Err(Unfit(concat!("expected ", $what, ", found ", stringify!($name)).replace("serialize_", "")))
        }
    )* };
}

/// The methods that no serializer here takes.
macro_rules! refuse_compounds {
    ($ok:ty, $what:literal) => {
        type SerializeTupleStruct = Impossible<$ok, Unfit>;
        type SerializeTupleVariant = Impossible<$ok, Unfit>;
        type SerializeMap = Impossible<$ok, Unfit>;
        type SerializeStructVariant = Impossible<$ok, Unfit>;
        refuse! { $ok, $what,
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
            serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
            serialize_map(Option<usize>) -> Self::SerializeMap;
            serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
            serialize_unit_struct(&'static str) -> $ok;
        }
        fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<$ok, Unfit> {
            value.serialize(self)
        }
        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<$ok, Unfit> {
            Err(Unfit(
                concat!("expected ", $what, ", found a variant with values").to_owned(),
            ))
        }
    };
}

/// Takes the names of a struct.
struct Names<'a> {
    schema: &'a Schema,
    row: Row,
}

impl Serializer for Names<'_> {
    type Ok = Row;
    type Error = Unfit;
    type SerializeSeq = Impossible<Row, Unfit>;
    type SerializeTuple = Impossible<Row, Unfit>;
    type SerializeStruct = Self;

    refuse! { Row, "a struct",
        serialize_bool(bool) -> Row; serialize_i8(i8) -> Row; serialize_i16(i16) -> Row; serialize_i32(i32) -> Row;
        serialize_i64(i64) -> Row; serialize_u8(u8) -> Row; serialize_u16(u16) -> Row; serialize_u32(u32) -> Row;
        serialize_u64(u64) -> Row; serialize_f32(f32) -> Row; serialize_f64(f64) -> Row; serialize_char(char) -> Row;
        serialize_str(&str) -> Row; serialize_bytes(&[u8]) -> Row; serialize_none() -> Row; serialize_unit() -> Row;
        serialize_unit_variant(&'static str, u32, &'static str) -> Row;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
    }
    refuse_compounds!(Row, "a struct");

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Row, Unfit> {
        value.serialize(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unfit> {
        Ok(self)
    }
}

impl SerializeStruct for Names<'_> {
    type Ok = Row;
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unfit> {
        let field = self
            .schema
            .get(name)
            .ok_or_else(|| Unfit(self.schema.unknown(name).to_string()))?;
        let value = value
            .serialize(Cell(field))
            .map_err(|Unfit(why)| Unfit(format!("{field}: {why}")))?;
        self.row.set(name, value);
        Ok(())
    }

    fn end(self) -> Result<Row, Unfit> {
        Ok(self.row)
    }
}

/// Makes the value of a field.
struct Cell<'a>(&'a Field);

impl Cell<'_> {
    fn int(&self, value: i128) -> Result<Value, Unfit> {
        let wrong = || Unfit(format!("{value} does not fit"));
        let long = || i64::try_from(value).map_err(|_| wrong());
        Ok(match self.0.dtype {
            DType::UInt64 => Value::UInt(u64::try_from(value).map_err(|_| wrong())?),
            DType::Date => Value::Date(i32::try_from(value).map_err(|_| wrong())?),
            DType::Datetime { unit, utc } => Value::Datetime {
                value: long()?,
                unit,
                utc,
            },
            _ => Value::Int(long()?),
        })
    }

    fn float(&self, value: f64) -> Value {
        match self.0.dtype {
            DType::Float16 | DType::Float32 => Value::Float32(value as f32),
            _ => Value::Float64(value),
        }
    }

    fn text(&self, text: &str) -> Result<Value, Unfit> {
        let wrong = || Unfit(format!("{text:?} is not a {}", self.0.dtype));
        Ok(match self.0.dtype {
            DType::Date => Value::Date(Date32Type::parse(text).ok_or_else(wrong)?),
            DType::Datetime { unit, utc } => {
                let nanos = string_to_timestamp_nanos(text).map_err(|_| wrong())?;
                let per_step = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                Value::Datetime {
                    value: nanos.div_euclid(per_step),
                    unit,
                    utc,
                }
            }
            DType::Decimal(precision, scale) => Value::Decimal(Decimal {
                unscaled: parse_decimal::<Decimal256Type>(text, precision, scale).map_err(|_| wrong())?,
                precision,
                scale,
            }),
            _ => Value::Str(text.to_owned()),
        })
    }
}

macro_rules! numbers {
    ($ok:ty, $($name:ident: $native:ty => $make:ident as $wide:ty,)*) => { $(
        fn $name(self, value: $native) -> Result<$ok, Unfit> {
            self.$make(<$wide>::from(value))
        }
    )* };
}

impl<'a> Serializer for Cell<'a> {
    type Ok = Value;
    type Error = Unfit;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeStruct = Impossible<Value, Unfit>;

    numbers! { Value,
        serialize_i8: i8 => int as i128, serialize_i16: i16 => int as i128, serialize_i32: i32 => int as i128,
        serialize_i64: i64 => int as i128, serialize_u8: u8 => int as i128, serialize_u16: u16 => int as i128,
        serialize_u32: u32 => int as i128, serialize_u64: u64 => int as i128,
    }
    refuse! { Value, "a value or an array", serialize_struct(&'static str, usize) -> Self::SerializeStruct; }
    refuse_compounds!(Value, "a value or an array");

    fn serialize_bool(self, value: bool) -> Result<Value, Unfit> {
        Ok(Value::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Unfit> {
        Ok(self.float(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Unfit> {
        Ok(self.float(value))
    }

    fn serialize_char(self, value: char) -> Result<Value, Unfit> {
        Ok(Value::Str(value.into()))
    }

    fn serialize_str(self, text: &str) -> Result<Value, Unfit> {
        self.text(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, Unfit> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, Unfit> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Unfit> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Value, Unfit> {
        Ok(Value::Str(name.to_owned()))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Unfit> {
        let field = self.0;
        if field.shape.is_scalar() && field.dtype != DType::Bytes {
            return Err(Unfit("expected one value, found a sequence".to_owned()));
        }
        let dtype = if field.shape.is_scalar() {
            DType::UInt8
        } else {
            field.dtype
        };
        Ok(match dtype.item_size() {
            Some(_) => Items::Dense(field, Dense::new(dtype), 0),
            None => Items::List(Field::scalar(&field.name, field.dtype), Vec::new()),
        })
    }

    fn serialize_tuple(self, n: usize) -> Result<Items<'a>, Unfit> {
        self.serialize_seq(Some(n))
    }
}

/// The elements of an array.
enum Items<'a> {
    /// Numbers, as their bytes; and how many items the outermost sequence has.
    Dense(&'a Field, Dense, usize),
    List(Field, Vec<Value>),
}

impl SerializeSeq for Items<'_> {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        match self {
            Self::Dense(_, dense, n) => {
                *n += 1;
                value.serialize(Element { dense, depth: 1 })
            }
            Self::List(field, items) => {
                items.push(value.serialize(Cell(field))?);
                Ok(())
            }
        }
    }

    fn end(self) -> Result<Value, Unfit> {
        let (field, mut dense, n) = match self {
            Self::List(_, items) => return Ok(Value::List(items)),
            Self::Dense(field, dense, n) => (field, dense, n),
        };
        dense.close(0, n)?;
        if field.shape.is_scalar() {
            return Ok(Value::Bytes(dense.bytes));
        }
        let mut dims: Vec<usize> = dense.dims.iter().map(|dim| dim.unwrap_or_default()).collect();
        if let (Some(fixed), 1) = (field.shape.as_fixed(), dims.len())
            && field.shape.element_count() == Some(n)
        {
            dims = fixed;
        }
        let tensor = Tensor::new(field.dtype, dims, Buffer::from_vec(dense.bytes));
        tensor.map(Value::Tensor).map_err(|error| Unfit(error.to_string()))
    }
}

impl SerializeTuple for Items<'_> {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, Unfit> {
        SerializeSeq::end(self)
    }
}

/// Numbers of a dense array, as they come.
struct Dense {
    dtype: DType,
    bytes: Vec<u8>,
    /// How many items the sequences of each depth have.
    dims: Vec<Option<usize>>,
    /// How deep the numbers are.
    leaves: Option<usize>,
}

impl Dense {
    fn new(dtype: DType) -> Self {
        Self {
            dtype,
            bytes: Vec::new(),
            dims: Vec::new(),
            leaves: None,
        }
    }

    /// A sequence of this depth ends.
    fn close(&mut self, depth: usize, n: usize) -> Result<(), Unfit> {
        if self.dims.len() <= depth {
            self.dims.resize(depth + 1, None);
        }
        match *self.dims[depth].get_or_insert(n) {
            first if first == n => Ok(()),
            first => Err(Unfit(format!("ragged: a sequence of {n} beside one of {first}"))),
        }
    }

    fn leaf(&mut self, depth: usize) -> Result<(), Unfit> {
        match *self.leaves.get_or_insert(depth) {
            first if first == depth => Ok(()),
            _ => Err(Unfit("ragged: numbers beside sequences".to_owned())),
        }
    }
}

struct Element<'a> {
    dense: &'a mut Dense,
    depth: usize,
}

impl Element<'_> {
    fn int(self, value: i128) -> Result<(), Unfit> {
        self.dense.leaf(self.depth)?;
        macro_rules! push {
            ($($dtype:ident: $native:ty),*) => {
                match self.dense.dtype {
                    $(DType::$dtype => {
                        let value = <$native>::try_from(value);
                        let value = value.map_err(|_| Unfit(format!("an element does not fit {}", self.dense.dtype)))?;
                        self.dense.bytes.extend(value.to_le_bytes());
                    })*
                    DType::Float32 => self.dense.bytes.extend((value as f32).to_le_bytes()),
                    DType::Float64 => self.dense.bytes.extend((value as f64).to_le_bytes()),
                    other => return Err(Unfit(format!("an integer is no {other}"))),
                }
            };
        }
        push!(Int8: i8, Int16: i16, Int32: i32, Int64: i64, UInt8: u8, UInt16: u16, UInt32: u32, UInt64: u64);
        Ok(())
    }

    fn float(self, value: f64) -> Result<(), Unfit> {
        self.dense.leaf(self.depth)?;
        match self.dense.dtype {
            DType::Float16 => self.dense.bytes.extend(f16::from_f64(value).to_le_bytes()),
            DType::Float32 => self.dense.bytes.extend((value as f32).to_le_bytes()),
            DType::Float64 => self.dense.bytes.extend(value.to_le_bytes()),
            other => return Err(Unfit(format!("a float is no {other}"))),
        }
        Ok(())
    }
}

impl<'a> Serializer for Element<'a> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Inner<'a>;
    type SerializeTuple = Inner<'a>;
    type SerializeStruct = Impossible<(), Unfit>;

    numbers! { (),
        serialize_i8: i8 => int as i128, serialize_i16: i16 => int as i128, serialize_i32: i32 => int as i128,
        serialize_i64: i64 => int as i128, serialize_u8: u8 => int as i128, serialize_u16: u16 => int as i128,
        serialize_u32: u32 => int as i128, serialize_u64: u64 => int as i128,
        serialize_f32: f32 => float as f64, serialize_f64: f64 => float as f64,
    }
    refuse! { (), "a number",
        serialize_char(char) -> (); serialize_str(&str) -> (); serialize_bytes(&[u8]) -> (); serialize_none() -> ();
        serialize_unit() -> (); serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }
    refuse_compounds!((), "a number");

    fn serialize_bool(self, value: bool) -> Result<(), Unfit> {
        self.dense.leaf(self.depth)?;
        if self.dense.dtype != DType::Bool {
            return Err(Unfit(format!("a bool is no {}", self.dense.dtype)));
        }
        self.dense.bytes.push(value.into());
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inner<'a>, Unfit> {
        Ok(Inner {
            dense: self.dense,
            depth: self.depth,
            n: 0,
        })
    }

    fn serialize_tuple(self, n: usize) -> Result<Inner<'a>, Unfit> {
        self.serialize_seq(Some(n))
    }
}

/// A sequence within a sequence.
struct Inner<'a> {
    dense: &'a mut Dense,
    depth: usize,
    n: usize,
}

impl SerializeSeq for Inner<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.n += 1;
        value.serialize(Element {
            dense: self.dense,
            depth: self.depth + 1,
        })
    }

    fn end(self) -> Result<(), Unfit> {
        self.dense.close(self.depth, self.n)
    }
}

impl SerializeTuple for Inner<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Unfit> {
        SerializeSeq::end(self)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use crate::{DType, Field, Row, Schema, Shape, TimeUnit};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        day: String,
        at: String,
        price: String,
        pixels: Vec<f32>,
        flags: Vec<bool>,
        words: Vec<String>,
        note: Option<u64>,
        raw: Vec<u8>,
    }

    fn schema() -> Schema {
        let unit = TimeUnit::Millisecond;
        let fields = vec![
            Field::scalar("day", DType::Date),
            Field::scalar("at", DType::Datetime { unit, utc: true }),
            Field::scalar("price", DType::Decimal(10, 2)),
            Field::new("pixels", DType::Float32, Shape::fixed(&[2, 2])),
            Field::new("flags", DType::Bool, Shape(vec![None])),
            Field::new("words", DType::Str, Shape(vec![None])),
            Field::scalar("note", DType::UInt64).with_nullable(true),
            Field::new("raw", DType::UInt8, Shape(vec![None])),
        ];
        Schema::new(fields).expect("a schema")
    }

    #[test]
    fn what_is_serialized_deserializes_the_same() {
        let sample = Sample {
            day: "2024-02-29".into(),
            at: "1969-12-31T23:59:59.999Z".into(),
            price: "-12.30".into(),
            pixels: vec![0.0, f32::NAN, f32::INFINITY, -1.5],
            flags: vec![true, false],
            words: vec!["a".into(), String::new()],
            note: Some(u64::MAX),
            raw: vec![0, 255],
        };
        let row = Row::serialize(&sample, &schema()).expect("a row");
        assert_eq!(row.tensor("pixels").expect("a tensor").shape(), [2, 2]);
        let back: Sample = row.deserialize().expect("a sample");
        assert_eq!(format!("{back:?}"), format!("{sample:?}"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        #[derive(Serialize)]
        struct Wrong<T> {
            pixels: T,
        }
        fn check<T: Serialize>(pixels: T, part: &str) {
            let error = Row::serialize(&Wrong { pixels }, &schema())
                .expect_err("a misfit")
                .to_string();
            assert!(error.contains(part), "{error}");
        }
        check(vec![vec![1.0], vec![1.0, 2.0]], "ragged");
        check(vec!["x"], "expected a number");
        check(vec![None::<f32>], "expected a number");
        check((1, vec![2]), "ragged");
        #[derive(Serialize)]
        struct Unknown {
            nope: i32,
        }
        let error = Row::serialize(&Unknown { nope: 1 }, &schema())
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("no column \"nope\""), "{error}");
        assert!(Row::serialize(&5, &schema()).is_err());
    }
}
