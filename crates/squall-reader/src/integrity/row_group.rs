//! The pages and the cells of a row group, a column at a time.
//!
//! A column that cannot be read at some place is gone on with behind the page, where the page index says where that is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_schema::Schema as ArrowSchema;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::column::page::{Page, PageReader};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataBuilder};
use parquet::file::reader::SerializedPageReader;
use squall_dataset::{calendar, footer};
use squall_schema::calendar::HybridCalendar;
use squall_schema::codec::decode_column;
use squall_schema::columns::normalise;
use squall_schema::{Error, Field, Result, Schema, panic_text};

use super::file::read_error;
use super::source::Source;
use crate::footprint::fixed_bytes;

/// About how many bytes of a column are decoded at a time, encoded and as tensors.
const AT_ONCE: u64 = 8 << 20;
/// Most rows that are decoded at a time.
const ROWS: u64 = 8192;

/// A row group of a file that is open.
#[derive(Clone)]
pub(super) struct RowGroup {
    pub(super) source: Source,
    pub(super) footer: Arc<ParquetMetaData>,
    pub(super) ordinal: usize,
    /// Whether the page index may be followed.
    pub(super) index_is_sane: bool,
    /// What the dataset says its columns are, if it could be opened.
    pub(super) schema: Option<Arc<Schema>>,
    /// Most problems that are of use to the caller.
    pub(super) at_most: usize,
}

/// What was found of a row group.
#[derive(Default)]
pub(super) struct Found {
    pub(super) pages: u64,
    pub(super) cells: u64,
    pub(super) problems: Vec<Error>,
}

impl RowGroup {
    /// Reads and decompresses each page, with its checksum where it has one.
    pub(super) fn pages(&self) -> Found {
        let mut found = Found::default();
        let row_group = self.footer.row_group(self.ordinal);
        for leaf in 0..row_group.num_columns() {
            let column = row_group.column(leaf).column_path().string();
            let walked = guarded(|| self.walk(leaf, &mut found.pages));
            if let Err(error) = walked {
                found.problems.push(self.at(error.at("column", column)));
            }
        }
        found
    }

    fn walk(&self, leaf: usize, n_pages: &mut u64) -> Result<()> {
        let row_group = self.footer.row_group(self.ordinal);
        let chunk = row_group.column(leaf);
        let rows = self.rows()? as usize;
        let source = Arc::new(self.source.fresh());
        let failed = |error| read_error(error, "a page cannot be read");
        let mut reader = SerializedPageReader::new(source, chunk, rows, None).map_err(failed)?;
        let (mut values, mut n, mut firsts) = (0u64, 0u64, Vec::new());
        loop {
            let page = reader.get_next_page().map_err(|error| failed(error).at("page", n))?;
            let Some(page) = page else { break };
            if !matches!(page, Page::DictionaryPage { .. }) {
                firsts.push(values as i64);
                values += u64::from(page.num_values());
            }
            n += 1;
            *n_pages += 1;
        }
        if u64::try_from(chunk.num_values()) != Ok(values) {
            let message = format!("the pages have {values} values, the footer says {}", chunk.num_values());
            return Err(Error::corrupt(message));
        }
        let index = self
            .footer
            .offset_index()
            .and_then(|own| own.get(self.ordinal)?.get(leaf));
        if let Some(index) = index
            && chunk.column_descr().max_rep_level() == 0
            && !index.page_locations().is_empty()
            && !index
                .page_locations()
                .iter()
                .map(|page| page.first_row_index)
                .eq(firsts)
        {
            return Err(Error::corrupt("the page index has other pages than the column"));
        }
        Ok(())
    }

    /// Decodes every cell; what the codec of its column holds too.
    pub(super) fn cells(&self) -> Found {
        let mut found = Found::default();
        let opened = guarded(|| {
            let columns = footer::arrow_schema(&self.footer)?;
            Ok((self.arrow_metadata(columns.clone())?, columns))
        });
        let (metadata, columns) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                found.problems.push(self.at(error));
                return found;
            }
        };
        let calendar = calendar(&self.footer);
        for (root, column) in columns.fields().iter().enumerate() {
            let field = self.schema.as_ref().and_then(|schema| schema.get(column.name()));
            let column = Column {
                row_group: self,
                metadata: &metadata,
                calendar: &calendar,
                root,
                field,
            };
            let read = guarded(|| column.read(&mut found));
            let name = columns.field(root).name();
            if let Err(error) = read {
                found.problems.push(self.at(error.at("column", name)));
            }
        }
        found
    }

    fn arrow_metadata(&self, columns: ArrowSchema) -> Result<ArrowReaderMetadata> {
        let footer = match self.index_is_sane {
            true => self.footer.clone(),
            false => {
                let builder = ParquetMetaDataBuilder::new_from_metadata((*self.footer).clone());
                Arc::new(builder.set_offset_index(None).set_column_index(None).build())
            }
        };
        let options = ArrowReaderOptions::new().with_schema(Arc::new(columns));
        ArrowReaderMetadata::try_new(footer, options)
            .map_err(|error| Error::unsupported("the Parquet schema has no Arrow schema").with_source(error))
    }

    fn rows(&self) -> Result<u64> {
        let rows = self.footer.row_group(self.ordinal).num_rows();
        u64::try_from(rows).map_err(|_| Error::corrupt("a row group of negative length"))
    }

    fn at(&self, error: Error) -> Error {
        error.at("row group", self.ordinal)
    }
}

