//! What becomes of the columns of a query before they are conformed: precision of floats, a declared schema, images, closures.
//!
//! [`Rules`] is what was asked for; [`Rules::plan`] checks it against a query's result and gives [`Steps`], which turn its batches
//! into batches of [`Steps::schema`]. Nothing here writes; only images that come as paths are read.

mod cast;
mod image;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field as ArrowField, FieldRef, Schema as ArrowSchema, SchemaRef};
use serde::{Deserialize, Serialize};
use squall_dataset::StoreOptions;
use squall_schema::arrow::{field_from_arrow, field_to_arrow};
use squall_schema::codec::{Codec, decode_column, encode_column};
use squall_schema::columns::{column_from_values, normalise, value_at};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema, Value, panic_text};

pub use image::{ImageFormat, ImageRule};

use cast::cast;
use image::Images;

/// Rows that go through closures and images together: a batch of decoded images must stay small.
const ROWS_AT_ONCE: usize = 64;

/// What becomes of floating-point numbers, in columns, lists and vectors of Spark ML. Cells and half floats stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FloatPrecision {
    /// Doubles become `float32`, as Petastorm's `make_spark_converter` makes of them. A finite double that is infinite then is an
    /// error.
    #[default]
    Float32,
    /// `float32` becomes `float64`.
    Float64,
    /// Both stay.
    Keep,
}

impl FloatPrecision {
    /// The type with floats of this precision, and values in place of a dictionary of them.
    fn of(self, own: &DataType) -> DataType {
        let item = |item: &FieldRef| Arc::new(item.as_ref().clone().with_data_type(self.of(item.data_type())));
        match (self, own) {
            (Self::Float32, DataType::Float64) => DataType::Float32,
            (Self::Float64, DataType::Float32) => DataType::Float64,
            (_, DataType::Dictionary(_, value)) => self.of(value),
            (_, DataType::List(own)) => DataType::List(item(own)),
            (_, DataType::LargeList(own)) => DataType::LargeList(item(own)),
            (_, DataType::FixedSizeList(own, n)) => DataType::FixedSizeList(item(own), *n),
            _ => own.clone(),
        }
    }
}

type Closure = Arc<dyn Fn(Value) -> Result<Value> + Send + Sync>;

/// A closure that makes the values of a column.
#[derive(Clone)]
struct Encoder {
    column: String,
    field: Field,
    encode: Closure,
}

/// What was asked for.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Rules {
    floats: FloatPrecision,
    schema: Option<Schema>,
    images: Vec<(String, ImageRule)>,
    /// Closures, which stay in their process.
    #[serde(skip)]
    encoders: Vec<Encoder>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoders: Vec<_> = self.encoders.iter().map(|encoder| &encoder.field).collect();
        f.debug_struct("Rules")
            .field("floats", &self.floats)
            .field("schema", &self.schema)
            .field("images", &self.images)
            .field("encoders", &encoders)
            .finish()
    }
}

impl Rules {
    pub(crate) fn set_floats(&mut self, precision: FloatPrecision) {
        self.floats = precision;
    }

    pub(crate) fn set_schema(&mut self, schema: Schema) {
        self.schema = Some(schema);
    }

    pub(crate) fn add_image(&mut self, column: String, rule: ImageRule) {
        self.images.push((column, rule));
    }

    /// Whether images are made, of paths perhaps, at which others may lie the next time.
    pub(crate) fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    pub(crate) fn add_encoder(&mut self, column: String, field: Field, encode: Closure) {
        self.encoders.push(Encoder { column, field, encode });
    }

    /// Whether something was said of columns.
    pub(crate) fn has_columns(&self) -> bool {
        self.schema.is_some() || !self.images.is_empty() || !self.encoders.is_empty()
    }

    /// What becomes of floating-point numbers.
    #[cfg(feature = "spark")]
    pub(crate) fn precision(&self) -> FloatPrecision {
        self.floats
    }

