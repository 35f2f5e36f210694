//! What the user does to rows on the worker threads, and the schema that comes of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use chacha20::ChaCha8Rng;
use squall_schema::arrow::{field_from_arrow, schema_to_arrow};
use squall_schema::columns::{ColumnBuilder, normalise, value_at};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Row, RowId, Schema, panic_text};

use crate::random::{Domain, stream};

/// What is known of the rows of a batch beside their values.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) ids: &'a [RowId],
    pub(crate) seed: u64,
    pub(crate) source: &'a Schema,
    /// [`TransformSpec::schema`] of `source`.
    pub(crate) target: &'a Schema,
}

type RowFn = dyn Fn(&mut Row, &mut ChaCha8Rng) -> Result<()> + Send + Sync;
type BatchFn = dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync;

/// A closure over rows or batches, with the fields that it edits, adds and removes.
///
/// The schema behind it is that of the source without the removed fields, the edited ones at the end in the order given;
/// or the selected ones alone, in their order. What the closure gives is checked against it.
///
/// ```
/// use squall_reader::TransformSpec;
/// use squall_schema::{DType, Field, Shape};
///
/// let scale = TransformSpec::per_row(|row| {
///     let scaled = row.tensor("pixels")?.map(|p: i8| f32::from(p) / 16.0)?;
///     row.set("pixels", scaled.reshape(&[8, 8])?);
///     Ok(())
/// })
/// .edit(Field::new("pixels", DType::Float32, Shape::fixed(&[8, 8])))
/// .remove("id");
/// ```
#[derive(Clone, Default)]
pub struct TransformSpec {
    function: Function,
    edited: Vec<Field>,
    removed: Vec<String>,
    selected: Option<Vec<String>>,
}

#[derive(Clone, Default)]
enum Function {
    #[default]
    None,
    Row(Arc<RowFn>),
    Batch(Arc<BatchFn>),
}

impl TransformSpec {
    /// No closure: fields are only removed or selected.
    pub fn new() -> Self {
        Self::default()
    }

    /// A closure that changes one row at a time.
    pub fn per_row(function: impl Fn(&mut Row) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::per_row_with_rng(move |row, _| function(row))
    }

