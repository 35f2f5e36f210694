//! Whether a plan gives its rows in the same order each time.
//!
//! Rows that go from several partitions to one, as below a grouping or a join, come in the order in which threads were ready. What such a
//! plan gives is brought in an order of its own, that of a hash of each row, so that the same rows are in the same files each time.

use std::sync::Arc;

use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::InterleaveExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Whether its rows need an order of their own: they come in none, and not the same way each time. A query that sorts has the last
/// word, ties and all.
pub(crate) fn wants_order(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.output_ordering().is_none() && mixes(plan)
}

/// Whether rows go from several partitions to one.
pub(crate) fn mixes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let meets = plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<InterleaveExec>();
    let children = plan.children();
    let is_many = children.len() > 1
        || children
            .iter()
            .any(|child| child.output_partitioning().partition_count() > 1);
    (meets && is_many) || children.into_iter().any(mixes)
}
