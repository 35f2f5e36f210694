//! The columns of a query in the types that a reader expects, and in those that the files have.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema as ArrowSchema, SchemaRef};
use squall_schema::arrow::{field_to_arrow, schema_from_arrow, schema_to_arrow};
use squall_schema::codec::{Codec, decode_column, encode_column};
use squall_schema::columns::normalise;
use squall_schema::{DType, Error, Field, Result, Schema, TimeUnit};

use crate::petastorm::Petastorm;

/// The schema of the rows that are written.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What the rows are, in memory.
    pub(crate) schema: Schema,
    /// What the files have.
    pub(crate) columns: SchemaRef,
    stored: Vec<Stored>,
    /// What some columns mean beyond how they are stored.
    declared: Vec<Field>,
    /// The columns that come as vectors of Spark ML.
    vectors: Vec<Field>,
}

/// How a column is stored.
#[derive(Debug, Clone, PartialEq)]
enum Stored {
    /// In the canonical type of its field.
    AsIs,
    /// In cells, with the codec of this field.
    Cells(Field),
    /// In the canonical type of this field, by which no value loses anything.
    As(Field),
}

impl Target {
    /// The schema of a query's result. A column that no reader can read is refused: a query can take it apart.
    pub(crate) fn of_query(result: &ArrowSchema, declared: &[Field], petastorm: Option<&Petastorm>) -> Result<Self> {
        let schema = schema_from_arrow(result).map_err(|error| match error.place("column") {
            Some(column) => Error::unsupported(format!(
                "column {column:?} of the query's result cannot be read as scalars or tensors: take it apart in SQL, or leave it out"
            ))
            .with_source(error),
            None => error,
        })?;
        // A vector of Spark ML that is passed on becomes a vector of doubles.
        let (vectors, declared): (Vec<_>, Vec<_>) = declared
            .iter()
            .cloned()
            .partition(|field| field.codec == Some(Codec::SparkVector));
        let plain = |field: &Field| match vectors.iter().find(|own| own.name == field.name) {
            Some(vector) if field.dtype == DType::Nested => Field {
                arrow: None,
                ..vector.clone().with_codec(None).with_nullable(field.nullable)
            },
            _ => field.clone(),
        };
        let schema = Schema::new(schema.fields().iter().map(plain).collect())?;
        if let Some(field) = schema.fields().iter().find(|field| field.dtype == DType::Nested) {
            return Err(Error::unsupported(format!(
                "column {:?} of the query's result is nested: take it apart in SQL, or leave it out",
                field.name
            )));
        }
        // A column of cells that is passed on is binary, and stays so.
        let target = Self::new(schema, declared, petastorm)?;
        Ok(Self { vectors, ..target })
    }

    /// A schema that says what is wanted: a field with a codec is stored in cells.
    pub(crate) fn of_schema(wanted: &Schema, petastorm: Option<&Petastorm>) -> Result<Self> {
        let plain = |field: &Field| field.clone().with_codec(None);
        let schema = Schema::new(wanted.fields().iter().map(plain).collect())?;
        let mut target = Self::new(schema, Vec::new(), petastorm)?;
        for (field, stored) in wanted.fields().iter().zip(&mut target.stored) {
            if field.codec.is_some() {
                *stored = Stored::Cells(field.clone());
            }
        }
        target.lay_out(petastorm)
    }

    fn new(schema: Schema, declared: Vec<Field>, petastorm: Option<&Petastorm>) -> Result<Self> {
        let stored = |field: &Field| match petastorm {
            Some(_) => for_petastorm(field),
            None => Stored::AsIs,
        };
        let target = Self {
            columns: schema_to_arrow(&schema)?,
            stored: schema.fields().iter().map(stored).collect(),
            declared,
            vectors: Vec::new(),
            schema,
        };
        target.lay_out(petastorm)
    }

    /// Finds the columns of the files, and whether Petastorm can read them.
    fn lay_out(mut self, petastorm: Option<&Petastorm>) -> Result<Self> {
        let column = |(field, stored): (&Field, &Stored)| match stored {
            Stored::AsIs => field_to_arrow(field),
            Stored::Cells(field) => field_to_arrow(&field.stored()),
            Stored::As(field) => field_to_arrow(field),
        };
        let columns = self.schema.fields().iter().zip(&self.stored).map(column);
        self.columns = Arc::new(ArrowSchema::new(columns.collect::<Result<Vec<_>>>()?));
        if let Some(petastorm) = petastorm {
            petastorm.check(&self.declare(self.schema.clone())?)?;
        }
        Ok(self)
    }

