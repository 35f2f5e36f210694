//! To and from Arrow's types.
//!
//! A column of a file may come in any of several Arrow types; in memory a field has exactly one, its canonical type,
//! so that the code behind has one case to handle:
//!
//! | field | canonical Arrow type |
//! |---|---|
//! | scalar | the primitive type, `Utf8`, `Binary`, `Decimal128` or `Decimal256`, `Date32`, `Timestamp` |
//! | tensor of fixed shape | `FixedSizeList` of the product of the shape, with Arrow's extension `arrow.fixed_shape_tensor` |
//! | vector of free length | `List` |
//! | tensor with other free dimensions | `Struct` of its elements and its shape, with Arrow's extension `arrow.variable_shape_tensor` |

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit as ArrowUnit};

use crate::{DType, Error, Field, Result, Schema, Shape, TimeUnit};

/// Arrow's key for the name of an extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
/// Arrow's key for the parameters of an extension type.
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
/// See <https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor>.
const FIXED_SHAPE_TENSOR: &str = "arrow.fixed_shape_tensor";

/// See <https://arrow.apache.org/docs/format/CanonicalExtensions.html#variable-shape-tensor>.
const VARIABLE_SHAPE_TENSOR: &str = "arrow.variable_shape_tensor";
/// The name of complex numbers as an extension type: real, then imaginary, little-endian. Arrow has none of its own.
const COMPLEX: &str = "squall.complex";
/// The names of that extension's columns.
pub(crate) const DATA: &str = "data";
pub(crate) const SHAPE: &str = "shape";

/// Largest precision of Arrow's 128-bit decimal.
const DECIMAL128_DIGITS: u8 = 38;

/// The field that an Arrow column holds.
pub fn field_from_arrow(column: &ArrowField) -> Result<Field> {
    if let Some(field) = variable_shape_field(column) {
        return Ok(field);
    }
    if let Some(dtype) = complex_item(column) {
        return Ok(Field::scalar(column.name(), dtype).with_nullable(column.is_nullable()));
    }
    let Some((dtype, dims)) = element(column.data_type()) else {
        if is_nested(column.data_type()) {
            let mut field = Field::scalar(column.name(), DType::Nested).with_nullable(column.is_nullable());
            field.arrow = Some(column.data_type().clone());
            return Ok(field);
        }
        return Err(Error::unsupported(format!(
            "a column of type {} cannot be read: leave it out of the selected columns",
            column.data_type()
        ))
        .at("column", column.name()));
    };
    let shape = declared_shape(column, &dims)?.unwrap_or(Shape(dims));
    Ok(Field::new(column.name(), dtype, shape).with_nullable(column.is_nullable()))
}

/// Whether it is made of lists, structs and maps of scalars that can be read.
fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => is_nested(item.data_type()),
        DataType::Struct(columns) => columns.iter().all(|column| is_nested(column.data_type())),
        // Nothing but nulls.
        DataType::Null => true,
        scalar => scalar_from_arrow(scalar).is_some_and(|dtype| element_to_arrow(dtype) == *scalar),
    }
}

fn element(data_type: &DataType) -> Option<(DType, Vec<Option<usize>>)> {
    let list = |item: &ArrowField, dim| {
        let (dtype, inner) = match complex_item(item) {
            Some(dtype) => (dtype, Vec::new()),
            None => element(item.data_type())?,
        };
        Some((dtype, [vec![dim], inner].concat()))
    };
    match data_type {
        // A list of ragged lists has no shape; only the outermost dimension may be free.
        DataType::List(item) | DataType::LargeList(item) => list(item, None).filter(|(_, dims)| dims.len() == 1),
        DataType::FixedSizeList(item, n) => {
            let dim = usize::try_from(*n).ok()?;
            list(item, Some(dim)).filter(|(_, dims)| dims.iter().all(Option::is_some))
        }
        scalar => Some((scalar_from_arrow(scalar)?, Vec::new())),
    }
}

fn scalar_from_arrow(data_type: &DataType) -> Option<DType> {
    Some(match data_type {
        DataType::Boolean => DType::Bool,
        DataType::Int8 => DType::Int8,
        DataType::Int16 => DType::Int16,
        DataType::Int32 => DType::Int32,
        DataType::Int64 => DType::Int64,
        DataType::UInt8 => DType::UInt8,
        DataType::UInt16 => DType::UInt16,
        DataType::UInt32 => DType::UInt32,
        DataType::UInt64 => DType::UInt64,
        DataType::Float16 => DType::Float16,
        DataType::Float32 => DType::Float32,
        DataType::Float64 => DType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DType::Str,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DType::Bytes,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => DType::Decimal(*p, *s),
        DataType::Date32 | DataType::Date64 => DType::Date,
        DataType::Timestamp(unit, zone) => DType::Datetime {
            unit: match unit {
                ArrowUnit::Second => TimeUnit::Second,
                ArrowUnit::Millisecond => TimeUnit::Millisecond,
                ArrowUnit::Microsecond => TimeUnit::Microsecond,
                ArrowUnit::Nanosecond => TimeUnit::Nanosecond,
            },
            utc: zone.is_some(),
        },
        _ => return None,
    })
}