    /// A closure that changes one row at a time and draws random numbers. The generator is seeded by the reader's seed,
    /// the epoch and the sample: an augmentation is the same on any number of threads and ranks, and after a resume.
    pub fn per_row_with_rng(
        function: impl Fn(&mut Row, &mut ChaCha8Rng) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            function: Function::Row(Arc::new(function)),
            ..Self::default()
        }
    }

    /// A closure over the columns of a batch. It may not drop, add or reorder rows.
    pub fn per_batch(function: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static) -> Self {
        Self {
            function: Function::Batch(Arc::new(function)),
            ..Self::default()
        }
    }

    /// A field that the closure adds, or gives another dtype or shape.
    #[must_use]
    pub fn edit(mut self, field: Field) -> Self {
        self.edited.push(field);
        self
    }

    /// A field that is not there behind the closure. It need not delete it.
    #[must_use]
    pub fn remove(mut self, name: impl Into<String>) -> Self {
        self.removed.push(name.into());
        self
    }

    /// The only fields that are there behind the closure, in this order.
    #[must_use]
    pub fn select<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.selected = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Whether it does anything.
    pub(crate) fn is_given(&self) -> bool {
        !matches!(self.function, Function::None) || !self.removed.is_empty() || self.selected.is_some()
    }

    /// Whether its closure sees a batch as a whole.
    pub(crate) fn is_per_batch(&self) -> bool {
        matches!(self.function, Function::Batch(_))
    }

    /// The schema behind the closure.
    pub fn schema(&self, source: &Schema) -> Result<Schema> {
        if self.selected.is_some() && !self.removed.is_empty() {
            return Err(Error::invalid(
                "a TransformSpec either removes fields or selects them, not both",
            ));
        }
        if let (Function::None, Some(field)) = (&self.function, self.edited.first()) {
            return Err(Error::invalid(format!(
                "field {:?} is edited, but there is no closure that does it",
                field.name
            )));
        }
        if let Some(name) = self.removed.iter().find(|name| source.get(name).is_none()) {
            return Err(source.unknown(name));
        }
        let stays = |field: &&Field| {
            !self.removed.contains(&field.name) && self.edited.iter().all(|own| own.name != field.name)
        };
        let kept = source.fields().iter().filter(stays).cloned();
        let schema = Schema::new(kept.chain(self.edited.iter().cloned()).collect())?;
        match &self.selected {
            Some(names) => schema.project(names),
            None => Ok(schema),
        }
    }

    /// The batch behind the closure, with the columns of the target schema.
    ///
    /// An error of the closure, and a panic in it, becomes an error that names the row where one row is at fault.
    pub(crate) fn apply(&self, batch: RecordBatch, rows: Rows<'_>) -> Result<RecordBatch> {
        let Rows { source, target, .. } = rows;
        match &self.function {
            Function::None if source == target => Ok(batch),
            Function::None => project(&batch, target),
            Function::Batch(function) => {
                let n_rows = batch.num_rows();
                let out = guard(|| function(batch))?;
                if out.num_rows() != n_rows {
                    return Err(Error::new(
                        ErrorKind::Transform,
                        format!(
                            "a closure over a batch of {n_rows} rows gave {}: rows are dropped by a filter only",
                            out.num_rows()
                        ),
                    ));
                }
                self.check_names(
                    out.schema().fields().iter().map(|field| field.name().as_str()),
                    source,
                    target,
                )?;
                project(&out, target)
            }
            Function::Row(function) => self.apply_rows(function, &batch, rows),
        }
    }

    fn apply_rows(&self, function: &Arc<RowFn>, batch: &RecordBatch, rows: Rows<'_>) -> Result<RecordBatch> {
        let Rows {
            ids,
            seed,
            source,
            target,
        } = rows;
        let names: Vec<Arc<str>> = source.names().map(Arc::from).collect();
        // Nested columns are shown to the closure, and passed on as they are.
        let is_built = |field: &Field| field.dtype != DType::Nested;
        let mut builders: Vec<_> = target
            .fields()
            .iter()
            .map(|field| is_built(field).then(|| ColumnBuilder::new(field, ids.len())))
            .collect();
        // Where a value is, unless the closure removed one before it.
        let mut new = names.len()..;
        let place = |field: &Field| {
            names
                .iter()
                .position(|name| **name == *field.name)
                .or_else(|| new.next())
        };
        let places: Vec<_> = target
            .fields()
            .iter()
            .map(place)
            .map(Option::unwrap_or_default)
            .collect();
        // One row for all: each takes the memory of the one before it.
        let mut row = Row::default();
        for (i, id) in ids.iter().enumerate() {
            let at = |error: Error| error.at("batch row", i);
            row.refill(*id, &names, |place| {
                value_at(batch.column(place), &source.fields()[place], i)
            })?;
            let mut rng = stream(seed, id.epoch, Domain::Row, id.sample);
            guard(|| function(&mut row, &mut rng)).map_err(at)?;
            // A name in its own place is one of the source's.
            let own = names.iter().map(Some).chain(std::iter::repeat(None));
            let others = row.iter().zip(own);
            let others = others.filter(|((name, _), own)| own.is_none_or(|own| !std::ptr::eq(*name, &**own)));
            self.check_names(others.map(|((name, _), _)| name), source, target)
                .map_err(at)?;
            for ((field, builder), place) in target.fields().iter().zip(&mut builders).zip(&places) {
                let value = row.take(&field.name, *place);
                let value = value.ok_or_else(|| at(missing(&field.name)))?;
                if let Some(builder) = builder {
                    builder.push(value).map_err(misfit)?;
                }
            }
        }
        let build = |(field, builder): (&Field, Option<ColumnBuilder>)| match builder {
            Some(builder) => builder.finish().map_err(misfit),
            None => {
                let own = batch.column_by_name(&field.name);
                own.cloned().ok_or_else(|| missing(&field.name))
            }
        };
        let columns = target
            .fields()
            .iter()
            .zip(builders)
            .map(build)
            .collect::<Result<Vec<_>>>()?;
        record_batch(target, columns, ids.len())
    }

    /// A name that is neither of the source nor declared is a mistake that would lose a column in silence.
    fn check_names<'a>(&self, names: impl Iterator<Item = &'a str>, source: &Schema, target: &Schema) -> Result<()> {
        for name in names {
            let declared = self.edited.iter().any(|field| field.name == name);
            if !declared && target.get(name).is_none() && source.get(name).is_none() {
                return Err(Error::new(
                    ErrorKind::Transform,
                    format!("the closure gave a column {name:?} that is not declared: declare it with edit"),
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TransformSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = match self.function {
            Function::None => "none",
            Function::Row(_) => "per row",
            Function::Batch(_) => "per batch",
        };
        f.debug_struct("TransformSpec")
            .field("function", &function)
            .field("edited", &self.edited)
            .field("removed", &self.removed)
            .field("selected", &self.selected)
            .finish()
    }
}

/// The values of row `i` of a batch with the columns of `schema`.
pub(crate) fn row_at(batch: &RecordBatch, i: usize, id: RowId, names: &[Arc<str>], schema: &Schema) -> Result<Row> {
    let cells = names.iter().zip(schema.fields()).zip(batch.columns());
    let values = cells.map(|((name, field), column)| Ok((name.clone(), value_at(column, field, i)?)));
    Ok(Row::new(id, values.collect::<Result<_>>()?))
}

/// The columns of `target`, each in its canonical type. Types are not changed on the way: a closure that gives `int64`
/// for a field of `float32` made a mistake.
fn project(batch: &RecordBatch, target: &Schema) -> Result<RecordBatch> {
    let column = |field: &Field| {
        let column = batch.column_by_name(&field.name).ok_or_else(|| missing(&field.name))?;
        let schema = batch.schema();
        let found = field_from_arrow(
            schema
                .field_with_name(&field.name)
                .map_err(|error| missing(&field.name).with_source(error))?,
        )?;
        if found.dtype != field.dtype {
            return Err(Error::new(
                ErrorKind::Transform,
                format!(
                    "column {:?} of the closure: expected {}, found {}",
                    field.name, field.dtype, found.dtype
                ),
            ));
        }
        normalise(column, field).map_err(as_transform_error)
    };
    let columns = target.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    record_batch(target, columns, batch.num_rows())
}

pub(crate) fn record_batch(schema: &Schema, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema_to_arrow(schema)?, columns, &options)
        .map_err(|error| Error::internal("columns of a batch do not fit their schema").with_source(error))
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Transform, format!("the closure gave no column {name:?}"))
}

fn as_transform_error(error: Error) -> Error {
    Error::new(
        ErrorKind::Transform,
        "what the closure gave does not fit its declared fields",
    )
    .with_source(error)
}

/// A value that does not fit its field, in the row that it names.
fn misfit(error: Error) -> Error {
    match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
        Some(row) => as_transform_error(error).at("batch row", row),
        None => as_transform_error(error),
    }
}

/// Runs a closure of the user: what it returns as an error and what it panics with come back as a transform error.
fn guard<T>(function: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(ErrorKind::Transform, "the transform failed").with_source(error)),
        Err(panic) => Err(Error::new(
            ErrorKind::Transform,
            format!("the transform panicked: {}", panic_text(&*panic)),
        )),
    }
}
