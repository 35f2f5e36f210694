//! The node at the top of a job's plan: each of its partitions is a unit.

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema as ArrowSchema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use tokio::runtime::Handle;

use super::doubt::Doubts;
use super::record::By;
use super::unit::Attempt;
use super::work::Work;

/// Who runs units.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) by: By,
    /// The threads on which it gives signs of life.
    pub(crate) threads: Handle,
    pub(crate) doubts: Doubts,
}

/// Runs [`Work`] on the rows of each partition. It gives no rows: what was done is in the records of the units.
#[derive(Debug)]
pub(crate) struct UnitExec {
    pub(crate) work: Arc<Work>,
    input: Arc<dyn ExecutionPlan>,
    /// Which units the partitions are, and who runs them. Ballista gives a task a plan with its own partitions only, counted
    /// from 0.
    assigned: Option<(Vec<usize>, Runner)>,
    properties: Arc<PlanProperties>,
}

impl UnitExec {
    pub(crate) fn new(work: Arc<Work>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self {
            work,
            input,
            assigned: None,
            properties: Arc::new(properties),
        }
    }

    /// The node whose partitions are these units.
    pub(crate) fn assigned(&self, units: Vec<usize>, runner: Runner) -> Self {
        Self {
            assigned: Some((units, runner)),
            ..Self::new(self.work.clone(), self.input.clone())
        }
    }
}

fn schema() -> SchemaRef {
    Arc::new(ArrowSchema::empty())
}

impl DisplayAs for UnitExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SquallUnits: {}", self.work.pass)
    }
}

impl ExecutionPlan for UnitExec {
    fn name(&self) -> &str {
        "SquallUnits"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return Err(DataFusionError::Internal("units have one input".to_owned()));
        };
        Ok(Arc::new(Self {
            assigned: self.assigned.clone(),
            ..Self::new(self.work.clone(), input)
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let assigned = self
            .assigned
            .as_ref()
            .and_then(|(units, runner)| Some((*units.get(partition)?, runner.clone())));
        let (unit, runner) = assigned.ok_or_else(|| {
            DataFusionError::Internal("units run on executors of Squall only: `squall executor`".to_owned())
        })?;
        let rows = self.input.execute(partition, context)?;
        let attempt = Attempt::new(self.work.clone(), unit, runner);
        let done = async move {
            attempt.run(rows).await?;
            Ok(RecordBatch::new_empty(schema()))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            schema(),
            futures::stream::once(done),
        )))
    }
}
