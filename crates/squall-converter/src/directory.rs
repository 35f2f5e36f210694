//! A directory of Parquet files, all of it or what SQL selects, to a dataset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
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
    let dataset = table.dataset();
    let (fields, unsupported) = (dataset.schema().fields().to_vec(), dataset.unsupported().to_vec());
    // A field that Petastorm declares and no file has is no column of the table.
    let columns = table.schema();
    session.register_table("source", Arc::new(table)).map_err(query_error)?;
    // A query and nothing else: COPY and CREATE EXTERNAL TABLE would touch files that nobody named.
    let query = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let all = || {
        // In the order that readers see, and not that of the files.
        let names = fields.iter().map(|field| field.name.as_str());
        let names = names.chain(unsupported.iter().map(|column| column.name.as_str()));
        let names = names.filter(|name| columns.column_with_name(name).is_some());
        let names = names.map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
        format!("SELECT {} FROM source", names.collect::<Vec<_>>().join(", "))
    };
    let sql = sql.map_or_else(all, str::to_owned);
    let rows = session.sql_with_options(&sql, query).await.map_err(query_error)?;
    if let LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) = rows.logical_plan() {
        return Err(Error::invalid(
            "expected a query that gives rows to convert, found one that explains or describes",
        ));
    }
    let passed_on = passed_on(rows.logical_plan());
    let unreadable = unsupported.iter().find(|column| {
        let own = |(name, source): &(String, String)| *name == column.name && *source == column.name;
        passed_on.iter().any(own)
    });
    if let Some(column) = unreadable {
        return Err(Error::unsupported(format!(
            "column {:?} cannot be read: {}; leave it out, or take what is stored under another name in SQL",
            column.name, column.reason
        ))
        .at("URL", &url));
    }
    let declared = passed_on.iter().filter_map(|(name, source)| {
        let field = fields.iter().find(|field| field.name == *source)?.clone();
        Some(Field {
            name: name.clone(),
            ..field
        })
    });
    let declared: Vec<_> = declared.collect();
    converter.convert_declared(rows, &declared).await
}

/// The columns that a query passes on, by their names in its result and in the source. They are what the source says they are:
/// cells keep their codec, and numbers the dtype that Parquet has no type for. What the query computes is what the engine says.
fn passed_on(plan: &LogicalPlan) -> Vec<(String, String)> {
    let of_source = |column: &Column| column.relation.as_ref().is_some_and(|table| table.table() == "source");
    let mut columns: Vec<_> = plan
        .schema()
        .columns()
        .into_iter()
        .filter(of_source)
        .map(|column| (column.name.clone(), column.name))
        .collect();
    let mut top = plan;
    while let LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Filter(_) = top {
        top = top.inputs()[0];
    }
    if let LogicalPlan::Projection(projection) = top {
        let renamed = projection.expr.iter().filter_map(|own| match own {
            Expr::Alias(alias) => match &*alias.expr {
                Expr::Column(column) if of_source(column) => Some((alias.name.clone(), column.name.clone())),
                _ => None,
            },
            _ => None,
        });
        columns.extend(renamed);
    }
    columns
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
