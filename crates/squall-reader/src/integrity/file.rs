//! A file against what is written of it: size, checksums, footer, page index.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use squall_dataset::{Checksum, Store, is_known_checksum};
use squall_schema::metadata::FileEntry;
use squall_schema::{Error, Result, panic_text};

use super::source::Source;

/// Bytes that a checksum takes at a time.
const STEP: u64 = 4 << 20;
/// What a file of Hadoop's checksums begins with; the bytes of a part follow, as a big-endian number of 32 bits.
const HADOOP_MAGIC: &[u8] = b"crc\0";
/// The magic number at the beginning of a Parquet file, and with the length of the footer at its end.
const HEAD: u64 = 4;
const TAIL: u64 = 8;

/// What is written of a file.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) path: Path,
    /// Bytes of the file that was found.
    pub(super) size: u64,
    /// What Squall's metadata says, where they are Squall's.
    pub(super) entry: Option<FileEntry>,
    /// The file of Hadoop's checksums beside it, and its size.
    pub(super) hadoop: Option<(Path, u64)>,
}

/// What a file turned out to be.
pub(super) struct Checked {
    pub(super) footer: Option<Arc<ParquetMetaData>>,
    /// Whether the page index may be followed.
    pub(super) index_is_sane: bool,
    /// Whether a checksum covers all bytes of the file.
    pub(super) has_checksum: bool,
    pub(super) problems: Vec<Error>,
}

/// Checks the file; with its checksums where `bytes` says so. Runs where it may block.
pub(super) fn check(expected: &Expected, source: &Source, store: &Store, bytes: bool) -> Checked {
    let mut checked = Checked {
        footer: None,
        index_is_sane: false,
        has_checksum: false,
        problems: Vec::new(),
    };
    if let Some(entry) = &expected.entry
        && entry.size != expected.size
    {
        let message = format!("the file has {} bytes, its metadata say {}", expected.size, entry.size);
        checked.problems.push(Error::corrupt(message));
    }
    if bytes {
        let found = checksums(expected, source, store).unwrap_or_else(|error| {
            checked.problems.push(error);
            false
        });
        checked.has_checksum = found;
    }
    match load_footer(source) {
        Ok((footer, no_index)) => {
            let before = checked.problems.len();
            checked.problems.extend(no_index);
            if let Some(entry) = &expected.entry {
                compare(entry, &footer, &mut checked.problems);
            }
            lie_inside(&footer, expected.size, &mut checked.problems);
            page_index(&footer, &mut checked.problems);
            checked.index_is_sane = checked.problems.len() == before;
            checked.footer = Some(Arc::new(footer));
        }
        Err(error) => checked.problems.push(error),
    }
    checked
}

/// The file against the checksums that there are; whether there is one.
fn checksums(expected: &Expected, source: &Source, store: &Store) -> Result<bool> {
    let known = expected.entry.as_ref().and_then(|entry| entry.checksum.as_deref());
    if let Some(known) = known {
        if !is_known_checksum(known) {
            let message = format!("a checksum of another kind than xxh3-128 and 32 digits: {known:?}");
            return Err(Error::unsupported(message));
        }
        let mut checksum = Checksum::new();
        let mut at = 0;
        while at < source.size() {
            let bytes = source.bytes(at, STEP)?;
            checksum.update(&bytes);
            at += bytes.len() as u64;
        }
        let found = checksum.text();
        if found != known {
            let message =
                format!("the file is not the one that was written: its checksum is {found}, expected {known}");
            return Err(Error::corrupt(message));
        }
    }
    if let Some((path, size)) = &expected.hadoop {
        return hadoop(source, &Source::new(store, path, *size)).map(|()| true);
    }
    Ok(known.is_some())
}

/// The file against Hadoop's checksums of its parts (ChecksumFileSystem): Spark writes them on file systems that have none.
fn hadoop(source: &Source, sums: &Source) -> Result<()> {
    let at = |error: Error| error.at("checksums", sums.path());
    let head = sums.bytes(0, 8)?;
    let (Some(magic), Some(&[a, b, c, d])) = (head.get(..4), head.get(4..8).and_then(<[u8]>::first_chunk::<4>)) else {
        return Err(at(Error::corrupt("the file of its checksums is cut short")));
    };
    let part = u64::from(u32::from_be_bytes([a, b, c, d]));
    if magic != HADOOP_MAGIC || part == 0 {
        return Err(at(Error::corrupt(
            "the file of its checksums does not begin as Hadoop's",
        )));
    }
    let parts = source.size().div_ceil(part);
    if sums.size() != 8 + 4 * parts {
        let message = format!(
            "the file has {parts} parts of {part} bytes, but {} bytes of checksums",
            sums.size().saturating_sub(8)
        );
        return Err(at(Error::corrupt(message)));
    }
    for n in 0..parts {
        let expected = sums.bytes(8 + 4 * n, 4)?;
        let (mut hash, mut start) = (crc32fast::Hasher::new(), n * part);
        let end = (start + part).min(source.size());
        while start < end {
            let bytes = source.bytes(start, (end - start).min(STEP))?;
            hash.update(&bytes);
            start += bytes.len() as u64;
        }
        if expected[..] != hash.finalize().to_be_bytes() {
            let message = format!("Hadoop's checksum of the bytes {} to {end} is another", n * part);
            return Err(at(Error::corrupt(message)));
        }
    }
    Ok(())
}

/// The footer with its page index; without one, and why, where that alone is damaged.
fn load_footer(source: &Source) -> Result<(ParquetMetaData, Option<Error>)> {
    let head = source.bytes(0, HEAD)?;
    if head[..] != *b"PAR1" {
        return Err(Error::corrupt("not a Parquet file: it does not begin with PAR1"));
    }
    match parse(source, PageIndexPolicy::Optional) {
        Ok(footer) => Ok((footer, None)),
        Err(with_index) => {
            let footer = parse(source, PageIndexPolicy::Skip)?;
            let message = "the page index cannot be read";
            Ok((footer, Some(Error::corrupt(message).with_source(with_index))))
        }
    }
}