    /// The schema that readers see, from that of the rows.
    pub(crate) fn declare(&self, rows: Schema) -> Result<Schema> {
        let field = |(row, stored): (&Field, &Stored)| {
            let own = self.declared.iter().find(|field| field.name == row.name);
            match (own, stored) {
                (Some(own), _) if own.codec.is_some() || own.dtype != row.dtype => own.clone(),
                // The shape is that of the rows, where they agree on one.
                (_, Stored::Cells(cells)) => Field {
                    shape: if cells.shape.as_fixed().is_some() {
                        cells.shape.clone()
                    } else {
                        row.shape.clone()
                    },
                    ..cells.clone()
                },
                (_, Stored::As(field)) if matches!(field.dtype, DType::Datetime { .. }) => field.clone(),
                _ => row.clone(),
            }
        };
        Schema::new(rows.fields().iter().zip(&self.stored).map(field).collect())
    }

    /// The rows in the types of the schema.
    pub(crate) fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| {
            let vector = self.vectors.iter().find(|own| own.name == field.name);
            match vector {
                Some(vector) if matches!(column.data_type(), DataType::Struct(_)) => {
                    decode_column(column, &vector.clone().with_nullable(field.nullable))
                }
                _ => normalise(column, field),
            }
        });
        rows_of(schema_to_arrow(&self.schema)?, columns.collect::<Result<_>>()?)
    }

    /// Rows that conform, as the files have them.
    pub(crate) fn store(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = |((field, stored), column): ((&Field, &Stored), &ArrayRef)| match stored {
            Stored::AsIs => Ok(column.clone()),
            Stored::Cells(cells) => encode_column(column, cells),
            Stored::As(other) => {
                let found = normalise(column, other)?;
                let back = normalise(&found, field)?;
                match (0..column.len()).find(|row| back.slice(*row, 1) != column.slice(*row, 1)) {
                    Some(row) if matches!(field.dtype, DType::Datetime { .. }) => Err(Error::unsupported(format!(
                        "a {} that {} does not hold: round it in SQL",
                        field.dtype, other.dtype
                    ))
                    .at("row", row)
                    .at("column", &field.name)),
                    _ => Ok(found),
                }
            }
        };
        let columns = self.schema.fields().iter().zip(&self.stored).zip(batch.columns());
        rows_of(self.columns.clone(), columns.map(column).collect::<Result<_>>()?)
    }

    /// The types that rows have in memory when they conform.
    pub(crate) fn memory_schema(&self) -> Result<SchemaRef> {
        schema_to_arrow(&self.schema)
    }

    /// The columns whose values are cells, with the field that says how; of those that pass through too.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &Field> {
        let columns = self.schema.fields().iter().zip(&self.stored);
        columns.filter_map(|(field, stored)| match stored {
            Stored::Cells(cells) => Some(cells),
            _ => self.declared(&field.name).filter(|own| own.codec.is_some()),
        })
    }

    /// What is known of a column that is passed on.
    pub(crate) fn declared(&self, name: &str) -> Option<&Field> {
        self.declared.iter().find(|field| field.name == name)
    }
}

fn rows_of(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(schema, columns)
        .map_err(|error| Error::internal("the rows do not fit their own schema").with_source(error))
}

/// What Petastorm, and the versions of Arrow and Spark that it works with, can read: arrays in npy cells, no half floats,
/// times in microseconds.
fn for_petastorm(field: &Field) -> Stored {
    if !field.shape.is_scalar() {
        return Stored::Cells(field.clone().with_codec(Some(Codec::Ndarray)));
    }
    let with = |dtype| Field { dtype, ..field.clone() };
    match field.dtype {
        DType::Float16 => Stored::As(with(DType::Float32)),
        DType::Datetime { unit, utc } if unit != TimeUnit::Microsecond => {
            let unit = TimeUnit::Microsecond;
            Stored::As(with(DType::Datetime { unit, utc }))
        }
        _ => Stored::AsIs,
    }
}
