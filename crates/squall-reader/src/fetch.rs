//! The bytes of a run of rows of one row group, and nothing more.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema};
use futures::FutureExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use squall_dataset::{Dataset, Piece, footer};
use squall_schema::calendar::HybridCalendar;
use squall_schema::{Error, Result, panic_text};
use tokio::sync::OnceCell;

use crate::columns::Columns;
use crate::footprint::PAGE_BYTES;
use crate::horizon::part;
use crate::sparse::SparseBytes;

/// The footers of the files that were opened, each loaded once.
#[derive(Debug)]
pub(crate) struct Footers(Vec<OnceCell<Footer>>);

/// A footer, and the same with binary columns as views into their pages instead of copies.
#[derive(Debug, Clone)]
struct Footer {
    copies: ArrowReaderMetadata,
    views: ArrowReaderMetadata,
}

impl Footers {
    pub(crate) fn new(dataset: &Dataset) -> Self {
        Self(dataset.files().iter().map(|_| OnceCell::new()).collect())
    }

    /// How many are loaded.
    pub(crate) fn loaded(&self) -> u64 {
        self.0.iter().filter(|footer| footer.initialized()).count() as u64
    }

    /// The footer of a piece's file. Its row group must have the rows that the plan counted.
    pub(crate) async fn get(&self, dataset: &Dataset, piece: &Piece) -> Result<ArrowReaderMetadata> {
        Ok(self.load(dataset, piece).await?.copies.clone())
    }

    /// [`Footers::get`], for who takes binary columns as views.
    pub(crate) async fn get_for_views(&self, dataset: &Dataset, piece: &Piece) -> Result<ArrowReaderMetadata> {
        Ok(self.load(dataset, piece).await?.views.clone())
    }

    async fn load(&self, dataset: &Dataset, piece: &Piece) -> Result<&Footer> {
        let file = dataset.file_of(piece);
        let load = || async {
            let footer = footer::load(dataset.store(), &file.path, file.size, true).await?;
            let (expected, found) = (dataset.n_row_groups(piece.file), footer.metadata.num_row_groups());
            if expected != found {
                return Err(Error::corrupt(format!(
                    "the file changed since the dataset was described: expected {expected} row groups, found {found}"
                )));
            }
            let columns = footer::arrow_schema(&footer.metadata)?;
            let with = |columns: ArrowSchema| {
                let options = ArrowReaderOptions::new().with_schema(Arc::new(columns));
                ArrowReaderMetadata::try_new(footer.metadata.clone(), options)
                    .map_err(|error| Error::unsupported("the Parquet schema has no Arrow schema").with_source(error))
            };
            Ok(Footer {
                views: with(with_views(&columns))?,
                copies: with(columns)?,
            })
        };
        let footer = self.0[piece.file as usize].get_or_try_init(load).await?;
        let row_groups = footer.copies.metadata().row_groups();
        let found = row_groups
            .get(piece.row_group as usize)
            .map(|row_group| row_group.num_rows());
        if found != i64::try_from(piece.rows).ok() {
            return Err(Error::corrupt(format!(
                "the file changed since the dataset was described: expected {} rows in the row group, found {}",
                piece.rows,
                found.map_or("no such row group".into(), |rows| rows.to_string())
            )));
        }
        Ok(footer)
    }
}

fn with_views(columns: &ArrowSchema) -> ArrowSchema {
    let view = |column: &Arc<ArrowField>| match column.data_type() {
        DataType::Binary | DataType::LargeBinary => {
            Arc::new(column.as_ref().clone().with_data_type(DataType::BinaryView))
        }
        _ => column.clone(),
    };
    ArrowSchema::new_with_metadata(
        columns.fields().iter().map(view).collect::<Vec<_>>(),
        columns.metadata().clone(),
    )
}

/// A run of rows whose bytes are here.
pub(crate) struct Fetched {
    pub(crate) footer: ArrowReaderMetadata,
    pub(crate) projection: ProjectionMask,
    pub(crate) row_group: usize,
    /// Rows of the row group, ascending.
    pub(crate) rows: Vec<Range<u64>>,
    pub(crate) bytes: SparseBytes,
    /// What of it is counted in the calendar of an old Spark.
    pub(crate) calendar: HybridCalendar,
}

impl Fetched {
    /// About how many bytes a decoder of it holds: of each column a page and a dictionary, decompressed.
    pub(crate) fn decoder_bytes(&self) -> u64 {
        let metadata = self.footer.metadata();
        let index = metadata.offset_index().and_then(|index| index.get(self.row_group));
        let columns = metadata.row_group(self.row_group).columns().iter().enumerate();
        let own = columns.filter(|(leaf, _)| self.projection.leaf_included(*leaf));
        own.map(|(leaf, column)| {
            let bytes = u64::try_from(column.uncompressed_size()).unwrap_or(0);
            let pages = index
                .and_then(|index| index.get(leaf))
                .map_or(0, |index| index.page_locations().len());
            let page = match pages {
                0 => bytes.min(PAGE_BYTES),
                pages => bytes / pages as u64,
            };
            // In the file it is compressed as the rest is.
            let stored = column
                .dictionary_page_offset()
                .map_or(0, |start| column.data_page_offset() - start);
            let stored = u128::from(u64::try_from(stored).unwrap_or(0));
            let compressed = u128::from(u64::try_from(column.compressed_size()).unwrap_or(0)).max(1);
            let dictionary = (stored * u128::from(bytes) / compressed).min(u128::from(bytes)) as u64;
            page + dictionary
        })
        .sum()
    }
}

