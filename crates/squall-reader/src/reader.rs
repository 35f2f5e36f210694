//! The readers that users hold: rows, or batches of columns.

use std::future::Future;
use std::sync::Arc;

use arrow_array::RecordBatch;
use squall_dataset::Dataset;
use squall_schema::{Error, Result, Row, RowId, Schema};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::builder::block_on;
use crate::pipeline::Pipeline;
use crate::plan::ReadPlan;
use crate::share::{Remainder, Share};
use crate::state::ReaderState;
use crate::transform::row_at;
use crate::work::Delivered;

/// Threads for I/O. They wait more than they work.
const IO_THREADS: usize = 2;

/// Threads that read local files, and scan the columns of where-clauses.
const BLOCKING_THREADS: usize = 16;

/// The runtime of a reader's I/O.
#[derive(Debug)]
pub(crate) struct Io(Option<Runtime>);

impl Io {
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("squall-io")
            .enable_all()
            .build();
        let failed = |error| Error::internal("cannot start the I/O threads").with_source(error);
        Ok(Self(Some(runtime.map_err(failed)?)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("the runtime is taken by drop only")
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime().handle().clone()
    }

    /// Runs a future to its end, from any thread.
    pub(crate) fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        block_on(self.runtime(), future)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is not allowed inside another one.
        if let Some(runtime) = self.0.take()
            && Handle::try_current().is_ok()
        {
            runtime.shutdown_background();
        }
    }
}

/// A batch of columns with the identity of each row.
#[derive(Debug, Clone)]
pub struct SampleBatch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step in the epoch, counted from 0 or from where the reader resumed.
    pub step: u64,
    /// Which sample each row is.
    pub ids: Vec<RowId>,
    /// The columns, in their canonical Arrow types.
    pub columns: RecordBatch,
}

/// The common part of both readers: a plan, and a pipeline once the first batch was asked for.
struct Core {
    // Dropped before the runtime that its fetches run on.
    pipeline: Option<Pipeline>,
    plan: Arc<ReadPlan>,
    io: Arc<Io>,
    /// The epoch and sample that come next.
    position: (u64, u64),
    ended: bool,
}

impl Core {
    fn new(plan: ReadPlan, io: Arc<Io>) -> Self {
        Self {
            pipeline: None,
            position: plan.start,
            plan: Arc::new(plan),
            io,
            ended: false,
        }
    }

    fn next(&mut self) -> Option<Result<SampleBatch>> {
        if self.ended {
            return None;
        }
        if self.pipeline.is_none() {
            match Pipeline::start(self.plan.clone(), self.io.handle()) {
                Ok(pipeline) => self.pipeline = Some(pipeline),
                Err(error) => return self.end(Some(Err(error))),
            }
        }
        match self.pipeline.as_mut().and_then(Pipeline::next) {
            Some(Ok(Delivered {
                epoch,
                step,
                ids,
                columns,
                after,
            })) => {
                self.position = after;
                Some(Ok(SampleBatch {
                    epoch,
                    step,
                    ids,
                    columns,
                }))
            }
            last => self.end(last.map(|error| error.map(|_| unreachable!("a batch is matched above")))),
        }
    }

    fn end(&mut self, last: Option<Result<SampleBatch>>) -> Option<Result<SampleBatch>> {
        self.ended = true;
        self.pipeline = None;
        last
    }

    fn state(&self) -> ReaderState {
        self.plan.state(self.position.0, self.position.1)
    }

    /// The same reader with other batches, before it has delivered one.
    fn with_batches(mut self, batch_size: u64, remainder: Remainder) -> Result<Self> {
        if self.pipeline.is_some() || self.ended {
            return Err(Error::invalid("the batch size cannot change once the reader has begun"));
        }
        let Share { rank, world_size, .. } = self.plan.share;
        let share = Share::of_batch_size(rank, world_size, batch_size, remainder)?;
        let plan = ReadPlan {
            share,
            ..ReadPlan::clone(&self.plan)
        };
        plan.check_steps()?;
        self.plan = Arc::new(plan);
        Ok(self)
    }
}

