//! What the values of a query say of the shapes of its columns.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use serde::{Deserialize, Serialize};
use squall_schema::{Field, Result, Schema, Shape};

/// What is known of the lengths of a list column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Length {
    #[default]
    Unseen,
    Always(usize),
    Varies,
}

/// The lengths of the lists in each column. A column whose lists all have one length holds vectors of fixed shape.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
