//! Pickles that Petastorm reads: protocol 0, in ASCII only, made of calls of constructors.
//!
//! ASCII makes a pickle a legal value of a Parquet footer, which is UTF-8 for most readers. Petastorm's unpickler lets pass
//! what lies in `petastorm`, `pyspark.sql.types`, `numpy`, `decimal`, `collections` and `builtins`; nothing else is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::codec::Codec;
use crate::spark::{SparkType, of_dtype};
use crate::{DType, Error, Field, Result, Schema, Value};

/// Python's keywords: no field of a named tuple has such a name.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];
/// Places in the memo of an index: of the class of sets, and of that of the keys.
const SET: u32 = 0;
const CLASS: u32 = 1;

/// A row-group index to write.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenIndex {
    /// Its name.
    pub name: String,
    /// The column.
    pub column: String,
    /// The row groups, by ordinal.
    pub keys: IndexKeys,
}

/// What an index holds.
#[derive(Debug, Clone, PartialEq)]
pub enum IndexKeys {
    /// The row groups of each value, by [`index_key`].
    Values(BTreeMap<String, BTreeSet<u32>>),
    /// The row groups with a value that is not null.
    NotNull(BTreeSet<u32>),
}

/// The pickled Unischema of these fields.
///
/// Petastorm gives a row as a named tuple, so names must be Python's; scalars need a type that Spark has, arrays a codec.
pub fn unischema_pickle(name: &str, schema: &Schema) -> Result<String> {
    check_name(name, "the schema")?;
    let mut out = Pickled::default();
    out.global("petastorm.unischema", "Unischema")
        .mark()
        .text(name)
        .mark()
        .op('l');
    for field in schema.fields() {
        write_field(&mut out, field).map_err(|error| error.at("column", &field.name))?;
        out.op('a');
    }
    out.call();
    Ok(out.finish())
}

fn write_field(out: &mut Pickled, field: &Field) -> Result<()> {
    check_name(&field.name, "a column")?;
    out.global("petastorm.unischema", "UnischemaField")
        .mark()
        .text(&field.name);
    let (module, class) = numpy_class(field.dtype)?;
    out.global(module, class);
    out.mark();
    for dim in &field.shape.0 {
        match dim {
            Some(dim) => out.int(*dim as i64),
            None => out.op('N'),
        };
    }
    out.op('t');
    match &field.codec {
        Some(Codec::Ndarray) => out.global("petastorm.codecs", "NdarrayCodec").mark().call(),
        Some(Codec::CompressedNdarray) => out.global("petastorm.codecs", "CompressedNdarrayCodec").mark().call(),
        Some(Codec::Png) => out
            .global("petastorm.codecs", "CompressedImageCodec")
            .mark()
            .text("png")
            .call(),
        Some(Codec::Jpeg { quality }) => {
            out.global("petastorm.codecs", "CompressedImageCodec")
                .mark()
                .text("jpeg");
            out.int(i64::from(*quality)).call()
        }
        Some(codec) => return Err(Error::unsupported(format!("Petastorm has no codec {codec}"))),
        None if field.shape.is_scalar() => {
            out.global("petastorm.codecs", "ScalarCodec").mark();
            spark_type(out, field.dtype)?;
            out.call()
        }
        None => {
            return Err(Error::unsupported(format!(
                "Petastorm reads arrays of shape {} from encoded cells only: give the column a codec",
                field.shape
            )));
        }
    };
    out.bool(field.nullable).call();
    Ok(())
}

/// Whether it can be the name of a named tuple or of its field: such names do not begin with `_` either.
fn check_name(name: &str, what: &str) -> Result<()> {
    let mut chars = name.chars();
    let identifier = chars.next().is_some_and(char::is_alphabetic) && chars.all(|c| c.is_alphanumeric() || c == '_');
    if identifier && !KEYWORDS.contains(&name) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "Petastorm cannot read {what} named {name:?}: expected a Python identifier that does not begin with _"
    )))
}

fn numpy_class(dtype: DType) -> Result<(&'static str, &'static str)> {
    Ok((
        "numpy",
        match dtype {
            // The names that numpy 1 and 2 share.
            DType::Bool => "bool_",
            DType::Str => "str_",
            DType::Bytes => "bytes_",
            DType::Int8 => "int8",
            DType::Int16 => "int16",
            DType::Int32 => "int32",
            DType::Int64 => "int64",
            DType::UInt8 => "uint8",
            DType::UInt16 => "uint16",
            DType::UInt32 => "uint32",
            DType::UInt64 => "uint64",
            DType::Float16 => "float16",
            DType::Float32 => "float32",
            DType::Float64 => "float64",
            DType::Complex64 => "complex64",
            DType::Complex128 => "complex128",
            DType::Date | DType::Datetime { .. } => "datetime64",
            DType::Decimal(..) => return Ok(("decimal", "Decimal")),
            DType::Nested => {
                return Err(Error::unsupported(
                    "Petastorm cannot read structs, maps and lists of lists: take the column apart in SQL, or leave it out",
                ));
            }
        },
    ))
}

