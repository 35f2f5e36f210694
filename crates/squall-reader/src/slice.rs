//! The next slice of a run: the pages that its decoder needs next, and no others.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::ParquetMetaData;
use squall_schema::{Error, Result};

use crate::budget::Permit;
use crate::column_stream::{ColumnStream, Streaming};
use crate::fetch::{Chunk, Fetched, Wanted, byte_ranges, selection};
use crate::horizon::part;
use crate::sparse::SparseBytes;

/// Of each leaf the first page that was not fetched.
pub(crate) type Pages = Vec<usize>;

/// What is to be fetched of a run.
pub(crate) struct Next {
    /// Rows that are needed, counted by the decoder.
    pub(crate) rows: Range<u64>,
    /// Rows of the run.
    pub(crate) len: u64,
    /// About how many bytes the slice may have; `None` is all of the run.
    pub(crate) bytes: Option<u64>,
    /// Rows that are decoded at a time.
    pub(crate) unit: u64,
    pub(crate) pages: Pages,
}

/// A slice that was fetched: to which row of the run it reaches, and which pages are here then.
pub(crate) struct Slice {
    pub(crate) to: u64,
    pub(crate) pages: Pages,
    /// Bytes that were fetched.
    pub(crate) bytes: u64,
}

/// Fetches the first slice of a run.
pub(crate) async fn open(
    wanted: Wanted<'_>,
    next: Next,
    permit: Permit,
    streaming: Streaming,
) -> Result<(Fetched, Slice)> {
    let file = wanted.dataset.file_of(wanted.piece);
    // Ranges of remote files that were fetched as one share a buffer, which a view of one page would keep in memory.
    let footer = match wanted.dataset.store().url().to_file_path() {
        Some(_) => wanted.footers.get_for_views(wanted.dataset, wanted.piece).await?,
        None => wanted.footers.get(wanted.dataset, wanted.piece).await?,
    };
    let metadata = footer.metadata();
    let projection = wanted.columns.projection(metadata.file_metadata().schema_descr())?;
    let row_group = wanted.piece.row_group as usize;
    let has_pages = has_pages(metadata, row_group, &projection, file.size)?;
    let len = next.len;
    let (bytes, slice) = if let (Some(most), false) = (next.bytes, has_pages) {
        let source = ColumnStream::new(
            metadata,
            (row_group, &projection),
            (wanted.piece, most),
            (streaming, permit),
        )?;
        let bytes = SparseBytes::streamed(Arc::new(source), file.size);
        let slice = Slice {
            to: len,
            pages: Pages::new(),
            bytes: 0,
        };
        (bytes, slice)
    } else {
        let bytes = SparseBytes::new(Vec::new(), file.size);
        let place = Place {
            wanted: &wanted,
            metadata,
            projection: &projection,
            stored: &wanted.rows,
        };
        let slice = place.fetch(next, &bytes, permit).await?;
        (bytes, slice)
    };
    let fetched = Fetched {
        projection,
        row_group,
        bytes,
        calendar: squall_dataset::calendar(metadata),
        rows: wanted.rows,
        footer,
    };
    Ok((fetched, slice))
}

/// Fetches the next slice of a run of which the first is here.
pub(crate) async fn go_on(wanted: Wanted<'_>, fetched: &Fetched, next: Next, permit: Permit) -> Result<Slice> {
    let place = Place {
        wanted: &wanted,
        metadata: fetched.footer.metadata(),
        projection: &fetched.projection,
        stored: &fetched.rows,
    };
    place.fetch(next, &fetched.bytes, permit).await
}

struct Place<'a> {
    wanted: &'a Wanted<'a>,
    metadata: &'a ParquetMetaData,
    projection: &'a ProjectionMask,
    /// The rows of the run in its row group.
    stored: &'a [Range<u64>],
}

