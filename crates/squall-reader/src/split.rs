//! Train, validation and test: which part of a dataset a row belongs to, by a hash of its value or of its place.
//!
//! [`Split`] is Squall's own rule, with a seed. Petastorm's, by MD5 and without a seed, is
//! [`Predicate::in_pseudorandom_split`](crate::Predicate::in_pseudorandom_split); its borders are here too.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use md5::{Digest, Md5};
use squall_schema::{Error, Result, Value};

use crate::equal::{nanoseconds, plain_decimal};
use crate::random::split_hash;

/// How far from 1 the sum of fractions may be and still be 1: they are sums of rounded numbers.
const TOLERANCE: f64 = 1e-9;

/// One subset of a split of the rows.
///
/// The subsets of a split share no row, and each row is in one of them if the fractions sum to 1. Which one depends on
/// the row, the seed and the fractions alone: not on ranks, on the order, or on what other rows there are. The hash is
/// XXH3 of 64 bits (Y. Collet); `docs/selection.md` has the bytes that are hashed, for programs that repeat it.
///
/// ```
/// use squall_reader::{Split, make_reader};
///
/// // All rows of a user are on the same side.
/// const TRAIN_VALIDATION_TEST: [f64; 3] = [0.8, 0.1, 0.1];
/// let part = |subset| Split::by_column("user", TRAIN_VALIDATION_TEST, subset).seed(7);
/// let train = make_reader("/data/events").split(part(0));
/// let validation = make_reader("/data/events").split(part(1));
/// let test = make_reader("/data/events").split(part(2));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Split {
    column: Option<String>,
    fractions: Vec<f64>,
    subset: usize,
    seed: u64,
}

impl Split {
    /// By the values of a column of scalars: rows with the same value are in the same subset. The column is read once
    /// while the reader is built; nothing is read where it stands in directory names.
    ///
    /// `fractions` are the sizes of the subsets, each from 0 to 1, their sum at most 1; `subset` is the one that is read,
    /// from 0. Sizes are those of the distinct values, and only about so.
    pub fn by_column(column: impl Into<String>, fractions: impl Into<Vec<f64>>, subset: usize) -> Self {
        Self {
            column: Some(column.into()),
            ..Self::by_row(fractions, subset)
        }
    }

    /// By the place of a row: the ordinal of its row group and the row in it. Nothing is read. A dataset that is
    /// written anew, in other row groups, is split in another way.
    pub fn by_row(fractions: impl Into<Vec<f64>>, subset: usize) -> Self {
        Self {
            column: None,
            fractions: fractions.into(),
            subset,
            seed: 0,
        }
    }

    /// The seed; 0 if not given. Splits of other seeds have nothing to do with each other.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// What is to be known to tell whether a row is in the subset.
    pub(crate) fn buckets(&self) -> Result<Buckets> {
        check_fractions(&self.fractions, self.subset)?;
        let mut sum = 0.0;
        let mut borders = vec![0u128];
        borders.extend(self.fractions.iter().map(|fraction| {
            sum += fraction;
            // A product with a power of two is exact; what is behind the point is cut off.
            if sum > 1.0 - TOLERANCE {
                1 << 64
            } else {
                (sum * 2f64.powi(64)) as u128
            }
        }));
        Ok(Buckets {
            range: borders[self.subset]..borders[self.subset + 1],
            seed: self.seed,
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subset {} of the split of {:?} by ", self.subset, self.fractions)?;
        match &self.column {
            Some(column) => write!(f, "column {column:?}"),
            None => f.write_str("row"),
        }
    }
}

/// The hashes that fall into a subset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Buckets {
    range: Range<u128>,
    seed: u64,
}

impl Buckets {
    pub(crate) fn has_row(&self, piece: u32, row: u64) -> bool {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&u64::from(piece).to_le_bytes());
        place[8..].copy_from_slice(&row.to_le_bytes());
        self.has(&place)
    }

    pub(crate) fn has_value(&self, value: &Value) -> Result<bool> {
        Ok(self.has(&hashed_bytes(value)?))
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.range.contains(&u128::from(split_hash(self.seed, bytes)))
    }
}

/// The bytes of a value that are hashed: the same for the same value, whatever the width of its dtype.
fn hashed_bytes(value: &Value) -> Result<Cow<'_, [u8]>> {
    let text = match value {
        Value::Null => return Ok(Cow::Borrowed(&[])),
        Value::Str(text) => return Ok(Cow::Borrowed(text.as_bytes())),
        Value::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
        Value::Float32(value) => return Ok(Cow::Owned(float_bytes(f64::from(*value)))),
        Value::Float64(value) => return Ok(Cow::Owned(float_bytes(*value))),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Decimal(value) => plain_decimal(value),
        Value::Date(days) => days.to_string(),
        Value::Datetime { value, unit, .. } => nanoseconds(*value, *unit).to_string(),
        other => {
            return Err(Error::unsupported(format!(
                "expected a scalar to split by, found {}",
                other.kind()
            )));
        }
    };
    Ok(Cow::Owned(text.into_bytes()))
}

fn float_bytes(value: f64) -> Vec<u8> {
    let value = match value {
        value if value.is_nan() => f64::from_bits(0x7ff8_0000_0000_0000),
        // Zero has two signs, and loses that of minus.
        value => value + 0.0,
    };
    value.to_le_bytes().to_vec()
}

fn check_fractions(fractions: &[f64], subset: usize) -> Result<()> {
    if subset >= fractions.len() {
        return Err(Error::invalid(format!(
            "expected a subset below the number of fractions, {}, found {subset}",
            fractions.len()
        )));
    }
    if let Some(wrong) = fractions.iter().find(|fraction| !(0.0..=1.0).contains(*fraction)) {
        return Err(Error::invalid(format!("expected fractions from 0 to 1, found {wrong}")));
    }
    let sum: f64 = fractions.iter().sum();
    if sum > 1.0 + TOLERANCE {
        return Err(Error::invalid(format!(
            "expected fractions that sum to at most 1, found {fractions:?}, which sum to {sum}"
        )));
    }
    Ok(())
}

/// Petastorm's `in_pseudorandom_split`: the buckets of a subset.
///
/// Its borders are products of a sum of floats, added from the left, with the integer 2^63 - 2, which Python makes a
/// float first: 2^63. It compares them with the bucket exactly, so each border counts as the next integer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PetastormBuckets(Range<u128>);

impl PetastormBuckets {
    pub(crate) fn new(fractions: &[f64], subset: usize) -> Result<Self> {
        check_fractions(fractions, subset)?;
        let border = |n: usize| {
            let sum = fractions[..n].iter().fold(0.0, |sum, fraction| sum + fraction);
            (sum * 2f64.powi(63)).ceil() as u128
        };
        Ok(Self(border(subset)..border(subset + 1)))
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.contains(&petastorm_bucket(text))
    }
}

/// `int(hashlib.md5(text.encode()).hexdigest(), 16) % sys.maxsize`
fn petastorm_bucket(text: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(text).into()) % u128::from(u64::MAX >> 1)
}

#[cfg(test)]
mod tests;
