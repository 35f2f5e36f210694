//! Spark SQL's types.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value as Json};

/// The key under which Spark keeps `char(n)` and `varchar(n)` of a column that it calls a string.
const CHAR_VARCHAR: &str = "__CHAR_VARCHAR_TYPE_STRING";
/// The end of the class names of vectors, of spark.ml and of the older spark.mllib.
const VECTOR: &str = "linalg.VectorUDT";
/// What `decimal` alone stands for.
const DEFAULT_DECIMAL: (u8, i8) = (10, 0);

/// A row's columns, or a struct's members, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StructType {
    /// The columns.
    pub fields: Vec<StructField>,
}

/// A column or a member of a struct.
#[derive(Debug, Clone, PartialEq)]
pub struct StructField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: SparkType,
    /// Whether a value may be null.
    pub nullable: bool,
    /// What programs noted beside it.
    pub metadata: Map<String, Json>,
}

/// A type of Spark SQL.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SparkType {
    /// `boolean`
    Boolean,
    /// `byte`: 8 bits, signed.
    Byte,
    /// `short`: 16 bits, signed.
    Short,
    /// `integer`: 32 bits, signed.
    Integer,
    /// `long`: 64 bits, signed.
    Long,
    /// `float`: 32 bits.
    Float,
    /// `double`: 64 bits.
    Double,
    /// `decimal(10,2)`: digits in all, digits after the point.
    Decimal(u8, i8),
    /// `string`
    String,
    /// `char(8)`: text, padded with spaces to its length.
    Char(u32),
    /// `varchar(8)`: text of at most so many characters.
    Varchar(u32),
    /// `binary`
    Binary,
    /// `date`
    Date,
    /// `timestamp`: an instant, shown in the zone of the session.
    Timestamp,
    /// `timestamp_ntz`: what a clock on the wall shows.
    TimestampNtz,
    /// `interval year to month` and its parts: months.
    YearMonthInterval(String),
    /// `interval day to second` and its parts: microseconds.
    DayTimeInterval(String),
    /// `variant`: a value with its type, in a binary form.
    Variant,
    /// A type without parts that is not known here, or that no Parquet file has: `void`, `interval`, a newer Spark's.
    Other(String),
    /// `array`
    Array {
        /// The type of an element.
        element: Box<SparkType>,
        /// Whether an element may be null.
        contains_null: bool,
    },
    /// `map`
    Map {
        /// The type of a key, which is never null.
        key: Box<SparkType>,
        /// The type of a value.
        value: Box<SparkType>,
        /// Whether a value may be null.
        value_contains_null: bool,
    },
    /// `struct`
    Struct(StructType),
    /// `udt`: a class of the user's or of Spark ML's, and the type that it is stored as.
    Udt {
        /// The class in Scala or Java; Python's own have none.
        class: Option<String>,
        /// The class in Python.
        py_class: Option<String>,
        /// Python's class as a pickle in base64. It is kept and never run.
        serialized_class: Option<String>,
        /// What a value is stored as.
        sql_type: Box<SparkType>,
    },
}

impl StructType {
    /// The column of this name.
    pub fn get(&self, name: &str) -> Option<&StructField> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl StructField {
    /// A column without notes.
    pub fn new(name: impl Into<String>, data_type: SparkType, nullable: bool) -> Self {
        Self {
            name: name.into(),
            data_type,
            nullable,
            metadata: Map::new(),
        }
    }

    /// The type as the table declares it: Spark stores `char` and `varchar` as strings, and notes what they were.
    pub fn declared_type(&self) -> SparkType {
        let noted = self.metadata.get(CHAR_VARCHAR).and_then(Json::as_str);
        match (&self.data_type, noted.and_then(|text| text.parse().ok())) {
            (SparkType::String, Some(noted @ (SparkType::Char(_) | SparkType::Varchar(_)))) => noted,
            (own, _) => own.clone(),
        }
    }
}

impl SparkType {
    /// Whether it is a vector of Spark ML, dense or sparse.
    pub fn is_vector(&self) -> bool {
        matches!(self, Self::Udt { class: Some(class), .. } if class.ends_with(VECTOR))
    }

