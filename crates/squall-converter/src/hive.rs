//! Values of columns as directory names: `country=CH/day=2024-01-31/`, as Spark writes them.

use std::fmt::Write;

use arrow_array::RecordBatch;
use indexmap::IndexMap;
use object_store::path::Path;
use squall_dataset::{TimeZone, partition};
use squall_schema::columns::value_at;
use squall_schema::{DType, Error, Field, Result, TimeUnit, Value};

/// What Spark and Hive write for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// Bytes that a file system takes for one name.
const MOST_NAME_BYTES: usize = 255;

/// Refuses columns whose values no directory name holds.
pub(crate) fn check(field: &Field) -> Result<()> {
    let holds = match field.dtype {
        DType::Datetime { unit, .. } => unit == TimeUnit::Microsecond,
        DType::Bytes | DType::Nested => false,
        _ => true,
    };
    if holds {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "directory names do not hold {field}: cast it in SQL to text, a number, a date or a time in microseconds"
    )))
}

/// The values of the partition columns in one row, by name, as text; null is `None`.
pub(crate) type Values = IndexMap<String, Option<String>>;

/// The directory of these values, or the dataset's own where there are none.
pub(crate) fn directory(values: &Values) -> Result<Path> {
    let mut path = String::new();
    for (name, value) in values {
        let start = path.len();
        escape(name, &mut path);
        path.push('=');
        match value {
            Some(value) => escape(value, &mut path),
            None => path.push_str(NULL),
        }
        if path.len() - start > MOST_NAME_BYTES {
            return Err(Error::unsupported(format!(
                "a value of {} bytes makes a directory name longer than {MOST_NAME_BYTES} bytes",
                value.as_ref().map_or(0, String::len)
            ))
            .at("column", name));
        }
        path.push('/');
    }
    Path::parse(path.trim_end_matches('/'))
        .map_err(|error| Error::unsupported("the partition values make no path").with_source(error))
}

/// The values of a row of a batch in which all columns are.
pub(crate) fn values(rows: &RecordBatch, fields: &[Field], row: usize) -> Result<Values> {
    let text = |field: &Field| {
        let column = rows
            .column_by_name(&field.name)
            .ok_or_else(|| Error::internal(format!("the rows have no column {:?}", field.name)))?;
        let value = value_at(column, field, row)?;
        let text = text(&value);
        // What a reader would take for something else is refused rather than changed: an empty text, a text that is the
        // name of null.
        let back = partition::value(text.as_deref(), field, TimeZone::default());
        let is_null_name = text.as_deref().is_some_and(|text| text == NULL || text.is_empty());
        if is_null_name || back.ok().as_ref() != Some(&value) {
            return Err(Error::unsupported(format!(
                "no directory name holds the value {:?}: replace it in SQL",
                text.unwrap_or_default()
            ))
            .at("column", &field.name));
        }
        Ok((field.name.clone(), text))
    };
    fields.iter().map(text).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::UInt(value) => Some(value.to_string()),
        Value::Float32(value) => Some(float(f64::from(*value), value.to_string())),
        Value::Float64(value) => Some(float(*value, format!("{value:?}"))),
        Value::Str(text) => Some(text.clone()),
        Value::Decimal(decimal) => Some(decimal.to_string()),
        time => Some(time.to_iso()?.trim_end_matches('Z').replacen('T', " ", 1)),
    }
}

/// Infinity as Java writes it.
fn float(value: f64, text: String) -> String {
    match value.is_infinite() {
        true => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        false => text,
    }
}

/// As `ExternalCatalogUtils.escapePathName` of Spark.
fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            let _ = write!(into, "%{:02X}", u32::from(c));
        } else {
            into.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_spark_does_and_read_back() {
        let check = |text: &str, expected: &str| {
            let values = Values::from_iter([("a b".to_owned(), Some(text.to_owned()))]);
            let path = directory(&values).expect("a path");
            assert_eq!(path.as_ref(), format!("a b={expected}"));
            assert_eq!(partition::parse(&format!("{path}/part-0.parquet")), values);
        };
        check("plain", "plain");
        check("a/b=c%d", "a%2Fb%3Dc%25d");
        check("Zürich 😀", "Zürich 😀");
        check("2024-01-01 12:00:00", "2024-01-01 12%3A00%3A00");
        check("\u{1}[x]{y", "%01%5Bx%5D%7By");
        let null = Values::from_iter([("n".to_owned(), None)]);
        assert_eq!(directory(&null).expect("a path").as_ref(), format!("n={NULL}"));
        let long = Values::from_iter([("n".to_owned(), Some("x".repeat(300)))]);
        let error = directory(&long).expect_err("too long").to_string();
        assert!(error.contains("300 bytes") && error.contains("column n"), "{error}");
    }
}