/// The field of a variable-shape tensor, which says in its metadata which dimensions are the same in all rows.
fn variable_shape_field(column: &ArrowField) -> Option<Field> {
    let metadata = column.metadata();
    let DataType::Struct(columns) = column.data_type() else {
        return None;
    };
    if metadata.get(EXTENSION_NAME)? != VARIABLE_SHAPE_TENSOR {
        return None;
    }
    let (_, data) = columns.find(DATA)?;
    let DataType::List(item) = data.data_type() else {
        return None;
    };
    let json: serde_json::Value = serde_json::from_str(metadata.get(EXTENSION_METADATA)?).ok()?;
    let dims: Vec<Option<usize>> = serde_json::from_value(json.get("uniform_shape")?.clone()).ok()?;
    let dtype = complex_item(item).or_else(|| scalar_from_arrow(item.data_type()))?;
    Some(Field::new(column.name(), dtype, Shape(dims)).with_nullable(column.is_nullable()))
}

/// The shape in the extension metadata of a fixed-shape tensor, if its product is the list's length.
fn declared_shape(column: &ArrowField, dims: &[Option<usize>]) -> Result<Option<Shape>> {
    let metadata = column.metadata();
    if metadata
        .get(EXTENSION_NAME)
        .is_none_or(|name| name != FIXED_SHAPE_TENSOR)
    {
        return Ok(None);
    }
    let parsed = metadata
        .get(EXTENSION_METADATA)
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .and_then(|json| serde_json::from_value::<Vec<usize>>(json.get("shape")?.clone()).ok());
    let shape = parsed.as_deref().map(Shape::fixed);
    match shape {
        Some(shape) if shape.element_count() == Shape(dims.to_vec()).element_count() => Ok(Some(shape)),
        _ => Err(Error::corrupt(format!(
            "the {FIXED_SHAPE_TENSOR} metadata {:?} does not fit a list of shape {}",
            metadata.get(EXTENSION_METADATA),
            Shape(dims.to_vec())
        ))
        .at("column", column.name())),
    }
}

/// The canonical Arrow type of one element.
pub fn element_to_arrow(dtype: DType) -> DataType {
    match dtype {
        // A nested field has a type of its own.
        DType::Nested => DataType::Null,
        DType::Bool => DataType::Boolean,
        DType::Int8 => DataType::Int8,
        DType::Int16 => DataType::Int16,
        DType::Int32 => DataType::Int32,
        DType::Int64 => DataType::Int64,
        DType::UInt8 => DataType::UInt8,
        DType::UInt16 => DataType::UInt16,
        DType::UInt32 => DataType::UInt32,
        DType::UInt64 => DataType::UInt64,
        DType::Float16 => DataType::Float16,
        DType::Float32 => DataType::Float32,
        DType::Float64 => DataType::Float64,
        // Arrow has no complex numbers.
        DType::Complex64 => DataType::FixedSizeBinary(8),
        DType::Complex128 => DataType::FixedSizeBinary(16),
        DType::Str => DataType::Utf8,
        DType::Bytes => DataType::Binary,
        DType::Decimal(precision, scale) if precision <= DECIMAL128_DIGITS => DataType::Decimal128(precision, scale),
        DType::Decimal(precision, scale) => DataType::Decimal256(precision, scale),
        DType::Date => DataType::Date32,
        DType::Datetime { unit, utc } => {
            let unit = match unit {
                TimeUnit::Second => ArrowUnit::Second,
                TimeUnit::Millisecond => ArrowUnit::Millisecond,
                TimeUnit::Microsecond => ArrowUnit::Microsecond,
                TimeUnit::Nanosecond => ArrowUnit::Nanosecond,
            };
            DataType::Timestamp(unit, utc.then(|| Arc::from("UTC")))
        }
    }
}

