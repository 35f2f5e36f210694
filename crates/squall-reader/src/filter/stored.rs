//! Selections in files.
//!
//! A file holds the rows of one selection: a head (magic, version, digest of all that decides the selection), then for each
//! row group that has rows its ordinal and which of the rows in question those are, all, as runs or as a bitmap, and a
//! checksum at the end. Numbers are little-endian. A file is written beside its place and renamed, so that several processes
//! may write the same one. What is read is not trusted: a file that does not fit the dataset is passed over, and written anew.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, Buffer};
use datafusion_common::config::ConfigOptions;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::pages::MOST_ROWS;
use super::parse::Clause;
use super::shared::Key;
use crate::row_set::RowSet;
use crate::select::SelectedPiece;

const MAGIC: &[u8; 8] = b"SQSELECT";
// 2: floats that an expression makes have one NaN and one zero.
const VERSION: u32 = 2;
/// Magic, version, key, number of row groups.
const HEAD_BYTES: usize = 8 + 4 + 16 + 4;
const CHECKSUM_BYTES: usize = 8;
/// Ordinal and form of a row group.
const PIECE_BYTES: u64 = 4 + 1;

const ALL: u8 = 0;
const RUNS: u8 = 1;
const BITMAP: u8 = 2;

/// Where a selection is stored.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    key: u128,
}

impl Place {
    /// The place of a selection in a directory. None for a clause with a function of the user's own: its text does not say
    /// what it does.
    pub(super) fn new(directory: &Path, key: &Key, clause: &Clause) -> Option<Self> {
        if !clause.is_portable {
            tracing::debug!(clause = %clause.text, "a selection by a function of the program's own is not stored");
            return None;
        }
        // A later DataFusion may mean something else by the same text.
        let engine = ConfigOptions::default().execution.parquet.created_by;
        let all = (
            VERSION,
            engine,
            &key.fingerprint,
            &key.expression,
            &key.columns,
            key.partitions,
            key.rows,
        );
        Some(Self {
            directory: directory.to_owned(),
            key: xxh3_128(format!("{all:?}").as_bytes()),
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{:032x}.selection", self.key))
    }

    /// The stored rows, if they are there and are some of those of `pieces`.
    pub(super) fn load(&self, pieces: &[SelectedPiece]) -> Option<Vec<SelectedPiece>> {
        let path = self.path();
        let bytes = match read(&path, most_bytes(pieces)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a stored selection cannot be read and is made anew");
                return None;
            }
        };
        match parse(&bytes, self.key, pieces) {
            Ok(rows) => Some(rows),
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "a stored selection is damaged and is made anew");
                None
            }
        }
    }

    /// Stores the rows that are left of those of `pieces`. Training does not fail where this does.
    pub(super) fn save(&self, pieces: &[SelectedPiece], left: &[SelectedPiece]) {
        let Some(bytes) = format(self.key, pieces, left) else {
            return;
        };
        let path = self.path();
        // Another thread of this process may write another selection.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = self
            .directory
            .join(format!(".{:032x}.{}.{number}.tmp", self.key, std::process::id()));
        let saved = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&beside, &bytes))
            .and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = saved {
            let _ = fs::remove_file(&beside);
            tracing::warn!(file = %path.display(), %error, "a selection cannot be stored");
        }
    }
}

/// Bytes that a file of these row groups has at most.
fn most_bytes(pieces: &[SelectedPiece]) -> u64 {
    let each = pieces.iter().map(|piece| PIECE_BYTES + bitmap_bytes(piece.rows.len()));
    let all = each.fold(0u64, u64::saturating_add);
    all.saturating_add((HEAD_BYTES + CHECKSUM_BYTES) as u64)
}

