//! Where a user starts: the options of a reader, and what they mean.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use squall_dataset::StoreOptions;
use squall_dataset::cache::CacheOptions;
use squall_schema::{ByteSize, Error, Field, Result};

use crate::bad_rows::OnBadRow;
use crate::forecast::{self, Forecast, ForecastOptions};
use crate::image::ImageSpec;
use crate::io::Io;
use crate::ledger::Ledger;
use crate::map::{DEFAULT_CACHE_BYTES, MapDataset};
use crate::mix::Ending;
use crate::ngram::NGram;
use crate::options::{Options, Partition};
use crate::order::Shuffle;
use crate::pack::Pack;
use crate::predicate::Predicate;
use crate::rank::Topology;
use crate::reader::{BatchReader, Reader};
use crate::sampler::Sampler;
use crate::selector::RowGroupSelector;
use crate::share::Remainder;
use crate::source::SourceOptions;
use crate::split::Split;
use crate::state::ReaderState;
use crate::transform::TransformSpec;
use crate::view::Encoded;

/// Opens a dataset to read rows.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// let reader = squall_reader::make_reader("/data/train").rank(0, 2).epochs(10).seed(7).build()?;
/// for row in reader {
///     println!("{:?}", row?["digit"]);
/// }
/// # Ok(())
/// # }
/// ```
pub fn make_reader(url: impl Into<String>) -> ReaderBuilder<Reader> {
    ReaderBuilder::new(url.into())
}

/// Opens a dataset to read Arrow batches.
pub fn make_batch_reader(url: impl Into<String>) -> ReaderBuilder<BatchReader> {
    ReaderBuilder::new(url.into())
}

/// Opens a dataset to read rows by their index, as a sampler or a loader of your own asks for them: what PyTorch calls a
/// map-style dataset.
///
/// Of the options it takes those that say which rows and columns there are, `transform`, `seed` (for the transform), `workers` and
/// [`cache_bytes`](ReaderBuilder::cache_bytes). The others concern an order, which it does not have: they are an error.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// let digits = squall_reader::make_dataset("/data/train").columns(["id", "digit"]).build()?;
/// let last = digits.get(digits.len() - 1)?;
/// let some = digits.take(&[17, 3, 17])?;
/// assert_eq!(some.num_rows(), 3);
/// # Ok(())
/// # }
/// ```
pub fn make_dataset(url: impl Into<String>) -> ReaderBuilder<MapDataset> {
    ReaderBuilder::new(url.into())
}

/// Opens several datasets to read them mixed: each with its weight, in proportions that hold in every 1,000 samples. An
/// epoch ends by the rule of [`ReaderBuilder::ending`].
///
/// What concerns a dataset (columns, filters, transform, sampler, lanes, window) is given to its own builder; what concerns
/// the run (rank, epochs, seed, batch size, remainder, state, workers) to the mixture. Behind their transforms the datasets
/// must have the same fields. [`RowId::dataset`](squall_schema::RowId::dataset) tells where a row comes from.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// use squall_reader::{Ending, make_mixed_reader, make_reader};
///
/// let web = make_reader("/data/web").columns(["text"]);
/// let books = make_reader("/data/books").columns(["text"]);
/// let reader = make_mixed_reader([(web, 0.8), (books, 0.2)]).ending(Ending::Longest).seed(7).build()?;
/// # Ok(())
/// # }
/// ```
pub fn make_mixed_reader<R>(members: impl IntoIterator<Item = (ReaderBuilder<R>, f64)>) -> ReaderBuilder<R> {
    let members = members.into_iter().map(|(member, weight)| (member.options, weight));
    let mut mixture = ReaderBuilder::new(String::new());
    mixture.options.members = Some(members.collect());
    mixture
}

/// Options of a reader; [`ReaderBuilder::build`] checks them all.
#[must_use]
pub struct ReaderBuilder<R> {
    options: Options,
    reader: PhantomData<fn() -> R>,
}

impl<R> Clone for ReaderBuilder<R> {
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            reader: PhantomData,
        }
    }
}

impl<R> fmt::Debug for ReaderBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl<R> ReaderBuilder<R> {
    fn new(url: String) -> Self {
        let source = SourceOptions {
            url,
            ..SourceOptions::default()
        };
        Self {
            options: Options {
                source,
                ..Options::default()
            },
            reader: PhantomData,
        }
    }

    pub(crate) fn into_options(self) -> Options {
        self.options
    }

    /// This rank, from 0, and the number of ranks. Without it, rank 0 of 1.
    pub fn rank(mut self, rank: u64, world_size: u64) -> Self {
        self.options.rank = Some((rank, world_size));
        self
    }

