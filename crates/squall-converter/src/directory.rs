//! Directories of files, all of one or what SQL selects of several, to a dataset.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
use squall_dataset::{DatasetUrl, Store, UnsupportedColumn};
use squall_schema::{Error, Field, Result};

use crate::converted::Converted;
use crate::converter::Converter;
use crate::error::query_error;
use crate::format::SourceFormat;
use crate::records::RecordTable;
use crate::source::SourceTable;

/// Partitions of a plan where nothing else is said, the same on every machine: they decide which row lands in which file.
const PARTITIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// A DataFusion session whose plans do not depend on the machine: the same query over the same files writes the same
/// rows to the same files, as far as it does not shuffle them between partitions itself.
pub fn session() -> SessionContext {
    session_of(PARTITIONS)
}

fn session_of(partitions: NonZeroUsize) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions.get())
        .with_round_robin_repartition(false);
    let parquet = &mut config.options_mut().execution.parquet;
    // Views pay off where strings are compared; here they are copied to files.
    parquet.schema_force_view_types = false;
    config.options_mut().sql_parser.enable_ident_normalization = false;
    SessionContext::new_with_config(config)
}

/// Converts the directory, or the file, at `source`: all of it, or what `sql` selects from the table `source`.
///
/// It may be Parquet, CSV, JSON or Avro: see [`SourceFormat`]. Its schema is that of the files; of text, see
/// [`TextOptions`](crate::TextOptions).
///
/// # Cancel safety
///
/// As [`Converter::convert`].
pub async fn convert_directory(source: &str, converter: Converter, sql: Option<&str>) -> Result<Converted> {
    convert_sources(&[("source", source)], converter, sql).await
}

/// Converts what `sql` selects from several directories or files, each of them a table of the name beside its URL. One alone may
/// be converted whole, without `sql`.
///
/// # Cancel safety
///
/// As [`Converter::convert`].
pub async fn convert_sources(sources: &[(&str, &str)], converter: Converter, sql: Option<&str>) -> Result<Converted> {
    let (session, tables) = open_sources(sources, &converter).await?;
    let (rows, declared) = query(&session, &tables, sql).await?;
    converter.convert_declared(rows, &declared).await
}

/// A source that the session has as a table.
pub(crate) struct Opened {
    name: String,
    url: DatasetUrl,
    /// What Parquet says of its columns beyond their types, and those that no reader reads.
    fields: Vec<Field>,
    unsupported: Vec<UnsupportedColumn>,
    /// All columns that can be selected, in the order of readers.
    columns: Vec<String>,
}

/// A session with the sources as its tables.
pub(crate) async fn open_sources(
    sources: &[(&str, &str)],
    converter: &Converter,
) -> Result<(SessionContext, Vec<Opened>)> {
    let session = session_of(converter.partitions.unwrap_or(PARTITIONS));
    let mut tables: Vec<Opened> = Vec::with_capacity(sources.len());
    for (name, source) in sources {
        let url = DatasetUrl::parse(source)?;
        let destination = converter.url()?;
        let is_inside = match (url.to_file_path(), destination.to_file_path()) {
            (Some(from), Some(to)) => resolve(&to).starts_with(resolve(&from)),
            _ => url.contains(&destination),
        };
        if is_inside {
            return Err(Error::invalid("the destination lies inside the source").at("URL", &destination));
        }
        if tables.iter().any(|table| table.name == *name) {
            return Err(Error::invalid(format!("two sources have the name {name:?}")));
        }
        let (table, opened) = open_source(name, &url, converter).await?;
        session
            .register_table(TableReference::bare(*name), table)
            .map_err(query_error)?;
        tables.push(opened);
    }
    Ok((session, tables))
}