fn parse(source: &Source, policy: PageIndexPolicy) -> Result<ParquetMetaData> {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(policy);
    // The parsers panic on some damaged footers.
    let parsed = catch_unwind(AssertUnwindSafe(|| reader.parse_and_finish(source)));
    let damaged = "the footer cannot be read: it is damaged or cut short";
    match parsed {
        Ok(parsed) => parsed.map_err(|error| Error::corrupt(damaged).with_source(error)),
        Err(panic) => Err(Error::corrupt(damaged).with_source(panic_text(&*panic))),
    }
}

/// The row groups against the metadata.
fn compare(entry: &FileEntry, footer: &ParquetMetaData, problems: &mut Vec<Error>) {
    let (found, expected) = (footer.num_row_groups(), entry.row_groups.len());
    if found != expected {
        let message = format!("the file has {found} row groups, its metadata say {expected}");
        problems.push(Error::corrupt(message));
    }
    for (i, (own, told)) in footer.row_groups().iter().zip(&entry.row_groups).enumerate() {
        let facts = [
            ("rows", own.num_rows(), told.rows),
            ("compressed bytes", own.compressed_size(), told.compressed_bytes),
            ("uncompressed bytes", own.total_byte_size(), told.uncompressed_bytes),
        ];
        for (what, found, expected) in facts {
            if u64::try_from(found) != Ok(expected) {
                let message = format!("the row group has {found} {what}, its metadata say {expected}");
                problems.push(Error::corrupt(message).at("row group", i));
            }
        }
    }
    let rows: i64 = footer
        .row_groups()
        .iter()
        .fold(0, |sum, own| sum.saturating_add(own.num_rows()));
    if rows != footer.file_metadata().num_rows() {
        let message = format!(
            "the row groups have {rows} rows, the footer says {}",
            footer.file_metadata().num_rows()
        );
        problems.push(Error::corrupt(message));
    }
}

/// The bytes of a chunk; `None` where the footer's numbers make no range.
pub(super) fn range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let start = u64::try_from(start.min(column.data_page_offset())).ok()?;
    let length = u64::try_from(column.compressed_size()).ok()?;
    Some(start..start.checked_add(length)?)
}

/// Column chunks lie between the magic numbers, each in bytes of its own.
fn lie_inside(footer: &ParquetMetaData, size: u64, problems: &mut Vec<Error>) {
    let mut chunks = Vec::new();
    for (i, row_group) in footer.row_groups().iter().enumerate() {
        for column in row_group.columns() {
            let at = |error: Error| error.at("column", column.column_path().string()).at("row group", i);
            match range(column) {
                Some(range) if range.start >= HEAD && range.end <= size.saturating_sub(TAIL) => {
                    chunks.push((range, i, column.column_path().string()));
                }
                Some(range) => problems.push(at(Error::corrupt(format!(
                    "its bytes {} to {} are not inside the file of {size}",
                    range.start, range.end
                )))),
                None => problems.push(at(Error::corrupt("its place in the file is negative"))),
            }
        }
    }
    chunks.sort_by_key(|(range, ..)| (range.start, range.end));
    for pair in chunks.windows(2) {
        let [(before, ..), (range, i, column)] = pair else {
            continue;
        };
        if range.start < before.end {
            let message = format!("its bytes from {} on belong to another column too", range.start);
            problems.push(Error::corrupt(message).at("column", column).at("row group", i));
        }
    }
}

/// Pages lie one behind the other inside their chunks and have ascending rows; their statistics are as many.
fn page_index(footer: &ParquetMetaData, problems: &mut Vec<Error>) {
    let Some(offsets) = footer.offset_index() else { return };
    for (i, row_group) in footer.row_groups().iter().enumerate() {
        for (leaf, column) in row_group.columns().iter().enumerate() {
            let Some(index) = offsets.get(i).and_then(|own| own.get(leaf)) else {
                continue;
            };
            let pages = index.page_locations();
            if pages.is_empty() {
                continue;
            }
            let wrong = || {
                let chunk = range(column)?;
                let (mut end, mut row) = (chunk.start, -1);
                for page in pages {
                    let start = u64::try_from(page.offset).ok()?;
                    let length = u64::try_from(page.compressed_page_size).ok()?;
                    let in_order = start >= end && page.first_row_index > row;
                    end = start.checked_add(length)?;
                    if !in_order || end > chunk.end || page.first_row_index >= row_group.num_rows().max(1) {
                        return None;
                    }
                    row = page.first_row_index;
                }
                (pages[0].first_row_index == 0).then_some(())
            };
            let at = |error: Error| error.at("column", column.column_path().string()).at("row group", i);
            if wrong().is_none() {
                problems.push(at(Error::corrupt(
                    "the page index does not fit: its pages are not one behind the other inside the column",
                )));
                continue;
            }
            let statistics = footer.column_index().and_then(|own| own.get(i)?.get(leaf));
            if let Some(nulls) = statistics.and_then(|statistics| statistics.null_counts())
                && nulls.len() != pages.len()
            {
                problems.push(at(Error::corrupt(format!(
                    "the page index has {} pages and statistics of {}",
                    pages.len(),
                    nulls.len()
                ))));
            }
        }
    }
}

/// What the parquet crate said; what the store said comes back whole.
pub(super) fn read_error(error: ParquetError, what: &str) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(store) => *store,
            Err(other) => Error::corrupt(what).with_source(other),
        },
        other => Error::corrupt(what).with_source(other),
    }
}
