//! Runs a query and writes its rows as a dataset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use squall_dataset::{DatasetUrl, OpenOptions, StoreOptions, TimeZone};
use squall_schema::metadata::{DatasetMetadata, FileEntry};
use squall_schema::{Error, Field, Result, Schema};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::Xxh3;

use crate::commit::Staging;
use crate::conform::Target;
use crate::error::query_error;
use crate::evidence::Evidence;
use crate::petastorm::Petastorm;
use crate::write::{Layout, Written, write_partition};

/// Bytes of a row group when nothing else is said: enough for sequential reads, small beside memory.
const DEFAULT_ROW_GROUP_BYTES: u64 = 32 << 20;
/// Bytes of a file when nothing else is said.
const DEFAULT_FILE_BYTES: u64 = 512 << 20;

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
    /// How the destination is reached.
    pub(crate) store: StoreOptions,
    pub(crate) source: OpenOptions,
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
                petastorm: None,
            },
            store: StoreOptions::default(),
            source: OpenOptions::default(),
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

    /// Writes the dataset such that Petastorm's readers open it.
    pub fn petastorm(mut self, petastorm: Petastorm) -> Self {
        self.layout.petastorm = Some(petastorm);
        self
    }

    /// The zone of times in the source's directory names, as Spark's session had it: a name such as `Europe/Zurich`, or an
    /// offset; UTC if not given. It is for [`convert_directory`](crate::convert_directory).
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.source = self.source.with_time_zone(zone);
        self
    }

    /// Settings of the store that it writes to, and of the one that [`convert_directory`](crate::convert_directory) reads, by
    /// the names that the object_store crate gives them. Local directories have none and ignore them; where two stores need
    /// different ones, see [`Converter::store`] and [`Converter::source_store`].
    pub fn storage_options<K: Into<String>, V: Into<String>>(
        mut self,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let options: Vec<(String, String)> = options.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        self.source.store = self.source.store.with_options(options.clone());
        self.store = self.store.with_options(options);
        self
    }

    /// How the store that it writes to is reached.
    pub fn store(mut self, store: StoreOptions) -> Self {
        self.store = store;
        self
    }

    /// How the store that [`convert_directory`](crate::convert_directory) reads is reached.
    pub fn source_store(mut self, store: StoreOptions) -> Self {
        self.source = self.source.with_store(store);
        self
    }

    /// Where it writes to.
    pub(crate) fn destination(&self) -> &str {
        &self.destination
    }

    /// How it lays out rows.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
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
    pub(crate) async fn convert_declared(self, rows: DataFrame, declared: &[Field]) -> Result<Converted> {
        let url = DatasetUrl::parse(&self.destination)?;
        let context = Arc::new(rows.task_ctx());
        let plan = rows.create_physical_plan().await.map_err(query_error)?;
        let target = Target::of_query(&plan.schema(), declared, self.layout.petastorm.as_ref())?;
        let staging = Staging::begin(&url, &self.store).await?;
        let written = self.write(plan, context, &target, &staging).await;
        self.finish(url, &target, staging, written).await
    }

    /// Makes visible what was written, or takes it away.
    pub(crate) async fn finish(
        &self,
        url: DatasetUrl,
        target: &Target,
        mut staging: Staging,
        written: Result<(Vec<Written>, Evidence)>,
    ) -> Result<Converted> {
        let committed = match written {
            Ok((files, evidence)) => self.commit(target, &mut staging, files, &evidence).await,
            Err(error) => Err(error),
        };
        match committed {
            Ok(metadata) => Ok(Converted { url, metadata }),
            Err(error) => {
                staging.abort().await;
                Err(error.at("URL", &url))
            }
        }
    }

    async fn commit(
        &self,
        target: &Target,
        staging: &mut Staging,
        mut written: Vec<Written>,
        evidence: &Evidence,
    ) -> Result<DatasetMetadata> {
        if written.is_empty() {
            return Err(Error::invalid("there is no row: nothing is written"));
        }
        written.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let schema = target.declare(evidence.shapes(&target.schema)?)?;
        let files: Vec<_> = written.iter().map(|file| (&file.entry, &file.keys[..])).collect();
        let petastorm = match &self.layout.petastorm {
            Some(petastorm) => petastorm.key_values(&schema, &files)?,
            None => Vec::new(),
        };
        let metadata = describe(schema, &written)?;
        staging.commit(target, &metadata, petastorm).await?;
        Ok(metadata)
    }

    async fn write(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        target: &Target,
        staging: &Staging,
    ) -> Result<(Vec<Written>, Evidence)> {
        let mut tasks = JoinSet::new();
        let stop = Arc::new(AtomicBool::new(false));
        for partition in 0..plan.output_partitioning().partition_count() {
            let (plan, context) = (plan.clone(), context.clone());
            let (target, layout, store) = (target.clone(), self.layout.clone(), staging.store().clone());
            let stop = stop.clone();
            tasks.spawn(async move {
                let rows = plan.execute(partition, context).map_err(query_error)?;
                let rows = rows.map(|rows| rows.map_err(query_error));
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
        match failure {
            Some(error) => Err(error),
            None => Ok((written, evidence)),
        }
    }
}

fn describe(schema: Schema, written: &[Written]) -> Result<DatasetMetadata> {
    let mut digest = Xxh3::new();
    let fields =
        serde_json::to_vec(&schema).map_err(|error| Error::internal("a schema is not JSON").with_source(error))?;
    digest.update(&fields);
    for file in written {
        digest.update(file.entry.path.as_bytes());
        digest.update(&file.entry.size.to_le_bytes());
        digest.update(&file.digest.to_le_bytes());
    }
    Ok(DatasetMetadata {
        created_by: concat!("squall ", env!("CARGO_PKG_VERSION")).to_owned(),
        fingerprint: format!("{:032x}", digest.digest128()),
        schema,
        partition_by: Vec::new(),
        files: written.iter().map(|file| file.entry.clone()).collect(),
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