    /// Spark ML's vectors, as they are stored.
    pub(super) fn vector() -> Self {
        let list = |element| Self::Array {
            element: Box::new(element),
            contains_null: false,
        };
        let fields = vec![
            StructField::new("type", Self::Byte, false),
            StructField::new("size", Self::Integer, true),
            StructField::new("indices", list(Self::Integer), true),
            StructField::new("values", list(Self::Double), true),
        ];
        Self::Udt {
            class: Some(format!("org.apache.spark.ml.{VECTOR}")),
            py_class: Some(format!("pyspark.ml.{VECTOR}")),
            serialized_class: None,
            sql_type: Box::new(Self::Struct(StructType { fields })),
        }
    }
}

const PLAIN: [(SparkType, &str); 14] = [
    (SparkType::Boolean, "boolean"),
    (SparkType::Byte, "byte"),
    (SparkType::Short, "short"),
    (SparkType::Integer, "integer"),
    (SparkType::Long, "long"),
    (SparkType::Float, "float"),
    (SparkType::Double, "double"),
    (SparkType::String, "string"),
    (SparkType::Binary, "binary"),
    (SparkType::Date, "date"),
    (SparkType::Timestamp, "timestamp"),
    (SparkType::TimestampNtz, "timestamp_ntz"),
    (SparkType::Variant, "variant"),
    (SparkType::Decimal(DEFAULT_DECIMAL.0, DEFAULT_DECIMAL.1), "decimal"),
];

/// A type without parts, by its name in Spark's JSON. Any text is one: what is not known is kept by name.
impl FromStr for SparkType {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((plain, _)) = PLAIN.iter().find(|(_, name)| *name == text) {
            return Ok(plain.clone());
        }
        let number = |prefix: &str| -> Option<u32> { arguments(text, prefix)?.trim().parse().ok() };
        let decimal = || {
            let (precision, scale) = arguments(text, "decimal")?.split_once(',')?;
            Some(Self::Decimal(
                precision.trim().parse().ok()?,
                scale.trim().parse().ok()?,
            ))
        };
        let interval = || {
            let units: Vec<_> = text.strip_prefix("interval ")?.split(" to ").collect();
            let all = |known: &[&str]| units.iter().all(|unit| known.contains(unit));
            if all(&["year", "month"]) {
                Some(Self::YearMonthInterval(text.to_owned()))
            } else if all(&["day", "hour", "minute", "second"]) {
                Some(Self::DayTimeInterval(text.to_owned()))
            } else {
                None
            }
        };
        let known = decimal()
            .or_else(|| number("char").map(Self::Char))
            .or_else(|| number("varchar").map(Self::Varchar))
            .or_else(interval);
        Ok(known.unwrap_or_else(|| Self::Other(text.to_owned())))
    }
}

fn arguments<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// The name in Spark's JSON; of a type with parts, the kind or the class.
impl fmt::Display for SparkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::Char(length) => write!(f, "char({length})"),
            Self::Varchar(length) => write!(f, "varchar({length})"),
            Self::YearMonthInterval(name) | Self::DayTimeInterval(name) | Self::Other(name) => f.write_str(name),
            Self::Array { .. } => f.write_str("array"),
            Self::Map { .. } => f.write_str("map"),
            Self::Struct(_) => f.write_str("struct"),
            Self::Udt { class, py_class, .. } => {
                write!(
                    f,
                    "udt {}",
                    class.as_deref().or(py_class.as_deref()).unwrap_or("without a class")
                )
            }
            plain => {
                let found = PLAIN.iter().find(|(own, _)| own == plain);
                f.write_str(found.map_or("", |(_, name)| name))
            }
        }
    }
}
