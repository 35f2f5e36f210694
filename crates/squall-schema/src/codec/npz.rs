//! The one array of a file that `numpy.savez_compressed` wrote: a ZIP archive
//! (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>) with the entry `arr.npy`.
//!
//! numpy writes local headers whose sizes are in a ZIP64 field, so sizes are taken from the central directory.

use std::io::{Read, Write};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

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

/// The first [`MAX_HEAD`] bytes of the npy array in an archive.
pub(super) fn head(cell: &[u8]) -> Result<Vec<u8>> {
    let (entry, mut source) = open(cell)?;
    read(&mut source, entry.size.min(MAX_HEAD), Vec::new())
}

/// The bytes of the npy array in an archive. `announced` gets the first [`MAX_HEAD`] of them and says how many there are, so
/// that an array that nobody wants is not inflated.
pub(super) fn array(cell: &[u8], announced: impl FnOnce(&[u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let (entry, mut source) = open(cell)?;
    let wrong = |found: usize| Error::corrupt(format!("an npz array of {found} bytes: expected {}", entry.size));
    let head = read(&mut source, entry.size.min(MAX_HEAD), Vec::new())?;
    let size = announced(&head)?;
    if size != entry.size {
        return Err(wrong(size));
    }
    let mut bytes = head;
    let reserved = bytes.try_reserve_exact(size.saturating_sub(bytes.len()));
    reserved.map_err(|_| Error::unsupported(format!("an npz array of {size} bytes: more than there is memory")))?;
    // One more, to see that the archive ends there.
    let bytes = read(&mut source, size + 1, bytes)?;
    if bytes.len() != size {
        return Err(wrong(bytes.len()));
    }
    Ok(bytes)
}

/// The entry, and what inflates its bytes.
fn open(cell: &[u8]) -> Result<(Entry, Box<dyn Read + '_>)> {
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
    let source: Box<dyn Read> = match entry.method {
        0 => Box::new(data),
        8 => Box::new(DeflateDecoder::new(data)),
        method => {
            return Err(Error::unsupported(format!(
                "an npz array compressed with method {method}"
            )));
        }
    };
    Ok((entry, source))
}

/// Reads on until there are `end` bytes, or no more.
fn read(source: &mut dyn Read, end: usize, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let missing = end.saturating_sub(bytes.len()) as u64;
    let read = source.take(missing).read_to_end(&mut bytes);
    read.map_err(|error| Error::corrupt("cannot inflate an npz array").with_source(error))?;
    Ok(bytes)
}

/// The archive with this npy array, deflated, as `numpy.savez_compressed(f, arr=…)` makes it.
pub(super) fn write(npy: &[u8]) -> Result<Vec<u8>> {
    let too_large = |_| Error::unsupported(format!("an npz array of {} bytes: expected less than 4 GiB", npy.len()));
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
    let data = deflate.write_all(npy).and_then(|()| deflate.finish());
    let data = data.map_err(|error| Error::internal("cannot deflate an npz array").with_source(error))?;
    let mut crc = Crc::new();
    crc.update(npy);
    let (size, compressed) = (
        npy.len().try_into().map_err(too_large)?,
        data.len().try_into().map_err(too_large)?,
    );
    let (size, compressed): (u32, u32) = (size, compressed);
    // What the local header and the directory share: version 2.0, no flags, deflate, midnight of 1980-01-01, checksum,
    // sizes, length of the name, no extra field.
    let mut facts = vec![20, 0, 0, 0, 8, 0, 0, 0, 0x21, 0];
    for number in [crc.sum(), compressed, size] {
        facts.extend(number.to_le_bytes());
    }
    facts.extend([ENTRY.len() as u8, 0, 0, 0]);
    let mut archive = [LOCAL_HEADER, &facts, ENTRY, &data].concat();
    let directory = u32::try_from(archive.len()).map_err(too_large)?;
    // Version that made it; no comment, disk 0, no attributes, the local header at 0.
    archive.extend([DIRECTORY_ENTRY, &[20, 0], &facts, &[0; 14], ENTRY].concat());
    let length = archive.len() as u32 - directory;
    archive.extend([END_OF_DIRECTORY, &[0, 0, 0, 0, 1, 0, 1, 0]].concat());
    archive.extend([length.to_le_bytes(), directory.to_le_bytes()].concat());
    archive.extend([0, 0]);
    Ok(archive)
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
    fn what_is_written_is_read() {
        for n in [0, 1, 1000, 200_000] {
            let elements = (0..n).map(|i| (i % 7) as u8).collect();
            let tensor = crate::Value::Tensor(crate::Tensor::from_vec(&[n], elements).expect("a tensor"));
            let npy = npy::write(&tensor, crate::DType::UInt8).expect("an array");
            assert_eq!(array(&write(&npy).expect("an archive")).expect("an array"), npy);
        }
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
