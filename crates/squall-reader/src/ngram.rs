//! N-grams: rows that follow one another in time, as one sample.
//!
//! The rows of a row group stand in the order of a timestamp field; a window of them is a sample if no gap in it is longer
//! than a threshold. Windows do not reach over row groups. Which windows there are is found by reading the timestamps once,
//! while the reader is built, so that their number is known, and they are shuffled, shared and resumed as rows are.

mod search;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use squall_schema::columns::value_at;
use squall_schema::{Error, Field, Result, Row, Schema};

use crate::columns::Columns;
use crate::expand::SampleColumns;
use crate::ngram::search::{Limit, Search};
use crate::row_set::{Drawn, RowSet};
use crate::scan::Scan;
use crate::select::{SelectedPiece, Selection};
use crate::transform::{Rows, TransformSpec, record_batch};

/// Most rows of an n-gram: a typo in an offset would lay out millions of columns.
const MAX_SPAN: u64 = 10_000;

/// Windows over a timestamp field, as Petastorm's `NGram` defines them.
///
/// A window of length `max - min + 1` of the offsets is a sample if each of its timestamps is at most the threshold after the
/// one before it. Its columns are named by field and offset: `image/-1`, `image/0`.
///
/// The rows of a row group must be sorted by the timestamp. Filters come before: rows that they leave out are in no window. A
/// `TransformSpec` sees the rows of a window one by one, each with all columns of the reader; the random numbers that it
/// draws are the same for all rows of a window, so that a crop is that of the whole clip.
///
/// ```
/// use squall_reader::{NGram, make_reader};
///
/// let pairs = NGram::new([(0, ["image", "speed"]), (1, ["image", "speed"])], "timestamp", 4);
/// let reader = make_reader("/data/drive").ngram(pairs.overlap(false));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NGram {
    /// For each offset the patterns of its fields.
    fields: BTreeMap<i64, Vec<String>>,
    timestamp: String,
    threshold: Threshold,
    overlap: bool,
}

/// The longest time between two rows of a window that follow one another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Of a column of numbers: integers, floats, decimals. Not NaN.
    Number(f64),
    /// Of a column of dates or times.
    Time(Duration),
}

impl From<f64> for Threshold {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Threshold {
    fn from(number: i32) -> Self {
        Self::Number(f64::from(number))
    }
}

impl From<Duration> for Threshold {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

impl NGram {
    /// Windows with these fields at these offsets: names, or regular expressions for whole names; so is the timestamp, which
    /// must be one field. Neither it nor the fields of filters need be among those of an offset.
    pub fn new<F, S>(
        fields: impl IntoIterator<Item = (i64, F)>,
        timestamp: impl Into<String>,
        threshold: impl Into<Threshold>,
    ) -> Self
    where
        F: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut of_offsets: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (offset, names) in fields {
            of_offsets
                .entry(offset)
                .or_default()
                .extend(names.into_iter().map(Into::into));
        }
        Self {
            fields: of_offsets,
            timestamp: timestamp.into(),
            threshold: threshold.into(),
            overlap: true,
        }
    }

    /// Whether windows may share timestamps; they may if nothing is said. If not, a window begins behind the last timestamp
    /// of the one before it.
    #[must_use]
    pub fn overlap(mut self, overlap: bool) -> Self {
        self.overlap = overlap;
        self
    }

    /// Takes the sample of a reader with n-grams apart: for each offset a row with its fields.
    pub fn split(row: Row) -> Result<BTreeMap<i64, Row>> {
        let mut rows = BTreeMap::new();
        for (name, value) in row.iter() {
            let parts = name.rsplit_once('/');
            let parts = parts.and_then(|(name, offset)| Some((name, offset.parse::<i64>().ok()?)));
            let (name, offset) = parts.ok_or_else(|| {
                Error::invalid(format!(
                    "expected a column named by field and offset, as in \"image/-1\", found {name:?}"
                ))
            })?;
            let row = rows.entry(offset).or_insert_with(|| Row::new(row.id(), Vec::new()));
            row.set(name, value.clone());
        }
        Ok(rows)
    }

    /// All that decides which windows there are, for the state.
    pub(crate) fn text(&self) -> String {
        let threshold = match self.threshold {
            Threshold::Number(number) => format!("number {:016x}", number.to_bits()),
            Threshold::Time(time) => format!("time {}", time.as_nanos()),
        };
        format!("{:?} {:?} {threshold} {}", self.fields, self.timestamp, self.overlap)
    }

    /// Rows of a window.
    pub(crate) fn span(&self) -> Result<u64> {
        let (Some((first, _)), Some((last, _))) = (self.fields.first_key_value(), self.fields.last_key_value()) else {
            return Err(Error::invalid("an n-gram has no offset"));
        };
        let span = last.abs_diff(*first).saturating_add(1);
        if span > MAX_SPAN {
            return Err(Error::invalid(format!(
                "expected n-grams of at most {MAX_SPAN} rows, found offsets from {first} to {last}"
            )));
        }
        Ok(span)
    }

    /// The field of the timestamp: of this name, or the one whose name matches.
    fn timestamp_of(&self, schema: &Schema) -> Result<Field> {
        if let Some(field) = schema.get(&self.timestamp) {
            return Ok(field.clone());
        }
        let matching = schema.matching(&[&self.timestamp])?;
        match matching.fields() {
            [field] => Ok(field.clone()),
            several => Err(Error::invalid(format!(
                "expected one timestamp of an n-gram, found {} fields whose names match {:?}",
                several.len(),
                self.timestamp
            ))),
        }
    }