fn bitmap_bytes(rows: u64) -> u64 {
    rows.div_ceil(8).max(1)
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a file; `None` for row groups too long for it.
fn format(key: u128, pieces: &[SelectedPiece], left: &[SelectedPiece]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(key.to_le_bytes());
    bytes.extend(u32::try_from(left.len()).ok()?.to_le_bytes());
    for piece in left {
        bytes.extend(piece.piece.to_le_bytes());
        let place = pieces.binary_search_by_key(&piece.piece, |own| own.piece).ok()?;
        let given = &pieces[place].rows;
        let rows = given.len();
        if piece.rows.len() == rows {
            bytes.push(ALL);
            continue;
        }
        if rows > MOST_ROWS {
            return None;
        }
        let bits = places(given, &piece.rows)?;
        let runs = format_runs(&bits);
        if (runs.len() as u64) < bitmap_bytes(rows) {
            bytes.push(RUNS);
            bytes.extend(runs);
        } else {
            bytes.push(BITMAP);
            bytes.extend(bits.values().iter().take(bitmap_bytes(rows) as usize));
            // What stands in the last byte behind the last row is not told.
            if let (Some(last), 1..) = (bytes.last_mut(), rows % 8) {
                *last &= (1 << (rows % 8)) - 1;
            }
        }
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Some(bytes)
}

/// A bit for each of the given rows: whether it is left.
fn places(given: &RowSet, left: &RowSet) -> Option<BooleanBuffer> {
    let rows = usize::try_from(given.len()).ok()?;
    let mut bits = BooleanBufferBuilder::new(rows);
    for run in left.iter_runs(0..left.len()) {
        // A run of rows that are left is one of rows that were given.
        let first = given.indices_of(run.start).start as usize;
        bits.append_n(first.checked_sub(bits.len())?, false);
        bits.append_n((run.end - run.start) as usize, true);
    }
    bits.append_n(rows.checked_sub(bits.len())?, false);
    Some(bits.finish())
}

/// Number of runs, then for each the rows since the end of the one before and those in it.
fn format_runs(bits: &BooleanBuffer) -> Vec<u8> {
    let mut runs = Vec::new();
    let (mut n_runs, mut end) = (0, 0);
    for (start, stop) in bits.set_slices() {
        write_number((start - end) as u64, &mut runs);
        write_number((stop - start) as u64, &mut runs);
        (n_runs, end) = (n_runs + 1, stop);
    }
    let mut bytes = Vec::new();
    write_number(n_runs, &mut bytes);
    bytes.extend(runs);
    bytes
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

type Parsed<T> = Result<T, &'static str>;

/// The row groups in a file, which must be some of `pieces`, with rows that are theirs.
fn parse(bytes: &[u8], key: u128, pieces: &[SelectedPiece]) -> Parsed<Vec<SelectedPiece>> {
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or("it is too short")?;
    let (body, checksum) = bytes.split_at(split);
    if checksum != xxh3_64(body).to_le_bytes() {
        return Err("its checksum is wrong");
    }
    let mut bytes = Bytes(body);
    if bytes.take(8)? != MAGIC || bytes.u32()? != VERSION {
        return Err("it has no head of this version");
    }
    if bytes.take(16)? != key.to_le_bytes() {
        return Err("it is of another selection");
    }
    let in_question: HashMap<u32, &RowSet> = pieces.iter().map(|piece| (piece.piece, &piece.rows)).collect();
    let n_pieces = bytes.u32()? as usize;
    if n_pieces > in_question.len() {
        return Err("it has more row groups than there are");
    }
    let mut parsed: Vec<SelectedPiece> = Vec::new();
    for _ in 0..n_pieces {
        let piece = bytes.u32()?;
        if parsed.last().is_some_and(|last| last.piece >= piece) {
            return Err("its row groups are not in order");
        }
        let given = *in_question
            .get(&piece)
            .ok_or("it has a row group that is not in question")?;
        let all = given.len();
        let rows = match bytes.take(1)?[0] {
            ALL => given.clone(),
            _ if all > MOST_ROWS => return Err("it has a bitmap of too many rows"),
            RUNS => given.narrow(&bytes.runs(all)?),
            BITMAP => given.narrow(&bytes.bitmap(all)?),
            _ => return Err("it has rows in an unknown form"),
        };
        if rows.is_empty() {
            return Err("it has a row group without rows");
        }
        parsed.push(SelectedPiece { piece, rows });
    }
    match bytes.0 {
        [] => Ok(parsed),
        _ => Err("it is too long"),
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Parsed<u32> {
        let bytes = self.take(4)?.try_into().map_err(|_| "it is cut short")?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn number(&mut self) -> Parsed<u64> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("it has a number that is too long")
    }

    fn runs(&mut self, rows: u64) -> Parsed<BooleanBuffer> {
        let mut bits = BooleanBufferBuilder::new(rows as usize);
        let mut left = rows;
        for _ in 0..self.number()? {
            for (n, set) in [(self.number()?, false), (self.number()?, true)] {
                left = left.checked_sub(n).ok_or("it has rows beyond the row group")?;
                bits.append_n(n as usize, set);
            }
        }
        bits.append_n(left as usize, false);
        Ok(bits.finish())
    }

    fn bitmap(&mut self, rows: u64) -> Parsed<BooleanBuffer> {
        let bytes = self.take(bitmap_bytes(rows) as usize)?;
        let beyond = bytes
            .last()
            .is_some_and(|last| !rows.is_multiple_of(8) && last >> (rows % 8) > 0);
        if beyond {
            return Err("it has rows beyond the row group");
        }
        Ok(BooleanBuffer::new(Buffer::from(bytes), 0, rows as usize))
    }
}

#[cfg(test)]
mod tests;
