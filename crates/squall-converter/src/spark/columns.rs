//! What becomes of the columns of a Spark `DataFrame`: expressions of Spark's SQL, which Spark evaluates while it writes.

use serde_json::{Value as Json, json};
use spark_connect::functions::{expr, when};
use spark_connect::{Column, DataFrame, Expression, LiteralExpression, UnresolvedFunction};
use squall_dataset::listing;
use squall_schema::spark::{SparkType, StructField, StructType, TensorLayout};
use squall_schema::{Error, Field, Result, Schema};

use super::error::{OURS, spark_error};
use crate::converter::Converter;
use crate::rules::FloatPrecision;

/// What Spark and Hive write for null in directory names.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that are written.
pub(super) struct Columns {
    /// Their types, in their order.
    pub(super) types: StructType,
    /// The fields that were declared.
    pub(super) declared: Option<Schema>,
    pub(super) rows: DataFrame,
}

/// One column on its way.
struct Step {
    sql: String,
    own: SparkType,
}

impl Columns {
    /// Applies the rules of the converter to the columns of the rows.
    pub(super) fn plan(rows: &DataFrame, converter: &Converter) -> Result<Self> {
        let rules = &converter.rules;
        if let Some(column) = rules.image_column() {
            return Err(cells("images are", column));
        }
        if rules.has_closures() {
            return Err(Error::unsupported(
                "closures are not run by Spark: compute the column in Spark, or convert what Spark wrote by the embedded engine",
            ));
        }
        let mut found = rows.schema().map_err(spark_error)?.json_value();
        complete(&mut found);
        let found = StructType::from_json(&found.to_string())?;
        for field in &found.fields {
            if found.fields.iter().filter(|other| other.name == field.name).count() > 1 {
                return Err(Error::invalid(format!(
                    "two columns have the name {:?}: rename one",
                    field.name
                )));
            }
        }
        let (rows, found) = vectors_to_arrays(rows, found);
        let mut types = StructType::default();
        let mut selected = Vec::new();
        let wanted: Vec<(&StructField, Option<&Field>)> = match rules.declared() {
            Some(schema) => {
                let column = |field| own_column(&found, field).map(|column| (column, Some(field)));
                schema.fields().iter().map(column).collect::<Result<_>>()?
            }
            None => found.fields.iter().map(|column| (column, None)).collect(),
        };
        for (column, field) in wanted {
            let name = &column.name;
            let start = Step {
                sql: quoted(name),
                own: column.data_type.clone(),
            };
            let step = match field {
                Some(field) => declare(start, field)?,
                None => precise(start, rules.precision(), name, 0),
            };
            let is_key = converter.layout.partition_by.contains(name);
            let step = match step.own {
                SparkType::String | SparkType::Char(_) | SparkType::Varchar(_) if is_key => directory_name(step, name),
                _ => step,
            };
            selected.push(format!("{} AS {}", step.sql, quoted(name)));
            types.fields.push(StructField::new(name, step.own, column.nullable));
        }
        let rows = rows.select(selected.iter().map(|sql| expr(sql)).collect::<Vec<_>>());
        Ok(Self {
            types,
            declared: rules.declared().cloned(),
            rows,
        })
    }

    /// The fields, as far as they are known before the rows are: a list is a vector of free length.
    pub(super) fn schema(&self) -> Result<Schema> {
        match &self.declared {
            Some(schema) => Ok(schema.clone()),
            None => self.types.to_schema(),
        }
    }
}

/// A server does not say what a class is stored as. Of vectors it does not matter, for they become arrays; the others are refused by
/// their names.
fn complete(schema: &mut Json) {
    match schema {
        Json::Object(members) => {
            if members.get("type").and_then(Json::as_str) == Some("udt") && !members.contains_key("sqlType") {
                members.insert("sqlType".to_owned(), json!({"type": "struct", "fields": []}));
            }
            members.values_mut().for_each(complete);
        }
        Json::Array(items) => items.iter_mut().for_each(complete),
        _ => {}
    }
}

