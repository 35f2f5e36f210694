//! What rows take: bytes in files, from the footers, and bytes in memory, from the schema.
//!
//! The only part of a forecast that does I/O: it reads the footers of all files, through those that the reader keeps.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use squall_dataset::{Dataset, Piece};
use squall_schema::{Error, Field, Result, Schema};

use super::Sizes;
use crate::columns::Columns;
use crate::fetch::{byte_ranges, selection};
use crate::io::Io;
use crate::select::Selection;
use crate::source::Source;

/// Footers that are loaded at the same time.
const FOOTERS: usize = 16;

/// The footers of a dataset, and what they tell of the selected rows and columns.
pub(crate) struct FooterSizes {
    dataset: Arc<Dataset>,
    /// Of each file the footer, and the leaves that are read; `None` where no row group of it is selected.
    files: Vec<Option<(ArrowReaderMetadata, ProjectionMask)>>,
    row: (f64, f64),
}

/// The sizes of the pieces of a selection of the same dataset.
pub(crate) struct SelectionSizes<'a> {
    footers: &'a FooterSizes,
    selection: &'a Selection,
    /// Bytes of all selected rows of each piece.
    whole: Vec<u64>,
}

impl FooterSizes {
    pub(crate) fn load(source: &Source, selected: &Selection, io: &Io) -> Result<Self> {
        let (dataset, footers) = (source.dataset.clone(), source.footers.clone());
        let pieces: Vec<_> = selected.pieces().iter().map(|piece| piece.piece).collect();
        let load = async move {
            let get = |piece: u32| {
                let (dataset, footers) = (dataset.clone(), footers.clone());
                async move {
                    let piece = dataset.pieces()[piece as usize];
                    let footer = footers.get(&dataset, &piece).await;
                    Ok::<_, Error>((piece, footer.map_err(|error| at(&dataset, &piece, error))?))
                }
            };
            let work: Vec<_> = pieces.into_iter().map(get).collect();
            let mut files: Vec<Option<ArrowReaderMetadata>> = vec![None; dataset.files().len()];
            let mut loaded = stream::iter(work).buffered(FOOTERS);
            while let Some((piece, footer)) = loaded.try_next().await? {
                files[piece.file as usize] = Some(footer);
            }
            Ok::<_, Error>(files)
        };
        let files = io.wait(load)?;
        let with_leaves = |footer: ArrowReaderMetadata| {
            let leaves = source
                .columns
                .projection(footer.metadata().file_metadata().schema_descr());
            Ok((footer, leaves?))
        };
        let files = files.into_iter().map(|footer| footer.map(with_leaves).transpose());
        let mut sizes = Self {
            dataset: source.dataset.clone(),
            files: files.collect::<Result<_>>()?,
            row: (0.0, 0.0),
        };
        sizes.row = sizes.row_in_memory(source, selected)?;
        Ok(sizes)
    }

    /// Bytes of a row as its cells are stored, and as it is delivered.
    fn row_in_memory(&self, source: &Source, selected: &Selection) -> Result<(f64, f64)> {
        let (mut stored, mut delivered) = (0.0, 0.0);
        let bytes = |field: &Field| {
            let leaves = Columns::new(&source.dataset, Schema::new(vec![field.clone()])?)?;
            self.bytes_per_row(selected, &leaves)
        };
        let mut found = Vec::new();
        for field in source.columns.schema().fields() {
            let in_file = bytes(field)?;
            // The windows of an n-gram hold a column several times.
            let place = found.len();
            let times = source
                .samples
                .from
                .iter()
                .filter(|(_, column)| *column == place)
                .count();
            stored += times as f64 * in_file.max(fixed_bytes(field).unwrap_or(0.0));
            found.push((field.name.as_str(), in_file));
        }
        for field in source.schema.fields() {
            let name = field
                .name
                .rsplit_once('/')
                .map_or(field.name.as_str(), |(name, _)| name);
            let in_file = found.iter().find(|(own, _)| *own == field.name || *own == name);
            let in_file = in_file.map_or(0.0, |(_, bytes)| *bytes);
            delivered += fixed_bytes(field).unwrap_or(in_file);
        }
        Ok((stored, delivered))
    }

