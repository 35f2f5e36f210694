//! The one array of a file that `numpy.savez_compressed` wrote: a ZIP archive
//! (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>) with the entry `arr.npy`.
//!
//! numpy writes local headers whose sizes are in a ZIP64 field, so sizes are taken from the central directory.

use std::io::Read;

use flate2::read::DeflateDecoder;

use super::npy::MAX_HEAD;
use crate::{Error, Result};

/// The entry that Petastorm writes.
const ENTRY: &[u8] = b"arr.npy";
const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
/// Bytes of the end of the directory, without its comment.
const END_SIZE: usize = 22;
/// Deflate makes at most about a thousand bytes of one.
const MAX_RATIO: usize = 1100;

/// The bytes of the npy array in an archive. `announced` gets the first [`MAX_HEAD`] of them and says how many there are, so
/// that an array that nobody wants is not inflated.
pub(super) fn array(cell: &[u8], announced: impl FnOnce(&[u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let corrupt = || Error::corrupt("not an npz archive with an array \"arr\"");
    let entry = find(cell).ok_or_else(corrupt)?;
    let header = cell
        .get(entry.offset..)
        .and_then(|rest| rest.strip_prefix(LOCAL_HEADER))
        .ok_or_else(corrupt)?;
    let name = u16_at(header, 22).ok_or_else(corrupt)?;
    let extra = u16_at(header, 24).ok_or_else(corrupt)?;
    let data = header
        .get(26 + name + extra..)
        .and_then(|rest| rest.get(..entry.compressed))
        .ok_or_else(corrupt)?;
    if entry.size > entry.compressed.saturating_mul(MAX_RATIO) {
        return Err(Error::corrupt(format!(
            "an npz array that claims {} bytes of {} compressed ones",
            entry.size, entry.compressed
        )));
    }
    let (mut stored, mut deflated) = (data, DeflateDecoder::new(data));
    let source: &mut dyn Read = match entry.method {
        0 => &mut stored,
        8 => &mut deflated,
        method => {
            return Err(Error::unsupported(format!(
                "an npz array compressed with method {method}"
            )));
        }
    };
    let mut bytes = Vec::with_capacity(entry.size.min(MAX_HEAD));
    let mut read = |bytes: &mut Vec<u8>, end: usize| {
        let read = source.take((end - bytes.len()) as u64).read_to_end(bytes);
        read.map_err(|error| Error::corrupt("cannot inflate an npz array").with_source(error))
    };
    let wrong = |found: usize| Error::corrupt(format!("an npz array of {found} bytes: expected {}", entry.size));
    read(&mut bytes, entry.size.min(MAX_HEAD))?;
    let size = announced(&bytes)?;
    if size != entry.size {
        return Err(wrong(size));
    }
    bytes.reserve_exact(size - bytes.len());
    // One more, to see that the archive ends there.
    read(&mut bytes, size + 1)?;
    if bytes.len() != size {
        return Err(wrong(bytes.len()));
    }
    Ok(bytes)
}

struct Entry {
    method: usize,
    compressed: usize,
    size: usize,
    offset: usize,
}

/// Walks the central directory, which the end of the archive points at.
fn find(cell: &[u8]) -> Option<Entry> {
    let last = cell.len().checked_sub(END_SIZE)?;
    // A comment may follow; it is at most 65,535 bytes long.
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last)
        .rev()
        .find(|at| cell[*at..].starts_with(END_OF_DIRECTORY))?;
    let (count, mut at) = (u16_at(cell, end + 10)?, u32_at(cell, end + 16)?);
    for _ in 0..count {
        let entry = cell.get(at..)?.strip_prefix(DIRECTORY_ENTRY)?;
        let (name, extra, comment) = (u16_at(entry, 24)?, u16_at(entry, 26)?, u16_at(entry, 28)?);
        if entry.get(42..42 + name)? == ENTRY {
            return Some(Entry {
                method: u16_at(entry, 6)?,
                compressed: u32_at(entry, 16)?,
                size: u32_at(entry, 20)?,
                offset: u32_at(entry, 38)?,
            });
        }
        at += DIRECTORY_ENTRY.len() + 42 + name + extra + comment;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes([two[0], two[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::npy;
    use super::*;

    /// `numpy.savez_compressed(f, arr=numpy.arange(3, dtype='u1'))` of numpy 2.4, as base64.
    const ARCHIVE: &str = "\
        UEsDBC0AAAAIAAAAIQBI6mbs//////////8HABQAYXJyLm5weQEAEACDAAAAAAAAAEcAAAAAAAAAm+wX6hsQychQxlCtnpJanFyk\
        bqWgXlNqqK6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkaxjqaOgq1ChQALgZGJgBQSwECLQMtAAAACAAAACEASOpm7EcA\
        AACDAAAABwAAAAAAAAAAAAAAgAEAAAAAYXJyLm5weVBLBQYAAAAAAQABADUAAACAAAAAAAA=";

    fn archive() -> Vec<u8> {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD
            .decode(ARCHIVE)
            .expect("base64")
    }

    /// Takes any array.
    fn array(cell: &[u8]) -> Result<Vec<u8>> {
        super::array(cell, |head| Ok(npy::Reader::default().announced(head)?.size))
    }

    #[test]
    fn what_numpy_wrote_is_read() {
        let npy = array(&archive()).expect("an array");
        assert!(npy.starts_with(b"\x93NUMPY") && npy.ends_with(&[0, 1, 2]));
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let good = archive();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            // Names, dates and checksums may change without harm.
            let _ = array(&bad);
            let _ = array(&good[..at]);
        }
        let directory = good
            .windows(4)
            .position(|four| four == DIRECTORY_ENTRY)
            .expect("a directory");
        let mut bomb = good.clone();
        bomb[directory + 24..directory + 28].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = array(&bomb).expect_err("a bomb");
        assert!(error.to_string().contains("claims 4294967295 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = array(&bytes);
            let _ = array(&[&bytes[..], END_OF_DIRECTORY, &[0; 18]].concat());
        }
    }
}
