//! Directories of CSV, JSON and Avro as tables of DataFusion.
//!
//! Input are the files that the listing of squall-dataset finds, with the values in their directory names; output are batches, in
//! the order of the files. Bytes come through a [`Store`], which retries and holds on to the state of a file that was listed; they
//! are decoded by Arrow's readers on threads that may wait, a file after the other in each partition of a plan. A value that does
//! not fit is an error that names file and line.

mod options;

mod feed;

mod avro;
mod csv;
mod json;

#[cfg(feature = "ballista")]
pub(crate) mod remote;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use squall_dataset::{OpenOptions, Store, listing, partition};
use squall_schema::arrow::{field_to_arrow, schema_to_arrow};
use squall_schema::columns::column_from_values;
use squall_schema::{Error, Result};

use crate::format::SourceFormat;

use avro::Avro;
pub(crate) use feed::Compressed;
use feed::Source;
pub use options::TextOptions;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Batches that wait between a decoder and the query.
const WAITING_BATCHES: usize = 2;

/// How the files are decoded, with the columns that they have.
#[derive(Debug, Clone)]
enum Decoder {
    Csv(SchemaRef, TextOptions),
    /// With columns that were declared, of which files may have more.
    Json(SchemaRef, json::Unknown),
    Avro(Avro),
}

impl Decoder {
    fn columns(&self) -> &SchemaRef {
        match self {
            Self::Csv(columns, _) | Self::Json(columns, _) => columns,
            Self::Avro(avro) => &avro.columns,
        }
    }

    fn read(&self, file: &Source, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        match self {
            Self::Csv(columns, options) => csv::read(file, columns, options, sink),
            Self::Json(columns, unknown) => json::read(file, (columns, *unknown), sink),
            Self::Avro(avro) => avro::read(file, avro, sink),
        }
    }
}

/// A file with the values of its directories.
#[derive(Debug, Clone)]
struct Part {
    file: Source,
    /// Its ETag, or the time of its last change.
    version: String,
    partition: Vec<ScalarValue>,
}

/// Files of records as a table of DataFusion.
#[derive(Debug)]
pub(crate) struct RecordTable {
    decoder: Decoder,
    parts: Vec<Part>,
    schema: SchemaRef,
}

impl RecordTable {
    /// Lists the files of the store, and finds their columns. Files without a byte are left out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; what is being decoded ends at the next chunk.
    pub(crate) async fn open(
        store: Store,
        format: SourceFormat,
        text: &TextOptions,
        options: &OpenOptions,
    ) -> Result<Self> {
        text.check()?;
        let url = store.url().clone();
        let at = |error: Error| error.at("URL", &url);
        let mut listed = listing::data_files(&store).await?;
        listed.retain(|file| file.size > 0);
        if listed.is_empty() {
            return Err(at(Error::invalid("all files of the source are empty")));
        }
        let paths: Vec<_> = listed.iter().map(|file| file.location.to_string()).collect();
        let parsed: Vec<_> = match store.only() {
            Some(_) => vec![Default::default()],
            None => paths.iter().map(|path| partition::parse(path)).collect(),
        };
        let named: Vec<_> = paths.iter().map(String::as_str).zip(&parsed).collect();
        let fields = partition::infer(&named).map_err(at)?;
        let mut parts = Vec::with_capacity(listed.len());
        for (listed, parsed) in listed.iter().zip(&parsed) {
            let values = fields.iter().map(|field| {
                let value = partition::value(parsed[&field.name].as_deref(), field, options.time_zone)?;
                let column = column_from_values(field, &[&value])?;
                ScalarValue::try_from_array(&column, 0)
                    .map_err(|error| Error::internal("a partition value is not a scalar").with_source(error))
            });
            let version = listed.e_tag.clone();
            parts.push(Part {
                version: version.unwrap_or_else(|| listed.last_modified.to_rfc3339()),
                partition: values
                    .collect::<Result<_>>()
                    .map_err(|error| at(error.at("file", &listed.location)))?,
                file: Source {
                    store: store.clone(),
                    path: listed.location.clone(),
                    size: listed.size,
                },
            });
        }
        let files: Vec<_> = parts.iter().map(|part| part.file.clone()).collect();
        let text = text.clone();
        let decoder = tokio::task::spawn_blocking(move || decoder(&files, format, &text)).await;
        let decoder = decoder.map_err(|error| Error::internal("the decoder panicked").with_source(error))??;
        let own = decoder.columns().fields().iter().map(|field| in_table(field));
        let mut columns: Vec<_> = own.collect();
        for field in &fields {
            if columns.iter().any(|column| column.name() == &field.name) {
                return Err(at(Error::corrupt(format!(
                    "the column {:?} stands in the files and in the names of their directories",
                    field.name
                ))));
            }
            columns.push(field_to_arrow(field)?);
        }
        let twice = columns
            .iter()
            .enumerate()
            .find(|(i, column)| columns[..*i].iter().any(|earlier| earlier.name() == column.name()));
        if let Some((_, column)) = twice {
            return Err(at(Error::unsupported(format!(
                "two columns have the name {:?}: name them by a schema, without a header",
                column.name()
            ))));
        }
        Ok(Self {
            decoder,
            parts,
            schema: Arc::new(ArrowSchema::new(columns)),
        })
    }