    /// What the columns are declared to be.
    #[cfg(feature = "spark")]
    pub(crate) fn declared(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// A column of which cells of images are made.
    #[cfg(feature = "spark")]
    pub(crate) fn image_column(&self) -> Option<&str> {
        self.images.first().map(|(name, _)| name.as_str())
    }

    /// Whether values are made by closures.
    pub(crate) fn has_closures(&self) -> bool {
        !self.encoders.is_empty()
    }

    /// Checks the rules against the result of a query, whose columns of the `declared` names are what these fields say.
    pub(crate) fn plan(&self, result: &ArrowSchema, declared: &[Field], store: &StoreOptions) -> Result<Steps> {
        let known = || {
            result
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let place = |name: &str, what: &str| {
            result.index_of(name).map_err(|_| {
                Error::invalid(format!(
                    "{what} {name:?} is no column of the result: the columns are {}",
                    known()
                ))
            })
        };
        let mut ruled: Vec<&str> = Vec::new();
        let asked = self.images.iter().map(|(name, _)| name);
        for name in asked.chain(self.encoders.iter().map(|encoder| &encoder.column)) {
            place(name, "the column of a rule")?;
            if ruled.contains(&name.as_str()) {
                return Err(Error::invalid(format!("two rules for the column {name:?}")));
            }
            ruled.push(name);
        }
        let places: Vec<usize> = match &self.schema {
            Some(schema) => {
                let places = schema.names().map(|name| place(name, "the declared field"));
                places.collect::<Result<_>>()?
            }
            None => (0..result.fields().len()).collect(),
        };
        let mut steps = Steps {
            columns: Vec::with_capacity(places.len()),
            schema: Arc::new(ArrowSchema::empty()),
            declared: Vec::new(),
        };
        let mut columns: Vec<ArrowField> = Vec::with_capacity(places.len());
        for place in places {
            let column = &result.fields()[place];
            let own = declared.iter().find(|field| field.name == *column.name());
            let (step, stored, field) = self.step(column, own, store)?;
            columns.push(stored);
            steps.columns.push((place, step));
            steps.declared.extend(field);
        }
        steps.schema = Arc::new(ArrowSchema::new(columns));
        Ok(steps)
    }

    /// What becomes of a column, its column then, and what it means beyond that.
    fn step(
        &self,
        column: &ArrowField,
        own: Option<&Field>,
        store: &StoreOptions,
    ) -> Result<(Step, ArrowField, Option<Field>)> {
        let name = column.name();
        if let Some((_, rule)) = self.images.iter().find(|(own, _)| own == name) {
            let images = Images::new(column, rule, store)?;
            let field = images.field().clone();
            return Ok((
                Step::Image(Arc::new(images)),
                field_to_arrow(&field.stored())?,
                Some(field),
            ));
        }
        if let Some(encoder) = self.encoders.iter().find(|encoder| encoder.column == *name) {
            let from = match own {
                Some(own) if own.codec.is_some() => own.clone(),
                _ => field_from_arrow(column)?,
            };
            let to = Field {
                name: name.clone(),
                ..encoder.field.clone()
            };
            let stored = field_to_arrow(&to.stored())?;
            let declared = to.codec.is_some().then(|| to.clone());
            return Ok((
                Step::Closure {
                    from,
                    to,
                    encode: encoder.encode.clone(),
                },
                stored,
                declared,
            ));
        }
        let wanted = self.schema.as_ref().and_then(|schema| schema.get(name));
        match (wanted, own) {
            // Cells that stay what they are.
            (Some(wanted), Some(own)) if own.codec.is_some() && own.codec == wanted.codec => {
                Ok((Step::Pass, column.clone(), Some(wanted.clone())))
            }
            (Some(wanted), own) => {
                let from = own.filter(|own| own.codec.is_some()).cloned();
                let stored = field_to_arrow(&wanted.stored())?;
                let declared = wanted.codec.is_some().then(|| wanted.clone());
                Ok((
                    Step::Declared {
                        from,
                        to: wanted.clone(),
                    },
                    stored,
                    declared,
                ))
            }
            (None, Some(own)) if own.codec == Some(Codec::SparkVector) && self.floats == FloatPrecision::Float32 => {
                let vector = own.clone().with_nullable(column.is_nullable());
                let to = Field {
                    dtype: DType::Float32,
                    arrow: None,
                    ..vector.clone().with_codec(None)
                };
                Ok((
                    Step::Declared {
                        from: Some(vector),
                        to: to.clone(),
                    },
                    field_to_arrow(&to)?,
                    None,
                ))
            }
            (None, Some(own)) if own.codec.is_some() => Ok((Step::Pass, column.clone(), Some(own.clone()))),
            (None, own) => {
                let to = self.floats.of(column.data_type());
                if to == *column.data_type() {
                    return Ok((Step::Pass, column.clone(), own.cloned()));
                }
                Ok((Step::Cast(to.clone()), column.clone().with_data_type(to), None))
            }
        }
    }
}

/// What becomes of a column.
#[derive(Clone)]
enum Step {
    Pass,
    Cast(DataType),
    /// To a declared field, from cells where it comes in cells.
    Declared {
        from: Option<Field>,
        to: Field,
    },
    Closure {
        from: Field,
        to: Field,
        encode: Closure,
    },
    Image(Arc<Images>),
}

/// What becomes of the columns of a query.
#[derive(Clone)]
pub(crate) struct Steps {
    /// Their places in the result.
    columns: Vec<(usize, Step)>,
    schema: SchemaRef,
    declared: Vec<Field>,
}

impl Steps {
    /// The columns behind.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What some of them mean beyond their types.
    pub(crate) fn declared(&self) -> &[Field] {
        &self.declared
    }

    /// Cuts a batch such that what its rows become does not take much memory at once.
    pub(crate) fn cut(&self, batch: &RecordBatch) -> Vec<RecordBatch> {
        let heavy = |(_, step): &(usize, Step)| matches!(step, Step::Closure { .. } | Step::Image(_));
        if batch.num_rows() <= ROWS_AT_ONCE || !self.columns.iter().any(heavy) {
            return vec![batch.clone()];
        }
        let starts = (0..batch.num_rows()).step_by(ROWS_AT_ONCE);
        starts
            .map(|start| batch.slice(start, ROWS_AT_ONCE.min(batch.num_rows() - start)))
            .collect()
    }

    /// The rows behind. An error names the row, counted in the batch, and the column.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests for images; nothing is kept.
    pub(crate) async fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for ((place, step), field) in self.columns.iter().zip(self.schema.fields()) {
            let column = batch.column(*place);
            let done = match step {
                Step::Pass => Ok(column.clone()),
                Step::Cast(to) => cast(column, to),
                Step::Declared { from, to } => declare(column, from.as_ref(), to),
                Step::Closure { from, to, encode } => through(column, (from, to), encode),
                Step::Image(images) => images.apply(column).await,
            };
            let done = done.map_err(|error| error.at("column", field.name()))?;
            if !field.is_nullable() && done.null_count() > 0 {
                let row = (0..done.len()).find(|row| done.is_null(*row)).unwrap_or_default();
                return Err(Error::invalid("null where the schema has none")
                    .at("row", row)
                    .at("column", field.name()));
            }
            columns.push(done);
        }
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| Error::internal("ruled columns do not fit their schema").with_source(error))
    }
}

