//! Values in directory names: `country=CH/day=2024-01-31/`, as Hive and Spark write them.

use arrow_buffer::i256;
use indexmap::IndexMap;
use percent_encoding::percent_decode_str;
use squall_schema::calendar::day_number;
use squall_schema::{DType, Decimal, Error, Field, Result, TimeUnit, Value};

use crate::TimeZone;

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

/// The fields of the partition columns, typed from all their values as Spark infers them: `int32`, `int64`, a decimal
/// for whole numbers beyond them, `float64`, a date, an instant, else text.
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
        let kinds = values().map(Kind::of);
        let dtype = kinds.reduce(Kind::wider).map_or(DType::Str, Kind::dtype);
        let nullable = partitions.iter().any(|(_, partition)| partition[name].is_none());
        Field::scalar(name, dtype).with_nullable(nullable)
    };
    Ok(first.keys().map(field).collect())
}

/// What the text of one value may be, as `PartitioningUtils.inferPartitionColumnValue` of Spark tries it, in this order.
/// Checked against Spark 3.5 and 4.0: `tests/partitions.jsonl` has what they say.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Long,
    /// A whole number of so many digits.
    Decimal(u8),
    Double,
    Timestamp,
    Date,
    Text,
}

impl Kind {
    fn of(text: &str) -> Self {
        if text.parse::<i32>().is_ok() {
            Self::Int
        } else if text.parse::<i64>().is_ok() {
            Self::Long
        } else if let Some(digits) = whole_digits(text) {
            Self::Decimal(digits)
        } else if double(text).is_some() {
            Self::Double
        } else if wall_clock(text).is_some() {
            Self::Timestamp
        } else if days(text).is_some() {
            Self::Date
        } else {
            Self::Text
        }
    }

    /// The type of a column with values of both: `findWiderTypeForPartitionColumn` of Spark. A long has 20 digits there.
    fn wider(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Int, Self::Long) | (Self::Long, Self::Int) => Self::Long,
            (Self::Int, Self::Double) | (Self::Double, Self::Int) => Self::Double,
            (Self::Date, Self::Timestamp) | (Self::Timestamp, Self::Date) => Self::Timestamp,
            (Self::Decimal(a), Self::Decimal(b)) => Self::Decimal(a.max(b)),
            (Self::Decimal(a), Self::Int) | (Self::Int, Self::Decimal(a)) => Self::Decimal(a.max(10)),
            (Self::Decimal(a), Self::Long) | (Self::Long, Self::Decimal(a)) => Self::Decimal(a.max(20)),
            // A double may not hold a long.
            _ => Self::Text,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::Int => DType::Int32,
            Self::Long => DType::Int64,
            Self::Decimal(digits) => DType::Decimal(digits, 0),
            Self::Double => DType::Float64,
            Self::Timestamp => DType::Datetime {
                unit: TimeUnit::Microsecond,
                utc: true,
            },
            Self::Date => DType::Date,
            Self::Text => DType::Str,
        }
    }
}

/// The text of a directory name as a value of the field. A time is one of `zone`, where the field is an instant.
pub fn value(text: Option<&str>, field: &Field, zone: TimeZone) -> Result<Value> {
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    typed(text, field.dtype, zone).ok_or_else(|| {
        Error::corrupt(format!("the partition value {text:?} is not a {}", field.dtype)).at("column", &field.name)
    })
}