    /// A text that is another one when a file changes, comes or goes, or is decoded otherwise.
    pub(crate) fn identity(&self) -> String {
        let mut text = format!("{:?}", self.decoder);
        for part in &self.parts {
            let file = &part.file;
            text.push_str(&format!(
                "\n{} {} {} {}",
                file.store.url(),
                file.path,
                file.size,
                part.version
            ));
        }
        text
    }

    /// The files, those that lie next to each other in one partition, so that the partitions laid end to end are the table.
    fn partitions(&self, n: usize) -> Vec<Arc<dyn PartitionStream>> {
        let per_partition = self.parts.len().div_ceil(n.max(1)).max(1);
        let partition = |parts: &[Part]| {
            let partition = Partition {
                decoder: self.decoder.clone(),
                parts: parts.to_vec(),
                schema: self.schema.clone(),
            };
            Arc::new(partition) as Arc<dyn PartitionStream>
        };
        self.parts.chunks(per_partition).map(partition).collect()
    }
}

fn decoder(files: &[Source], format: SourceFormat, text: &TextOptions) -> Result<Decoder> {
    let declared = text.schema.as_ref().map(schema_to_arrow).transpose()?;
    Ok(match format {
        SourceFormat::Avro => Decoder::Avro(avro::infer(files)?),
        SourceFormat::Json => match declared {
            Some(columns) => Decoder::Json(columns, json::Unknown::LeftOut),
            None => Decoder::Json(json::infer(files, text)?, json::Unknown::Refused),
        },
        _ => {
            let columns = match declared {
                Some(columns) => columns,
                None => csv::infer(files, text)?,
            };
            if let Some(column) = columns.fields().iter().find(|column| column.data_type().is_nested()) {
                return Err(
                    Error::unsupported("CSV has no arrays: declare text, and take it apart in SQL")
                        .at("column", column.name()),
                );
            }
            Decoder::Csv(columns, text.clone())
        }
    })
}

/// A column as the query sees it: the values of an enumeration as text.
fn in_table(column: &ArrowField) -> ArrowField {
    match column.data_type() {
        DataType::Dictionary(_, value) => column.clone().with_data_type((**value).clone()),
        _ => column.clone(),
    }
}

#[async_trait]
impl TableProvider for RecordTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let partitions = self.partitions(state.config().target_partitions());
        let table = StreamingTable::try_new(self.schema.clone(), partitions)?;
        table.scan(state, projection, filters, limit).await
    }
}

#[derive(Debug)]
struct Partition {
    decoder: Decoder,
    parts: Vec<Part>,
    schema: SchemaRef,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), WAITING_BATCHES);
        let batches = builder.tx();
        let (decoder, parts, schema) = (self.decoder.clone(), self.parts.clone(), self.schema.clone());
        builder.spawn_blocking(move || {
            for part in &parts {
                let mut wanted = true;
                let mut failed = None;
                decoder
                    .read(&part.file, &mut |batch| {
                        match complete(&batch, part, &schema) {
                            Ok(batch) => wanted = batches.blocking_send(Ok(batch)).is_ok(),
                            Err(error) => failed = Some(part.file.at(error)),
                        }
                        wanted && failed.is_none()
                    })
                    .and_then(|()| failed.map_or(Ok(()), Err))
                    .map_err(|error| DataFusionError::External(error.into()))?;
                if !wanted {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

/// The batch in the types of the table, with the values of the file's directories.
fn complete(batch: &RecordBatch, part: &Part, schema: &SchemaRef) -> Result<RecordBatch> {
    let misfit = |error| Error::corrupt("the file has other columns than the table").with_source(error);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => column.clone(),
            false => arrow_cast::cast(column, field.data_type()).map_err(misfit)?,
        });
    }
    for value in &part.partition {
        let column = value.to_array_of_size(batch.num_rows());
        columns.push(column.map_err(|error| Error::internal("a partition value is not a column").with_source(error))?);
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(misfit)
}
