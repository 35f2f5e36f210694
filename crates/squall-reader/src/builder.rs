//! Options, and the plan that comes of them.

use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::RangeBounds;
use std::sync::Arc;

use squall_schema::{Error, Field, Result, Schema};

use crate::bad_rows::OnBadRow;
use crate::forecast::{self, Forecast, ForecastOptions};
use crate::ledger::Ledger;
use crate::map::{DEFAULT_CACHE_BYTES, MapDataset};
use crate::mix::{Ending, Mix, member_seed};
use crate::ngram::NGram;
use crate::order::{OrderOptions, Shuffle};
use crate::plan::ReadPlan;
use crate::predicate::Predicate;
use crate::rank::{self, Topology};
use crate::reader::{BatchReader, Io, Opened, Reader};
use crate::sampler::Sampler;
use crate::select::Selection;
use crate::selector::RowGroupSelector;
use crate::sequence::Sequence;
use crate::share::{Remainder, Share};
use crate::source::{Source, SourceOptions};
use crate::split::Split;
use crate::state::ReaderState;
use crate::transform::TransformSpec;
use crate::view::Encoded;

/// Rows of a rank's batch when none are given.
pub const DEFAULT_BATCH_SIZE: u64 = 64;

/// How the data is divided among the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partition {
    /// Equal slices of each global batch.
    #[default]
    Even,
    /// Whole row groups, by their ordinal modulo the world size, as Petastorm does. Ranks have unequal numbers of rows
    /// and steps, and the order depends on the world size. For reproducing a run of Petastorm.
    RowGroups,
}

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
    ReaderBuilder {
        members: Some(members.into_iter().collect()),
        ..ReaderBuilder::new(String::new())
    }
}

/// Options of a reader; [`ReaderBuilder::build`] checks them all.
#[derive(Debug, Clone)]
#[must_use]
pub struct ReaderBuilder<R> {
    source: SourceOptions,
    /// The datasets of a mixture, with their weights.
    members: Option<Vec<(ReaderBuilder<R>, f64)>>,
    ending: Option<Ending>,
    rank: Option<(u64, u64)>,
    rank_from_env: bool,
    topology: Option<Topology>,
    epochs: Option<u64>,
    seed: Option<u64>,
    batch_size: Option<u64>,
    global_batch: Option<u64>,
    remainder: Remainder,
    partition: Partition,
    on_bad_row: OnBadRow,
    ledger: Option<Ledger>,
    resume: Option<ReaderState>,
    workers: Option<usize>,
    prefetch: Option<usize>,
    cache_bytes: Option<u64>,
    reader: PhantomData<R>,
}

impl<R> ReaderBuilder<R> {
    fn new(url: String) -> Self {
        Self {
            source: SourceOptions {
                url,
                ..SourceOptions::default()
            },
            members: None,
            ending: None,
            rank: None,
            rank_from_env: false,
            topology: None,
            epochs: Some(1),
            seed: None,
            batch_size: None,
            global_batch: None,
            remainder: Remainder::Keep,
            partition: Partition::Even,
            on_bad_row: OnBadRow::Fail,
            ledger: None,
            resume: None,
            workers: None,
            prefetch: None,
            cache_bytes: None,
            reader: PhantomData,
        }
    }

    /// This rank, from 0, and the number of ranks. Without it, rank 0 of 1.
    pub fn rank(mut self, rank: u64, world_size: u64) -> Self {
        self.rank = Some((rank, world_size));
        self
    }

    /// Rank and world size from the environment that a launcher sets: torchrun, Horovod, Open MPI, MPICH, srun of SLURM, the first
    /// of them in this order; rank 0 of 1 where there is none. A rank that is given too must be the same.
    pub fn rank_from_env(mut self) -> Self {
        self.rank_from_env = true;
        self
    }

    /// Which ranks take the same samples, those of a tensor or pipeline parallel group; each its own if not given.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// How often the selected rows are read; 1 if not given. Each epoch has an order of its own.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// Epochs without end.
    pub fn endless(mut self) -> Self {
        self.epochs = None;
        self
    }

    /// Seed of the order and of the transforms; 0 if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How rows are shuffled; [`Shuffle::Windows`] if not given.
    pub fn shuffle(mut self, shuffle: Shuffle) -> Self {
        self.source.shuffle = Some(shuffle);
        self
    }

    /// Places in the epoch that are read side by side; [`DEFAULT_LANES`](crate::DEFAULT_LANES) if not given.
    pub fn lanes(mut self, lanes: u64) -> Self {
        self.source.lanes = Some(lanes);
        self
    }