/// Spark's type of a scalar column, as a call of its class. Unsigned integers take the next wider one.
fn spark_type(out: &mut Pickled, dtype: DType) -> Result<()> {
    let name = match of_dtype(dtype)? {
        SparkType::Boolean => "BooleanType",
        SparkType::Byte => "ByteType",
        SparkType::Short => "ShortType",
        SparkType::Integer => "IntegerType",
        SparkType::Long => "LongType",
        SparkType::Float => "FloatType",
        SparkType::Double => "DoubleType",
        SparkType::String => "StringType",
        SparkType::Binary => "BinaryType",
        SparkType::Date => "DateType",
        // Petastorm knows instants only.
        SparkType::Timestamp | SparkType::TimestampNtz => "TimestampType",
        SparkType::Decimal(precision, scale) => {
            out.global("pyspark.sql.types", "DecimalType").mark();
            out.int(i64::from(precision)).int(i64::from(scale)).call();
            return Ok(());
        }
        other => return Err(Error::internal(format!("a scalar of {other:?}"))),
    };
    out.global("pyspark.sql.types", name).mark().call();
    Ok(())
}

/// The pickled dict of row-group indexes.
pub fn index_pickle(indexes: &[WrittenIndex]) -> String {
    let mut out = Pickled::default();
    // Kept in the memo, and taken from the stack again: each value has a set.
    out.global("builtins", "set").line('p', SET).op('0');
    out.mark().op('d');
    for index in indexes {
        let class = match index.keys {
            IndexKeys::Values(_) => "SingleFieldIndexer",
            IndexKeys::NotNull(_) => "FieldNotNullIndexer",
        };
        out.text(&index.name);
        out.global("petastorm.etl.rowgroup_indexers", class)
            .mark()
            .text(&index.name)
            .text(&index.column)
            .call();
        // The constructor makes an empty index: this is what it is filled with.
        out.mark().op('d');
        out.text("_index_name").text(&index.name).op('s');
        out.text("_column_name").text(&index.column).op('s');
        out.text("_index_data");
        match &index.keys {
            IndexKeys::NotNull(ordinals) => out.set(ordinals),
            IndexKeys::Values(values) => {
                out.global("collections", "defaultdict").mark().line('g', SET).call();
                let mut class = None;
                for (key, ordinals) in values {
                    // The class of the first key is that of all: its two lines are kept too.
                    let end = key.match_indices('\n').nth(1).map_or(0, |(end, _)| end + 1);
                    let (own, rest) = key.split_at(end);
                    if class == Some(own) {
                        out.line('g', CLASS).0.push_str(rest);
                    } else {
                        out.0.push_str(own);
                        out.line('p', CLASS).0.push_str(rest);
                        class = Some(own);
                    }
                    out.set(ordinals).op('s');
                }
                &mut out
            }
        };
        out.op('s').op('b').op('s');
    }
    out.finish()
}

/// The pickled numpy scalar of a value that is not null, as a piece of a pickle.
pub fn index_key(value: &Value, dtype: DType) -> Result<String> {
    let mut out = Pickled::default();
    let (module, class) = numpy_class(dtype)?;
    out.global(module, class).mark();
    match value {
        Value::Bool(value) => out.bool(*value),
        Value::Int(value) => out.int(*value),
        Value::UInt(value) => out.line('I', value),
        // Rust and Python read each other's floats, infinity and NaN included.
        Value::Float32(value) => out.line('F', value),
        Value::Float64(value) => out.line('F', value),
        Value::Str(text) => out.text(text),
        Value::Bytes(bytes) => {
            out.global("builtins", "bytes").mark().mark();
            for byte in bytes {
                out.int(i64::from(*byte));
            }
            out.op('l').call()
        }
        Value::Decimal(decimal) => out.text(&decimal.to_string()),
        Value::Date(_) | Value::Datetime { .. } => {
            let text = value
                .to_iso()
                .ok_or_else(|| Error::unsupported(format!("a {} far from our time", value.kind())))?;
            out.text(text.trim_end_matches('Z'));
            let unit = match value {
                Value::Datetime { unit, .. } => unit.to_string(),
                _ => "D".to_owned(),
            };
            out.text(&unit)
        }
        other => return Err(Error::unsupported(format!("a row-group index of {}", other.kind()))),
    };
    out.call();
    Ok(out.0)
}

