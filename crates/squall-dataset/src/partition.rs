//! Values in directory names: `country=CH/day=2024-01-31/`, as Hive and Spark write them.

use indexmap::IndexMap;
use percent_encoding::percent_decode_str;
use squall_schema::{DType, Error, Field, Result, Value};

/// The value that Hive and Spark write for null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The names and values in the directories of a path, as text; `None` is null.
///
/// Names and values are percent-decoded: Spark escapes characters that file systems refuse.
pub fn parse(path: &str) -> IndexMap<String, Option<String>> {
    let (directories, _) = path.rsplit_once('/').unwrap_or(("", path));
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = directories.split('/').filter_map(|part| part.split_once('='));
    pairs
        .map(|(name, value)| (decode(name), (value != HIVE_NULL).then(|| decode(value))))
        .collect()
}

/// The fields of the partition columns, typed from all their values as Spark infers them: `int32`, `int64`, `float64`,
/// a date, else text.
///
/// `partitions` has a path for each map of [`parse`]. That all paths have the same names in the same order is checked.
pub fn infer(partitions: &[(&str, &IndexMap<String, Option<String>>)]) -> Result<Vec<Field>> {
    let Some((first_path, first)) = partitions.first() else {
        return Ok(Vec::new());
    };
    for (path, partition) in partitions {
        if !partition.keys().eq(first.keys()) {
            let names = |partition: &IndexMap<String, _>| partition.keys().cloned().collect::<Vec<_>>().join("/");
            return Err(Error::corrupt(format!(
                "the directories do not agree on the partition columns: expected [{}] as in {first_path}, found [{}]",
                names(first),
                names(partition)
            ))
            .at("file", path));
        }
    }
    let field = |name: &String| {
        let values = || {
            partitions
                .iter()
                .filter_map(|(_, partition)| partition[name].as_deref())
        };
        let dtype = [DType::Int32, DType::Int64, DType::Float64, DType::Date]
            .into_iter()
            .find(|dtype| values().next().is_some() && values().all(|text| typed(text, *dtype).is_some()));
        let nullable = partitions.iter().any(|(_, partition)| partition[name].is_none());
        Field::scalar(name, dtype.unwrap_or(DType::Str)).with_nullable(nullable)
    };
    Ok(first.keys().map(field).collect())
}

/// The text of a directory name as a value of the field.
pub fn value(text: Option<&str>, field: &Field) -> Result<Value> {
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    typed(text, field.dtype).ok_or_else(|| {
        Error::corrupt(format!("the partition value {text:?} is not a {}", field.dtype)).at("column", &field.name)
    })
}

fn typed(text: &str, dtype: DType) -> Option<Value> {
    match dtype {
        DType::Int8 | DType::Int16 | DType::UInt8 | DType::UInt16 | DType::UInt32 => {
            text.parse::<i64>().ok().map(Value::from)
        }
        DType::UInt64 => text.parse::<u64>().ok().map(Value::from),
        DType::Int32 => text.parse::<i32>().ok().map(Value::from),
        DType::Int64 => text.parse::<i64>().ok().map(Value::from),
        // Rust reads "inf" and "nan" in any case as numbers; in a directory name they are words.
        DType::Float64 if text.bytes().all(|c| c.is_ascii_digit() || b"+-.eE".contains(&c)) => {
            text.parse::<f64>().ok().map(Value::from)
        }
        DType::Date => days(text).map(Value::Date),
        DType::Str => Some(Value::from(text)),
        _ => None,
    }
}

/// Days from 1970-01-01 to a date written `2024-01-31`.
fn days(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, c)| match i {
            4 | 7 => *c == b'-',
            _ => c.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    let year: i32 = text[..4].parse().ok()?;
    let month: u32 = text[5..7].parse().ok()?;
    let day: u32 = text[8..].parse().ok()?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // Days of the proleptic Gregorian calendar, counted in years that begin in March: H. Hinnant, "chrono-Compatible
    // Low-Level Date Algorithms", days_from_civil.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month as i32 + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str], expected: &str) {
        let parsed: Vec<_> = paths.iter().map(|path| (*path, parse(path))).collect();
        let fields = infer(&parsed.iter().map(|(path, map)| (*path, map)).collect::<Vec<_>>());
        let text = match fields {
            Ok(fields) => fields.iter().map(Field::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn types_are_inferred_from_all_values() {
        check(
            &["a=1/x", "a=007/x", "a=__HIVE_DEFAULT_PARTITION__/x"],
            "a: int32 nullable",
        );
        check(&["a=1/x", "a=3000000000/x"], "a: int64");
        check(&["a=1/b=x%20y/f", "a=1.5/b=2/f"], "a: float64, b: str");
        check(&["d=2024-02-29/x", "d=1969-12-31/x"], "d: datetime64[D]");
        check(&["d=2023-02-29/x", "d=nan/x"], "d: str");
        check(&["a=__HIVE_DEFAULT_PARTITION__/x"], "a: str nullable");
        check(&["x", "y"], "");
        check(
            &["a=1/x", "y"],
            "the directories do not agree on the partition columns: expected [a] as in a=1/x, found [] (file y)",
        );
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(parse("k%3D=x%2Fy%20z/f")["k="], Some("x/y z".to_owned()));
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2000-03-01"), Some(11_017));
        assert_eq!(days("1969-12-31"), Some(-1));
    }
}