    /// Rows that are shuffled together in a lane. If not given, as many as make 4 MiB in the dataset.
    pub fn window(mut self, rows: u64) -> Self {
        self.source.window = Some(rows);
        self
    }

    /// The columns that are read, in this order; all if not given. The order of the rows does not depend on it.
    ///
    /// `a.b` is the member `b` of the struct column `a`, unless a column has that name; only the member is fetched.
    pub fn columns<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.source.view.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Regular expressions for names of columns: those that one matches as a whole are read, in the order of the dataset,
    /// after the columns that [`ReaderBuilder::columns`] names. One that matches none is an error.
    pub fn columns_matching<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.source.view.patterns = Some(patterns.into_iter().map(Into::into).collect());
        self
    }

    /// Takes structs apart: a column `a` with members `b` and `c` is read as the columns `a.b` and `a.c`, null where the
    /// struct is. Lists of structs and maps stay as they are. Where-clauses name the members too, in quotes: `"a.b" > 0`.
    pub fn flatten_structs(mut self) -> Self {
        self.source.view.flatten = true;
        self
    }

    /// The shape of a column's values where the dataset leaves dimensions open: of the arrays of a table of Spark's, which Parquet
    /// does not tell to be of one length. They come as dense tensors then; a value of another size is an error.
    pub fn shape(mut self, column: impl Into<String>, dims: impl Into<Vec<usize>>) -> Self {
        self.source.view.shapes.push((column.into(), dims.into()));
        self
    }

    /// Gives the cells of some fields as they are stored, as `bytes`: of jpeg images for a decoder on the GPU, say. `keep` is
    /// asked about each field that has a codec.
    ///
    /// ```
    /// # use squall_reader::make_reader;
    /// let reader = make_reader("/data/images").keep_encoded(|field| field.name == "photo");
    /// ```
    pub fn keep_encoded(mut self, keep: impl Fn(&Field) -> bool + Send + Sync + 'static) -> Self {
        self.source.view.encoded = Encoded(Some(Arc::new(keep)));
        self
    }

    /// The zone of the times in directory names, which Spark writes in that of its session: a name such as `Europe/Zurich`, an
    /// offset such as `+02:00`; UTC if not given. Times in files do not depend on it.
    pub fn time_zone(mut self, zone: impl Into<String>) -> Self {
        self.source.time_zone = Some(zone.into());
        self
    }

    /// A where-clause in SQL: only rows for which it is true are read. It may name any column.
    ///
    /// It is evaluated while the reader is built, so that the number of rows is known and ranks stay equal. What directory names,
    /// statistics, bloom filters and page indexes rule out is not read, and readers of one process that select the same rows
    /// share the work; [`selection_report`](crate::Reader::selection_report) tells what was done.
    #[cfg(feature = "filter")]
    pub fn filter(mut self, sql: impl Into<String>) -> Self {
        self.source.rows.filter.sql = Some(sql.into());
        self
    }

    /// A where-clause as an expression of DataFusion's, with the same checks as one in SQL. Where both are given, both must
    /// hold. A column is named exactly as it is stored, with [`expr::col`](crate::expr::col); the `col` of DataFusion makes lower case of a name, and takes `a.b` apart.
    #[cfg(feature = "filter")]
    pub fn filter_expr(mut self, expression: datafusion_expr::Expr) -> Self {
        self.source.rows.filter.expression = Some(expression);
        self
    }

    /// A local directory where the rows that a where-clause selects are stored, so that the next run need not look for them. A file
    /// there is of one clause on one state of the dataset; what is damaged is made anew. Without it nothing is stored.
    #[cfg(feature = "filter")]
    pub fn selection_cache(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.source.rows.filter.cache = Some(directory.into());
        self
    }

    /// Which rows an epoch has, and how often: weighted or class-balanced sampling. All selected rows once if not given.
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.source.sampler = Some(sampler);
        self
    }

    /// Makes windows of rows that follow one another in time the samples.
    pub fn ngram(mut self, ngram: NGram) -> Self {
        self.source.ngram = Some(ngram);
        self
    }

    /// Only rows that fulfil this are read, and if called again, those that fulfil each of them. Its columns are read
    /// once while the reader is built, where they do not stand in directory names.
    pub fn predicate(mut self, predicate: Predicate) -> Self {
        self.source.rows.predicates.push(predicate);
        self
    }

    /// Only the row groups that this selects are read, by the row-group indexes of the dataset.
    pub fn row_group_selector(mut self, selector: RowGroupSelector) -> Self {
        self.source.rows.selector = Some(selector);
        self
    }

    /// Only the rows of one subset of a split are read, and if called again, those that are in each of them.
    pub fn split(mut self, split: Split) -> Self {
        self.source.rows.splits.push(split);
        self
    }

    /// Only these rows are read: ordinals in the stored order of the dataset, before anything else narrows it. If
    /// called again, those of all the ranges, which may overlap. A range has rows, and ends within the dataset.
    pub fn rows(mut self, range: impl RangeBounds<u64>) -> Self {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.source.rows.ranges.push(range);
        self
    }

    /// Leaves out the first `n` rows in stored order of those that all other options leave; 0 if not given.
    pub fn skip(mut self, n: u64) -> Self {
        self.source.rows.skip = n;
        self
    }

    /// Reads no more than the first `n` rows in stored order of those that all other options leave, behind those that are
    /// skipped; all if not given. They are shuffled as the rows of any selection are.
    pub fn take(mut self, n: u64) -> Self {
        self.source.rows.take = Some(n);
        self
    }

    /// What is done to rows or batches on the worker threads.
    pub fn transform(mut self, transform: TransformSpec) -> Self {
        self.source.transform = transform;
        self
    }

    /// Rows of a batch of one rank; [`DEFAULT_BATCH_SIZE`] if not given.
    pub fn batch_size(mut self, rows: u64) -> Self {
        self.batch_size = Some(rows);
        self
    }

    /// Rows of a batch of all ranks together, instead of [`ReaderBuilder::batch_size`]: a multiple of the world size.
    /// Runs with the same global batch take the same steps on any number of ranks.
    pub fn global_batch(mut self, rows: u64) -> Self {
        self.global_batch = Some(rows);
        self
    }

    /// What happens to the rows at the end of an epoch that do not fill a global batch; [`Remainder::Keep`] if not given.
    pub fn remainder(mut self, remainder: Remainder) -> Self {
        self.remainder = remainder;
        self
    }

    /// How the data is divided among the ranks; [`Partition::Even`] if not given.
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// What happens when a row cannot be decoded or transformed; the reader fails if not given. What was skipped is in
    /// `bad_rows` of the reader.
    pub fn on_bad_row(mut self, policy: OnBadRow) -> Self {
        self.on_bad_row = policy;
        self
    }

    /// Writes down what is delivered, to prove with [`verify_ledger`](crate::verify_ledger) that every row was, once. Not if not
    /// given. A loader writes what it hands out, not what it has loaded ahead.
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// When an epoch of a mixture ends; with its shortest dataset ([`Ending::Shortest`]) if not given.
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }

    /// Goes on where a reader stood. Order options that are not given come from the state; those that are must agree.
    pub fn resume(mut self, state: ReaderState) -> Self {
        self.resume = Some(state);
        self
    }

    /// Threads that decode and transform; as many as there are cores if not given. The order does not depend on it.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = Some(threads);
        self
    }

    /// Batches that are made before they are asked for; twice the workers, and at least 4, if not given.
    pub fn prefetch(mut self, batches: usize) -> Self {
        self.prefetch = Some(batches);
        self
    }

    /// What an epoch takes of all ranks, without reading it: steps, rows, bytes, memory, and how well it is shuffled. Of the rank
    /// only the world size matters, which may be larger than any machine at hand; workers and prefetch are those of each rank.
    ///
    /// Opens the dataset, selects rows, and reads the footers of all files.
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
        let partition = std::mem::take(&mut self.partition);
        let (plan, io) = self.plan()?;
        forecast::of_plan(&plan, &io, partition, options)
    }

    fn share(&self) -> Result<Share> {
        let from_env = if self.rank_from_env {
            rank::from_env(|name| std::env::var(name).ok())?
        } else {
            None
        };
        let (rank, world_size) = match (self.rank, from_env) {
            (Some(given), Some(found)) if given != found => {
                return Err(Error::invalid(format!(
                    "the rank given is {} of {}, but the environment says {} of {}",
                    given.0, given.1, found.0, found.1
                )));
            }
            (given, found) => given.or(found).unwrap_or((0, 1)),
        };
        let (rank, world_size) = match &self.topology {
            Some(topology) => topology.group(rank, world_size)?,
            None => (rank, world_size),
        };
        let global_batch = match (self.batch_size, self.global_batch) {
            (Some(_), Some(_)) => return Err(Error::invalid("give a batch size or a global batch, not both")),
            (None, Some(global_batch)) => global_batch,
            (batch_size, None) => {
                return Share::of_batch_size(
                    rank,
                    world_size,
                    batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
                    self.remainder,
                );
            }
        };
        let share = Share {
            rank,
            world_size,
            global_batch,
            remainder: self.remainder,
        };
        share.validate()?;
        Ok(share)
    }

    fn open(self) -> Result<Opened> {
        let ledger = match (&self.ledger, self.partition) {
            (Some(_), Partition::RowGroups) => {
                return Err(Error::unsupported(
                    "ranks that partition row groups are not in lock-step: they have no ledger together",
                ));
            }
            (Some(ledger), Partition::Even) => Some(ledger.open(self.share()?)?),
            (None, _) => None,
        };
        let (plan, io) = self.plan()?;
        Ok(Opened { plan, io, ledger })
    }

    fn n_workers(&self) -> Result<usize> {
        match self.workers {
            Some(0) => Err(Error::invalid("expected at least one worker, found 0")),
            Some(workers) => Ok(workers),
            None => Ok(std::thread::available_parallelism().map_or(1, NonZero::get)),
        }
    }

    /// Opens the dataset and checks all options against it. No data is read yet, but for where-clauses, predicates,
    /// samplers and n-grams.
    pub(crate) fn plan(self) -> Result<(ReadPlan, Arc<Io>)> {
        let share = self.share()?;
        let workers = self.n_workers()?;
        let io = Arc::new(Io::new()?);
        let saved = self.resume.as_ref().map(ReaderState::options).transpose()?;
        let seed = self.seed.or(saved.as_ref().map(|saved| saved.seed)).unwrap_or(0);
        let (mut sources, mixture) = self.sources(workers, &io, seed, saved.as_ref())?;
        let schema = common_schema(&mut sources)?;

        let share = match self.partition {
            Partition::Even => share,
            Partition::RowGroups if self.resume.is_some() => {
                return Err(Error::unsupported(
                    "a reader that partitions row groups cannot resume: its ranks are not in lock-step",
                ));
            }
            Partition::RowGroups => {
                let [source] = &mut sources[..] else {
                    return Err(Error::unsupported(
                        "a mixture has no row groups of its own to partition: its ranks take slices of global batches",
                    ));
                };
                if self.source.sampler.is_some() {
                    return Err(Error::unsupported(
                        "a sampler draws from all rows: it cannot be given where row groups are partitioned",
                    ));
                }
                let selection = Selection::clone(&source.selection);
                source.selection = Arc::new(selection.shard(&source.dataset, share.rank, share.world_size)?);
                // The rank has its rows to itself, and makes its batches of them alone.
                Share {
                    rank: 0,
                    world_size: 1,
                    global_batch: share.global_batch / share.world_size,
                    remainder: share.remainder,
                }
            }
        };

        let plan = ReadPlan {
            start: self.resume.as_ref().map_or((0, 0), |state| (state.epoch, state.next)),
            sequence: match mixture {
                Some(mix) => Sequence::Mixed(Arc::new(mix)),
                None => Sequence::One(sources[0].len()),
            },
            schema: Arc::new(schema),
            sources: sources.into(),
            seed,
            share,
            epochs: self.epochs,
            on_bad_row: self.on_bad_row,
            workers,
            prefetch: self.prefetch.unwrap_or((2 * workers).max(4)).max(1),
        };
        if let Some(state) = &self.resume {
            state.check(&plan.identity())?;
        }
        plan.check_steps()?;
        Ok((plan, io))
    }
}