/// Vectors of Spark ML as arrays of doubles, as Petastorm makes them.
fn vectors_to_arrays(rows: &DataFrame, mut found: StructType) -> (DataFrame, StructType) {
    if !found.fields.iter().any(|field| field.data_type.is_vector()) {
        return (rows.clone(), found);
    }
    let mut columns = Vec::with_capacity(found.fields.len());
    for field in &mut found.fields {
        let own = expr(&quoted(&field.name));
        if !field.data_type.is_vector() {
            columns.push(own);
            continue;
        }
        let arguments = vec![
            own.expression().clone(),
            Expression::Literal(LiteralExpression::string("float64")),
        ];
        let array = UnresolvedFunction::new("vector_to_array", arguments);
        let array = Column::new(Expression::UnresolvedFunction(array));
        // The function takes no null.
        let there = expr(&format!("{} IS NOT NULL", quoted(&field.name)));
        columns.push(when(there, array).alias(&field.name));
        field.data_type = SparkType::Array {
            element: Box::new(SparkType::Double),
            contains_null: false,
        };
    }
    (rows.select(columns), found)
}

fn own_column<'a>(found: &'a StructType, field: &Field) -> Result<&'a StructField> {
    if field.codec.is_some() {
        return Err(cells("cells with a codec are", &field.name));
    }
    found.get(&field.name).ok_or_else(|| {
        let known: Vec<_> = found.fields.iter().map(|column| column.name.as_str()).collect();
        Error::invalid(format!(
            "the declared field {:?} is no column of the result: the columns are {}",
            field.name,
            known.join(", ")
        ))
    })
}

fn cells(what: &str, column: &str) -> Error {
    Error::unsupported(format!(
        "{what} not written by Spark: pass the column on, and convert what Spark wrote by the embedded engine"
    ))
    .at("column", column)
}

/// Floating-point numbers in the wanted precision, in arrays too.
fn precise(step: Step, precision: FloatPrecision, name: &str, depth: usize) -> Step {
    match (&step.own, precision) {
        (SparkType::Double, FloatPrecision::Float32) => to_float(step, name),
        (SparkType::Float, FloatPrecision::Float64) => Step {
            sql: format!("CAST({} AS DOUBLE)", step.sql),
            own: SparkType::Double,
        },
        (SparkType::Array { element, contains_null }, _) => {
            let item = Step {
                sql: variable(depth),
                own: element.as_ref().clone(),
            };
            let item = precise(item, precision, name, depth + 1);
            match item.own == **element {
                true => step,
                false => array_of(step.sql, item, *contains_null, depth),
            }
        }
        _ => step,
    }
}

/// A finite double that is infinite as a float is an error.
fn to_float(Step { sql, .. }: Step, name: &str) -> Step {
    let message = raise(&format!(
        "a double that float32 does not hold: keep the precision, or scale it in SQL, column {name:?}"
    ));
    let float = format!("CAST({sql} AS FLOAT)");
    Step {
        sql: format!(
            "CASE WHEN abs({sql}) < double('Infinity') AND abs({float}) = float('Infinity') THEN {message} ELSE {float} END"
        ),
        own: SparkType::Float,
    }
}

fn array_of(array: String, item: Step, contains_null: bool, depth: usize) -> Step {
    Step {
        sql: format!("transform({array}, {} -> {})", variable(depth), item.sql),
        own: SparkType::Array {
            element: Box::new(item.own),
            contains_null,
        },
    }
}

/// The name of an element inside of so many arrays.
fn variable(depth: usize) -> String {
    format!("squall_element_{depth}")
}

/// The column in the type and the shape of a field. What does not fit is an error.
fn declare(step: Step, field: &Field) -> Result<Step> {
    let name = &field.name;
    let stored = StructType::of_schema(&Schema::new(vec![field.clone()])?, TensorLayout::Flat)?;
    let Some(StructField { data_type: to, .. }) = stored.fields.into_iter().next() else {
        return Err(Error::internal("a field without a column"));
    };
    let mut step = cast(step, &to, name, 0)?;
    if let Some(shape) = field.shape.as_fixed()
        && !shape.is_empty()
    {
        let n: usize = shape.iter().product();
        let message = raise(&format!("an array of another length than {n}, column {name:?}"));
        step.sql = format!("CASE WHEN size({0}) != {n} THEN {message} ELSE {0} END", step.sql);
    }
    if !field.nullable {
        let message = raise(&format!("null where the schema has none, column {name:?}"));
        step.sql = format!("CASE WHEN {0} IS NULL THEN {message} ELSE {0} END", step.sql);
    }
    Ok(step)
}

