//! Times of one unit in another, where none loses by it.

use crate::{DType, Error, Result, TimeUnit, Value};

/// Times in the unit of the field: an array brings its own, and Petastorm's schema does not tell it.
pub(super) fn in_unit(value: Value, dtype: DType) -> Result<Value> {
    let nanoseconds = |unit| match unit {
        TimeUnit::Second => 1_000_000_000i64,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    Ok(match (value, dtype) {
        (Value::List(items), dtype) => {
            let items = items.into_iter().map(|item| in_unit(item, dtype));
            Value::List(items.collect::<Result<_>>()?)
        }
        (Value::Date(days), DType::Datetime { unit, utc }) => {
            let per_day = 86_400 * (1_000_000_000 / nanoseconds(unit));
            let value = i64::from(days).checked_mul(per_day);
            let value = value.ok_or_else(|| Error::unsupported(format!("day {days} does not fit {dtype}")))?;
            Value::Datetime { value, unit, utc }
        }
        (Value::Datetime { value, unit: own, .. }, DType::Datetime { unit, utc }) => {
            let (from, to) = (nanoseconds(own), nanoseconds(unit));
            let scaled = match from >= to {
                true => value.checked_mul(from / to),
                false => (value % (to / from) == 0).then(|| value / (to / from)),
            };
            let unfit = || {
                let own = DType::Datetime { unit: own, utc: false };
                Error::unsupported(format!("a {own} of {value} that does not fit {dtype}"))
            };
            Value::Datetime {
                value: scaled.ok_or_else(unfit)?,
                unit,
                utc,
            }
        }
        (other, _) => other,
    })
}
