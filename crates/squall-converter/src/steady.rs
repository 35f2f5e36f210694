//! Whether a plan gives its rows in the same order each time, and whether each of its partitions gives the same rows.
//!
//! Rows that go from several partitions to one, as below a grouping or a join, come in the order in which threads were ready. What such a
//! plan gives is brought in an order of its own, that of a hash of each row, so that the same rows are in the same files each time.

use std::sync::Arc;

use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::layout::Layout;

/// Whether its rows need an order by what they hold: they do not come the same way each time. A query that sorts all rows has the last
/// word, ties and all, where nothing else is asked for.
pub(crate) fn wants_order(plan: &Arc<dyn ExecutionPlan>, layout: &Layout) -> bool {
    let is_sorted = plan.output_ordering().is_some() && plan.output_partitioning().partition_count() == 1;
    mixes(plan) && (layout.is_ordered() || !is_sorted)
}

/// Whether each partition gives the same rows each time, whatever becomes of the others: each is a part of the sources, row by row.
pub(crate) fn is_repeatable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_known = plan.is::<DataSourceExec>()
        || plan.is::<LazyMemoryExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<UnionExec>();
    is_known && plan.fetch().is_none() && plan.children().into_iter().all(is_repeatable)
}

/// Whether rows go from several partitions to one. What a join gives of rows without a partner comes from the partition that ends
/// last.
fn mixes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let count = |plan: &Arc<dyn ExecutionPlan>| plan.output_partitioning().partition_count();
    let meets = plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<InterleaveExec>();
    let joins = plan.is::<HashJoinExec>() || plan.is::<NestedLoopJoinExec>() || plan.is::<SortMergeJoinExec>();
    let children = plan.children();
    let is_many = children.len() > 1 || children.iter().any(|child| count(child) > 1);
    (meets && is_many) || (joins && count(plan) > 1) || children.into_iter().any(mixes)
}
