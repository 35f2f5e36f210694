//! Dates and times that were counted in the calendar of Java's old classes, in today's.
//!
//! Spark before 3.0 counts days in the hybrid calendar: Julian up to 1582-10-04, Gregorian from the next day, 1582-10-15, on.
//! A later Spark, Arrow and SQL count in the Gregorian calendar, extended to the past. A date is the same when year, month
//! and day are, so the number of a day before the switch changes: Spark calls it rebasing, `RebaseDateTime.scala`, and does
//! it when it reads. So is it done here.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow_schema::{DataType, TimeUnit};

use crate::{Error, Result};

/// 1582-10-15, the first day of the Gregorian calendar, as a number.
const FIRST_GREGORIAN_DAY: i64 = -141_427;
/// 1900-01-01. Before it Java's old classes know no offsets of a zone but today's.
const FIRST_DAY_OF_1900: i64 = -25_567;
/// The number of 1970-01-01 among the days that astronomers count, which begin in 4713 BC.
const EPOCH_JULIAN_DAY: i64 = 2_440_588;

/// What a file counts in the hybrid calendar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HybridCalendar {
    /// Dates are.
    pub dates: bool,
    /// Instants are.
    pub times: HybridTimes,
}

/// How instants are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HybridTimes {
    /// In the Gregorian calendar.
    #[default]
    Gregorian,
    /// In the hybrid calendar, by a program in UTC.
    Utc,
    /// In the hybrid calendar, by a program in this zone; or in one that is not known. What an old time means depends on the
    /// history of the zone in that program's Java: it is refused, not guessed.
    Elsewhere(Option<String>),
}

impl HybridCalendar {
    /// Whether nothing is counted in the hybrid calendar.
    pub fn is_gregorian(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a date of this number is another one here.
    pub fn is_old_date(&self, day: i64) -> bool {
        self.dates && day < FIRST_GREGORIAN_DAY
    }

    /// Whether an instant of this day is another one here, or cannot be told.
    pub fn is_old_time(&self, day: i64) -> bool {
        match self.times {
            HybridTimes::Gregorian => false,
            HybridTimes::Utc => day < FIRST_GREGORIAN_DAY,
            HybridTimes::Elsewhere(_) => day < FIRST_DAY_OF_1900,
        }
    }

    /// The column with its dates and instants, at any depth, counted in the Gregorian calendar; itself where none is older
    /// than the calendars' switch. A time that cannot be told is an error, with its row where the column is not nested.
    pub fn to_gregorian(&self, column: &ArrayRef) -> Result<ArrayRef> {
        if self.is_gregorian() {
            return Ok(column.clone());
        }
        match column.data_type() {
            DataType::Date32 if self.dates => Ok(shifted::<Date32Type>(
                column,
                |day| day < FIRST_GREGORIAN_DAY as i32,
                |day| i32::try_from(gregorian_day(i64::from(day))).ok(),
            )?),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
                self.times_to_gregorian::<TimestampMicrosecondType>(column, 86_400_000_000)
            }
            DataType::Timestamp(TimeUnit::Millisecond, Some(_)) => {
                self.times_to_gregorian::<TimestampMillisecondType>(column, 86_400_000)
            }
            nested if nested.is_nested() => {
                let data = column.to_data();
                let child = |child: &arrow_data::ArrayData| {
                    let array = self.to_gregorian(&make_array(child.clone()));
                    Ok(array.map_err(|error| error.without_place("row"))?.to_data())
                };
                let children = data.child_data().iter().map(child).collect::<Result<_>>()?;
                let data = data.into_builder().child_data(children).build();
                Ok(make_array(data.map_err(|error| {
                    Error::internal("a nested column does not fit its own type").with_source(error)
                })?))
            }
            _ => Ok(column.clone()),
        }
    }

    fn times_to_gregorian<T: ArrowPrimitiveType<Native = i64>>(&self, column: &ArrayRef, day: i64) -> Result<ArrayRef> {
        match &self.times {
            HybridTimes::Gregorian => Ok(column.clone()),
            HybridTimes::Utc => shifted::<T>(
                column,
                |time| time < FIRST_GREGORIAN_DAY * day,
                |time| {
                    let days = gregorian_day(time.div_euclid(day));
                    days.checked_mul(day)?.checked_add(time.rem_euclid(day))
                },
            ),
            HybridTimes::Elsewhere(zone) => {
                let times = column.as_primitive::<T>();
                let old = |row: &usize| times.is_valid(*row) && times.value(*row) < FIRST_DAY_OF_1900 * day;
                match (0..times.len()).find(old) {
                    None => Ok(column.clone()),
                    Some(row) => Err(Error::unsupported(format!(
                        "a time before 1900 in the calendar of an old Spark, written in {}, cannot be told: expected one written \
                         in UTC, or later ones; write the file anew with Spark 3, or leave the column out",
                        zone.as_deref().unwrap_or("a zone that the file does not name")
                    ))
                    .at("row", row)),
                }
            }
        }
    }
}

/// The column with the values that are old in another number.
fn shifted<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    old: impl Fn(T::Native) -> bool,
    shift: impl Fn(T::Native) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let array = column.as_primitive::<T>();
    if !array.values().iter().any(|value| old(*value)) {
        return Ok(column.clone());
    }
    let mut values = array.values().to_vec();
    for (row, value) in values.iter_mut().enumerate() {
        if old(*value) && array.is_valid(row) {
            *value = shift(*value)
                .ok_or_else(|| Error::corrupt(format!("a day {value:?} that no calendar has")).at("row", row))?;
        }
    }
    let array = PrimitiveArray::<T>::new(values.into(), array.nulls().cloned());
    Ok(Arc::new(array.with_data_type(column.data_type().clone())))
}

