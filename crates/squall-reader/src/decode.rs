//! From fetched bytes to canonical columns, row after row.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelectionPolicy,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use squall_schema::arrow::schema_to_arrow;
use squall_schema::calendar::HybridCalendar;
use squall_schema::columns::{column_from_values, normalise};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Value};

use crate::columns::Columns;
use crate::fetch::{Fetched, selection};
use crate::sparse::SparseBytes;
use crate::transform::record_batch;

/// Most rows that are decoded at a time. Above it nothing is gained.
pub(crate) const DECODE_ROWS: u64 = 8192;

/// Decodes the rows of one fetched run, in order, in as many calls as the caller likes.
pub(crate) struct Decoder {
    reader: ParquetRecordBatchReader,
    source: Source,
    /// Decoded rows that nobody asked for yet.
    left: Option<RecordBatch>,
    /// The rows of the row group that come next, ascending.
    rows: Vec<Range<u64>>,
    /// Rows that were decoded.
    decoded: u64,
    /// Whether binary columns stay views where they are that.
    keeps_views: bool,
    partition: Arc<[(Field, Value)]>,
    columns: Arc<Columns>,
    calendar: HybridCalendar,
}

impl Decoder {
    /// A decoder of the run's rows, without the first `skip`.
    ///
    /// `columns` are those of the batches, which have up to `rows_at_once` rows; the fields in `partition` have one value
    /// for all rows and no bytes.
    pub(crate) fn new(
        fetched: &Fetched,
        skip: u64,
        rows_at_once: u64,
        columns: Arc<Columns>,
        partition: Arc<[(Field, Value)]>,
    ) -> Result<Self> {
        let rows = skip_rows(&fetched.rows, skip);
        let row_group = fetched.footer.metadata().row_group(fetched.row_group);
        let rows_in_group =
            u64::try_from(row_group.num_rows()).map_err(|_| Error::corrupt("a row group of negative length"))?;
        let source = Source {
            bytes: fetched.bytes.clone(),
            footer: fetched.footer.clone(),
            projection: fetched.projection.clone(),
            row_group: fetched.row_group,
            rows_in_group,
            rows_at_once: rows_at_once.min(DECODE_ROWS) as usize,
        };
        Ok(Self {
            reader: source
                .reader(&rows, source.projection.clone())
                .map_err(|error| source.bytes.take_failure().unwrap_or_else(|| corrupt(error, None)))?,
            source,
            left: None,
            rows,
            decoded: 0,
            keeps_views: false,
            partition,
            columns,
            calendar: fetched.calendar.clone(),
        })
    }

    /// The next `n` rows, in one or more batches.
    pub(crate) fn take_all(&mut self, n: u64, out: &mut Vec<RecordBatch>) -> Result<()> {
        self.take(n, &mut |batch| {
            out.push(batch);
            Ok(())
        })
    }

    /// Hands the next `n` rows over, in one or more batches.
    pub(crate) fn take(&mut self, n: u64, out: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let mut wanted = n as usize;
        while wanted > 0 {
            let batch = match self.left.take() {
                Some(batch) => batch,
                None => self.decode()?,
            };
            let now = wanted.min(batch.num_rows());
            if now < batch.num_rows() {
                self.left = Some(batch.slice(now, batch.num_rows() - now));
            }
            out(batch.slice(0, now))?;
            wanted -= now;
        }
        Ok(())
    }

    /// Leaves binary columns as views into their pages: they are not of their canonical type then.
    pub(crate) fn with_views(mut self) -> Self {
        self.keeps_views = true;
        self
    }

    /// Rows that it has decoded, those that nobody asked for yet too.
    pub(crate) fn decoded(&self) -> u64 {
        self.decoded
    }

    fn decode(&mut self) -> Result<RecordBatch> {
        let batch = match self.reader.next() {
            Some(batch) => batch.map_err(|error| {
                let failure = self.source.bytes.take_failure();
                failure.unwrap_or_else(|| corrupt(error.into(), self.source.damaged(&self.rows)))
            })?,
            None => return Err(Error::corrupt("the row group has fewer rows than its footer says")),
        };
        let rows = batch.num_rows();
        let batch = canonical_or_views(&batch, &self.columns, &self.partition, &self.calendar, self.keeps_views);
        let batch = batch.map_err(|error| self.in_row_group(error))?;
        self.rows = skip_rows(&self.rows, rows as u64);
        self.decoded += rows as u64;
        Ok(batch)
    }