/// The rows of a piece that are wanted, and of which columns.
pub(crate) struct Wanted<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) footers: &'a Footers,
    pub(crate) piece: &'a Piece,
    /// Ascending.
    pub(crate) rows: Vec<Range<u64>>,
    pub(crate) columns: &'a Columns,
}

/// Fetches the pages that hold the rows; whole column chunks where the file has no offset index. A panic on a damaged footer
/// becomes an error: a fetch that never ends would hang its reader.
pub(crate) async fn fetch(wanted: Wanted<'_>) -> Result<Fetched> {
    let (dataset, piece) = (wanted.dataset, wanted.piece);
    guarded(wanted.fetch(), dataset, piece).await
}

/// A panic of a fetch becomes an error; an error names where it was.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T>>, dataset: &Dataset, piece: &Piece) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(Error::internal(format!("a fetch panicked: {}", panic_text(&*panic)))))
        .map_err(|error| {
            let file = dataset.file_of(piece);
            error
                .at("row group", piece.row_group)
                .at("file", &file.path)
                .at("URL", dataset.url())
        })
}

impl Wanted<'_> {
    async fn fetch(self) -> Result<Fetched> {
        let file = self.dataset.file_of(self.piece);
        let footer = self.footers.get(self.dataset, self.piece).await?;
        let metadata = footer.metadata();
        let projection = self.columns.projection(metadata.file_metadata().schema_descr())?;
        let row_group = self.piece.row_group as usize;
        let selected = selection(&self.rows, self.piece.rows);
        let ranges = byte_ranges(metadata, row_group, &projection, &selected, file.size)?;
        let part = part(row_group, self.rows.first().map_or(0, |rows| rows.start));
        let chunks = self.dataset.store().get_part(&file.path, part, &ranges).await?;
        let chunks = ranges.into_iter().map(|range| range.start).zip(chunks).collect();
        Ok(Fetched {
            projection,
            row_group,
            rows: self.rows,
            bytes: SparseBytes::new(chunks, file.size),
            calendar: squall_dataset::calendar(metadata),
            footer,
        })
    }
}

pub(crate) fn selection(rows: &[Range<u64>], rows_in_group: u64) -> RowSelection {
    let ranges = rows.iter().map(|range| range.start as usize..range.end as usize);
    RowSelection::from_consecutive_ranges(ranges, rows_in_group as usize)
}

/// The bytes of the pages that hold the rows, in the order of the file.
pub(crate) fn byte_ranges(
    metadata: &ParquetMetaData,
    row_group: usize,
    projection: &ProjectionMask,
    selection: &RowSelection,
    file_size: u64,
) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let offset_index = metadata.offset_index().and_then(|index| index.get(row_group));
    for (leaf, column) in metadata.row_group(row_group).columns().iter().enumerate() {
        if !projection.leaf_included(leaf) {
            continue;
        }
        let pages = offset_index.and_then(|index| index.get(leaf));
        let chunk = Chunk::new(column, pages.map(|index| index.page_locations()), file_size)?;
        match chunk.pages {
            Some(pages) => {
                ranges.extend(chunk.dictionary);
                ranges.extend(selection.scan_ranges(pages));
            }
            None => ranges.push(chunk.bytes),
        }
    }
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}

/// Where the bytes of a column chunk stand in its file, checked: footers are untrusted, and parquet itself asserts what is
/// checked here.
pub(crate) struct Chunk<'a> {
    /// All of it.
    pub(crate) bytes: Range<u64>,
    /// The dictionary page where the offset index tells it from the data pages. Whoever reads any page needs it.
    pub(crate) dictionary: Option<Range<u64>>,
    /// Its data pages, if the file has an offset index.
    pub(crate) pages: Option<&'a [PageLocation]>,
}

impl<'a> Chunk<'a> {
    pub(crate) fn new(
        column: &ColumnChunkMetaData,
        pages: Option<&'a Vec<PageLocation>>,
        file_size: u64,
    ) -> Result<Self> {
        let at = |error: Error| error.at("column", column.column_path());
        let first_page = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let bytes = range_in_file(first_page, column.compressed_size(), file_size).map_err(at)?;
        let Some(pages) = pages.filter(|pages| !pages.is_empty()) else {
            return Ok(Self {
                bytes,
                dictionary: None,
                pages: None,
            });
        };
        let (mut next_row, mut next_byte) = (0, bytes.start);
        for page in pages {
            let bytes = range_in_file(page.offset, i64::from(page.compressed_page_size), file_size).map_err(at)?;
            if page.first_row_index < next_row || bytes.start < next_byte {
                return Err(at(Error::corrupt("the offset index is not in the order of the pages")));
            }
            (next_row, next_byte) = (page.first_row_index, bytes.end);
        }
        // The dictionary page, where there is one, stands before the first data page.
        let first = u64::try_from(pages[0].offset).unwrap_or(bytes.start);
        Ok(Self {
            dictionary: (first > bytes.start).then_some(bytes.start..first),
            bytes,
            pages: Some(pages),
        })
    }
}

pub(crate) fn range_in_file(offset: i64, length: i64, file_size: u64) -> Result<Range<u64>> {
    let start = u64::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(u64::try_from(length).ok()?));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_size => Ok(start..end),
        _ => Err(Error::corrupt(format!(
            "the footer places {length} bytes at {offset} of a file of {file_size}"
        ))),
    }
}
