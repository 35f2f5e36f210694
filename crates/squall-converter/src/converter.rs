//! Runs a query and writes its rows as a dataset.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs, StatisticsContext, displayable};
use futures::Stream;
use squall_dataset::{DatasetUrl, OpenOptions, StoreOptions, TimeZone};
use squall_schema::{ByteSize, Error, Field, Result, Schema, Value};

use crate::cache::{self, Keying};
use crate::checkpoint::Checkpoint;
use crate::commit::Staging;
use crate::conform::Target;
use crate::converted::Converted;
use crate::draft::Draft;
use crate::engine::{self, Output};
use crate::format::SourceFormat;
use crate::key::Key;
use crate::layout::{BloomFilter, Compression, Layout, Statistics};
use crate::marker::Lease;
use crate::memory::Memory;
use crate::petastorm::Petastorm;
use crate::progress::{Meter, Phase, Progress};
use crate::records::TextOptions;
use crate::revision::{Existing, SaveMode};
use crate::rules::{FloatPrecision, ImageRule, Rules};
use crate::spill::Spill;
use crate::steady::{is_repeatable, wants_order};
use crate::write::Writer;

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
    /// Takes the place of the destination, with what is secret in it.
    place: Option<DatasetUrl>,
    pub(crate) layout: Layout,
    pub(crate) memory_limit: Option<ByteSize>,
    pub(crate) spill_directory: Option<PathBuf>,
    /// Whether the destination is a cache, and what names a conversion in it.
    pub(crate) keying: Option<Keying>,
    pub(crate) mode: SaveMode,
    lease: Lease,
    /// How the destination is reached.
    pub(crate) store: StoreOptions,
    pub(crate) source: OpenOptions,
    pub(crate) source_format: Option<SourceFormat>,
    pub(crate) delta_version: Option<u64>,
    pub(crate) text: TextOptions,
    /// Those of a query over directories.
    pub(crate) partitions: Option<NonZeroUsize>,
    pub(crate) rules: Rules,
    /// Counts what is read and written.
    pub(crate) meter: Meter,
    /// Where the plan runs, if not in this process.
    #[cfg(feature = "ballista")]
    cluster: Option<crate::ballista::Cluster>,
}

impl Converter {
    /// A converter that writes to `destination`, a URL or a path where nothing is yet.
    pub fn new(destination: impl Into<String>) -> Self {
        Self {
            destination: destination.into(),
            place: None,
            layout: Layout::default(),
            memory_limit: None,
            spill_directory: None,
            keying: None,
            mode: SaveMode::default(),
            lease: Lease::default(),
            store: StoreOptions::default(),
            source: OpenOptions::default(),
            source_format: None,
            delta_version: None,
            text: TextOptions::default(),
            partitions: None,
            rules: Rules::default(),
            meter: Meter::default(),
            #[cfg(feature = "ballista")]
            cluster: None,
        }
    }

    /// Takes the destination for a cache, the parent of a dataset for each conversion. A conversion that was made before is found by its plan,
    /// its options and what it reads: of files paths, sizes, and ETags or times, of tables in memory their rows. So changed sources
    /// are converted anew, and the same ones once, by however many processes at a time. A query with functions as `random()` or `now()`, or
    /// over tables that do not tell whether they changed, is refused: see [`Converter::cache_key`].
    pub fn cached(mut self) -> Self {
        self.keying.get_or_insert(Keying::Plan);
        self
    }

    /// [`Converter::cached`], where this name and the options find a conversion, whatever it reads.
    pub fn cache_key(mut self, name: impl Into<String>) -> Self {
        self.keying = Some(Keying::Name(name.into()));
        self
    }

    /// What happens where a dataset is already: an error if not given. Readers that have it open read on after an append; after an
    /// overwrite they find their files gone, which is an error that says so. The rows of an append have the columns that are
    /// there, in their order.
    pub fn mode(mut self, mode: SaveMode) -> Self {
        self.mode = mode;
        self
    }