async fn open_source(name: &str, url: &DatasetUrl, converter: &Converter) -> Result<(Arc<dyn TableProvider>, Opened)> {
    let store = Store::open_with(url, &converter.source.store).await?;
    let format = match converter.source_format {
        Some(format) => format,
        None => SourceFormat::detect(&store).await?,
    };
    if format != SourceFormat::Parquet {
        let table: Arc<dyn TableProvider> = match format {
            SourceFormat::Delta => open_delta(&store, converter).await?,
            _ => Arc::new(RecordTable::open(store, format, &converter.text, &converter.source).await?),
        };
        let columns = table
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let opened = Opened {
            name: name.to_owned(),
            url: url.clone(),
            fields: Vec::new(),
            unsupported: Vec::new(),
            columns,
        };
        return Ok((table, opened));
    }
    let table = SourceTable::open_with(url, &converter.source).await?;
    let dataset = table.dataset();
    let (fields, unsupported) = (dataset.schema().fields().to_vec(), dataset.unsupported().to_vec());
    // In the order that readers see, and not that of the files. A field that Petastorm declares and no file has is no column of the
    // table.
    let names = fields.iter().map(|field| field.name.as_str());
    let names = names.chain(unsupported.iter().map(|column| column.name.as_str()));
    let schema = table.schema();
    let columns = names.filter(|name| schema.column_with_name(name).is_some());
    let opened = Opened {
        name: name.to_owned(),
        url: url.clone(),
        columns: columns.map(str::to_owned).collect(),
        fields,
        unsupported,
    };
    Ok((Arc::new(table), opened))
}

#[cfg(feature = "delta")]
async fn open_delta(store: &Store, converter: &Converter) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(
        crate::delta::DeltaSource::open(store, converter.delta_version).await?,
    ))
}

#[cfg(not(feature = "delta"))]
async fn open_delta(store: &Store, _: &Converter) -> Result<Arc<dyn TableProvider>> {
    Err(Error::unsupported(
        "a Delta table, whose log says which of its files count: squall was built without the feature delta; \
         --source-format parquet reads every file, those that the log removed too",
    )
    .at("URL", store.url()))
}

/// The rows that a query gives, and what the sources say of the columns that it passes on.
pub(crate) async fn query(
    session: &SessionContext,
    tables: &[Opened],
    sql: Option<&str>,
) -> Result<(DataFrame, Vec<Field>)> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql = match (sql, tables) {
        (Some(sql), _) => sql.to_owned(),
        (None, [table]) => {
            let names = table.columns.iter().map(|name| quoted(name));
            format!(
                "SELECT {} FROM {}",
                names.collect::<Vec<_>>().join(", "),
                quoted(&table.name)
            )
        }
        (None, _) => {
            return Err(Error::invalid(
                "several sources need SQL that says what is taken from each",
            ));
        }
    };
    let rows = plan_query(session, &sql).await?;
    let passed_on = passed_on(rows.logical_plan());
    let mut declared = Vec::new();
    for (name, table, source) in &passed_on {
        let Some(table) = tables.iter().find(|own| own.name == *table) else {
            continue;
        };
        let unreadable = table
            .unsupported
            .iter()
            .find(|column| name == source && column.name == *source);
        if let Some(column) = unreadable {
            return Err(Error::unsupported(format!(
                "column {:?} cannot be read: {}; leave it out, or take what is stored under another name in SQL",
                column.name, column.reason
            ))
            .at("URL", &table.url));
        }
        if let Some(field) = table.fields.iter().find(|field| field.name == *source) {
            declared.push(Field {
                name: name.clone(),
                ..field.clone()
            });
        }
    }
    Ok((rows, declared))
}

/// Plans a query and nothing else: COPY and CREATE EXTERNAL TABLE would touch files that nobody named.
pub(crate) async fn plan_query(session: &SessionContext, sql: &str) -> Result<DataFrame> {
    let options = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let rows = session.sql_with_options(sql, options).await.map_err(query_error)?;
    if let LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) = rows.logical_plan() {
        return Err(Error::invalid(
            "expected a query that gives rows to convert, found one that explains or describes",
        ));
    }
    Ok(rows)
}

/// The columns that a query passes on, by their names in its result, their table and their names there. They are what the source
/// says they are: cells keep their codec, and numbers the dtype that Parquet has no type for. What the query computes is what the
/// engine says.
fn passed_on(plan: &LogicalPlan) -> Vec<(String, String, String)> {
    let of_source = |column: &Column| Some((column.relation.as_ref()?.table().to_owned(), column.name.clone()));
    let own = |column: Column| {
        let (table, source) = of_source(&column)?;
        Some((column.name, table, source))
    };
    let mut columns: Vec<_> = plan.schema().columns().into_iter().filter_map(own).collect();
    let mut top = plan;
    while let LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Filter(_) = top {
        top = top.inputs()[0];
    }
    if let LogicalPlan::Projection(projection) = top {
        let renamed = projection.expr.iter().filter_map(|own| match own {
            Expr::Alias(alias) => match &*alias.expr {
                Expr::Column(column) => {
                    let (table, source) = of_source(column)?;
                    Some((alias.name.clone(), table, source))
                }
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
