//! The same tables for a cluster: a plan whose partitions are lists of files, and a node that reads the files of such a list.
//!
//! Ballista cuts a plan into tasks at leaves that it knows. So the leaf is a table in memory, with a row for each file; the node
//! above it reads what the rows of its partition name, wherever it runs.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::{Session, TableProvider, default_table_source};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use squall_dataset::StoreOptions;
use squall_schema::Error;

use super::feed::Source;
use super::json::Unknown;
use super::{Avro, Decoder, Part, Partition, RecordTable, TextOptions};
use crate::ballista::columns;
use crate::ballista::place::Place;

/// The columns of a list of files before those of their directories.
const LISTED: usize = 2;

/// How the files of a table are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reading {
    place: Place,
    decoder: Decoding,
    /// The columns of the table.
    schema: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Decoding {
    Csv(String, TextOptions),
    Json(String, Unknown),
    Avro { text: String, columns: String },
}

/// The plan with tables in place of those that only this process reads.
pub(crate) fn for_cluster(plan: LogicalPlan, options: &StoreOptions) -> Result<LogicalPlan> {
    let replaced = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else {
            return Ok(Transformed::no(node));
        };
        let table = default_table_source::source_as_provider(&scan.source)?;
        let Some(records) = table.downcast_ref::<RecordTable>() else {
            return Ok(Transformed::no(node));
        };
        let remote = Arc::new(Remote {
            reading: records.reading(options)?,
            parts: records.parts.clone(),
            schema: records.schema.clone(),
        });
        let scan = TableScan {
            source: default_table_source::provider_as_source(remote),
            ..scan.clone()
        };
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(replaced.data)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(error.into())
}

impl RecordTable {
    fn reading(&self, options: &StoreOptions) -> Result<Reading> {
        let part = self.parts.first();
        let part = part.ok_or_else(|| external(Error::internal("a table without files")))?;
        let text = |schema: &SchemaRef| columns::to_text(schema).map_err(external);
        Ok(Reading {
            place: Place::of(&part.file.store, options).map_err(external)?,
            decoder: match &self.decoder {
                Decoder::Csv(own, options) => Decoding::Csv(text(own)?, options.clone()),
                Decoder::Json(own, unknown) => Decoding::Json(text(own)?, *unknown),
                Decoder::Avro(avro) => Decoding::Avro {
                    text: avro.text().to_owned(),
                    columns: text(&avro.columns)?,
                },
            },
            schema: text(&self.schema)?,
        })
    }
}

impl Reading {
    fn decoder(&self) -> squall_schema::Result<Decoder> {
        Ok(match &self.decoder {
            Decoding::Csv(own, options) => Decoder::Csv(columns::from_text(own)?, options.clone()),
            Decoding::Json(own, unknown) => Decoder::Json(columns::from_text(own)?, *unknown),
            Decoding::Avro { text, columns: own } => Decoder::Avro(Avro::new(text, columns::from_text(own)?)),
        })
    }
}

/// A table of records as a cluster reads it.
#[derive(Debug)]
struct Remote {
    reading: Reading,
    parts: Vec<Part>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Remote {
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
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // As in this process: files that lie next to each other in one partition.
        let n = state.config().target_partitions().max(1);
        let per_partition = self.parts.len().div_ceil(n).max(1);
        let lists = self
            .parts
            .chunks(per_partition)
            .map(|parts| Ok(vec![self.list(parts)?]));
        let lists: Vec<_> = lists.collect::<Result<_>>()?;
        let leaf = MemorySourceConfig::try_new_exec(&lists, self.list(&[])?.schema(), None)?;
        let read: Arc<dyn ExecutionPlan> = Arc::new(RecordExec::new(Arc::new(self.reading.clone()), leaf)?);
        let Some(projection) = projection else {
            return Ok(read);
        };
        let columns = projection.iter().map(|i| {
            let name = self.schema.field(*i).name();
            ProjectionExpr::new(Arc::new(Column::new(name, *i)), name.clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), read)?))
    }
}

impl Remote {
    /// A row for each file: its path, its size, and the values of its directories.
    fn list(&self, parts: &[Part]) -> Result<RecordBatch> {
        let in_directories = self.parts.first().map_or(0, |part| part.partition.len());
        let first = self.schema.fields().len() - in_directories;
        let mut fields = vec![
            ArrowField::new("path", DataType::Utf8, false),
            ArrowField::new("size", DataType::UInt64, false),
        ];
        let paths = parts.iter().map(|part| part.file.path.to_string());
        let sizes = parts.iter().map(|part| part.file.size);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(paths)),
            Arc::new(UInt64Array::from_iter_values(sizes)),
        ];
        for (i, field) in self.schema.fields()[first..].iter().enumerate() {
            // Its name may be that of the first two.
            fields.push(ArrowField::new(format!("value {i}"), field.data_type().clone(), true));
            let values = parts.iter().map(|part| part.partition[i].clone());
            columns.push(match parts.is_empty() {
                true => arrow_array::new_empty_array(field.data_type()),
                false => ScalarValue::iter_to_array(values)?,
            });
        }
        Ok(RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns)?)
    }
}

/// Reads the files that the rows of its input name.
#[derive(Debug)]
pub(crate) struct RecordExec {
    pub(crate) reading: Arc<Reading>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl RecordExec {
    pub(crate) fn new(reading: Arc<Reading>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let schema = columns::from_text(&reading.schema).map_err(external)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self {
            reading,
            input,
            properties: Arc::new(properties),
        })
    }
}

impl DisplayAs for RecordExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SquallRecords")
    }
}

impl ExecutionPlan for RecordExec {
    fn name(&self) -> &str {
        "SquallRecords"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // The lists are as they are.
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(self.reading.clone(), input)?)),
            _ => Err(DataFusionError::Internal("records have one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let lists = self.input.execute(partition, context.clone())?;
        let (reading, schema) = (self.reading.clone(), self.schema());
        let own = schema.clone();
        let rows = async move {
            let lists: Vec<RecordBatch> = lists.try_collect().await?;
            let store = reading.place.open().map_err(external)?;
            let mut parts = Vec::new();
            for list in &lists {
                for row in 0..list.num_rows() {
                    let path = list.column(0).as_string::<i32>().value(row);
                    let values = list.columns()[LISTED..].iter();
                    parts.push(Part {
                        file: Source {
                            store: store.clone(),
                            path: Path::parse(path).map_err(|error| DataFusionError::External(error.into()))?,
                            size: list.column(1).as_primitive::<UInt64Type>().value(row),
                        },
                        version: String::new(),
                        partition: values
                            .map(|column| ScalarValue::try_from_array(column, row))
                            .collect::<Result<_>>()?,
                    });
                }
            }
            let partition = Partition {
                decoder: reading.decoder().map_err(external)?,
                parts,
                schema: own,
            };
            Ok::<_, DataFusionError>(partition.execute(context))
        };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
