//! A number of bytes, as people write it.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A number of bytes.
///
/// ```
/// use squall_schema::ByteSize;
///
/// assert_eq!("1.5GiB".parse::<ByteSize>()?, ByteSize::mib(1536));
/// assert_eq!(ByteSize::mib(1536).to_string(), "1.5 GiB");
/// # Ok::<_, squall_schema::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Units with what they stand for. The binary ones come first: sizes are written in them.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many kibibytes, of 1,024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// So many mebibytes, of 1,024 kibibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// So many gibibytes, of 1,024 mebibytes.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "expected a size such as 256MiB, 1.5GiB or 1000000, found {text:?}"
            ))
        };
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let scale = match unit {
            "" => 1,
            unit => {
                let found = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
                found.ok_or_else(wrong)?.1
            }
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(scale).map(Self).ok_or_else(wrong);
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * scale as f64;
        // Above it a float does not tell bytes apart.
        if !(0.0..9e15).contains(&bytes) {
            return Err(wrong());
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..4].iter().find(|(_, scale)| self.0 >= *scale);
        match unit {
            Some((name, scale)) if self.0.is_multiple_of(*scale) => write!(f, "{} {name}", self.0 / scale),
            Some((name, scale)) => write!(f, "{:.1} {name}", self.0 as f64 / *scale as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("2GB", 2_000_000_000),
            ("0.5KiB", 512),
        ] {
            assert_eq!(text.parse::<ByteSize>().expect(text), ByteSize::new(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1..2MiB", "1XB", "99999999999TiB", "1e9", "NaN"] {
            let error = text.parse::<ByteSize>().expect_err(text).to_string();
            assert!(error.contains("256MiB"), "{error}");
        }
        assert_eq!(ByteSize::new(1023).to_string(), "1023 B");
        assert_eq!(ByteSize::gib(2).to_string(), "2 GiB");
    }
}