impl<R> ReaderBuilder<R> {
    /// The datasets that are read, open, and how they are mixed.
    fn sources(
        &self,
        workers: usize,
        io: &Arc<Io>,
        seed: u64,
        saved: Option<&OrderOptions>,
    ) -> Result<(Vec<Source>, Option<Mix>)> {
        let Some(members) = &self.members else {
            if self.ending.is_some() {
                return Err(Error::invalid("one dataset is no mixture: it ends with its last row"));
            }
            return Ok((vec![self.source.open(workers, io, seed, saved)?], None));
        };
        if let Some(option) = self.source.given(&[]) {
            return Err(Error::invalid(format!(
                "{option} concerns a dataset: give it to the builders of those that are mixed"
            )));
        }
        let mut sources = Vec::with_capacity(members.len());
        for (place, (member, _)) in members.iter().enumerate() {
            if let Some(option) = member.run_option(&[]) {
                return Err(Error::invalid(format!(
                    "{option} concerns the run: give it to the mixture, not to dataset {place} of it"
                )));
            }
            sources.push(member.source.open(workers, io, member_seed(seed, place), None)?);
        }
        let lens: Vec<_> = sources.iter().map(Source::len).collect();
        let weights: Vec<_> = members.iter().map(|(_, weight)| *weight).collect();
        let mix = Mix::new(seed, &lens, &weights, self.ending.unwrap_or_default())?;
        Ok((sources, Some(mix)))
    }