    /// In a store: after how long a marker that stands still is that of a dead conversion, and taken over; 30 s if not given. An owner
    /// puts it anew six times in that time. On a file system the system knows who lives.
    pub fn take_over_after(mut self, silence: Duration) -> Self {
        self.lease = Lease::of(silence);
        self
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

    /// For what the least and the greatest value are kept; [`Statistics::Pages`] if not given.
    pub fn statistics(mut self, statistics: Statistics) -> Self {
        self.layout.statistics = statistics;
        self
    }

    /// Writes a bloom filter of a column, by which readers skip row groups that do not have a value.
    pub fn bloom_filter(mut self, column: impl Into<String>, filter: BloomFilter) -> Self {
        self.layout.bloom_filters.insert(column.into(), filter);
        self
    }

    /// Whether a column is tried to be written as a dictionary of its values: yes if not given, but for cells of images and
    /// tensors, of which no two are the same.
    pub fn dictionary(mut self, column: impl Into<String>, enabled: bool) -> Self {
        self.layout.dictionary.insert(column.into(), enabled);
        self
    }

    /// Puts rows in directories by the values of these columns, outermost first, as Hive and Spark do: `a=1/b=x/`. The
    /// columns are then not in the files. Text that is empty, which Spark takes for null, is refused.
    pub fn partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.layout.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sorts all rows by these columns, ascending, nulls last; the names of the files ascend with them. Rows of equal values
    /// stay in the order of the query. With [`Converter::partition_by`] it sorts the rows of each directory.
    pub fn sort_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.layout.sort_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Puts all rows in a random order, the same for the same seed and input. With [`Converter::partition_by`] it shuffles the
    /// rows of each directory.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.layout.shuffle = Some(seed);
        self
    }