/// The field's canonical Arrow column.
pub fn field_to_arrow(field: &Field) -> Result<ArrowField> {
    if field.dtype == DType::Nested {
        let arrow = field.arrow.clone();
        let arrow = arrow
            .ok_or_else(|| Error::unsupported("a nested column whose type is not known").at("column", &field.name))?;
        return Ok(ArrowField::new(&field.name, arrow, field.nullable));
    }
    if field.shape.is_scalar() {
        let column = ArrowField::new(&field.name, element_to_arrow(field.dtype), field.nullable);
        return Ok(mark_complex(column, field.dtype));
    }
    let item = Arc::new(item_field(field));
    if let Some(dims) = field.shape.as_fixed() {
        let too_large = || Error::unsupported(format!("a tensor of shape {} is too large", field.shape));
        let count = field.shape.element_count().ok_or_else(too_large)?;
        let count = i32::try_from(count).map_err(|_| too_large())?;
        let metadata = HashMap::from([
            (EXTENSION_NAME.to_owned(), FIXED_SHAPE_TENSOR.to_owned()),
            (
                EXTENSION_METADATA.to_owned(),
                serde_json::json!({ "shape": dims }).to_string(),
            ),
        ]);
        let list = DataType::FixedSizeList(item, count);
        return Ok(ArrowField::new(&field.name, list, field.nullable).with_metadata(metadata));
    }
    if field.shape.0.len() == 1 {
        return Ok(ArrowField::new(&field.name, DataType::List(item), field.nullable));
    }
    let dims =
        i32::try_from(field.shape.0.len()).map_err(|_| Error::unsupported("a tensor of more than 2^31 dimensions"))?;
    let shape = DataType::FixedSizeList(Arc::new(ArrowField::new("element", DataType::Int32, false)), dims);
    let columns = vec![
        ArrowField::new(DATA, DataType::List(item), false),
        ArrowField::new(SHAPE, shape, false),
    ];
    let metadata = HashMap::from([
        (EXTENSION_NAME.to_owned(), VARIABLE_SHAPE_TENSOR.to_owned()),
        (
            EXTENSION_METADATA.to_owned(),
            serde_json::json!({ "uniform_shape": field.shape }).to_string(),
        ),
    ]);
    Ok(ArrowField::new(&field.name, DataType::Struct(columns.into()), field.nullable).with_metadata(metadata))
}

/// The dtype of a scalar column.
pub(crate) fn scalar_dtype(data_type: &DataType) -> Option<DType> {
    scalar_from_arrow(data_type)
}

/// The item of a canonical list. A dense tensor has no null elements; those of a ragged vector are kept.
pub(crate) fn item_field(field: &Field) -> ArrowField {
    let ragged = field.shape.as_fixed().is_none();
    let item = ArrowField::new("element", element_to_arrow(field.dtype), ragged);
    mark_complex(item, field.dtype)
}

/// Says of complex numbers what they are: Arrow takes them for bytes.
fn mark_complex(column: ArrowField, dtype: DType) -> ArrowField {
    match dtype {
        DType::Complex64 | DType::Complex128 => {
            column.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), COMPLEX.to_owned())]))
        }
        _ => column,
    }
}

/// The complex dtype of a column or of a list's items that [`mark_complex`] marked.
fn complex_item(item: &ArrowField) -> Option<DType> {
    match item.data_type() {
        _ if item.metadata().get(EXTENSION_NAME)? != COMPLEX => None,
        DataType::FixedSizeBinary(8) => Some(DType::Complex64),
        DataType::FixedSizeBinary(16) => Some(DType::Complex128),
        _ => None,
    }
}

/// The schema's canonical Arrow schema.
pub fn schema_to_arrow(schema: &Schema) -> Result<SchemaRef> {
    schema.arrow_or(|| {
        let fields = schema.fields().iter().map(field_to_arrow).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ArrowSchema::new(fields)))
    })
}

/// The fields of an Arrow schema.
pub fn schema_from_arrow(schema: &ArrowSchema) -> Result<Schema> {
    let fields = schema.fields().iter().map(|column| field_from_arrow(column));
    Schema::new(fields.collect::<Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: Field) {
        let column = field_to_arrow(&field).expect("canonical type");
        assert_eq!(field_from_arrow(&column).expect("field"), field);
    }

    #[test]
    fn canonical_types_keep_the_field() {
        check(Field::scalar("a", DType::Float16));
        check(Field::scalar("b", DType::Decimal(50, 4)).with_nullable(true));
        check(Field::scalar(
            "c",
            DType::Datetime {
                unit: TimeUnit::Microsecond,
                utc: true,
            },
        ));
        check(Field::new("d", DType::UInt8, Shape::fixed(&[28, 28, 3])));
        check(Field::new("e", DType::Str, Shape(vec![None])));
        check(Field::new("g", DType::Complex128, Shape(vec![Some(2), None])));
        check(Field::new("h", DType::Complex64, Shape(vec![None])));
        check(Field::scalar("i", DType::Complex64));
        check(Field::new("f", DType::UInt8, Shape(vec![None, Some(4), Some(3)])).with_nullable(true));
    }

    #[test]
    fn a_shape_that_does_not_fit_its_list_is_corrupt() {
        let field = Field::new("x", DType::Float32, Shape::fixed(&[2, 3]));
        let column = field_to_arrow(&field).expect("canonical type");
        let mut metadata = column.metadata().clone();
        metadata.insert(EXTENSION_METADATA.to_owned(), r#"{"shape":[7]}"#.to_owned());
        assert!(field_from_arrow(&column.with_metadata(metadata)).is_err());
    }
}
