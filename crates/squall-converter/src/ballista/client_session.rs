//! Sessions of Ballista's client: their plans are a node that has the scheduler run the query and fetches the rows.
//!
//! A conversion does not want the rows here, and does not believe what the scheduler says of them. So it takes from such a session the
//! scheduler's address, its tables and its settings, and plans itself.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::planner::BallistaQueryPlanner;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::{DisplayAs, DisplayFormatType};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion_proto::protobuf::LogicalPlanNode;
use squall_schema::Error;

use crate::error::query_error;

/// What stands before the address where such a node is shown.
const ADDRESS: &str = "scheduler_url=";

/// Whether the plans of a session are run by a scheduler.
fn is_remote(state: &SessionState) -> bool {
    let planner: &dyn Any = &**state.query_planner();
    planner.is::<BallistaQueryPlanner<LogicalPlanNode>>()
}

/// The scheduler of a session of Ballista's client; none of any other session.
pub(crate) async fn scheduler_of(state: &SessionState) -> squall_schema::Result<Option<String>> {
    if !is_remote(state) {
        return Ok(None);
    }
    // The planner keeps the address to itself, and shows it in its plans.
    let any = LogicalPlanBuilder::values(vec![vec![lit(1)]]).and_then(LogicalPlanBuilder::build);
    let any = any.map_err(query_error)?;
    let planned = state.query_planner().create_physical_plan(&any, state);
    let plan = planned.await.map_err(query_error)?;
    let shown = plan
        .downcast_ref::<DistributedQueryExec<LogicalPlanNode>>()
        .map(|node| Shown(node).to_string());
    let address = shown.as_deref().and_then(|text| text.trim().strip_prefix(ADDRESS));
    address.map(|address| Some(address.to_owned())).ok_or_else(|| {
        Error::unsupported("the session of Ballista does not show its scheduler: name it by Cluster::new")
    })
}

/// What plans in this process in place of a planner of Ballista's client; none where the session plans by itself.
pub(crate) fn planner_for(state: &SessionState) -> Option<Arc<dyn QueryPlanner + Send + Sync>> {
    is_remote(state).then(|| Arc::new(Here) as _)
}

struct Shown<'a>(&'a DistributedQueryExec<LogicalPlanNode>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::TreeRender, f)
    }
}

/// DataFusion's own planner.
#[derive(Debug)]
struct Here;

#[async_trait]
impl QueryPlanner for Here {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::default()
            .create_physical_plan(plan, session)
            .await
    }
}
