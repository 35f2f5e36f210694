//! Whether a plan gives the same rows to the same unit each time.
//!
//! What is done again after a loss must fit what was done before it. A stage may be run again in part, while what others have read
//! of its first run stays: so whatever picks rows by chance must stand where no other unit depends on what it picked.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use squall_schema::{Error, Result};

use crate::error::query_error;

/// Whether rows go from one partition of the plan to another: whether it has several stages.
pub(crate) fn has_stages(plan: &Arc<dyn ExecutionPlan>) -> bool {
    is_exchange(plan) || plan.children().into_iter().any(has_stages)
}

/// Whether the plan gives the rows of its sources, all of them, and these tell how many they are.
pub(crate) fn is_scan(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let counts = |scan: &DataSourceExec| match scan.data_source().downcast_ref::<FileScanConfig>() {
        Some(files) => files.file_source().file_type() == "parquet",
        None => true,
    };
    let passes = match plan.downcast_ref::<DataSourceExec>() {
        Some(scan) => counts(scan),
        None => plan.is::<ProjectionExec>() || plan.is::<UnionExec>(),
    };
    passes && plan.fetch().is_none() && plan.children().into_iter().all(is_scan)
}

/// Refuses a plan whose units depend on what another attempt would pick otherwise.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let units = plan.output_partitioning().partition_count();
    match chance(plan, 0, units).map_err(query_error)? {
        None => Ok(()),
        Some(what) => Err(Error::unsupported(format!(
            "{what} below a join, a grouping or a sort gives something else when a lost part is done again: write it as a dataset first, or convert on one machine"
        ))),
    }
}

/// What picks rows by chance at a depth of exchanges where others depend on it.
fn chance(
    plan: &Arc<dyn ExecutionPlan>,
    depth: usize,
    units: usize,
) -> datafusion::common::Result<Option<&'static str>> {
    let harmless = depth == 0 || (depth == 1 && units == 1);
    if !harmless {
        if plan.fetch().is_some() && !plan.is::<DataSourceExec>() {
            return Ok(Some("LIMIT"));
        }
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
            && matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_))
        {
            return Ok(Some("a repartition by turns"));
        }
        let mut found = false;
        plan.apply_expressions(&mut |expression| {
            found |= is_volatile(expression);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if found {
            return Ok(Some("a function that gives something else each time, as random(),"));
        }
    }
    let depth = depth + usize::from(is_exchange(plan));
    for child in plan.children() {
        if let Some(what) = chance(child, depth, units)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn is_volatile(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.is_volatile_node() || expression.children().into_iter().any(is_volatile)
}

fn is_exchange(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>()
}