    /// Bytes of these columns a row before compression, on average over the selected row groups.
    fn bytes_per_row(&self, selection: &Selection, columns: &Columns) -> Result<f64> {
        let (mut bytes, mut rows) = (0i128, 0u64);
        let mut last: Option<(u32, ProjectionMask)> = None;
        for selected in selection.pieces() {
            let piece = &self.dataset.pieces()[selected.piece as usize];
            let Some((footer, _)) = &self.files[piece.file as usize] else {
                continue;
            };
            let metadata = footer.metadata();
            let leaves = match last {
                Some((file, leaves)) if file == piece.file => leaves,
                _ => columns.projection(metadata.file_metadata().schema_descr())?,
            };
            let chunks = metadata.row_group(piece.row_group as usize).columns().iter();
            bytes += (0..)
                .zip(chunks)
                .filter(|(leaf, _)| leaves.leaf_included(*leaf))
                .map(|(_, chunk)| i128::from(chunk.uncompressed_size().max(0)))
                .sum::<i128>();
            rows += piece.rows;
            last = Some((piece.file, leaves));
        }
        Ok(bytes as f64 / rows.max(1) as f64)
    }

    /// The sizes of the pieces of this selection.
    pub(crate) fn of<'a>(&'a self, selection: &'a Selection) -> Result<SelectionSizes<'a>> {
        let mut sizes = SelectionSizes {
            footers: self,
            selection,
            whole: Vec::new(),
        };
        let pieces = (0u32..).zip(selection.pieces());
        let whole = pieces.map(|(i, piece)| sizes.runs(i, 0..piece.rows.len()));
        sizes.whole = whole.collect::<Result<_>>()?;
        Ok(sizes)
    }
}

impl SelectionSizes<'_> {
    /// Bytes of all of it, each once.
    pub(crate) fn all(&self) -> Result<u64> {
        let sum = self.whole.iter().try_fold(0u64, |sum, bytes| sum.checked_add(*bytes));
        sum.ok_or_else(|| Error::corrupt("the footers tell of more than 2^64 bytes"))
    }

    fn runs(&self, piece: u32, rows: Range<u64>) -> Result<u64> {
        let selected = &self.selection.pieces()[piece as usize];
        let info = &self.footers.dataset.pieces()[selected.piece as usize];
        let Some((footer, leaves)) = &self.footers.files[info.file as usize] else {
            return Err(Error::internal("a row group is forecast without its footer"));
        };
        let stored = selection(&selected.rows.runs(&rows), info.rows);
        let size = self.footers.dataset.file_of(info).size;
        let ranges = byte_ranges(footer.metadata(), info.row_group as usize, leaves, &stored, size);
        let ranges = ranges.map_err(|error| at(&self.footers.dataset, info, error))?;
        Ok(ranges.iter().map(|range| range.end - range.start).sum())
    }
}

impl Sizes for SelectionSizes<'_> {
    fn fetch(&self, piece: u32, rows: Range<u64>) -> Result<u64> {
        if rows == (0..self.selection.pieces()[piece as usize].rows.len()) {
            return Ok(self.whole[piece as usize]);
        }
        self.runs(piece, rows)
    }

    fn row(&self) -> (f64, f64) {
        self.footers.row
    }
}

/// Bytes of a value of which the schema tells the size.
fn fixed_bytes(field: &Field) -> Option<f64> {
    let elements = field.shape.element_count()?;
    Some((field.dtype.item_size()? as f64) * elements as f64)
}

fn at(dataset: &Dataset, piece: &Piece, error: Error) -> Error {
    error
        .at("row group", piece.row_group)
        .at("file", &dataset.file_of(piece).path)
        .at("URL", dataset.url())
}
