//! The file of an entry: runs of bytes of one object, with checksums.
//!
//! ```text
//! "SQUALLC1"  bytes of the header u32  runs u32  bytes of data u64  XXH3 of all this and of the header u64
//! header: bytes of the key u32, the key, (start u64, bytes u64) of each run, XXH3 u64 of each block of data
//! data:   the runs laid end to end; blocks of 64 KiB
//! ```
//!
//! Numbers are little-endian. The blocks are what is checked when a part of an entry is read, so that a page of a large entry
//! does not cost all of it. Whatever does not fit together is damage: a file that was cut short, a bit that flipped.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::key::ObjectKey;

/// Entries hold bytes of one slot of their object: slot `i` is the bytes from `i` times this on.
pub(super) const SLOT_BYTES: u64 = 8 << 20;
/// Most runs of an entry.
pub(super) const MAX_RUNS: usize = 4096;

const MAGIC: &[u8; 8] = b"SQUALLC1";
const PREFIX: usize = 32;
const BLOCK: u64 = 64 << 10;
/// Most bytes of a header that is read: that of the most runs and of a key of 64 KiB is far smaller.
const MAX_HEADER: u32 = 1 << 20;

/// Why an entry cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not what was written.
    Damaged(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it is cut short"),
            _ => Self::Io(error),
        }
    }
}

/// Bytes of an object, and where they stand in it.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl Chunk {
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// What stands before the data of an entry.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) key: ObjectKey,
    /// The runs, as bytes of the object; ascending, apart from each other.
    pub(super) runs: Vec<Range<u64>>,
    checksums: Vec<u64>,
    data_at: u64,
    data_len: u64,
}

/// The bytes that stand before the data of an entry with these chunks, which are ascending and do not overlap.
pub(super) fn encode_header(key: &ObjectKey, chunks: &[Chunk]) -> Vec<u8> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for chunk in chunks {
        match runs.last_mut() {
            Some(last) if last.end == chunk.start => last.end = chunk.end(),
            _ => runs.push(chunk.start..chunk.end()),
        }
    }
    let key = key.to_text();
    let mut header = Vec::new();
    header.extend((key.len() as u32).to_le_bytes());
    header.extend(key.as_bytes());
    for run in &runs {
        header.extend(run.start.to_le_bytes());
        header.extend((run.end - run.start).to_le_bytes());
    }
    let mut blocks = Blocks::default();
    chunks.iter().for_each(|chunk| blocks.update(&chunk.bytes));
    blocks.finish().iter().for_each(|sum| header.extend(sum.to_le_bytes()));

    let data_len: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
    let mut all = Vec::with_capacity(PREFIX + header.len());
    all.extend(MAGIC);
    all.extend((header.len() as u32).to_le_bytes());
    all.extend((runs.len() as u32).to_le_bytes());
    all.extend(data_len.to_le_bytes());
    let sum = checksum(&all, &header);
    all.extend(sum.to_le_bytes());
    all.extend(header);
    all
}

fn checksum(prefix: &[u8], header: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(prefix);
    sum.update(header);
    sum.digest()
}

/// The checksums of blocks of data that comes in pieces.
#[derive(Default)]
struct Blocks {
    done: Vec<u64>,
    open: Xxh3,
    filled: u64,
}

impl Blocks {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min((BLOCK - self.filled) as usize));
            self.open.update(now);
            self.filled += now.len() as u64;
            if self.filled == BLOCK {
                self.done.push(self.open.digest());
                self.open.reset();
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    fn finish(mut self) -> Vec<u64> {
        if self.filled > 0 {
            self.done.push(self.open.digest());
        }
        self.done
    }
}

