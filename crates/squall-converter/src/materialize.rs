//! Rows made in Rust to a dataset.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use squall_schema::arrow::schema_to_arrow;
use squall_schema::columns::column_from_values;
use squall_schema::{Error, Field, Result, Row, Schema, Value};
use std::pin::Pin;

use arrow_array::RecordBatch;

use crate::conform::Target;
use crate::converted::Converted;
use crate::converter::Converter;

/// Rows that are encoded together, and so at most in memory beside a row group.
const BATCH_ROWS: usize = 1024;
/// Bytes of values after which a batch is encoded, whatever its rows.
const BATCH_BYTES: usize = 16 << 20;

impl Converter {
    /// Writes rows in the order in which they come. A field with a codec is stored in cells.
    ///
    /// Each row has a value for each field and no others; one that is missing is null, where the field may be null. A value of
    /// another dtype or shape is an error that names the row, and then nothing is written.
    ///
    /// ```
    /// use squall_converter::{Converter, Petastorm};
    /// use squall_schema::codec::Codec;
    /// use squall_schema::{Row, RowId, Schema, Tensor, field};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let schema = Schema::new(vec![field!("id": i64), field!("image": u8[4, 4, 3]).with_codec(Some(Codec::Png))])?;
    /// let rows = (0..100i64).map(|id| {
    ///     let mut row = Row::new(RowId::default(), Vec::new());
    ///     row.set("id", id);
    ///     row.set("image", Tensor::from_vec(&[4, 4, 3], vec![id as u8; 48])?);
    ///     Ok(row)
    /// });
    /// let train = Converter::new("memory://doc/images").petastorm(Petastorm::new("Images")).materialize(&schema, rows).await?;
    /// assert_eq!(train.rows(), 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As [`Converter::convert`].
    pub async fn materialize<I>(self, schema: &Schema, rows: I) -> Result<Converted>
    where
        I: IntoIterator<Item = Result<Row>>,
    {
        self.materialize_stream(schema, stream::iter(rows)).await
    }

    /// Writes rows of a stream, as [`Converter::materialize`] does those of an iterator. No more than a batch of them is waiting.
    ///
    /// # Cancel safety
    ///
    /// As [`Converter::convert`].
    pub async fn materialize_stream<S>(mut self, schema: &Schema, rows: S) -> Result<Converted>
    where
        S: Stream<Item = Result<Row>>,
    {
        if self.is_cached() {
            return Err(Error::unsupported(
                "rows that are made in Rust have no plan that a cache could know them by: give a destination of their own",
            ));
        }
        if self.rules.has_columns() {
            return Err(Error::unsupported(
                "rows that are made in Rust are stored as their schema says: a declared schema, images and closures are for queries and streams",
            ));
        }
        self.check_is_here()?;
        let url = self.url()?;
        let (_, existing) = self.fit(&url, &schema_to_arrow(schema)?).await?;
        let target = Target::of_schema(schema, self.layout.petastorm.as_ref())?;
        self.check(&target, &existing)?;
        self.meter.begin(None);
        let batches = Batches {
            schema: &target.schema,
            rows: Box::pin(rows),
            n_rows: 0,
        };
        let batches = stream::try_unfold(batches, |mut batches| async {
            let batch = batches.fill().await?;
            Ok(batch.map(|batch| (batch, batches)))
        });
        let batches = batches.inspect_ok(|batch: &RecordBatch| self.meter.add_rows(batch.num_rows()));
        self.write_rows(url, &target, existing, Box::pin(batches)).await
    }
}

/// Cuts rows into batches of canonical columns.
struct Batches<'a, S> {
    schema: &'a Schema,
    rows: Pin<Box<S>>,
    n_rows: usize,
}

impl<S: Stream<Item = Result<Row>>> Batches<'_, S> {
    async fn fill(&mut self) -> Result<Option<RecordBatch>> {
        let first = self.n_rows;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let Some(row) = self.rows.next().await else {
                break;
            };
            let row = row.map_err(|error| error.at("row", self.n_rows))?;
            self.check(&row).map_err(|error| error.at("row", self.n_rows))?;
            bytes += row.iter().map(|(_, value)| size(value)).sum::<usize>();
            rows.push(row);
            self.n_rows += 1;
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let column = |field: &Field| {
            let values: Vec<_> = rows
                .iter()
                .map(|row| row.get(&field.name).unwrap_or(&Value::Null))
                .collect();
            column_from_values(field, &values).map_err(|error| {
                let row = error.place("row").and_then(|row| row.parse::<usize>().ok());
                match row {
                    Some(row) => error.replace_place("row", first + row),
                    None => error,
                }
            })
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<_>>()?;
        let batch = RecordBatch::try_new(schema_to_arrow(self.schema)?, columns);
        batch
            .map(Some)
            .map_err(|error| Error::internal("rows do not make a batch").with_source(error))
    }

    /// Refuses names that are not in the schema, and missing values that must be there.
    fn check(&self, row: &Row) -> Result<()> {
        if let Some((extra, _)) = row.iter().find(|(name, _)| self.schema.get(name).is_none()) {
            return Err(self.schema.unknown(extra));
        }
        let missing = |field: &&Field| !field.nullable && row.get(&field.name).is_none();
        match self.schema.fields().iter().find(missing) {
            Some(field) => Err(Error::invalid(format!("no value for {field}, which is not nullable"))),
            None => Ok(()),
        }
    }
}

/// About how much memory a value takes.
fn size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Str(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Tensor(tensor) => tensor.data().len(),
            Value::List(items) => items.iter().map(size).sum(),
            _ => 0,
        }
}