impl Place<'_> {
    async fn fetch(&self, next: Next, bytes: &SparseBytes, mut permit: Permit) -> Result<Slice> {
        let file = self.wanted.dataset.file_of(self.wanted.piece);
        let row_group = self.wanted.piece.row_group as usize;
        let to = self.reach(&next);
        let (ranges, pages) = match next.bytes {
            Some(_) => self.pages(next.rows.start..to, next.pages, file.size)?,
            None => {
                let selected = selection(self.stored, self.wanted.piece.rows);
                let ranges = byte_ranges(self.metadata, row_group, self.projection, &selected, file.size)?;
                (ranges, Pages::new())
            }
        };
        let fetched = ranges.iter().map(|range| range.end - range.start).sum();
        permit.resize(fetched);
        let first = part_of(self.stored, next.rows.start..next.rows.start + 1);
        let part = part(row_group, first.first().map_or(0, |rows| rows.start));
        let chunks = self.wanted.dataset.store().get_part(&file.path, part, &ranges).await?;
        let parts = ranges.into_iter().map(|range| range.start).zip(chunks);
        let end = if next.bytes.is_some() { to } else { u64::MAX };
        bytes.add(parts.collect::<Vec<(u64, Bytes)>>(), end, Some(permit));
        Ok(Slice {
            to,
            pages,
            bytes: fetched,
        })
    }

    /// To which row the slice goes: what is needed, and more if that is little.
    fn reach(&self, next: &Next) -> u64 {
        let Some(most) = next.bytes else {
            return next.len;
        };
        let columns = self.metadata.row_group(self.wanted.piece.row_group as usize).columns();
        let own = (0..)
            .zip(columns)
            .filter(|(leaf, _)| self.projection.leaf_included(*leaf));
        let bytes: u64 = own
            .map(|(_, column)| u64::try_from(column.compressed_size()).unwrap_or(0))
            .sum();
        let rows = u128::from(most) * u128::from(self.wanted.piece.rows) / u128::from(bytes.max(1));
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        let to = next.rows.end.max(next.rows.start.saturating_add(rows));
        let to = to.checked_next_multiple_of(next.unit.max(1)).unwrap_or(u64::MAX);
        // The rest is fetched with it where it would be little.
        match next.len.saturating_sub(to) <= rows / 2 {
            true => next.len,
            false => to,
        }
    }

    /// The bytes of the pages that hold these rows and were not fetched, in the order of the file.
    fn pages(&self, rows: Range<u64>, mut from: Pages, file_size: u64) -> Result<(Vec<Range<u64>>, Pages)> {
        let stored = part_of(self.stored, rows);
        let row_group = self.wanted.piece.row_group as usize;
        let columns = self.metadata.row_group(row_group).columns();
        let offset_index = self.metadata.offset_index().and_then(|index| index.get(row_group));
        from.resize(columns.len(), 0);
        let mut ranges = Vec::new();
        for (leaf, column) in columns
            .iter()
            .enumerate()
            .filter(|(leaf, _)| self.projection.leaf_included(*leaf))
        {
            let index = offset_index.and_then(|index| index.get(leaf));
            let chunk = Chunk::new(column, index.map(|index| index.page_locations()), file_size)?;
            let pages = chunk
                .pages
                .ok_or_else(|| Error::internal("a slice of a column without an offset index"))?;
            if from[leaf] == 0 {
                ranges.extend(chunk.dictionary.clone());
            }
            let first_row = |page: usize| {
                pages
                    .get(page)
                    .map_or(u64::MAX, |page| page.first_row_index.max(0) as u64)
            };
            let mut runs = stored.iter().peekable();
            for (number, page) in pages.iter().enumerate().skip(from[leaf]) {
                while runs.next_if(|run| run.end <= first_row(number)).is_some() {}
                if runs.peek().is_some_and(|run| run.start < first_row(number + 1)) {
                    // The chunk checked them.
                    let start = page.offset as u64;
                    ranges.push(start..start + page.compressed_page_size as u64);
                    from[leaf] = number + 1;
                }
            }
        }
        ranges.sort_by_key(|range| range.start);
        Ok((ranges, from))
    }
}

/// Whether an offset index tells the pages of every column that is read.
fn has_pages(
    metadata: &ParquetMetaData,
    row_group: usize,
    projection: &ProjectionMask,
    file_size: u64,
) -> Result<bool> {
    let offset_index = metadata.offset_index().and_then(|index| index.get(row_group));
    for (leaf, column) in metadata.row_group(row_group).columns().iter().enumerate() {
        if projection.leaf_included(leaf) {
            let index = offset_index.and_then(|index| index.get(leaf));
            if Chunk::new(column, index.map(|index| index.page_locations()), file_size)?
                .pages
                .is_none()
            {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The `n.start`-th to `n.end`-th of these rows.
fn part_of(rows: &[Range<u64>], n: Range<u64>) -> Vec<Range<u64>> {
    let mut part = Vec::new();
    let mut before = 0;
    for run in rows {
        let len = run.end - run.start;
        let start = n.start.max(before);
        let end = n.end.min(before + len);
        if start < end {
            part.push(run.start + (start - before)..run.start + (end - before));
        }
        before += len;
    }
    part
}