    /// The first option that was given and concerns the run, not the dataset, and is none of these.
    fn run_option(&self, allowed: &[&str]) -> Option<&'static str> {
        let given = [
            ("a mixture", self.members.is_some()),
            ("the ending", self.ending.is_some()),
            (
                "the rank",
                self.rank.is_some() || self.rank_from_env || self.topology.is_some(),
            ),
            ("the number of epochs", self.epochs != Some(1)),
            ("the seed", self.seed.is_some()),
            (
                "the batch size",
                self.batch_size.is_some() || self.global_batch.is_some(),
            ),
            ("the remainder", self.remainder != Remainder::Keep),
            ("the partition", self.partition != Partition::Even),
            ("the policy for bad rows", self.on_bad_row != OnBadRow::Fail),
            ("the ledger", self.ledger.is_some()),
            ("the state", self.resume.is_some()),
            ("the number of workers", self.workers.is_some()),
            ("the prefetch", self.prefetch.is_some()),
        ];
        let found = given
            .into_iter()
            .find(|(name, given)| *given && !allowed.contains(name));
        found.map(|(name, _)| name)
    }
}

/// The fields that all datasets of a mixture deliver, in the order of the first; theirs are put in this order.
fn common_schema(sources: &mut [Source]) -> Result<Schema> {
    let [first, others @ ..] = sources else {
        return Err(Error::invalid("a mixture of no dataset"));
    };
    let mut fields = first.schema.fields().to_vec();
    for other in others {
        let differ = |field: &Field, found: String| {
            Error::invalid(format!(
                "the datasets of a mixture must have the same fields: {field} is in {}, {found} in {}",
                first.dataset.url(),
                other.dataset.url()
            ))
        };
        if let Some(field) = other
            .schema
            .fields()
            .iter()
            .find(|field| first.schema.get(&field.name).is_none())
        {
            return Err(Error::invalid(format!(
                "the datasets of a mixture must have the same fields: {field} is in {}, but not in {}",
                other.dataset.url(),
                first.dataset.url()
            )));
        }
        let mut own = Vec::with_capacity(fields.len());
        for field in &mut fields {
            let found = other
                .schema
                .get(&field.name)
                .ok_or_else(|| differ(field, "it is not".into()))?;
            if (found.dtype, &found.shape) != (field.dtype, &field.shape) || found.arrow != field.arrow {
                return Err(differ(field, found.to_string()));
            }
            field.nullable |= found.nullable;
            own.push(found.clone());
        }
        other.schema = Arc::new(Schema::new(own)?);
    }
    Schema::new(fields)
}

