//! Which rows of a row group are windows: their timestamps pass by once, in order, and leave the first row of each window.

use std::collections::VecDeque;

use arrow_buffer::i256;
use squall_schema::{DType, Error, Field, Result, TimeUnit, Value};

use crate::ngram::Threshold;
use crate::row_set::RowSet;

/// A timestamp: numbers as they are, decimals without their point, times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Stamp {
    Number(f64),
    Whole(i128),
    Decimal(i256),
    Time(i128),
}

impl Stamp {
    fn new(value: &Value) -> std::result::Result<Self, String> {
        const DAY: i128 = 86_400_000_000_000;
        match value {
            Value::Int(number) => Ok(Self::Whole(i128::from(*number))),
            Value::UInt(number) => Ok(Self::Whole(i128::from(*number))),
            Value::Float32(number) if !number.is_nan() => Ok(Self::Number(f64::from(*number))),
            Value::Float64(number) if !number.is_nan() => Ok(Self::Number(*number)),
            Value::Decimal(decimal) => Ok(Self::Decimal(decimal.unscaled)),
            Value::Date(days) => Ok(Self::Time(i128::from(*days) * DAY)),
            Value::Datetime { value, unit, .. } => {
                let nanoseconds = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1000,
                    TimeUnit::Nanosecond => 1,
                };
                Ok(Self::Time(i128::from(*value) * nanoseconds))
            }
            other => Err(format!("expected a number or a time, found {other:?}")),
        }
    }
}

/// A threshold, and how many of the smallest steps of the column it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    threshold: Threshold,
    steps: i256,
}

impl Limit {
    pub(super) fn new(threshold: Threshold, field: &Field) -> Result<Self> {
        let scale = match field.dtype {
            DType::Decimal(_, scale) => scale,
            _ => 0,
        };
        let steps = match threshold {
            Threshold::Number(most) if most.is_nan() => {
                return Err(Error::invalid("expected a threshold that is a number, found NaN"));
            }
            Threshold::Number(most) => steps(most, scale),
            Threshold::Time(_) => i256::ZERO,
        };
        Ok(Self { threshold, steps })
    }

    /// Whether `own`, which is not before `before`, is close enough behind it.
    fn is_close(&self, before: Stamp, own: Stamp) -> std::result::Result<bool, String> {
        match (before, own, self.threshold) {
            (Stamp::Number(before), Stamp::Number(own), Threshold::Number(most)) => Ok(own - before <= most),
            (Stamp::Whole(before), Stamp::Whole(own), Threshold::Number(_)) => {
                Ok(i256::from_i128(own - before) <= self.steps)
            }
            (Stamp::Decimal(before), Stamp::Decimal(own), Threshold::Number(_)) => {
                Ok(own.checked_sub(before).is_some_and(|gap| gap <= self.steps))
            }
            (Stamp::Time(before), Stamp::Time(own), Threshold::Time(most)) => {
                Ok((own - before).unsigned_abs() <= most.as_nanos())
            }
            (_, _, Threshold::Number(most)) => Err(format!(
                "it is a time: expected a threshold that is a duration, found the number {most}"
            )),
            (_, _, Threshold::Time(most)) => Err(format!(
                "it is a number: expected a threshold that is a number, found the duration {most:?}"
            )),
        }
    }
}

/// The largest number of steps of `10^-scale` that is not above `most`, which is exact; negative if `most` is.
fn steps(most: f64, scale: i8) -> i256 {
    if most < 0.0 {
        return i256::MINUS_ONE;
    }
    if most.is_infinite() {
        return i256::MAX;
    }
    // All digits of the float: none has more than these behind the point.
    let text = format!("{most:.1074}");
    let (whole, behind) = text.split_once('.').unwrap_or((&text, ""));
    let places = usize::from(scale.unsigned_abs());
    let digits = match scale < 0 {
        true => whole[..whole.len().saturating_sub(places)].to_owned(),
        false => format!("{whole}{:0<places$}", &behind[..places.min(behind.len())]),
    };
    match digits.is_empty() {
        true => i256::ZERO,
        // More than any gap.
        false => i256::from_string(&digits).unwrap_or(i256::MAX),
    }
}

/// Finds the windows of a row group while its timestamps pass by.
pub(super) struct Search {
    rows: RowSet,
    span: usize,
    overlap: bool,
    limit: Limit,
    n_rows: u32,
    /// Rows up to the last one that have no gap between them.
    n_close: usize,
    /// The timestamps of the last rows, as many as a window has.
    recent: VecDeque<Stamp>,
    /// The last timestamp of the last window.
    behind: Option<Stamp>,
    /// The first row of each window.
    pub(super) first: Vec<u32>,
}

impl Search {
    pub(super) fn new(rows: RowSet, span: usize, overlap: bool, limit: Limit) -> Self {
        Self {
            rows,
            span,
            overlap,
            limit,
            n_rows: 0,
            n_close: 0,
            recent: VecDeque::new(),
            behind: None,
            first: Vec::new(),
        }
    }

    /// The row of the row group whose timestamp comes next.
    pub(super) fn row(&self) -> u64 {
        self.rows.nth(u64::from(self.n_rows))
    }

    /// Takes the timestamp of the next row.
    pub(super) fn push(&mut self, timestamp: &Value) -> std::result::Result<(), String> {
        let stamp = Stamp::new(timestamp)?;
        let is_close = match self.recent.back() {
            Some(before) if stamp < *before => {
                return Err(format!(
                    "expected rows that are sorted by it, found {stamp:?} behind {before:?}"
                ));
            }
            Some(before) => self.limit.is_close(*before, stamp)?,
            // So that a threshold of the wrong kind is found where no row follows another.
            None => self.limit.is_close(stamp, stamp)?,
        };
        self.n_close = if is_close { self.n_close + 1 } else { 1 };
        if self.recent.len() == self.span {
            self.recent.pop_front();
        }
        self.recent.push_back(stamp);
        self.n_rows += 1;
        let is_free = self.overlap || self.behind.is_none_or(|behind| self.recent[0] > behind);
        if self.n_close >= self.span && is_free {
            self.first.push(self.n_rows - self.span as u32);
            self.behind = Some(stamp);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenth as a float is a little above a tenth, 0.3 a little below three of them.
    #[test]
    fn thresholds_are_exact() {
        let int = |number: i128| i256::from_i128(number);
        assert_eq!(steps(0.1, 1), int(1));
        assert_eq!(steps(0.3, 1), int(2));
        assert_eq!(steps(0.1, 20), int(10_000_000_000_000_000_555));
        assert_eq!(steps(2.5, 0), int(2));
        assert_eq!(steps(1234.0, -2), int(12));
        assert_eq!(steps(12.0, -5), i256::ZERO);
        assert_eq!(steps(0.0, 2), i256::ZERO);
        assert_eq!(steps(-0.0, 2), i256::ZERO);
        assert_eq!(steps(-1e-300, 2), i256::MINUS_ONE);
        assert_eq!(steps(9_007_199_254_740_992.0, 0), int(1 << 53));
        assert_eq!(steps(5e-324, 127), i256::ZERO);
        assert_eq!(steps(f64::MAX, 0), i256::MAX);
        assert_eq!(steps(f64::INFINITY, 3), i256::MAX);
        assert_eq!(steps(f64::INFINITY, -4), i256::MAX);
    }
}