    /// How much memory the query and the writers may take together. What does not fit is spilled to disk; fewer partitions are
    /// written at the same time. It must hold two and a half row groups and some more. Without it, the limit is that of the query's session.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.memory_limit = Some(limit);
        self
    }

    /// Where rows are spilled to; beside the destination if not given, or to the system's directory for temporary files where
    /// the destination is not a local one.
    pub fn spill_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spill_directory = Some(directory.into());
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

    /// What the files of the source are, where their names and first bytes do not tell it rightly.
    pub fn source_format(mut self, format: SourceFormat) -> Self {
        self.source_format = Some(format);
        self
    }

    /// Which version of a Delta table is read; the newest if not given.
    pub fn delta_version(mut self, version: u64) -> Self {
        self.delta_version = Some(version);
        self
    }

    /// How text is read, where the source is CSV or JSON.
    pub fn text(mut self, text: TextOptions) -> Self {
        self.text = text;
        self
    }

    /// In how many partitions [`convert_directory`](crate::convert_directory) runs its query: 8 if not given, on every machine. So many may be
    /// read and written at the same time, which on a cluster should be some for each of its tasks. Another number puts rows into other
    /// files. A `DataFrame` has the partitions of its session.
    pub fn partitions(mut self, partitions: NonZeroUsize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// What becomes of floating-point numbers; doubles become `float32` if not given. Rows of [`Converter::materialize`] have the
    /// dtypes of their schema.
    pub fn floats(mut self, precision: FloatPrecision) -> Self {
        self.rules.set_floats(precision);
        self
    }

    /// What the columns are: these of the result, in this order, in these dtypes and shapes, in cells where a field has a codec.
    /// A value that does not fit, and a null where none may be, are errors that name the row; columns that are not declared are
    /// left out.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.rules.set_schema(schema);
        self
    }

    /// Makes cells of a column of images, of bytes or of paths.
    pub fn image(mut self, column: impl Into<String>, rule: ImageRule) -> Self {
        self.rules.add_image(column.into(), rule);
        self
    }

    /// Makes the values of a column by a closure: of each value, nulls too, one of `field`, which is stored in cells where it has a
    /// codec. An error or a panic of it ends the conversion, and names the row.
    pub fn encode<F>(mut self, column: impl Into<String>, field: Field, encode: F) -> Self
    where
        F: Fn(Value) -> Result<Value> + Send + Sync + 'static,
    {
        self.rules.add_encoder(column.into(), field, Arc::new(encode));
        self
    }

    /// Is told, about ten times a second, how far the conversion is. It is called by what writes, and holds it up while it runs.
    pub fn progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.meter = Meter::new(report);
        self
    }

    /// Runs the plan on a cluster, and has its executors write the files; this process commits them. Sources and destination must be
    /// seen by all machines under the same URLs. Closures, and rows that are made in this process, are not for a cluster.
    ///
    /// Rows of a session of Ballista's client are converted by its cluster without that:
    /// [`Cluster::of`](crate::Cluster::of).
    #[cfg(feature = "ballista")]
    pub fn cluster(mut self, cluster: crate::ballista::Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Refuses a cluster, for rows that are made in this process.
    pub(crate) fn check_is_here(&self) -> Result<()> {
        #[cfg(feature = "ballista")]
        if self.cluster.is_some() {
            return Err(Error::unsupported(
                "rows that are made in this process are converted in it, and not by a cluster",
            ));
        }
        Ok(())
    }

    /// The same converter with another destination, which is no cache.
    pub(crate) fn at(self, place: DatasetUrl) -> Self {
        Self {
            place: Some(place),
            keying: None,
            ..self
        }
    }

    /// Whether its destination is a cache.
    pub(crate) fn is_cached(&self) -> bool {
        self.keying.is_some()
    }

    /// Where it writes to.
    pub(crate) fn url(&self) -> Result<DatasetUrl> {
        match &self.place {
            Some(place) => Ok(place.clone()),
            None => DatasetUrl::parse(&self.destination),
        }
    }

    /// A place to spill to, where there may be something to spill.
    pub(crate) async fn spill(&self, url: &DatasetUrl, mark: Option<&str>) -> Result<Option<Spill>> {
        if self.memory_limit.is_none() && !self.layout.is_ordered() {
            return Ok(None);
        }
        let beside = url.to_file_path().and_then(|path| {
            // The nearest directory that is there: no other is made for it.
            path.ancestors().skip(1).find(|above| above.is_dir()).map(PathBuf::from)
        });
        let directory = self
            .spill_directory
            .clone()
            .or(beside)
            .unwrap_or_else(std::env::temp_dir);
        Spill::begin(&directory, mark).await.map(Some)
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::new(self.memory_limit, self.layout.row_group_bytes)
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
    pub(crate) async fn convert_declared(mut self, rows: DataFrame, declared: &[Field]) -> Result<Converted> {
        self.check_mode()?;
        match self.keying.take() {
            Some(keying) => cache::convert(self, keying, rows, declared).await,
            None => self.convert_now(rows, declared).await,
        }
    }

    /// Refuses the next version of a dataset in a cache.
    pub(crate) fn check_mode(&self) -> Result<()> {
        if self.keying.is_some() && self.mode != SaveMode::ErrorIfExists {
            return Err(Error::invalid(
                "a cache has a dataset for each conversion: none is appended to or overwritten",
            ));
        }
        Ok(())
    }

    pub(crate) async fn convert_now(mut self, rows: DataFrame, declared: &[Field]) -> Result<Converted> {
        #[cfg(feature = "ballista")]
        if let Some(cluster) = self.cluster_of(&rows).await? {
            return crate::ballista::convert(&mut self, &cluster, rows, declared).await;
        }
        let url = self.url()?;
        let query = rows.clone();
        let (plan, context) = engine::plan(rows).await?;
        self.layout.by_content = wants_order(&plan, &self.layout);
        let steps = self.rules.plan(&plan.schema(), declared, &self.source.store)?;
        let (columns, existing) = self.fit(&url, steps.schema()).await?;
        let target = Target::of_query(&columns, steps.declared(), self.layout.petastorm.as_ref())?;
        self.check(&target, &existing)?;
        let memory = self.memory()?;
        let mark = match existing {
            None if is_repeatable(&plan) => self.mark(&query, &plan, declared).await,
            _ => None,
        };
        let staging = match existing {
            Some(_) => self.stage(&url, existing).await?,
            None => Staging::begin(&url, &self.store, self.lease, mark.as_deref()).await?,
        };
        let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
        let total_rows = statistics.ok().and_then(|all| all.num_rows.get_value().copied());
        self.meter.begin(total_rows.map(|rows| rows as u64));
        let mut kept = None;
        let written = async {
            let mut spill = self.spill(&url, mark.as_deref()).await?;
            let sorted = spill.as_mut().and_then(|spill| spill.checkpoint.as_mut());
            if let (Some(sorted), Some(written)) = (sorted, &staging.checkpoint) {
                sorted.count_with(written);
            }
            let context = match &spill {
                Some(spill) => memory.context(context, spill.path())?,
                None => context,
            };
            let writer = Writer::new(&target, (&self.layout, &memory), staging.store(), &staging.prefix())?;
            let writer = Arc::new(writer.with_meter(&self.meter));
            let checkpoint = staging.checkpoint.clone();
            let spill = kept.insert(spill);
            engine::run((plan, Arc::new(context)), steps, writer, memory, spill, checkpoint).await
        };
        let written = written.await;
        let converted = self.finish(url, &target, staging, written).await;
        // Until here: without the runs, what is written of them would be worth nothing to who goes on.
        drop(kept);
        converted
    }

    /// The cluster that was given, or that whose session the rows are of.
    #[cfg(feature = "ballista")]
    async fn cluster_of(&mut self, rows: &DataFrame) -> Result<Option<crate::ballista::Cluster>> {
        match self.cluster.take() {
            Some(cluster) => Ok(Some(cluster)),
            None => crate::ballista::Cluster::of_state(&rows.clone().into_parts().0).await,
        }
    }

    /// What a conversion is known by to the one that goes on when it was killed; none where nobody can tell that they are the same.
    async fn mark(&self, rows: &DataFrame, plan: &Arc<dyn ExecutionPlan>, declared: &[Field]) -> Option<String> {
        if self.rules.has_closures() || self.rules.has_images() {
            return None;
        }
        // Functions are known by their names: those of another build of the program may be others.
        let program = std::env::current_exe().and_then(std::fs::metadata).ok()?;
        let options = format!(
            "{} {:?} {} {:?} {:?} {:?} {:?} {}",
            program.len(),
            program.modified().ok()?,
            datafusion::DATAFUSION_VERSION,
            self.layout,
            self.rules,
            self.memory_limit,
            self.source.time_zone,
            // Which rows a partition has is the plan's to say, and not the query's.
            displayable(plan.as_ref()).indent(true)
        );
        let key = Key::of_options(&options, declared).ok()?.plan(rows).await;
        key.ok().map(Key::finish)
    }

    /// The columns as they are written, and the dataset that gets a next version.
    pub(crate) async fn fit(&mut self, url: &DatasetUrl, columns: &SchemaRef) -> Result<(SchemaRef, Option<Existing>)> {
        let existing = Existing::find(url, &self.store, self.mode).await?;
        let columns = match &existing {
            Some(existing) => existing.fit(columns, &mut self.layout).await?,
            None => columns.clone(),
        };
        Ok((columns, existing))
    }

    /// Refuses what cannot be written, before a row is read.
    pub(crate) fn check(&self, target: &Target, existing: &Option<Existing>) -> Result<()> {
        self.layout.check(target)?;
        existing.as_ref().map_or(Ok(()), |existing| existing.check(target))
    }

    /// A place for files that are not visible yet.
    pub(crate) async fn stage(&self, url: &DatasetUrl, existing: Option<Existing>) -> Result<Staging> {
        match existing {
            Some(existing) => Staging::within(url, existing).await,
            None => Staging::begin(url, &self.store, self.lease, None).await,
        }
    }

    /// Writes the rows of a stream in their order, and makes them visible.
    pub(crate) async fn write_rows<S>(
        &self,
        url: DatasetUrl,
        target: &Target,
        existing: Option<Existing>,
        rows: S,
    ) -> Result<Converted>
    where
        S: Stream<Item = Result<RecordBatch>> + Unpin,
    {
        let memory = self.memory()?;
        let staging = self.stage(&url, existing).await?;
        let written = async {
            let spill = self.spill(&url, None).await?;
            let writer = Writer::new(target, (&self.layout, &memory), staging.store(), &staging.prefix())?;
            engine::write_stream(rows, Arc::new(writer.with_meter(&self.meter)), memory, &spill).await
        };
        let written = written.await;
        self.finish(url, target, staging, written).await
    }

    /// Makes visible what was written, or takes it away.
    pub(crate) async fn finish(
        &self,
        url: DatasetUrl,
        target: &Target,
        mut staging: Staging,
        written: Result<Output>,
    ) -> Result<Converted> {
        let resumed = staging.checkpoint.as_ref().map_or(0, Checkpoint::resumed);
        let committed = async {
            let (files, evidence) = written?;
            self.meter.enter(Phase::Committing);
            let draft = Draft::new(&self.layout, target, files, &evidence)?;
            staging.commit(draft).await
        };
        match committed.await {
            Ok(metadata) => {
                self.meter.enter(Phase::Done);
                Ok(Converted::new(url, metadata, self.store.clone()).with_resumed(resumed))
            }
            Err(error) => {
                staging.abort().await;
                Err(error.at("URL", &url))
            }
        }
    }
}