fn cast(step: Step, to: &SparkType, name: &str, depth: usize) -> Result<Step> {
    if step.own == *to {
        return Ok(step);
    }
    let Step { sql, own } = step;
    if let (SparkType::Double, SparkType::Float) = (&own, to) {
        return Ok(to_float(Step { sql, own }, name));
    }
    if let (SparkType::Array { element, contains_null }, SparkType::Array { element: item, .. }) = (&own, to) {
        let from = Step {
            sql: variable(depth),
            own: element.as_ref().clone(),
        };
        let made = cast(from, item, name, depth + 1)?;
        return Ok(match made.own == **element {
            true => Step { sql, own },
            false => array_of(sql, made, *contains_null, depth),
        });
    }
    let (Some(source), Some(target)) = (ddl(&own), ddl(to)) else {
        return Err(Error::unsupported(format!(
            "the column {name:?} is of another type than the declared field: take it apart in SQL"
        )));
    };
    let tried = format!("try_cast({sql} AS {target})");
    let is_integer = matches!(
        to,
        SparkType::Byte | SparkType::Short | SparkType::Integer | SparkType::Long
    );
    let has_fractions = matches!(own, SparkType::Float | SparkType::Double | SparkType::Decimal(..));
    let lost = match is_integer && has_fractions {
        true => format!(" OR CAST({tried} AS {source}) != {sql}"),
        false => String::new(),
    };
    let message = raise(&format!("a value of {source} is not one of {target}, column {name:?}"));
    Ok(Step {
        sql: format!("CASE WHEN {sql} IS NOT NULL AND ({tried} IS NULL{lost}) THEN {message} ELSE {tried} END"),
        own: to.clone(),
    })
}

/// The name of a scalar type in SQL.
fn ddl(own: &SparkType) -> Option<String> {
    Some(match own {
        SparkType::Boolean => "BOOLEAN".to_owned(),
        SparkType::Byte => "TINYINT".to_owned(),
        SparkType::Short => "SMALLINT".to_owned(),
        SparkType::Integer => "INT".to_owned(),
        SparkType::Long => "BIGINT".to_owned(),
        SparkType::Float => "FLOAT".to_owned(),
        SparkType::Double => "DOUBLE".to_owned(),
        SparkType::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        SparkType::String | SparkType::Char(_) | SparkType::Varchar(_) => "STRING".to_owned(),
        SparkType::Binary => "BINARY".to_owned(),
        SparkType::Date => "DATE".to_owned(),
        SparkType::Timestamp => "TIMESTAMP".to_owned(),
        SparkType::TimestampNtz => "TIMESTAMP_NTZ".to_owned(),
        _ => return None,
    })
}

/// Text that stands in directory names. Spark takes an empty one, and that of null, for null without a word: here they are errors.
/// Null has its name at once, since Spark would sort a column that may be null once more, and lose the order of the rows.
fn directory_name(step: Step, name: &str) -> Step {
    let message = raise(&format!(
        "no directory name holds an empty text or {NULL}: replace it in SQL, column {name:?}"
    ));
    let sql = format!(
        "coalesce(CASE WHEN {0} IN ('', '{NULL}') THEN {message} ELSE {0} END, '{NULL}')",
        step.sql
    );
    Step { sql, ..step }
}

/// An expression that ends the conversion.
fn raise(message: &str) -> String {
    format!("raise_error({})", literal(&format!("{OURS}{message}")))
}

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Refuses names of columns that hide the files of their directories.
pub(super) fn check_names(partition_by: &[String]) -> Result<()> {
    let hidden = |name: &&String| listing::is_hidden(&format!("{name}/x").into());
    match partition_by.iter().find(hidden) {
        Some(name) => Err(Error::unsupported(format!(
            "directories that begin like the column {name:?} are hidden from readers: rename it"
        ))),
        None => Ok(()),
    }
}