fn declare(column: &ArrayRef, from: Option<&Field>, to: &Field) -> Result<ArrayRef> {
    let decoded = match from {
        Some(from) => decode_column(column, from)?,
        None => column.clone(),
    };
    let plain = Field {
        nullable: true,
        ..to.clone().with_codec(None)
    };
    let target = field_to_arrow(&plain)?;
    let typed = match decoded.data_type() == target.data_type() {
        true => decoded,
        false => cast(&decoded, target.data_type())?,
    };
    match to.codec {
        Some(_) => encode_column(&typed, to),
        None => normalise(&typed, &plain),
    }
}

fn through(column: &ArrayRef, (from, to): (&Field, &Field), encode: &Closure) -> Result<ArrayRef> {
    let canonical = match from.codec {
        Some(_) => decode_column(column, from)?,
        None => normalise(column, from)?,
    };
    let from = from.clone().with_codec(None);
    let mut values = Vec::with_capacity(canonical.len());
    for row in 0..canonical.len() {
        let value = value_at(&canonical, &from, row)?;
        let made = catch_unwind(AssertUnwindSafe(|| encode(value)));
        let made = made.unwrap_or_else(|panic| {
            Err(Error::new(
                ErrorKind::Transform,
                format!("the closure panicked: {}", panic_text(&*panic)),
            ))
        });
        values.push(made.map_err(|error| error.at("row", row))?);
    }
    let values: Vec<_> = values.iter().collect();
    let made = column_from_values(&to.clone().with_codec(None), &values)?;
    match to.codec {
        Some(_) => encode_column(&made, to),
        None => Ok(made),
    }
}