/// The number of the Gregorian day that has year, month and day of this Julian one. February 29 of a year that has none is
/// March 1.
fn gregorian_day(day: i64) -> i64 {
    // E. G. Richards, "Calendars", in the Explanatory Supplement to the Astronomical Almanac, 3rd edition, section 15.11.3,
    // algorithm 4 for the Julian calendar, in years that begin in March.
    let since = day + EPOCH_JULIAN_DAY + 32_082;
    let year = (4 * since + 3).div_euclid(1461);
    let day_of_year = since - (1461 * year).div_euclid(4);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    let (year, month) = (year - 4800 + month / 10, month + 3 - 12 * (month / 10));
    day_number(year, month, 1) + day_of_month
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, whose month is one of 1 to 12.
pub fn day_number(year: i64, month: i64, day: i64) -> i64 {
    // Counted in years that begin in March: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Date32Array, ListArray, StructArray, TimestampMicrosecondArray};
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::Field;

    const DATES: HybridCalendar = HybridCalendar {
        dates: true,
        times: HybridTimes::Gregorian,
    };

    #[test]
    fn days_before_the_switch_get_another_number() {
        // Hybrid and Gregorian numbers of one date, from `julianGregDiffs` of Spark's RebaseDateTime.scala: from 0001-01-01
        // on they differ by 2 days, and by one day less each century that is a leap year in one calendar only.
        for (date, difference) in [
            ((1, 1, 1), 2),
            ((100, 2, 28), 2),
            ((100, 3, 1), 1),
            ((200, 3, 1), 0),
            ((300, 3, 1), -1),
            ((500, 3, 1), -2),
            ((1000, 3, 1), -6),
            ((1500, 3, 1), -10),
            ((1582, 10, 4), -10),
        ] {
            let gregorian = day_number(date.0, date.1, date.2);
            assert_eq!(gregorian_day(gregorian - difference), gregorian, "{date:?}");
        }
        // The Julian February 29 of 1000 is not in the Gregorian calendar.
        let march = day_number(1000, 3, 1);
        assert_eq!((gregorian_day(march + 5), gregorian_day(march + 6)), (march, march));
        assert_eq!(day_number(1582, 10, 15), FIRST_GREGORIAN_DAY);
        assert_eq!(day_number(1900, 1, 1), FIRST_DAY_OF_1900);
    }

    #[test]
    fn columns_change_at_every_depth() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![
            Some(-141_427),
            Some(-141_428),
            None,
            Some(19_782),
        ]));
        let told: ArrayRef = Arc::new(Date32Array::from(vec![
            Some(-141_427),
            Some(-141_438),
            None,
            Some(19_782),
        ]));
        let nested = |dates: &ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new("element", DataType::Date32, true));
            let offsets = OffsetBuffer::from_lengths([2, 0, 2]);
            let list: ArrayRef = Arc::new(ListArray::new(item, offsets, dates.clone(), None));
            let member = Arc::new(Field::new("l", list.data_type().clone(), false));
            Arc::new(StructArray::from(vec![(member, list)]))
        };
        assert_eq!(&DATES.to_gregorian(&dates).expect("dates"), &told);
        assert_eq!(
            &DATES.to_gregorian(&dates.slice(1, 2)).expect("dates"),
            &told.slice(1, 2)
        );
        assert_eq!(&DATES.to_gregorian(&nested(&dates)).expect("dates"), &nested(&told));
        let part = DATES.to_gregorian(&nested(&dates).slice(0, 2)).expect("dates");
        assert_eq!(&part, &nested(&told).slice(0, 2));
        let same = HybridCalendar::default()
            .to_gregorian(&nested(&dates))
            .expect("the same");
        assert_eq!(&same, &nested(&dates));
        let least: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN]));
        assert!(DATES.to_gregorian(&least).is_ok());
    }

    #[test]
    fn old_times_are_told_in_utc_only() {
        let day = 86_400_000_000;
        let times = |days: &[i64]| -> ArrayRef {
            let times = TimestampMicrosecondArray::from_iter_values(days.iter().map(|days| days * day + 1));
            Arc::new(times.with_timezone("UTC"))
        };
        let calendar = |times| HybridCalendar { dates: true, times };
        let utc = calendar(HybridTimes::Utc);
        let old = times(&[-141_428, -141_427, -30_000]);
        assert_eq!(
            &utc.to_gregorian(&old).expect("times"),
            &times(&[-141_438, -141_427, -30_000])
        );
        let elsewhere = calendar(HybridTimes::Elsewhere(Some("Europe/Zurich".to_owned())));
        let young = times(&[-25_567, 0]);
        assert_eq!(&elsewhere.to_gregorian(&young).expect("the same"), &young);
        let error = elsewhere.to_gregorian(&old).expect_err("an old time").to_string();
        assert!(
            error.contains("written in Europe/Zurich") && error.ends_with("(row 0)"),
            "{error}"
        );
        let utc_of =
            |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC")) };
        assert!(utc.to_gregorian(&utc_of(i64::MIN)).is_ok());
        // A wall clock time is of a Spark that has no other calendar.
        let wall: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-141_428 * day]));
        assert_eq!(&elsewhere.to_gregorian(&wall).expect("the same"), &wall);
    }
}
