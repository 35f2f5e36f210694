//! Runs a query and writes its rows as a dataset.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use squall_dataset::DatasetUrl;
use squall_schema::metadata::{DatasetMetadata, FileEntry};
use squall_schema::{Error, Field, Result, Schema};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::Xxh3;

use crate::commit::Staging;
use crate::conform::{Evidence, Target};
use crate::error::query_error;
use crate::source::SourceTable;
use crate::write::{Layout, Written, write_partition};

/// Bytes of a row group when nothing else is said: enough for sequential reads, small beside memory.
const DEFAULT_ROW_GROUP_BYTES: u64 = 32 << 20;
/// Bytes of a file when nothing else is said.
const DEFAULT_FILE_BYTES: u64 = 512 << 20;
/// Partitions of a plan, the same on every machine: they decide which row lands in which file.
const PARTITIONS: usize = 8;

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Small, and fast to decompress.
    #[default]
    Zstd,
    /// What Spark writes.
    Snappy,
    /// Faster than Snappy.
    Lz4,
    /// Not at all.
    None,
}

/// Writes the rows of a DataFusion `DataFrame` as a dataset.
///
/// ```
/// use squall_converter::{Converter, session};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rows = session().sql("SELECT value AS id, value * 0.5 AS x FROM generate_series(1, 1000)").await?;
/// let train = Converter::new("memory://doc/train").convert(rows).await?;
/// assert_eq!(train.rows(), 1000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Converter {
    destination: String,
    layout: Layout,
}

impl Converter {
    /// A converter that writes to `destination`, a URL or a path where nothing is yet.
    pub fn new(destination: impl Into<String>) -> Self {
        Self {
            destination: destination.into(),
            layout: Layout {
                row_group_bytes: DEFAULT_ROW_GROUP_BYTES,
                file_bytes: DEFAULT_FILE_BYTES,
                compression: Compression::default(),
            },
        }
    }

    /// About how many encoded bytes a row group has; 32 MiB if not given.
    pub fn row_group_bytes(mut self, bytes: u64) -> Self {
        self.layout.row_group_bytes = bytes;
        self
    }

    /// About how many bytes a file has at most; 512 MiB if not given.
    pub fn file_bytes(mut self, bytes: u64) -> Self {
        self.layout.file_bytes = bytes;
        self
    }

    /// How pages are compressed; [`Compression::Zstd`] if not given.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.layout.compression = compression;
        self
    }

    /// Runs the plan of `rows` and writes what it gives, its partitions side by side.
    ///
    /// The dataset is visible only when it is complete; after an error nothing is at the destination.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the query and takes away what was written to a file system. In a store without renames
    /// the files stay, under a marker that keeps readers away.
    pub async fn convert(self, rows: DataFrame) -> Result<Converted> {
        self.convert_declared(rows, &[]).await
    }

    /// Converts rows whose columns of these fields' names are stored as the fields are, and mean what the fields say.
    async fn convert_declared(self, rows: DataFrame, declared: &[Field]) -> Result<Converted> {
        let url = DatasetUrl::parse(&self.destination)?;
        let context = Arc::new(rows.task_ctx());
        let plan = rows.create_physical_plan().await.map_err(query_error)?;
        let target = Target::of_query(&plan.schema(), declared)?;
        let mut staging = Staging::begin(&url).await?;
        match self.write(plan, context, &target, &mut staging).await {
            Ok(metadata) => Ok(Converted { url, metadata }),
            Err(error) => {
                staging.abort().await;
                Err(error.at("URL", &url))
            }
        }
    }

    async fn write(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        target: &Target,
        staging: &mut Staging,
    ) -> Result<DatasetMetadata> {
        let mut tasks = JoinSet::new();
        let stop = Arc::new(AtomicBool::new(false));
        for partition in 0..plan.output_partitioning().partition_count() {
            let (plan, context) = (plan.clone(), context.clone());
            let (target, layout, store) = (target.clone(), self.layout.clone(), staging.store().clone());
            let stop = stop.clone();
            tasks.spawn(async move {
                let rows = plan.execute(partition, context).map_err(query_error)?;
                let rows = rows.take_while(|_| std::future::ready(!stop.load(Ordering::Relaxed)));
                write_partition(rows, partition, &target, &layout, &store).await
            });
        }
        let mut written = Vec::new();
        let mut evidence = Evidence::new(&target.schema);
        let mut failure = None;
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(Ok((files, seen))) => {
                    written.extend(files);
                    evidence.merge(&seen);
                }
                Ok(Err(error)) => failure = failure.or(Some(error)),
                Err(error) => failure = failure.or(Some(Error::internal("a writer panicked").with_source(error))),
            }
            if failure.is_some() {
                // Not aborted: a store finishes in the background what an aborted task began, and would put a file back
                // that is taken away below.
                stop.store(true, Ordering::Relaxed);
            }
        }
        written.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        if let Some(error) = failure {
            return Err(error);
        }
        if written.is_empty() {
            return Err(Error::invalid("the query gave no row: nothing is written"));
        }
        let metadata = describe(target.declare(evidence.shapes(&target.schema)?)?, written)?;
        staging.commit(target, &metadata).await?;
        Ok(metadata)
    }
}

fn describe(schema: Schema, written: Vec<Written>) -> Result<DatasetMetadata> {
    let mut digest = Xxh3::new();
    let fields =
        serde_json::to_vec(&schema).map_err(|error| Error::internal("a schema is not JSON").with_source(error))?;
    digest.update(&fields);
    for file in &written {
        digest.update(file.entry.path.as_bytes());
        digest.update(&file.entry.size.to_le_bytes());
        digest.update(&file.digest.to_le_bytes());
    }
    Ok(DatasetMetadata {
        created_by: concat!("squall ", env!("CARGO_PKG_VERSION")).to_owned(),
        fingerprint: format!("{:032x}", digest.digest128()),
        schema,
        partition_by: Vec::new(),
        files: written.into_iter().map(|file| file.entry).collect(),
    })
}

/// A dataset that was written.
#[derive(Debug, Clone)]
pub struct Converted {
    url: DatasetUrl,
    metadata: DatasetMetadata,
}

impl Converted {
    /// Where it is; a reader opens this.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Its fields, with the shapes that were found.
    pub fn schema(&self) -> &Schema {
        &self.metadata.schema
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.files()
            .iter()
            .flat_map(|file| &file.row_groups)
            .map(|row_group| row_group.rows)
            .sum()
    }

    /// Its row groups.
    pub fn n_row_groups(&self) -> usize {
        self.files().iter().map(|file| file.row_groups.len()).sum()
    }

    /// Its files.
    pub fn files(&self) -> &[FileEntry] {
        &self.metadata.files
    }

    /// A digest of schema and bytes.
    pub fn fingerprint(&self) -> &str {
        &self.metadata.fingerprint
    }
}

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
    let destination = DatasetUrl::parse(&converter.destination)?;
    if let (Some(from), Some(to)) = (url.to_file_path(), destination.to_file_path())
        && resolve(&to).starts_with(resolve(&from))
    {
        return Err(Error::invalid("the destination lies inside the source").at("URL", &destination));
    }
    let table = SourceTable::open(&url).await?;
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
