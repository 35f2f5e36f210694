//! A directory of Parquet files, all of it or what SQL selects, to a dataset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::logical_expr::LogicalPlan;
use squall_dataset::DatasetUrl;
use squall_schema::{Error, Field, Result};

use crate::converter::{Converted, Converter};
use crate::error::query_error;
use crate::source::SourceTable;

/// Partitions of a plan, the same on every machine: they decide which row lands in which file.
const PARTITIONS: usize = 8;

/// A DataFusion session whose plans do not depend on the machine: the same query over the same files writes the same
/// rows to the same files, as far as it does not shuffle them between partitions itself.
pub fn session() -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(PARTITIONS)
        .with_round_robin_repartition(false);
    let parquet = &mut config.options_mut().execution.parquet;
    // Views pay off where strings are compared; here they are copied to files.
    parquet.schema_force_view_types = false;
    config.options_mut().sql_parser.enable_ident_normalization = false;
    SessionContext::new_with_config(config)
}

/// Converts the directory, or the file, at `source`: all of it, or what `sql` selects from the table `source`.
///
/// # Cancel safety
///
/// As [`Converter::convert`].
pub async fn convert_directory(source: &str, converter: Converter, sql: Option<&str>) -> Result<Converted> {
    let url = DatasetUrl::parse(source)?;
    let destination = DatasetUrl::parse(converter.destination())?;
    if let (Some(from), Some(to)) = (url.to_file_path(), destination.to_file_path())
        && resolve(&to).starts_with(resolve(&from))
    {
        return Err(Error::invalid("the destination lies inside the source").at("URL", &destination));
    }
    let table = SourceTable::open_with(&url, &converter.source).await?;
    let session = session();
    let fields = table.dataset().schema().fields().to_vec();
    session.register_table("source", Arc::new(table)).map_err(query_error)?;
    // A query and nothing else: COPY and CREATE EXTERNAL TABLE would touch files that nobody named.
    let query = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let rows = session
        .sql_with_options(sql.unwrap_or("SELECT * FROM source"), query)
        .await;
    let rows = rows.map_err(query_error)?;
    if let LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) = rows.logical_plan() {
        return Err(Error::invalid(
            "expected a query that gives rows to convert, found one that explains or describes",
        ));
    }
    // A column that the query passes on keeps the name of its table, and is what the source says it is: cells keep their
    // codec, and numbers the dtype that Parquet has no type for. What the query computes is what the engine says.
    let passed_on = |field: &Field| {
        let mut columns = rows.schema().iter();
        let own = columns.find(|(_, column)| *column.name() == field.name);
        own.is_some_and(|(table, _)| table.is_some_and(|table| table.table() == "source"))
    };
    let declared: Vec<_> = fields.into_iter().filter(|field| passed_on(field)).collect();
    converter.convert_declared(rows, &declared).await
}

/// The path without links and dots, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let there = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match there {
        Some((ancestor, resolved)) => resolved.join(path.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}