    /// The windows of the selected rows.
    pub(crate) fn windows(&self, scan: &Scan, schema: &Schema, selection: &Selection) -> Result<Selection> {
        let at = |error: Error| error.at("URL", scan.dataset.url());
        let field = &self.timestamp_of(schema).map_err(at)?;
        if !field.shape.is_scalar() || field.codec.is_some() {
            return Err(at(Error::invalid(format!(
                "the timestamp of an n-gram is a scalar, found {field}"
            ))));
        }
        let columns = Arc::new(Columns::new(&scan.dataset, Schema::new(vec![field.clone()])?)?);
        let span = self.span()?;
        for piece in selection.pieces() {
            if u32::try_from(piece.rows.len()).is_err() {
                return Err(at(
                    Error::unsupported("n-grams in row groups of more than 2^32 rows").at("piece", piece.piece)
                ));
            }
        }
        let limit = Limit::new(self.threshold, field).map_err(at)?;
        let (overlap, own) = (self.overlap, field.clone());
        let start = move |piece: &SelectedPiece| Search::new(piece.rows.clone(), span as usize, overlap, limit);
        let step = move |search: &mut Search, batch: RecordBatch| {
            for i in 0..batch.num_rows() {
                let value = value_at(batch.column(0), &own, i)?;
                search.push(&value).map_err(|message| {
                    Error::invalid(format!("timestamp {:?} of an n-gram: {message}", own.name)).at("row", search.row())
                })?;
            }
            Ok(())
        };
        let found = scan.fold(selection.pieces(), &columns, start, step)?;
        let pieces = selection
            .pieces()
            .iter()
            .zip(found)
            .map(|(piece, search)| SelectedPiece {
                piece: piece.piece,
                rows: RowSet::Drawn(Drawn::new(Arc::new(piece.rows.clone()), search.first, span)),
            });
        let empty = format!("no {span} rows of a row group are an n-gram: all gaps are longer than the threshold");
        Selection::new(&scan.dataset, pieces.collect(), &empty)
    }

    /// How rows with the fields of `row` become samples; `target` are those fields behind the transform.
    pub(crate) fn layout(&self, row: &Schema, target: &Schema, transformed: bool) -> Result<Layout> {
        let first = self.fields.first_key_value().map_or(0, |(offset, _)| *offset);
        let mut steps = Vec::new();
        for (offset, patterns) in &self.fields {
            if !patterns.is_empty() {
                steps.push(Step {
                    offset: *offset,
                    step: offset.abs_diff(first),
                    fields: target.matching(patterns)?.fields().to_vec(),
                });
            }
        }
        let delivered = steps
            .iter()
            .flat_map(|step| step.fields.iter().map(|field| step.named(field)));
        let schema = Arc::new(Schema::new(delivered.collect())?);
        if schema.fields().is_empty() {
            return Err(Error::invalid("an n-gram has no field"));
        }
        let mut decoded = Vec::new();
        let mut from = Vec::new();
        for step in &steps {
            for (place, field) in row.fields().iter().enumerate() {
                // A closure sees whole rows.
                if transformed || step.fields.iter().any(|own| own.name == field.name) {
                    decoded.push(step.named(field));
                    from.push((step.step, place));
                }
            }
        }
        let decoded = Schema::new(decoded)?;
        Ok(Layout {
            columns: SampleColumns {
                schema: Arc::new(decoded.stored()),
                from: from.into(),
            },
            decoded: Arc::new(decoded),
            row: Arc::new(row.clone()),
            target: Arc::new(target.clone()),
            transformed,
            steps,
            schema,
        })
    }
}

/// The columns of the windows of a reader.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) columns: SampleColumns,
    /// The same columns decoded.
    pub(crate) decoded: Arc<Schema>,
    /// The fields of one row, before and behind the transform.
    row: Arc<Schema>,
    target: Arc<Schema>,
    transformed: bool,
    steps: Vec<Step>,
    /// What is delivered.
    pub(crate) schema: Arc<Schema>,
}

#[derive(Debug, Clone)]
struct Step {
    offset: i64,
    /// The row of the window.
    step: u64,
    /// Its fields behind the transform.
    fields: Vec<Field>,
}

impl Step {
    /// The field as a column of the window.
    fn named(&self, field: &Field) -> Field {
        Field {
            name: format!("{}/{}", field.name, self.offset),
            ..field.clone()
        }
    }
}

impl Layout {
    /// Of the fields of a row those that windows have.
    pub(crate) fn fields_of(&self, row: &Schema) -> Result<Schema> {
        let used = |field: &&Field| {
            self.steps
                .iter()
                .any(|step| step.fields.iter().any(|own| own.name == field.name))
        };
        Schema::new(row.fields().iter().filter(used).cloned().collect())
    }

    /// The batch behind the transform, with the columns that are delivered.
    pub(crate) fn apply(&self, transform: &TransformSpec, batch: &RecordBatch, rows: Rows<'_>) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (place, step) in self.steps.iter().enumerate() {
            if !self.transformed {
                for field in &step.fields {
                    let column = self.decoded.position(&step.named(field).name);
                    let column = column.ok_or_else(|| Error::internal("a window lacks a column"))?;
                    columns.push(batch.column(column).clone());
                }
                continue;
            }
            let width = self.row.fields().len();
            let own = batch.columns()[place * width..(place + 1) * width].to_vec();
            let own = record_batch(&self.row, own, batch.num_rows())?;
            let about = Rows {
                source: &self.row,
                target: &self.target,
                ..rows
            };
            let out = transform
                .apply(own, about)
                .map_err(|error| error.at("offset", step.offset))?;
            for field in &step.fields {
                let column = out.column_by_name(&field.name);
                columns.push(
                    column
                        .ok_or_else(|| Error::internal("a transform lost a column"))?
                        .clone(),
                );
            }
        }
        record_batch(&self.schema, columns, batch.num_rows())
    }
}
