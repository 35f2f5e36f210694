//! Whether a plan gives the same rows to the same unit each time.
//!
//! What is done again after a loss must fit what was done before it. A stage may be run again in part, while what others have read
//! of its first run stays: so whatever picks rows by chance must stand where no other unit depends on what it picked. And a query of
//! several stages is counted by another job: so its rows must be as many each time.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
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

/// Refuses a plan whose units depend on what another attempt would pick otherwise, or whose rows would be others when they are
/// counted again.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let units = plan.output_partitioning().partition_count();
    let is_staged = has_stages(plan);
    let place = Place {
        depth: 0,
        keeps_rows: true,
    };
    let refused = chance(plan, place, (units, is_staged)).map_err(query_error)?;
    refused.map_or(Ok(()), |why| Err(Error::unsupported(why)))
}

const BELOW: &str = "below a join, a grouping or a sort gives something else when a lost part is done again";
const FUNCTION: &str = "a function that gives something else each time, as random(),";
const INSTEAD: &str = "write it as a dataset first, or convert on one machine";

/// Where a node stands.
#[derive(Clone, Copy)]
struct Place {
    /// Exchanges above it.
    depth: usize,
    /// Whether all nodes above it give the rows that they take, each once.
    keeps_rows: bool,
}

/// Why a plan is refused that picks by chance where others depend on what it picked.
fn chance(
    plan: &Arc<dyn ExecutionPlan>,
    place: Place,
    (units, is_staged): (usize, bool),
) -> datafusion::common::Result<Option<String>> {
    let is_harmless = |depth| depth == 0 || (depth == 1 && units == 1);
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
        && !matches!(repartition.partitioning(), Partitioning::Hash(..))
    {
        // Ballista leaves these out, and with them the units that they make.
        return Ok(Some(
            "a cluster repartitions rows by the hash of columns only: leave the repartition out, or name columns"
                .to_owned(),
        ));
    }
    if !is_harmless(place.depth) && plan.fetch().is_some() && !plan.is::<DataSourceExec>() {
        return Ok(Some(format!("LIMIT {BELOW}: {INSTEAD}")));
    }
    let mut found = false;
    plan.apply_expressions(&mut |expression| {
        found |= is_volatile(expression);
        Ok(TreeNodeRecursion::Continue)
    })?;
    // By its expressions an exchange decides which unit gets a row.
    let below = place.depth + usize::from(is_exchange(plan));
    if found && !is_harmless(below) {
        return Ok(Some(format!(
            "{FUNCTION} {BELOW}: {INSTEAD}, or take a digest of columns in its place, as md5()"
        )));
    }
    let gives_columns = plan.is::<ProjectionExec>() || plan.is::<DataSourceExec>();
    if found && is_staged && !(gives_columns && place.keeps_rows) {
        return Ok(Some(format!(
            "{FUNCTION} may decide which rows there are, so that they cannot be counted again, which a query with a join, a grouping or a sort \
             must be on a cluster: {INSTEAD}, or take a digest of columns in its place, as md5()"
        )));
    }
    let keeps_rows = plan.is::<ProjectionExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<CoalescePartitionsExec>();
    let place = Place {
        depth: below,
        keeps_rows: place.keeps_rows && keeps_rows && plan.fetch().is_none(),
    };
    for child in plan.children() {
        if let Some(why) = chance(child, place, (units, is_staged))? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn is_volatile(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.is_volatile_node() || expression.children().into_iter().any(is_volatile)
}

/// Whether rows go from one executor to another below the node. One side of a join may be given to all of them as it is.
fn is_exchange(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let moves =
        plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>();
    moves || (plan.children().len() > 1 && !plan.is::<UnionExec>())
}

#[cfg(test)]
mod tests {
    use datafusion::dataframe::DataFrame;
    use datafusion::datasource::MemTable;
    use datafusion::execution::context::SessionContext;
    use datafusion::functions::expr_fn::random;

    use super::*;
    use crate::ballista::session::config;

    async fn rows(sql: &str) -> DataFrame {
        let session = SessionContext::new_with_config(config().with_target_partitions(4));
        for name in ["t", "u"] {
            let rows = session
                .sql("SELECT * FROM generate_series(1, 10) AS t(a)")
                .await
                .expect("a query");
            let batches = rows.collect().await.expect("batches");
            let table = MemTable::try_new(batches[0].schema(), vec![batches.clone(), batches]);
            session
                .register_table(name, Arc::new(table.expect("a table")))
                .expect("a name");
        }
        session.sql(sql).await.expect("a query")
    }

    async fn checked(rows: DataFrame) -> Result<()> {
        check(&rows.create_physical_plan().await.expect("a plan"))
    }

    #[tokio::test]
    async fn chance_is_refused_where_others_depend_on_it() {
        for sql in [
            "SELECT a, random() AS r FROM t",
            "SELECT a FROM t WHERE random() < 0.5",
            "SELECT a, random() AS r FROM t ORDER BY a",
            "SELECT a, random() AS r FROM t ORDER BY r",
            "SELECT t.a, random() AS r FROM t JOIN u ON t.a = u.a",
            "SELECT a FROM t LIMIT 5",
            "SELECT a, count(*) AS n FROM t GROUP BY a",
            "SELECT a FROM t UNION ALL SELECT a FROM u WHERE random() < 0.5",
            "SELECT a, now() AS n FROM t WHERE a > 1 ORDER BY a",
        ] {
            checked(rows(sql).await)
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let again = "when a lost part is done again";
        let counted = "cannot be counted again";
        for (sql, why) in [
            (
                "SELECT g, count(*) AS n FROM (SELECT CAST(random() * 10 AS INT) AS g FROM t) GROUP BY g",
                again,
            ),
            (
                "SELECT t.a FROM t JOIN (SELECT a FROM u WHERE random() < 0.5) AS v ON t.a = v.a",
                again,
            ),
            (
                "SELECT t.a FROM t JOIN (SELECT a FROM u LIMIT 3) AS v ON t.a = v.a",
                again,
            ),
            ("SELECT a FROM t WHERE a > (SELECT random() * 10)", again),
            ("SELECT t.a FROM t JOIN u ON t.a = u.a WHERE random() < 0.5", again),
            ("SELECT t.a FROM t JOIN u ON t.a = u.a AND t.a * random() < u.a", again),
            ("SELECT a FROM t WHERE random() < 0.5 ORDER BY a", counted),
            (
                "SELECT a FROM (SELECT a, random() AS r FROM t) WHERE r < 0.5 ORDER BY a",
                counted,
            ),
            (
                "SELECT a, count(*) FILTER (WHERE random() < 0.5) AS n FROM t GROUP BY a",
                counted,
            ),
        ] {
            let error = checked(rows(sql).await).await.expect_err(sql).to_string();
            assert!(
                error.contains(why) && error.contains("on one machine"),
                "{sql}: {error}"
            );
        }
        let source = rows("SELECT a FROM t").await;
        let by_chance = SessionContext::new().create_physical_expr(random(), source.schema());
        let by_chance = Partitioning::Hash(vec![by_chance.expect("an expression")], 4);
        let scan = source.create_physical_plan().await.expect("a plan");
        for (by, why) in [
            (by_chance, again),
            (Partitioning::RoundRobinBatch(4), "leave the repartition out"),
        ] {
            let plan: Arc<dyn ExecutionPlan> = Arc::new(RepartitionExec::try_new(scan.clone(), by).expect("a plan"));
            let error = check(&plan).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