fn typed(text: &str, dtype: DType, zone: TimeZone) -> Option<Value> {
    match dtype {
        DType::Int8 | DType::Int16 | DType::UInt8 | DType::UInt16 | DType::UInt32 => {
            text.parse::<i64>().ok().map(Value::from)
        }
        DType::UInt64 => text.parse::<u64>().ok().map(Value::from),
        DType::Int32 => text.parse::<i32>().ok().map(Value::from),
        DType::Int64 => text.parse::<i64>().ok().map(Value::from),
        DType::Float64 => double(text).map(Value::from),
        // Declared by Petastorm; never inferred.
        DType::Float16 | DType::Float32 => text.parse::<f32>().ok().map(Value::from),
        DType::Bool if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
        DType::Bool if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
        DType::Bytes => Some(Value::Bytes(text.as_bytes().to_vec())),
        DType::Decimal(precision, scale) => decimal(text, precision, scale).map(Value::Decimal),
        DType::Date => days(text).map(Value::Date),
        DType::Datetime {
            unit: unit @ TimeUnit::Microsecond,
            utc,
        } => {
            let midnight = || Some(i64::from(days(text)?) * MICROS_PER_DAY);
            let wall = wall_clock(text).or_else(midnight)?;
            let value = if utc { zone.instant(wall)? } else { wall };
            Some(Value::Datetime { value, unit, utc })
        }
        DType::Str => Some(Value::from(text)),
        _ => None,
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Most digits of Spark's decimals.
const MAX_DECIMAL_DIGITS: usize = 38;

/// A number as `java.math.BigDecimal` reads it: its sign, its digits without leading zeros, and how many of them stand
/// after the point, which is negative where zeros follow them.
fn big_decimal(text: &str) -> Option<(bool, String, i64)> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let negative = number.starts_with('-');
    let number = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let scale = fraction.len() as i64 - i64::from(exponent);
    Some((negative, digits.trim_start_matches('0').to_owned(), scale))
}

/// The digits of a whole number that a decimal of Spark holds; none of `1.0`, whose point says that it is no whole number.
fn whole_digits(text: &str) -> Option<u8> {
    let (_, digits, scale) = big_decimal(text)?;
    let zeros = usize::try_from(scale.checked_neg()?).ok()?;
    let digits = digits.len().max(1).checked_add(zeros)?;
    u8::try_from(digits).ok().filter(|_| digits <= MAX_DECIMAL_DIGITS)
}

/// The decimal of this precision and scale, if it is the number to the last digit.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<Decimal> {
    let (negative, mut digits, own) = big_decimal(text)?;
    let zeros = i64::from(scale) - own;
    if digits.is_empty() {
        digits.push('0');
    } else if zeros >= 0 {
        let zeros = usize::try_from(zeros)
            .ok()
            .filter(|zeros| *zeros <= usize::from(precision))?;
        digits.push_str(&"0".repeat(zeros));
    } else {
        let kept = digits.len().checked_sub(usize::try_from(-zeros).ok()?)?;
        if digits[kept..].bytes().any(|digit| digit != b'0') {
            return None;
        }
        digits.truncate(kept);
    }
    if digits.len() > usize::from(precision) {
        return None;
    }
    let unscaled: i256 = digits.parse().ok()?;
    Some(Decimal {
        unscaled: if negative { unscaled.wrapping_neg() } else { unscaled },
        precision,
        scale,
    })
}

/// A number as `Double.parseDouble` of Java reads it, but for those in hexadecimal: with spaces around it, and with a
/// letter that says float or double behind it. `NaN` and `Infinity` are numbers as Java writes them, and words otherwise.
fn double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c| c <= ' ');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "NaN" || unsigned == "Infinity" {
        return text.parse().ok();
    }
    let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    // Rust reads "inf" and "nan" in any case.
    let plain = number.bytes().all(|c| c.is_ascii_digit() || b"+-.eE".contains(&c));
    number.parse().ok().filter(|_| plain)
}

/// Microseconds from 1970-01-01 to a time written `2024-01-31 12:00:00` or `2024-01-31 12:00:00.5`: with more digits it is
/// no time to Spark.
fn wall_clock(text: &str) -> Option<i64> {
    let (date, clock) = text.split_at_checked(10)?;
    let clock = clock.strip_prefix(' ')?;
    let (clock, tenths) = match clock.split_at_checked(8)? {
        (clock, "") => (clock, 0),
        (clock, rest) => (clock, digits(rest.strip_prefix('.')?, 1)?),
    };
    let mut parts = clock.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(i64::from(days(date)?) * MICROS_PER_DAY + seconds * 1_000_000 + tenths * 100_000)
}

/// A number of exactly so many digits.
fn digits(text: &str, n: usize) -> Option<i64> {
    let plain = text.len() == n && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
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
    i32::try_from(day_number(i64::from(year), i64::from(month), i64::from(day))).ok()
}

#[cfg(test)]
mod tests;