macro_rules! facts {
    ($reader:ident) => {
        impl $reader {
            /// The fields that are delivered.
            pub fn schema(&self) -> &Schema {
                &self.core.plan.schema
            }

            /// The dataset that is read.
            pub fn dataset(&self) -> &Dataset {
                &self.core.plan.sources[0].dataset
            }

            /// Selected rows: those of an epoch on all ranks together. With row groups partitioned, those of this rank.
            pub fn rows_per_epoch(&self) -> u64 {
                self.core.plan.len()
            }

            /// Batches of a whole epoch, the same on every rank.
            pub fn steps_per_epoch(&self) -> u64 {
                self.core.plan.steps_per_epoch()
            }

            /// Rank and world size, batch and remainder.
            pub fn share(&self) -> &Share {
                &self.core.plan.share
            }

            /// How many epochs are read; `None` is without end.
            pub fn epochs(&self) -> Option<u64> {
                self.core.plan.epochs
            }
        }
    };
}

/// Rows, decoded and transformed, in the order of the epoch. Made by [`make_reader`](crate::make_reader).
///
/// It is an iterator. After an error it ends.
pub struct Reader {
    core: Core,
    names: Vec<Arc<str>>,
    batch: Option<(SampleBatch, usize)>,
}

facts!(Reader);

impl Reader {
    pub(crate) fn new(plan: ReadPlan, io: Arc<Io>) -> Self {
        Self {
            names: plan.schema.names().map(Arc::from).collect(),
            core: Core::new(plan, io),
            batch: None,
        }
    }

    /// Where the reader stands. Rows are delivered in batches (see
    /// [`batch_size`](crate::ReaderBuilder::batch_size)) on all ranks alike, so this is an error inside of one.
    pub fn state(&self) -> Result<ReaderState> {
        match &self.batch {
            Some((batch, next)) if *next < batch.ids.len() => Err(Error::invalid(format!(
                "a state exists at the end of a batch: read the {} rows that are left of it",
                batch.ids.len() - next
            ))),
            _ => Ok(self.core.state()),
        }
    }

    /// The same rows in batches of columns, instead of the reader's own batches and remainder. The reader must not have
    /// begun.
    pub fn into_batches(self, batch_size: u64, remainder: Remainder) -> Result<BatchReader> {
        Ok(BatchReader {
            core: self.core.with_batches(batch_size, remainder)?,
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((batch, next)) = &mut self.batch
                && let Some(id) = batch.ids.get(*next)
            {
                let row = row_at(&batch.columns, *next, *id, &self.names, &self.core.plan.schema);
                *next += 1;
                return Some(row);
            }
            self.batch = None;
            match self.core.next()? {
                Ok(batch) => self.batch = Some((batch, 0)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Arrow batches in the order of the epoch. Made by [`make_batch_reader`](crate::make_batch_reader).
///
/// It is an iterator over record batches; [`BatchReader::next_samples`] gives the rows' identities too. After an error it
/// ends.
pub struct BatchReader {
    core: Core,
}

facts!(BatchReader);

impl BatchReader {
    pub(crate) fn new(plan: ReadPlan, io: Arc<Io>) -> Self {
        Self {
            core: Core::new(plan, io),
        }
    }

    /// The next batch with epoch, step and the identity of each row.
    pub fn next_samples(&mut self) -> Option<Result<SampleBatch>> {
        self.core.next()
    }

    /// Where the reader stands: behind the last batch that it gave.
    pub fn state(&self) -> ReaderState {
        self.core.state()
    }

    /// The same rows, instead of in the reader's own batches and with its own remainder, in these. The reader must not have
    /// begun.
    pub fn into_batches(self, batch_size: u64, remainder: Remainder) -> Result<Self> {
        Ok(Self {
            core: self.core.with_batches(batch_size, remainder)?,
        })
    }
}

impl Iterator for BatchReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.next_samples()?;
        Some(batch.map(|batch| batch.columns))
    }
}
