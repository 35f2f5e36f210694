//! The key/value metadata in a Parquet footer, as raw bytes.
//!
//! The parquet crate refuses a footer with a value that is not UTF-8, and Petastorm keeps pickles there. This reader
//! walks the footer's Thrift compact encoding
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>), keeps field 5 of
//! `FileMetaData` and skips the rest. It trusts no length and bounds its depth.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Bytes at the end of a file: length of the footer, and `PAR1`.
pub const TAIL: usize = 8;
const MAGIC: &[u8] = b"PAR1";
/// Deepest nesting of structs and lists that a footer of the format has, with room to spare.
const MAX_DEPTH: u8 = 16;

/// The length of the footer that stands before these last [`TAIL`] bytes of a file of `file_size` bytes.
pub fn footer_length(tail: &[u8], file_size: u64) -> Result<u64> {
    let &[a, b, c, d, ref magic @ ..] = tail else {
        return Err(Error::corrupt(format!(
            "a Parquet file has at least {TAIL} bytes, found {}",
            tail.len()
        )));
    };
    if magic != MAGIC {
        return Err(Error::corrupt(
            "not a Parquet file, or cut short: it does not end in PAR1",
        ));
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length + (TAIL as u64) > file_size {
        return Err(Error::corrupt(format!(
            "the footer should have {length} bytes, but the file has only {file_size}"
        )));
    }
    Ok(length)
}

/// The key/value pairs of a whole file's bytes.
pub fn key_values_of_file(file: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let tail = &file[file.len().saturating_sub(TAIL)..];
    let length = footer_length(tail, file.len() as u64)? as usize;
    let end = file.len() - TAIL;
    key_values(&file[end - length..end])
}

/// The key/value pairs in the bytes of a footer.
pub fn key_values(footer: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let corrupt = || Error::corrupt("the Parquet footer is not Thrift compact data of the format");
    walk(&mut Compact(footer)).ok_or_else(corrupt)
}

fn walk(footer: &mut Compact<'_>) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    const KEY_VALUE_METADATA: i16 = 5;
    let mut pairs = BTreeMap::new();
    let mut last = 0;
    while let Some((id, kind)) = footer.field(&mut last)? {
        if id != KEY_VALUE_METADATA || kind != LIST {
            footer.skip(kind, MAX_DEPTH)?;
            continue;
        }
        let (count, STRUCT) = footer.list()? else {
            return None;
        };
        for _ in 0..count {
            let (mut key, mut value) = (None, Vec::new());
            let mut last = 0;
            while let Some((id, kind)) = footer.field(&mut last)? {
                match (id, kind) {
                    (1, BINARY) => key = Some(footer.binary()?.to_vec()),
                    (2, BINARY) => value = footer.binary()?.to_vec(),
                    _ => footer.skip(kind, MAX_DEPTH)?,
                }
            }
            pairs.insert(key?, value);
        }
    }
    Some(pairs)
}

// Types of the compact protocol; 1 and 2 are the two booleans, whose value is in the type.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// The rest of the input.
struct Compact<'a>(&'a [u8]);

impl<'a> Compact<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }

    /// The id and type of the next field of a struct; inner `None` at its end.
    fn field(&mut self, last: &mut i16) -> Option<Option<(i16, u8)>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *last = match head >> 4 {
            0 => {
                let zigzag = self.varint()?;
                i16::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).ok()?
            }
            delta => last.checked_add(i16::from(delta))?,
        };
        Some(Some((*last, head & 0x0f)))
    }

    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        Some((count, head & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            TRUE | FALSE => {}
            I8 => {
                self.byte()?;
            }
            I16..=I64 => {
                self.varint()?;
            }
            DOUBLE => {
                self.take(8)?;
            }
            BINARY => {
                self.binary()?;
            }
            LIST | SET => {
                let (count, kind) = self.list()?;
                for _ in 0..count {
                    self.skip_item(kind, depth)?;
                }
            }
            MAP => {
                let count = self.varint()?;
                if count > 0 {
                    let kinds = self.byte()?;
                    for _ in 0..count {
                        self.skip_item(kinds >> 4, depth)?;
                        self.skip_item(kinds & 0x0f, depth)?;
                    }
                }
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// An item of a collection: unlike in a struct, a boolean has a byte of its own, so that every item takes at
    /// least one byte and no count can keep the loop running past the input.
    fn skip_item(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            TRUE | FALSE => self.byte().map(|_| ()),
            kind => self.skip(kind, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `{1: i32 1, 3: [ {} ], 5: [{1: "key", 2: 0xff80}]}`
    const FOOTER: &[u8] = &[
        0x15, 0x02, 0x29, 0x1c, 0x00, 0x29, 0x1c, 0x18, 3, b'k', b'e', b'y', 0x18, 2, 0xff, 0x80, 0, 0,
    ];

    #[test]
    fn values_need_not_be_text() {
        let pairs = key_values(FOOTER).expect("valid footer");
        assert_eq!(pairs.get(&b"key"[..]), Some(&vec![0xff, 0x80]));
    }

    #[test]
    fn a_cut_footer_is_corrupt() {
        for end in 0..FOOTER.len() {
            assert!(key_values(&FOOTER[..end]).is_err(), "cut at {end}");
        }
        assert!(key_values_of_file(b"PAR1").is_err());
        assert!(key_values_of_file(b"\xff\xff\xff\xffPAR1").is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = key_values(&bytes);
            let _ = key_values_of_file(&bytes);
        }
    }
}