impl ReaderBuilder<Reader> {
    /// Opens the dataset, checks the options and plans. Rows are read when they are first asked for.
    pub fn build(self) -> Result<Reader> {
        Ok(Reader::new(self.open()?))
    }
}

impl ReaderBuilder<BatchReader> {
    /// Opens the dataset, checks the options and plans. Batches are read when they are first asked for.
    pub fn build(self) -> Result<BatchReader> {
        Ok(BatchReader::new(self.open()?))
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
        self.cache_bytes = Some(bytes);
        self
    }

    /// Opens the dataset and checks the options. Rows are read when they are asked for.
    pub fn build(self) -> Result<MapDataset> {
        let of_run = self.run_option(&["the seed", "the number of workers"]);
        let of_order = || {
            self.source.given(&[
                "the time zone",
                "the choice of columns",
                "the choice of rows",
                "the transform",
            ])
        };
        if let Some(option) = of_run.or_else(of_order) {
            return Err(Error::invalid(format!(
                "{option} concerns readers: a map-style dataset gives the rows that it is asked for"
            )));
        }
        let (workers, seed) = (self.n_workers()?, self.seed.unwrap_or(0));
        let io = Arc::new(Io::new()?);
        let source = self.source.open(workers, &io, seed, None)?;
        let cache_bytes = self.cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES);
        Ok(MapDataset::new(source, io, seed, workers, cache_bytes))
    }
}

/// Runs a future to its end on a runtime, from any thread: one that belongs to another runtime may not block itself.
pub(crate) fn block_on<F>(runtime: &tokio::runtime::Runtime, future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    if tokio::runtime::Handle::try_current().is_err() {
        return runtime.block_on(future);
    }
    std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(future)).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