/// A column of a row group with all that is below it.
struct Column<'a> {
    row_group: &'a RowGroup,
    metadata: &'a ArrowReaderMetadata,
    calendar: &'a HybridCalendar,
    root: usize,
    field: Option<&'a Field>,
}

impl Column<'_> {
    fn read(&self, found: &mut Found) -> Result<()> {
        let rows = self.row_group.rows()?;
        let name = self.metadata.schema().field(self.root).name();
        let mut row = 0;
        while row < rows {
            let done = self.read_from(row, found);
            let Err((at, error)) = done else { return Ok(()) };
            found
                .problems
                .push(self.row_group.at(error.at("row", at).at("column", name)));
            // Behind the page that cannot be read.
            match self.next_page(at) {
                Some(next) if found.problems.len() < self.row_group.at_most => row = next,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads the column from a row on; fails with the row that it came to.
    fn read_from(&self, first: u64, found: &mut Found) -> Result<(), (u64, Error)> {
        let rows = self.row_group.rows().map_err(|error| (first, error))?;
        let at_once = self.rows_at_once(rows);
        let failed = |error| read_error(error, "the column cannot be read from this row on");
        let mut reader = guarded(|| self.reader(first, at_once).map_err(failed)).map_err(|error| (first, error))?;
        let mut row = first;
        loop {
            let batch = guarded(|| Ok(reader.next())).map_err(|error| (row, error))?;
            let Some(batch) = batch else { break };
            let batch = batch.map_err(|error| (row, failed(error.into())))?;
            let column = batch
                .columns()
                .first()
                .ok_or_else(|| (row, Error::internal("a column of no file")))?;
            if let Some(field) = self.field {
                self.check_all(column, field, row, found);
            }
            row += column.len() as u64;
            found.cells += column.len() as u64;
        }
        match row == rows {
            true => Ok(()),
            false => {
                let message = format!("the column has {row} rows, the row group {rows}");
                Err((row, Error::corrupt(message)))
            }
        }
    }

    fn reader(&self, first: u64, at_once: u64) -> ParquetResult<ParquetRecordBatchReader> {
        let source = self.row_group.source.fresh();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone());
        let projection = ProjectionMask::roots(builder.parquet_schema(), [self.root]);
        let rows = self.row_group.rows().unwrap_or(0);
        let builder = builder
            .with_row_groups(vec![self.row_group.ordinal])
            .with_projection(projection)
            .with_batch_size(at_once as usize);
        match first {
            0 => builder.build(),
            first => {
                let rows = [
                    RowSelector::skip(first as usize),
                    RowSelector::select((rows - first) as usize),
                ];
                builder.with_row_selection(RowSelection::from(rows.to_vec())).build()
            }
        }
    }

    /// How many rows are decoded at a time.
    fn rows_at_once(&self, rows: u64) -> u64 {
        let row_group = self.row_group.footer.row_group(self.row_group.ordinal);
        let schema = self.metadata.parquet_schema();
        let own = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == self.root);
        let bytes = own.filter_map(|leaf| u64::try_from(row_group.columns().get(leaf)?.uncompressed_size()).ok());
        let bytes = bytes.fold(0, u64::saturating_add) / rows.max(1);
        (AT_ONCE / bytes.max(1)).clamp(1, ROWS)
    }

    /// The first row of the page behind the one of this row.
    fn next_page(&self, row: u64) -> Option<u64> {
        let schema = self.metadata.parquet_schema();
        let index = self.metadata.metadata().offset_index()?.get(self.row_group.ordinal)?;
        let own = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == self.root);
        let next = |leaf: usize| {
            let mut firsts = index
                .get(leaf)?
                .page_locations()
                .iter()
                .map(|page| page.first_row_index as u64);
            firsts.find(|first| *first > row)
        };
        // Each leaf has pages of its own: behind the first that ends there may be another bad one, which is met then.
        own.filter_map(next).min()
    }

    /// Brings cells to what readers give, and names each that cannot be.
    fn check_all(&self, column: &ArrayRef, field: &Field, first: u64, found: &mut Found) {
        let at_once = match field.codec {
            Some(_) => (AT_ONCE / fixed_bytes(field).unwrap_or(AT_ONCE / 64).max(1)).max(1) as usize,
            None => column.len().max(1),
        };
        for start in (0..column.len()).step_by(at_once) {
            let part = column.slice(start, at_once.min(column.len() - start));
            if self.check(&part, field).is_ok() {
                continue;
            }
            for row in 0..part.len() {
                if found.problems.len() >= self.row_group.at_most {
                    return;
                }
                if let Err(error) = self.check(&part.slice(row, 1), field) {
                    let error = error.without_place("row").without_place("column");
                    let error = error.at("row", first + (start + row) as u64).at("column", &field.name);
                    found.problems.push(self.row_group.at(error));
                }
            }
        }
    }

    fn check(&self, column: &ArrayRef, field: &Field) -> Result<()> {
        guarded(|| {
            let column = normalise(&self.calendar.to_gregorian(column)?, &field.stored())?;
            match field.codec {
                Some(_) => decode_column(&column, field).map(drop),
                None => Ok(()),
            }
        })
    }
}

/// Parsers panic on some damaged bytes: that is what is looked for.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = format!("the bytes are damaged: {}", panic_text(&*panic));
        Err(Error::corrupt(message))
    })
}