    /// Rank and world size from the environment that a launcher sets: torchrun, Horovod, Open MPI, MPICH, srun of SLURM, the first
    /// of them in this order; rank 0 of 1 where there is none. A rank that is given too must be the same.
    pub fn rank_from_env(mut self) -> Self {
        self.options.rank_from_env = true;
        self
    }

    /// Which ranks take the same samples, those of a tensor or pipeline parallel group; each its own if not given.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.options.topology = Some(topology);
        self
    }

    /// How often the selected rows are read; 1 if not given. Each epoch has an order of its own.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.options.epochs = Some(epochs);
        self
    }

    /// Epochs without end.
    pub fn endless(mut self) -> Self {
        self.options.epochs = None;
        self
    }

    /// Seed of the order and of the transforms; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// How rows are shuffled; [`Shuffle::Windows`] if not given.
    pub fn shuffle(mut self, shuffle: Shuffle) -> Self {
        self.options.source.shuffle = Some(shuffle);
        self
    }

    /// Places in the epoch that are read side by side; [`DEFAULT_LANES`](crate::DEFAULT_LANES) if not given.
    pub fn lanes(mut self, lanes: u64) -> Self {
        self.options.source.lanes = Some(lanes);
        self
    }

    /// Rows that are shuffled together in a lane. If not given, as many as make 4 MiB in the dataset.
    pub fn window(mut self, rows: u64) -> Self {
        self.options.source.window = Some(rows);
        self
    }

    /// The columns that are read, in this order; all if not given. The order of the rows does not depend on it.
    ///
    /// `a.b` is the member `b` of the struct column `a`, unless a column has that name; only the member is fetched.
    pub fn columns<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.options.source.view.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Regular expressions for names of columns: those that one matches as a whole are read, in the order of the dataset,
    /// after the columns that [`ReaderBuilder::columns`] names. One that matches none is an error.
    pub fn columns_matching<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.options.source.view.patterns = Some(patterns.into_iter().map(Into::into).collect());
        self
    }

    /// Takes structs apart: a column `a` with members `b` and `c` is read as the columns `a.b` and `a.c`, null where the
    /// struct is. Lists of structs and maps stay as they are. Where-clauses name the members too, in quotes: `"a.b" > 0`.
    pub fn flatten_structs(mut self) -> Self {
        self.options.source.view.flatten = true;
        self
    }

    /// The shape of a column's values where the dataset leaves dimensions open: of the arrays of a table of Spark's, which Parquet
    /// does not tell to be of one length. They come as dense tensors then; a value of another size is an error.
    pub fn shape(mut self, column: impl Into<String>, dims: impl Into<Vec<usize>>) -> Self {
        self.options.source.view.shapes.push((column.into(), dims.into()));
        self
    }

    /// Reads scalar columns of one dtype as one tensor, made in one pass: `pack("features", ["f0", "f1"])` gives a field
    /// `features` of shape `[2]` in the place of `f0`, and the other columns are not delivered by themselves. A null in one of
    /// them is a bad row. In [`ReaderBuilder::columns`] the name of the pack stands for its columns.
    ///
    /// ```
    /// # use squall_reader::make_batch_reader;
    /// let reader = make_batch_reader("/data/train").pack("features", (0..20).map(|i| format!("f{i}")));
    /// ```
    pub fn pack<S: Into<String>>(mut self, name: impl Into<String>, columns: impl IntoIterator<Item = S>) -> Self {
        self.options.source.view.packs.push(Pack {
            name: name.into(),
            columns: columns.into_iter().map(Into::into).collect(),
        });
        self
    }

    /// [`ReaderBuilder::pack`] under the name `features`.
    pub fn features<S: Into<String>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.pack("features", columns)
    }

    /// Gives the cells of some fields as they are stored, as `bytes`: of jpeg images for a decoder on the GPU, say. `keep` is
    /// asked about each field that has a codec.
    ///
    /// ```
    /// # use squall_reader::make_reader;
    /// let reader = make_reader("/data/images").keep_encoded(|field| field.name == "photo");
    /// ```
    pub fn keep_encoded(mut self, keep: impl Fn(&Field) -> bool + Send + Sync + 'static) -> Self {
        self.options.source.view.encoded = Encoded(Some(Arc::new(keep)));
        self
    }

    /// Shows a part of each image of a field, in one size: cropped, resized and flipped while it is decoded, from png or jpeg cells
    /// of 8 bits. The field becomes `uint8[height, width]` or `uint8[height, width, 3]`; a [`transform`](Self::transform) sees it so.
    pub fn image(mut self, column: impl Into<String>, spec: ImageSpec) -> Self {
        self.options.source.images.push((column.into(), spec));
        self
    }

    /// A setting of the store by the name that the object_store crate gives it: `endpoint`, `aws_access_key_id`,
    /// `skip_signature` for anonymous access. What is not given comes from the environment; docs/stores.md lists what there is.
    ///
    /// ```
    /// # use squall_reader::make_reader;
    /// let reader = make_reader("s3://bucket/train").storage_option("endpoint", "https://minio.example");
    /// ```
    pub fn storage_option(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.storage_options([(name, value)])
    }

    /// Settings of the store: see [`ReaderBuilder::storage_option`].
    pub fn storage_options<K: Into<String>, V: Into<String>>(
        mut self,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let store = self.options.source.store.take().unwrap_or_default();
        self.options.source.store = Some(store.with_options(options));
        self
    }

    /// How the store is reached and how patiently it is read: retries, time limits, concurrency, hedging; and its storage
    /// options, in place of those that were given before.
    pub fn store(mut self, store: StoreOptions) -> Self {
        self.options.source.store = Some(store);
        self
    }

    /// The zone of the times in directory names, which Spark writes in that of its session: a name such as `Europe/Zurich`, an
    /// offset such as `+02:00`; UTC if not given. Times in files do not depend on it.
    pub fn time_zone(mut self, zone: impl Into<String>) -> Self {
        self.options.source.time_zone = Some(zone.into());
        self
    }

    /// A where-clause in SQL: only rows for which it is true are read, and if called again, those for which each of them is.
    /// It may name any column.
    ///
    /// It is evaluated while the reader is built, so that the number of rows is known and ranks stay equal. What directory names,
    /// statistics, bloom filters and page indexes rule out is not read, and readers of one process that select the same rows
    /// share the work; [`selection_report`](crate::Reader::selection_report) tells what was done.
    #[cfg(feature = "filter")]
    pub fn filter(mut self, sql: impl Into<String>) -> Self {
        self.options.source.rows.filter.add_sql(sql.into());
        self
    }

    /// A where-clause as an expression of DataFusion's, with the same checks as one in SQL. If called again, and where there is
    /// one in SQL too, all must hold. A column is named exactly as it is stored, with [`expr::col`](crate::expr::col); the
    /// `col` of DataFusion makes lower case of a name, and takes `a.b` apart.
    #[cfg(feature = "filter")]
    pub fn filter_expr(mut self, expression: datafusion_expr::Expr) -> Self {
        self.options.source.rows.filter.add_expression(expression);
        self
    }

    /// A local directory where the rows that a where-clause selects are stored, so that the next run need not look for them. A
    /// file there is of one clause on one state of the dataset; what is damaged is made anew. Without it nothing is stored.
    ///
    /// It is made when the reader is built: where that is impossible it is an error. A selection that cannot be written
    /// there is a warning of `tracing`.
    #[cfg(feature = "filter")]
    pub fn selection_cache(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.options.source.rows.filter.cache = Some(directory.into());
        self
    }

    /// Reads the selected rows once, decodes their cells, and keeps them in memory: every epoch is served from there, as of
    /// Petastorm's `InMemBatchedDataLoader`. Rows, order, states and errors are those of a reader without it; views of images and
    /// the transform, which differ by epoch, are made each time.
    ///
    /// `build` reads them, on [`workers`](Self::workers) threads. They count against [`memory_budget`](Self::memory_budget): where
    /// they do not fit it is an error that names the numbers. Each rank keeps all rows, for its share differs by epoch; with
    /// [`Partition::RowGroups`] those of its row groups. Not with an n-gram; of a mixture, each dataset by its own builder.
    ///
    /// ```no_run
    /// # use squall_reader::{Shuffle, make_batch_reader};
    /// # use squall_schema::ByteSize;
    /// let reader = make_batch_reader("/data/digits").in_memory().memory_budget(ByteSize::gib(4)).shuffle(Shuffle::Full);
    /// ```
    pub fn in_memory(mut self) -> Self {
        self.options.source.in_memory = true;
        self
    }

    /// Which rows an epoch has, and how often: weighted or class-balanced sampling. All selected rows once if not given.
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.options.source.sampler = Some(sampler);
        self
    }

    /// Makes windows of rows that follow one another in time the samples.
    pub fn ngram(mut self, ngram: NGram) -> Self {
        self.options.source.ngram = Some(ngram);
        self
    }

    /// A local directory where up to `limit` bytes of remote files are kept, so that the next epoch, and the next run, need not fetch
    /// them again. The ranks of a machine share it. What the order needs last is evicted. Files of a local path are not
    /// kept; see [`local_cache_with`](ReaderBuilder::local_cache_with).
    ///
    /// It is opened when the reader is built: where that is impossible it is an error. What goes wrong later costs time, and is a
    /// warning of `tracing`.
    pub fn local_cache(self, directory: impl Into<std::path::PathBuf>, limit: ByteSize) -> Self {
        self.local_cache_with(CacheOptions::new(directory, limit.bytes()))
    }

    /// A local directory for remote files, with these options: [`local_cache`](ReaderBuilder::local_cache).
    pub fn local_cache_with(mut self, options: CacheOptions) -> Self {
        self.options.source.cache = Some(options);
        self
    }

    /// Only rows that fulfil this are read, and if called again, those that fulfil each of them. Its columns are read
    /// once while the reader is built, where they do not stand in directory names.
    pub fn predicate(mut self, predicate: Predicate) -> Self {
        self.options.source.rows.predicates.push(predicate);
        self
    }

    /// Only the row groups that this selects are read, by the row-group indexes of the dataset.
    pub fn row_group_selector(mut self, selector: RowGroupSelector) -> Self {
        self.options.source.rows.selector = Some(selector);
        self
    }

    /// Only the rows of one subset of a split are read, and if called again, those that are in each of them.
    pub fn split(mut self, split: Split) -> Self {
        self.options.source.rows.splits.push(split);
        self
    }

    /// Only these rows are read: ordinals in the stored order of the dataset, before anything else narrows it. If
    /// called again, those of all the ranges, which may overlap. A range has rows, and ends within the dataset.
    pub fn rows(mut self, range: impl RangeBounds<u64>) -> Self {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.options.source.rows.ranges.push(range);
        self
    }

    /// Leaves out the first `n` rows in stored order of those that all other options leave; 0 if not given.
    pub fn skip(mut self, n: u64) -> Self {
        self.options.source.rows.skip = n;
        self
    }

    /// Reads no more than the first `n` rows in stored order of those that all other options leave, behind those that are
    /// skipped; all if not given. They are shuffled as the rows of any selection are.
    pub fn take(mut self, n: u64) -> Self {
        self.options.source.rows.take = Some(n);
        self
    }

    /// What is done to rows or batches on the worker threads.
    pub fn transform(mut self, transform: TransformSpec) -> Self {
        self.options.source.transform = transform;
        self
    }

    /// Rows of a batch of one rank; [`DEFAULT_BATCH_SIZE`](crate::DEFAULT_BATCH_SIZE) if not given.
    pub fn batch_size(mut self, rows: u64) -> Self {
        self.options.batch_size = Some(rows);
        self
    }

    /// Rows of a batch of all ranks together, instead of [`ReaderBuilder::batch_size`]: a multiple of the world size.
    /// Runs with the same global batch take the same steps on any number of ranks.
    pub fn global_batch(mut self, rows: u64) -> Self {
        self.options.global_batch = Some(rows);
        self
    }

    /// What happens to the rows at the end of an epoch that do not fill a global batch; [`Remainder::Keep`] if not given.
    pub fn remainder(mut self, remainder: Remainder) -> Self {
        self.options.remainder = remainder;
        self
    }

    /// How the data is divided among the ranks; [`Partition::Even`] if not given.
    pub fn partition(mut self, partition: Partition) -> Self {
        self.options.partition = partition;
        self
    }

    /// What happens when a row cannot be decoded or transformed; the reader fails if not given. What was skipped is in
    /// `bad_rows` of the reader.
    pub fn on_bad_row(mut self, policy: OnBadRow) -> Self {
        self.options.on_bad_row = policy;
        self
    }

    /// Writes down what is delivered, to prove with [`verify_ledger`](crate::verify_ledger) that every row was, once. Not if not
    /// given. A loader writes what it hands out, not what it has loaded ahead.
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.options.ledger = Some(ledger);
        self
    }

    /// When an epoch of a mixture ends; with its shortest dataset ([`Ending::Shortest`]) if not given.
    pub fn ending(mut self, ending: Ending) -> Self {
        self.options.ending = Some(ending);
        self
    }

    /// Goes on where a reader stood. Order options that are not given come from the state; those that are must agree.
    pub fn resume(mut self, state: ReaderState) -> Self {
        self.options.resume = Some(state);
        self
    }

    /// Threads that decode and transform; as many as there are cores if not given. The order does not depend on it.
    pub fn workers(mut self, threads: usize) -> Self {
        self.options.workers = Some(threads);
        self
    }

    /// Bytes that the reader may hold at a time: what it has fetched, the windows that are shuffled, batches that are ready. One
    /// gibibyte if not given, or twice what the windows and two batches need where that is more. `build` refuses a budget in which they do not fit.
    ///
    /// A row group larger than the budget is read in slices. The order of the rows does not depend on it.
    pub fn memory_budget(mut self, bytes: ByteSize) -> Self {
        self.options.memory_budget = Some(bytes.bytes());
        self
    }

    /// About how many bytes a lane fetches at a time; a row group of no more is fetched whole. An eighth of the budget shared by
    /// the lanes if not given, at most 1 MiB of local files and 8 MiB of others. More means fewer requests and more memory.
    pub fn slice_size(mut self, bytes: ByteSize) -> Self {
        self.options.slice_size = Some(bytes.bytes());
        self
    }

    /// Batches that are made before they are asked for; twice the workers, and at least 4, if not given.
    pub fn prefetch(mut self, batches: usize) -> Self {
        self.options.prefetch = Some(batches);
        self
    }

    /// What an epoch takes of all ranks, without reading it: steps, rows, bytes, memory, and how well it is shuffled. Of the rank
    /// only the world size matters, which may be larger than any machine at hand; workers and prefetch are those of each rank.
    ///
    /// Opens the dataset, selects rows, and reads the footers of all files. An error for a mixture, and for more than 65,536
    /// ranks.
    ///
    /// ```no_run
    /// # fn main() -> squall_schema::Result<()> {
    /// # use squall_reader::{ForecastOptions, make_batch_reader};
    /// let reader = make_batch_reader("/data/train").rank(0, 1024).batch_size(64).seed(7);
    /// let forecast = reader.forecast(&ForecastOptions::default())?;
    /// println!("{} steps, quality {:.2}", forecast.steps, forecast.quality.quality);
    /// # Ok(())
    /// # }
    /// ```
    pub fn forecast(mut self, options: &ForecastOptions) -> Result<Forecast> {
        // Every rank is looked at: the rows stay whole until then.
        let partition = std::mem::take(&mut self.options.partition);
        let world = forecast::World {
            ranks: self.options.rank_of_world()?.1,
            topology: self.options.topology.clone(),
            partition,
        };
        let (plan, io) = self.options.plan()?;
        forecast::of_plan(&plan, &io, &world, options)
    }
}