impl Header {
    /// Reads the header of an entry, and checks that the file has the length that it says.
    pub(super) fn read(file: &File) -> Result<Self, Unreadable> {
        let mut prefix = [0; PREFIX];
        file.read_exact_at(&mut prefix, 0)?;
        let mut fields = Fields(&prefix);
        if fields.take(8)? != MAGIC {
            return Err(Unreadable::Damaged("it does not begin as an entry does"));
        }
        let (header_len, n_runs) = (fields.u32()?, fields.u32()?);
        let (data_len, sum) = (fields.u64()?, fields.u64()?);
        if header_len > MAX_HEADER || n_runs as usize > MAX_RUNS || data_len > SLOT_BYTES {
            return Err(Unreadable::Damaged("its header is impossible"));
        }
        let data_at = PREFIX as u64 + u64::from(header_len);
        if file.metadata()?.len() != data_at + data_len {
            return Err(Unreadable::Damaged("it has another length than its header says"));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact_at(&mut header, PREFIX as u64)?;
        if checksum(&prefix[..PREFIX - 8], &header) != sum {
            return Err(Unreadable::Damaged("the checksum of its header is wrong"));
        }
        let mut fields = Fields(&header);
        let key_len = fields.u32()? as usize;
        let key = ObjectKey::from_text(fields.take(key_len)?);
        let key = key.map_err(|_| Unreadable::Damaged("its key is no key"))?;
        let mut runs: Vec<Range<u64>> = Vec::with_capacity(n_runs as usize);
        let (mut before, mut total) = (0, 0u64);
        for _ in 0..n_runs {
            let (start, len) = (fields.u64()?, fields.u64()?);
            let end = start
                .checked_add(len)
                .filter(|end| *end <= key.size() && len > 0 && start >= before);
            let end = end.ok_or(Unreadable::Damaged("its runs are impossible"))?;
            runs.push(start..end);
            before = end;
            total = total.saturating_add(len);
        }
        if total != data_len || fields.0.len() as u64 != data_len.div_ceil(BLOCK) * 8 {
            return Err(Unreadable::Damaged("its runs are not those of its data"));
        }
        let checksums = fields.0.chunks_exact(8).map(|sum| Fields(sum).u64());
        Ok(Self {
            key,
            runs,
            checksums: checksums.collect::<Result<_, _>>()?,
            data_at,
            data_len,
        })
    }

    /// Reads these places of the data, which are ascending and lie in it, and checks the blocks that they lie in.
    pub(super) fn read_data(&self, file: &File, places: &[Range<u64>]) -> Result<Vec<Bytes>, Unreadable> {
        let mut read = Vec::with_capacity(places.len());
        let mut i = 0;
        while i < places.len() {
            let first = places[i].start / BLOCK;
            let (mut last, mut n) = (places[i].end.div_ceil(BLOCK), 1);
            while let Some(next) = places.get(i + n).filter(|next| next.start / BLOCK <= last) {
                last = last.max(next.end.div_ceil(BLOCK));
                n += 1;
            }
            let (start, end) = (first * BLOCK, (last * BLOCK).min(self.data_len));
            let mut buffer = vec![0; (end - start) as usize];
            file.read_exact_at(&mut buffer, self.data_at + start)?;
            for (block, bytes) in (first as usize..).zip(buffer.chunks(BLOCK as usize)) {
                if self.checksums[block] != xxh3_64(bytes) {
                    return Err(Unreadable::Damaged("the checksum of its data is wrong"));
                }
            }
            let buffer = Bytes::from(buffer);
            for place in &places[i..i + n] {
                read.push(buffer.slice((place.start - start) as usize..(place.end - start) as usize));
            }
            i += n;
        }
        Ok(read)
    }
}

/// Fields of a header, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Unreadable> {
        let (now, rest) = self
            .0
            .split_at_checked(n)
            .ok_or(Unreadable::Damaged("its header is cut short"))?;
        self.0 = rest;
        Ok(now)
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        let bytes = self.take(4)?.try_into();
        bytes
            .map(u32::from_le_bytes)
            .map_err(|_| Unreadable::Damaged("its header is cut short"))
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        let bytes = self.take(8)?.try_into();
        bytes
            .map(u64::from_le_bytes)
            .map_err(|_| Unreadable::Damaged("its header is cut short"))
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is asked for as several are")]
mod tests {
    use std::io::Write;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("memory://x", "a", 1 << 20, Some("1"), None).expect("a key")
    }

    fn chunks() -> Vec<Chunk> {
        let chunk = |start: u64, len: u64| Chunk {
            start,
            bytes: (start..start + len).map(|i| (i % 251) as u8).collect(),
        };
        vec![chunk(3, 70_000), chunk(70_003, 10), chunk(200_000, 130_000)]
    }

    fn write(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn encoded() -> Vec<u8> {
        let chunks = chunks();
        let data = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec());
        encode_header(&key(), &chunks).into_iter().chain(data).collect()
    }

    #[test]
    fn any_part_is_read() {
        let file = write(&encoded());
        let header = Header::read(&file).expect("a header");
        assert_eq!(header.key, key());
        assert_eq!(header.runs, [3..70_013, 200_000..330_000]);
        let all: Vec<u8> = chunks().iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
        for places in [
            vec![0..200_010],
            vec![0..1, 1..65_536, 65_536..65_537, 200_009..200_010],
            vec![65_535..65_537, 196_700..196_701],
        ] {
            let read = header.read_data(&file, &places).expect("data");
            for (place, bytes) in places.iter().zip(read) {
                assert_eq!(bytes, all[place.start as usize..place.end as usize], "{place:?}");
            }
        }
    }

    /// Reads everything, or says what is damaged.
    fn read(bytes: &[u8]) -> Result<usize, Unreadable> {
        let file = write(bytes);
        let header = Header::read(&file)?;
        Ok(header.read_data(&file, &[0..header.data_len])?.len())
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let good = encoded();
        assert_eq!(read(&good).expect("sound"), 1);
        let header = encode_header(&key(), &chunks()).len();
        let places = (0..header)
            .chain((header..good.len()).step_by(997))
            .chain([good.len() - 1]);
        for place in places {
            let mut bad = good.clone();
            bad[place] ^= 0x10;
            assert!(matches!(read(&bad), Err(Unreadable::Damaged(_))), "byte {place}");
        }
        for len in (0..header + 9).chain([good.len() - 1]) {
            assert!(matches!(read(&good[..len]), Err(Unreadable::Damaged(_))), "{len} bytes");
        }
        assert!(matches!(read(&[&good[..], &[0]].concat()), Err(Unreadable::Damaged(_))));
    }

    /// A header with a valid checksum is not trusted either.
    #[test]
    fn runs_that_are_impossible_are_damage() {
        let outside = Chunk {
            start: (1 << 20) - 1,
            bytes: Bytes::from_static(b"xy"),
        };
        let bytes = [encode_header(&key(), std::slice::from_ref(&outside)), b"xy".to_vec()].concat();
        assert!(matches!(read(&bytes), Err(Unreadable::Damaged(_))));
    }
}