    /// The error with its row counted in the row group instead of the batch.
    fn in_row_group(&self, error: Error) -> Error {
        let row = error.place("row").and_then(|row| row.parse().ok());
        let first = |skip| skip_rows(&self.rows, skip).first().map(|rows| rows.start);
        match row.and_then(first) {
            Some(row) => error.replace_place("row", row),
            None => error,
        }
    }
}

/// What a decoder reads from.
struct Source {
    bytes: SparseBytes,
    footer: ArrowReaderMetadata,
    projection: ProjectionMask,
    row_group: usize,
    rows_in_group: u64,
    rows_at_once: usize,
}

impl Source {
    /// A reader of some of the columns.
    fn reader(&self, rows: &[Range<u64>], columns: ProjectionMask) -> ParquetResult<ParquetRecordBatchReader> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.footer.clone())
            .with_projection(columns)
            .with_row_groups(vec![self.row_group])
            .with_row_selection(selection(rows, self.rows_in_group))
            // A mask would read the pages in between, which are not here.
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(self.rows_at_once)
            .build()
    }

    /// The column that cannot be decoded. parquet's errors do not say which: each is decoded by itself.
    fn damaged(&self, rows: &[Range<u64>]) -> Option<String> {
        let schema = self.footer.parquet_schema();
        let mut leaves = (0..schema.num_columns()).filter(|leaf| self.projection.leaf_included(*leaf));
        let fails = |leaf: &usize| {
            let reader = self.reader(rows, ProjectionMask::leaves(schema, [*leaf]));
            reader.is_ok_and(|mut reader| reader.next().is_some_and(|batch| batch.is_err()))
        };
        leaves.find(fails).map(|leaf| schema.column(leaf).path().string())
    }
}

/// The columns in their canonical types, from what was decoded of a file and what the directory names say. An error names the
/// row of the batch.
pub(crate) fn canonical(
    batch: &RecordBatch,
    columns: &Columns,
    partition: &[(Field, Value)],
    calendar: &HybridCalendar,
) -> Result<RecordBatch> {
    canonical_or_views(batch, columns, partition, calendar, false)
}

fn canonical_or_views(
    batch: &RecordBatch,
    columns: &Columns,
    partition: &[(Field, Value)],
    calendar: &HybridCalendar,
    keeps_views: bool,
) -> Result<RecordBatch> {
    let mut has_views = false;
    let (schema, rows) = (columns.schema(), batch.num_rows());
    let column = |(place, field): (usize, &Field)| -> Result<ArrayRef> {
        if let Some(column) = columns.find(place, batch) {
            let mut column = column?;
            if let Some(views) = column.as_binary_view_opt() {
                let is_fit = field.nullable || column.null_count() == 0;
                if keeps_views && is_fit && field.dtype == DType::Bytes && field.shape.is_scalar() {
                    has_views = true;
                    return Ok(column);
                }
                column = Arc::new(views.iter().collect::<BinaryArray>());
            }
            let column = calendar.to_gregorian(&column);
            let column = column.map_err(|error| error.at("column", &field.name))?;
            return normalise(&column, field);
        }
        let value = partition.iter().find(|(own, _)| own.name == field.name);
        let (_, value) = value.ok_or_else(|| Error::internal(format!("no directory names {:?}", field.name)))?;
        column_from_values(field, &vec![value; rows])
    };
    let fields = schema.fields().iter().enumerate().map(column);
    let found = fields.collect::<Result<Vec<_>>>()?;
    if !has_views {
        return record_batch(schema, found, rows);
    }
    let fields = schema_to_arrow(schema)?;
    let typed = |(field, column): (&Arc<ArrowField>, &ArrayRef)| {
        Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone()))
    };
    let fields: Vec<_> = fields.fields().iter().zip(&found).map(typed).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), found, &options)
        .map_err(|error| Error::internal("views of a batch do not fit their schema").with_source(error))
}

/// The runs without their first `skip` rows.
fn skip_rows(runs: &[Range<u64>], mut skip: u64) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for run in runs {
        let now = skip.min(run.end - run.start);
        skip -= now;
        if run.start + now < run.end {
            left.push(run.start + now..run.end);
        }
    }
    left
}

fn corrupt(error: ParquetError, column: Option<String>) -> Error {
    let found = Error::new(ErrorKind::Corrupt, "cannot decode the row group").with_source(error);
    match column {
        Some(column) => found.at("column", column),
        None => found,
    }
}
