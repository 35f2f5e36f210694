//! The columns of a query in the types that a reader expects, and what their values say of their shapes.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema as ArrowSchema, SchemaRef};
use squall_schema::arrow::{schema_from_arrow, schema_to_arrow};
use squall_schema::columns::normalise;
use squall_schema::{DType, Error, Field, Result, Schema, Shape};

/// The schema of the rows that are written.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) schema: Schema,
    pub(crate) columns: SchemaRef,
    /// What some columns mean beyond how they are stored.
    declared: Vec<Field>,
}

impl Target {
    /// The schema of a query's result. A column that no reader can read is refused: a query can take it apart.
    pub(crate) fn of_query(result: &ArrowSchema, declared: &[Field]) -> Result<Self> {
        let schema = schema_from_arrow(result).map_err(|error| match error.place("column") {
            Some(column) => Error::unsupported(format!(
                "column {column:?} of the query's result cannot be read as scalars or tensors: take it apart in SQL, or leave it out"
            ))
            .with_source(error),
            None => error,
        })?;
        if let Some(field) = schema.fields().iter().find(|field| field.dtype == DType::Nested) {
            return Err(Error::unsupported(format!(
                "column {:?} of the query's result is nested: take it apart in SQL, or leave it out",
                field.name
            )));
        }
        Ok(Self {
            declared: declared.to_vec(),
            columns: schema_to_arrow(&schema)?,
            schema,
        })
    }

    /// The schema that readers see, from that of what is stored.
    pub(crate) fn declare(&self, stored: Schema) -> Result<Schema> {
        let field = |stored: &Field| {
            let own = self.declared.iter().find(|field| field.name == stored.name);
            match own {
                Some(own) if own.codec.is_some() || own.dtype != stored.dtype => own.clone(),
                _ => stored.clone(),
            }
        };
        Schema::new(stored.fields().iter().map(field).collect())
    }

    /// The rows in the types of the schema.
    pub(crate) fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().zip(batch.columns());
        let columns = columns
            .map(|(field, column)| normalise(column, field))
            .collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.columns.clone(), columns)
            .map_err(|error| Error::internal("the rows do not fit their own schema").with_source(error))
    }
}

/// What is known of the lengths of a list column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Length {
    #[default]
    Unseen,
    Always(usize),
    Varies,
}

/// The lengths of the lists in each column. A column whose lists all have one length holds vectors of fixed shape.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    lengths: Vec<Length>,
}

impl Evidence {
    pub(crate) fn new(schema: &Schema) -> Self {
        Self {
            lengths: vec![Length::Unseen; schema.fields().len()],
        }
    }

    pub(crate) fn see(&mut self, batch: &RecordBatch) {
        for (length, column) in self.lengths.iter_mut().zip(batch.columns()) {
            if let DataType::List(_) = column.data_type() {
                *length = see_lists(*length, column);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, other) in self.lengths.iter_mut().zip(&other.lengths) {
            *own = match (*own, *other) {
                (Length::Unseen, length) | (length, Length::Unseen) => length,
                (a, b) if a == b => a,
                _ => Length::Varies,
            };
        }
    }

    /// The schema with the shapes that were found.
    pub(crate) fn shapes(&self, schema: &Schema) -> Result<Schema> {
        let field = |(field, length): (&Field, &Length)| {
            let mut field = field.clone();
            if let Length::Always(n) = length
                && *n > 0
            {
                field.shape = Shape::fixed(&[*n]);
            }
            field
        };
        Schema::new(schema.fields().iter().zip(&self.lengths).map(field).collect())
    }
}

fn see_lists(mut length: Length, column: &ArrayRef) -> Length {
    let list = column.as_list::<i32>();
    // A tensor has no null elements.
    if list.values().null_count() > 0 {
        return Length::Varies;
    }
    for row in (0..list.len()).filter(|row| list.is_valid(*row)) {
        let found = list.value_length(row) as usize;
        length = match length {
            Length::Unseen => Length::Always(found),
            Length::Always(n) if n == found => length,
            _ => return Length::Varies,
        };
    }
    length
}
