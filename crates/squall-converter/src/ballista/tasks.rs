//! Tells units which ones they are.
//!
//! A task of Ballista has a plan with its own partitions only. What runs tasks is told which partitions of the whole plan these
//! are: the same on every attempt, so that a unit that is done again is the same unit.

use std::sync::Arc;

use ballista_core::JobId;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::ExecutionPlan;

use super::node::{Runner, UnitExec};
use super::stage::Attended;

pub(crate) struct Tasks {
    ballista: DefaultExecutionEngine,
    runner: Runner,
}

impl Tasks {
    pub(crate) fn new(ballista: DefaultExecutionEngine, runner: Runner) -> Self {
        Self { ballista, runner }
    }
}

impl ExecutionEngine for Tasks {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        global_output_partition_ids: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let mut has_units = false;
        let named = plan.transform_down(|node| {
            let Some(units) = node.downcast_ref::<UnitExec>() else {
                return Ok(Transformed::no(node));
            };
            has_units = true;
            let units = units.assigned(global_output_partition_ids.clone(), self.runner.clone());
            Ok(Transformed::yes(Arc::new(units) as Arc<dyn ExecutionPlan>))
        })?;
        let task = self.ballista.create_query_stage_exec(
            job_id,
            stage_id,
            task_id,
            global_output_partition_ids,
            named.data,
            work_dir,
            config,
        )?;
        Ok(match has_units {
            true => task,
            false => Attended::of(task, config, &self.runner),
        })
    }
}