/// A pickle under way.
#[derive(Default)]
struct Pickled(String);

impl Pickled {
    fn op(&mut self, opcode: char) -> &mut Self {
        self.0.push(opcode);
        self
    }

    fn line(&mut self, opcode: char, argument: impl std::fmt::Display) -> &mut Self {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{opcode}{argument}");
        self
    }

    fn mark(&mut self) -> &mut Self {
        self.op('(')
    }

    /// Calls what stands below the last mark with what stands above it.
    fn call(&mut self) -> &mut Self {
        self.op('t').op('R')
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.line('c', module);
        self.0.push_str(name);
        self.op('\n')
    }

    fn int(&mut self, value: i64) -> &mut Self {
        self.line('I', value)
    }

    fn bool(&mut self, value: bool) -> &mut Self {
        self.line('I', if value { "01" } else { "00" })
    }

    /// Text in Python's `raw-unicode-escape`.
    fn text(&mut self, text: &str) -> &mut Self {
        self.op('V');
        for c in text.chars() {
            let _ = match u32::from(c) {
                // What ends a line, or begins an escape; and the end of a file to some.
                code @ (0 | 0x0a | 0x0d | 0x1a | 0x5c) => write!(self.0, "\\u{code:04x}"),
                0..0x80 => write!(self.0, "{c}"),
                code @ 0x80..0x1_0000 => write!(self.0, "\\u{code:04x}"),
                code => write!(self.0, "\\U{code:08x}"),
            };
        }
        self.op('\n')
    }

    fn set(&mut self, items: &BTreeSet<u32>) -> &mut Self {
        self.line('g', SET).mark().mark();
        for item in items {
            self.int(i64::from(*item));
        }
        self.op('l').call()
    }

    fn finish(mut self) -> String {
        self.0.push('.');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;
    use crate::petastorm::unischema::Unischema;

    #[test]
    fn a_unischema_survives() {
        let cell = |name: &str, dtype, shape, codec| Field::new(name, dtype, Shape(shape)).with_codec(Some(codec));
        let stored = |field: &Field| match field.codec {
            Some(_) => Field::scalar(&field.name, DType::Bytes),
            None => field.clone(),
        };
        let fields = vec![
            Field::scalar("id", DType::Int64),
            Field::scalar("größe", DType::Float16).with_nullable(true),
            Field::scalar("price", DType::Decimal(10, 2)),
            Field::scalar("day", DType::Date),
            cell(
                "image",
                DType::UInt8,
                vec![None, None, Some(3)],
                Codec::Jpeg { quality: 91 },
            ),
            cell("depth", DType::UInt16, vec![Some(4), Some(4)], Codec::Png),
            cell("words", DType::Str, vec![None], Codec::Ndarray).with_nullable(true),
            cell("c", DType::Complex64, vec![Some(2)], Codec::CompressedNdarray),
        ];
        let schema = Schema::new(fields).expect("a schema");
        let pickle = unischema_pickle("Train", &schema).expect("a pickle");
        assert!(pickle.is_ascii());
        let unischema = Unischema::from_pickle(pickle.as_bytes()).expect("a Unischema");
        assert_eq!(unischema.name, "Train");
        for (own, field) in unischema.fields.iter().zip(schema.fields()) {
            assert_eq!(&own.field(&stored(field)).expect("a field"), field);
        }
        // In a directory name it looks like a double.
        let price = unischema.fields[2].field(&Field::scalar("price", DType::Float64));
        assert_eq!(price.expect("a field").dtype, DType::Decimal(10, 2));
    }

    #[test]
    fn what_petastorm_cannot_read_is_refused() {
        let refused = |field: Field| {
            let schema = Schema::new(vec![field]).expect("a schema");
            unischema_pickle("T", &schema).expect_err("refused").to_string()
        };
        for name in ["class", "a.b", "_x", "1x", ""] {
            assert!(
                refused(Field::scalar(name, DType::Int8)).contains("identifier"),
                "{name}"
            );
        }
        assert!(refused(Field::new("x", DType::Int8, Shape::fixed(&[2]))).contains("codec"));
        assert!(refused(Field::scalar("x", DType::Nested)).contains("structs"));
        assert!(refused(Field::scalar("x", DType::Decimal(50, 2))).contains("decimal(50,2)"));
    }
}
