//! Between Spark's types and fields.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField};

use super::shown;
use super::types::{SparkType, StructField, StructType};
use crate::arrow::{DATA, SHAPE, element_to_arrow, field_from_arrow};
use crate::codec::Codec;
use crate::{DType, Error, Field, Result, Schema, Shape, TimeUnit};

/// Most digits of Spark's decimals.
const MAX_DECIMAL_DIGITS: u8 = 38;
/// An unsigned 64-bit integer as a decimal: Spark has no unsigned types.
const UINT64: SparkType = SparkType::Decimal(20, 0);

/// How tensors of several dimensions are told to Spark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TensorLayout {
    /// As Squall stores them: one array of all elements; with free dimensions, a struct of the elements and the shape.
    #[default]
    Flat,
    /// As Spark itself would have them: arrays of arrays.
    Nested,
}

impl Schema {
    /// The fields that a schema of Spark declares, read as its Parquet files are: see [`StructType::to_schema`].
    pub fn from_spark_json(text: &str) -> Result<Self> {
        StructType::from_json(text)?.to_schema()
    }

    /// The schema that Spark reads the stored fields with: see [`StructType::of_schema`].
    pub fn to_spark_json(&self, tensors: TensorLayout) -> Result<String> {
        Ok(StructType::of_schema(self, tensors)?.to_json())
    }
}

impl StructType {
    /// The fields. `timestamp` is an instant to the microsecond and `timestamp_ntz` a wall clock time; `char` and
    /// `varchar` are text; intervals are the integers that they are stored as, months or microseconds; vectors of Spark ML
    /// are vectors of doubles. Other classes of users and types that Parquet does not hold are errors that name them.
    pub fn to_schema(&self) -> Result<Schema> {
        Schema::new(self.fields.iter().map(to_field).collect::<Result<_>>()?)
    }

    /// The columns of these fields as they are stored. What Spark lacks is widened: `uint8` is `short`, `uint16`
    /// `integer`, `uint32` `long`, `uint64` `decimal(20,0)`, `float16` `float`. Fields with a codec are binary cells, but for
    /// vectors of Spark ML.
    pub fn of_schema(schema: &Schema, tensors: TensorLayout) -> Result<Self> {
        let field = |field: &Field| {
            let own = of_field(field, tensors).map_err(|error| error.at("column", shown(&field.name)))?;
            Ok(StructField::new(&field.name, own, field.nullable))
        };
        Ok(Self {
            fields: schema.fields().iter().map(field).collect::<Result<_>>()?,
        })
    }
}

fn to_field(own: &StructField) -> Result<Field> {
    let at = |error: Error| error.at("column", shown(&own.name));
    if own.data_type.is_vector()
        && let SparkType::Udt { sql_type, .. } = &own.data_type
    {
        let vector = Field::new(&own.name, DType::Float64, Shape(vec![None])).with_codec(Some(Codec::SparkVector));
        return Ok(Field {
            arrow: Some(to_arrow(sql_type).map_err(at)?),
            ..vector.with_nullable(own.nullable)
        });
    }
    let data_type = to_arrow(&own.data_type).map_err(at)?;
    field_from_arrow(&ArrowField::new(&own.name, data_type, own.nullable))
}

/// The Arrow type of a column as Spark stores it in Parquet.
fn to_arrow(own: &SparkType) -> Result<DataType> {
    let datetime = |utc| DType::Datetime {
        unit: TimeUnit::Microsecond,
        utc,
    };
    let dtype = match own {
        SparkType::Boolean => DType::Bool,
        SparkType::Byte => DType::Int8,
        SparkType::Short => DType::Int16,
        SparkType::Integer | SparkType::YearMonthInterval(_) => DType::Int32,
        SparkType::Long | SparkType::DayTimeInterval(_) => DType::Int64,
        SparkType::Float => DType::Float32,
        SparkType::Double => DType::Float64,
        SparkType::Decimal(precision, scale) => {
            check_decimal(*precision, *scale)?;
            DType::Decimal(*precision, *scale)
        }
        SparkType::String | SparkType::Char(_) | SparkType::Varchar(_) => DType::Str,
        SparkType::Binary => DType::Bytes,
        SparkType::Date => DType::Date,
        SparkType::Timestamp => datetime(true),
        SparkType::TimestampNtz => datetime(false),
        SparkType::Variant => {
            let part = |name| ArrowField::new(name, DataType::Binary, false);
            return Ok(DataType::Struct(vec![part("value"), part("metadata")].into()));
        }
        SparkType::Array { element, contains_null } => {
            let element = ArrowField::new("element", to_arrow(element)?, *contains_null);
            return Ok(DataType::List(Arc::new(element)));
        }
        SparkType::Map {
            key,
            value,
            value_contains_null,
        } => {
            let key = ArrowField::new("key", to_arrow(key)?, false);
            let value = ArrowField::new("value", to_arrow(value)?, *value_contains_null);
            let entries = ArrowField::new("key_value", DataType::Struct(vec![key, value].into()), false);
            return Ok(DataType::Map(Arc::new(entries), false));
        }
        SparkType::Struct(row) => {
            let member = |own: &StructField| {
                let data_type = to_arrow(&own.data_type).map_err(|error| error.at("member", shown(&own.name)))?;
                Ok(ArrowField::new(&own.name, data_type, own.nullable))
            };
            return Ok(DataType::Struct(row.fields.iter().map(member).collect::<Result<_>>()?));
        }
        SparkType::Udt { .. } | SparkType::Other(_) => {
            let own = shown(own);
            return Err(Error::unsupported(format!("the type {own} of Spark is not known here")));
        }
    };
    Ok(element_to_arrow(dtype))
}

