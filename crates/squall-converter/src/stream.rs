//! SQL of any session, and streams of Arrow batches, to a dataset.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::execution::context::SessionContext;
use futures::{Stream, StreamExt};
use squall_schema::{Error, Result};

use crate::conform::Target;
use crate::converted::Converted;
use crate::converter::Converter;
use crate::directory::plan_query;
use crate::progress::Meter;
use crate::rules::Steps;

impl Converter {
    /// Converts what a query gives, over the tables of a session. It must be a query: nothing else is run.
    ///
    /// # Cancel safety
    ///
    /// As [`Converter::convert`].
    pub async fn convert_sql(self, session: &SessionContext, sql: &str) -> Result<Converted> {
        let rows = plan_query(session, sql).await?;
        self.convert(rows).await
    }

    /// Converts Arrow batches of this schema, in the order in which they come. The next one is asked for when the last one is
    /// encoded: what makes them is held back by what writes them, and no more is in memory than a batch and an open row group.
    ///
    /// # Cancel safety
    ///
    /// As [`Converter::convert`].
    pub async fn convert_stream<S>(mut self, schema: SchemaRef, batches: S) -> Result<Converted>
    where
        S: Stream<Item = Result<RecordBatch>> + Send,
    {
        if self.is_cached() {
            return Err(Error::unsupported(
                "a stream has no plan that a cache could know it by: give a destination of its own",
            ));
        }
        self.check_is_here()?;
        let url = self.url()?;
        let steps = self.rules.plan(&schema, &[], &self.source.store)?;
        let (columns, existing) = self.fit(&url, steps.schema()).await?;
        let target = Target::of_query(&columns, steps.declared(), self.layout.petastorm.as_ref())?;
        self.check(&target, &existing)?;
        self.meter.begin(None);
        let batches = batches.enumerate().map(|(n, batch)| {
            let batch = batch?;
            if batch.schema_ref().fields() != schema.fields() {
                return Err(Error::invalid(format!(
                    "expected a batch of the schema {schema}, found one of {}",
                    batch.schema_ref()
                ))
                .at("batch", n));
            }
            Ok(batch)
        });
        let rows = ruled(batches, steps, self.meter.clone());
        self.write_rows(url, &target, existing, Box::pin(rows)).await
    }
}

/// The batches behind the steps, counted. An error of a step names the row, counted from the first of the stream.
pub(crate) fn ruled<S>(batches: S, steps: Steps, meter: Meter) -> impl Stream<Item = Result<RecordBatch>> + Send
where
    S: Stream<Item = Result<RecordBatch>> + Send,
{
    let cut = {
        let steps = steps.clone();
        move |batch: Result<RecordBatch>| {
            let parts: Vec<_> = match batch {
                Ok(batch) => steps.cut(&batch).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(parts)
        }
    };
    let mut first = 0;
    let counted = batches.flat_map(cut).map(move |batch| {
        let batch = batch?;
        let start = first;
        first += batch.num_rows();
        Ok((start, batch))
    });
    counted.then(move |batch: Result<(usize, RecordBatch)>| {
        let (steps, meter) = (steps.clone(), meter.clone());
        async move {
            let (start, batch) = batch?;
            let done = steps.apply(&batch).await.map_err(|error| {
                match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
                    Some(row) => error.replace_place("row", start + row),
                    None => error,
                }
            })?;
            meter.add_rows(done.num_rows());
            Ok(done)
        }
    })
}