impl ReaderBuilder<Reader> {
    /// Opens the dataset, checks the options and plans. Rows are read when they are first asked for.
    pub fn build(self) -> Result<Reader> {
        Ok(Reader::new(self.options.open()?))
    }
}

impl ReaderBuilder<BatchReader> {
    /// Opens the dataset, checks the options and plans. Batches are read when they are first asked for.
    pub fn build(self) -> Result<BatchReader> {
        Ok(BatchReader::new(self.options.open()?))
    }
}

impl ReaderBuilder<MapDataset> {
    /// Bytes of decoded pages that are kept, those used last; [`DEFAULT_CACHE_BYTES`] (64 MiB) if not given. They are counted as they
    /// stand in memory, cells still encoded.
    ///
    /// Rows that are asked for one by one in stored order need a page of each column. For random access it should hold the rows
    /// that are used again. Where a file has no page index, it should hold the column chunks of a row group: they are fetched
    /// anew otherwise. With 0 every call reads its pages.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.options.cache_bytes = Some(bytes);
        self
    }

    /// Opens the dataset and checks the options. Rows are read when they are asked for.
    pub fn build(self) -> Result<MapDataset> {
        let of_run = self.options.run_option(&["the seed", "the number of workers"]);
        let of_order = || {
            self.options.source.given(&[
                "the storage options",
                "the time zone",
                "the choice of columns",
                "the choice of rows",
                "the views of images",
                "the transform",
                "the local cache",
            ])
        };
        if let Some(option) = of_run.or_else(of_order) {
            return Err(Error::invalid(format!(
                "{option} concerns readers: a map-style dataset gives the rows that it is asked for"
            )));
        }
        let (workers, seed) = (self.options.n_workers()?, self.options.seed.unwrap_or(0));
        let io = Arc::new(Io::new()?);
        let source = self.options.source.open(workers, &io, seed, None)?;
        let cache_bytes = self.options.cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES);
        Ok(MapDataset::new(source, io, seed, workers, cache_bytes))
    }
}