fn of_field(field: &Field, tensors: TensorLayout) -> Result<SparkType> {
    match &field.codec {
        Some(Codec::SparkVector) => return Ok(SparkType::vector()),
        Some(_) => return Ok(SparkType::Binary),
        None => {}
    }
    if let (DType::Nested, Some(arrow)) = (field.dtype, &field.arrow) {
        return of_arrow(arrow);
    }
    let element = of_dtype(field.dtype)?;
    let list = |element, contains_null| SparkType::Array {
        element: Box::new(element),
        contains_null,
    };
    let (dims, ragged) = (field.shape.0.len(), field.shape.as_fixed().is_none());
    Ok(match (dims, tensors) {
        (0, _) => element,
        // A dense tensor has no null elements.
        (1, _) => list(element, ragged),
        (_, TensorLayout::Nested) => (1..dims).fold(list(element, ragged), |inner, _| list(inner, false)),
        (_, TensorLayout::Flat) if ragged => SparkType::Struct(StructType {
            fields: vec![
                StructField::new(DATA, list(element, true), false),
                StructField::new(SHAPE, list(SparkType::Integer, false), false),
            ],
        }),
        (_, TensorLayout::Flat) => list(element, false),
    })
}

fn of_arrow(own: &DataType) -> Result<SparkType> {
    let field = |own: &ArrowField| {
        let data_type = of_arrow(own.data_type()).map_err(|error| error.at("member", shown(own.name())))?;
        Ok(StructField::new(own.name(), data_type, own.is_nullable()))
    };
    Ok(match own {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => SparkType::Array {
            element: Box::new(of_arrow(item.data_type())?),
            contains_null: item.is_nullable(),
        },
        DataType::Struct(members) => SparkType::Struct(StructType {
            fields: members.iter().map(|own| field(own)).collect::<Result<_>>()?,
        }),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => SparkType::Map {
                key: Box::new(of_arrow(pair[0].data_type())?),
                value: Box::new(of_arrow(pair[1].data_type())?),
                value_contains_null: pair[1].is_nullable(),
            },
            other => return Err(Error::unsupported(format!("a map of {other}"))),
        },
        scalar => of_dtype(field_from_arrow(&ArrowField::new("", scalar.clone(), true))?.dtype)?,
    })
}

/// Spark's type of a scalar; unsigned integers take the next wider one.
pub(crate) fn of_dtype(dtype: DType) -> Result<SparkType> {
    Ok(match dtype {
        DType::Bool => SparkType::Boolean,
        DType::Int8 => SparkType::Byte,
        DType::Int16 | DType::UInt8 => SparkType::Short,
        DType::Int32 | DType::UInt16 => SparkType::Integer,
        DType::Int64 | DType::UInt32 => SparkType::Long,
        DType::UInt64 => UINT64,
        DType::Float16 | DType::Float32 => SparkType::Float,
        DType::Float64 => SparkType::Double,
        DType::Str => SparkType::String,
        DType::Bytes => SparkType::Binary,
        DType::Decimal(precision, scale) => {
            check_decimal(precision, scale)?;
            SparkType::Decimal(precision, scale)
        }
        DType::Date => SparkType::Date,
        DType::Datetime {
            unit: TimeUnit::Nanosecond,
            ..
        } => return Err(Error::unsupported("Spark has no times in nanoseconds")),
        DType::Datetime { utc: true, .. } => SparkType::Timestamp,
        DType::Datetime { utc: false, .. } => SparkType::TimestampNtz,
        DType::Complex64 | DType::Complex128 => return Err(Error::unsupported("Spark has no complex numbers")),
        DType::Nested => return Err(Error::unsupported("a nested column whose type is not known")),
    })
}

fn check_decimal(precision: u8, scale: i8) -> Result<()> {
    let fits =
        (1..=MAX_DECIMAL_DIGITS).contains(&precision) && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
    match fits {
        true => Ok(()),
        false => Err(Error::unsupported(format!(
            "Spark has no decimal({precision},{scale}): expected at most {MAX_DECIMAL_DIGITS} digits, none to all of them after the point"
        ))),
    }
}
