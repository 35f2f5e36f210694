//! Checksums of whole files: of data files in Squall's metadata, and of the metadata file in itself.
//!
//! A checksum is written as the name of its algorithm and its digits: `xxh3-128:` and 32 hexadecimal ones, those of
//! XXH3 of 128 bits (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), the most significant first. It finds damage,
//! not forgery.

use squall_schema::{Error, Result};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The key of the metadata file's own checksum: that of its bytes with zeros for these digits.
pub const SEAL_KEY: &str = "squall.checksum.v1";
/// The value of [`SEAL_KEY`] in a file that [`seal`] gets.
pub const UNSEALED: &str = "xxh3-128:00000000000000000000000000000000";

/// The name of the algorithm, and what stands between it and the digits.
const PREFIX: &str = "xxh3-128:";
/// A field of a struct in Thrift's compact encoding that follows the one before it and is text.
const NEXT_TEXT: u8 = 0x18;

/// The text of a checksum with this value.
pub fn checksum_text(value: u128) -> String {
    format!("{PREFIX}{value:032x}")
}

/// Takes the bytes of a file, part after part.
#[derive(Default)]
pub struct Checksum(Xxh3);

impl Checksum {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far, as it is written down.
    pub fn text(&self) -> String {
        checksum_text(self.0.digest128())
    }
}

/// Whether a text is a checksum of the algorithm that this version knows.
pub fn is_known_checksum(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX);
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Writes its own checksum into a metadata file that has [`UNSEALED`] under [`SEAL_KEY`].
pub fn seal(mut file: Vec<u8>) -> Result<Vec<u8>> {
    let digits = digits_of(&file)
        .filter(|digits| file[digits.clone()].iter().all(|digit| *digit == b'0'))
        .ok_or_else(|| Error::internal("a metadata file without a place for its checksum"))?;
    let text = format!("{:032x}", xxh3_128(&file));
    file[digits].copy_from_slice(text.as_bytes());
    Ok(file)
}

/// What the checksum in a metadata file says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// There is none.
    Absent,
    /// The bytes are those that were written.
    Whole,
    /// The bytes are others.
    Broken,
}

/// Checks the checksum that a metadata file has of itself.
pub fn check_seal(file: &[u8]) -> Seal {
    let Some(digits) = digits_of(file) else {
        return Seal::Absent;
    };
    let mut hash = Xxh3::new();
    hash.update(&file[..digits.start]);
    hash.update(&[b'0'; 32]);
    hash.update(&file[digits.end..]);
    match format!("{:032x}", hash.digest128()).as_bytes() == &file[digits] {
        true => Seal::Whole,
        false => Seal::Broken,
    }
}

/// Where the digits of the file's own checksum stand.
fn digits_of(file: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut before = SEAL_KEY.as_bytes().to_vec();
    before.extend([NEXT_TEXT, UNSEALED.len() as u8]);
    before.extend(PREFIX.as_bytes());
    let found = file.windows(before.len()).position(|window| window == before)?;
    let start = found + before.len();
    (start + 32 <= file.len()).then_some(start..start + 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = b"PAR1 something ".to_vec();
        file.extend(SEAL_KEY.as_bytes());
        file.extend([NEXT_TEXT, UNSEALED.len() as u8]);
        file.extend(UNSEALED.as_bytes());
        file.extend(b" and more PAR1");
        file
    }

    #[test]
    fn each_flipped_bit_breaks_a_seal() {
        let sealed = seal(file()).expect("a place for it");
        assert_eq!(check_seal(&sealed), Seal::Whole);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(check_seal(&flipped), Seal::Whole, "bit {bit}");
        }
        assert!(seal(sealed).is_err(), "sealed twice");
        assert_eq!(check_seal(b"PAR1"), Seal::Absent);
    }

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(Checksum::new().text(), "xxh3-128:99aa06d3014798d86001c324468d497f");
        assert!(is_known_checksum(UNSEALED) && !is_known_checksum("crc32:00000000"));
    }
}
