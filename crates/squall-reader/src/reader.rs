//! The readers that users hold: rows, or batches of columns.

mod core;

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow_array::RecordBatch;
use squall_dataset::Dataset;
use squall_schema::{Error, Result, Row, RowId, Schema};

use self::core::Core;
pub(crate) use self::core::Opened;
use crate::bad_rows::{BadRow, BadRows, OnBadRow};
use crate::epochs::Epochs;
use crate::ledger::{LedgerEntry, LedgerWriter};
use crate::metrics::{Meter, Metrics};
use crate::questions::{Delivery, EpochPlan, SampleOrigin};
use crate::report::SelectionReport;
use crate::share::{Remainder, Share};
use crate::state::ReaderState;
use crate::stream::ReaderStream;
use crate::transform::row_at;

/// A batch of columns with the identity of each row.
#[derive(Debug, Clone)]
pub struct SampleBatch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step in the epoch: the number of global batches before it. After a resume with another global batch, of that size.
    pub step: u64,
    /// The samples of the global batch, on all ranks together, those of the padding left out.
    pub samples: Range<u64>,
    /// Which sample each row is.
    pub ids: Vec<RowId>,
    /// The columns, in their canonical Arrow types.
    pub columns: RecordBatch,
    /// The rows that were replaced because they are bad.
    pub bad_rows: Vec<BadRow>,
    pub(crate) substitutes: Vec<(u64, u32, u64)>,
}

impl SampleBatch {
    /// What a ledger takes of it; `before` is the state of the reader before the batch.
    pub fn entry(&self, before: ReaderState) -> LedgerEntry {
        LedgerEntry {
            epoch: self.epoch,
            samples: self.samples.clone(),
            ids: self.ids.clone(),
            substitutes: self.substitutes.clone(),
            before,
        }
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

            /// The datasets that are read: one, or those of a mixture.
            pub fn datasets(&self) -> impl ExactSizeIterator<Item = &Dataset> {
                self.core.plan.sources.iter().map(|source| &*source.dataset)
            }

            /// Goes back to where the reader began: to the first epoch, or to the state that it resumed. The rows come in the
            /// same order again.
            pub fn reset(&mut self) -> Result<()> {
                self.forget();
                self.core.seek(self.core.plan.start)
            }

            /// Goes on where a state was saved, of this reader or of one with the same order.
            pub fn seek(&mut self, state: &ReaderState) -> Result<()> {
                self.core.resume(state)?;
                self.forget();
                Ok(())
            }

            /// Passes over the next steps without reading them, over the ends of epochs too: past a spike of the loss, say. Call
            /// it on all ranks alike, between two batches.
            pub fn skip_steps(&mut self, steps: u64) -> Result<()> {
                self.check_between_batches()?;
                self.core.skip_steps(steps)
            }

            /// An epoch, to be asked which rows it has where. In the epoch in which the reader began, or to which it was moved,
            /// steps are those that it makes from there.
            pub fn epoch_plan(&self, epoch: u64) -> EpochPlan {
                let (first, next) = self.core.began;
                let begin = if epoch == first { next } else { 0 };
                EpochPlan::new(self.core.plan.clone(), epoch, begin)
            }

            /// The samples of a rank's batch at a step of the epoch of the last batch. See [`EpochPlan::explain`]; an
            /// [`EpochPlan`] answers many questions faster.
            pub fn explain(&self, step: u64, rank: u64) -> Result<Vec<SampleOrigin>> {
                self.epoch_plan(self.now()).explain(step, rank)
            }

            /// When a stored row is delivered in the epoch of the last batch. See [`EpochPlan::where_is`].
            pub fn where_is(&self, file: &str, row_group: u32, row: u64) -> Result<Vec<Delivery>> {
                self.epoch_plan(self.now()).where_is(file, row_group, row)
            }

            /// The rows that were skipped so far because they are bad, on this rank.
            pub fn bad_rows(&self) -> &[BadRow] {
                self.core.bad_rows.rows()
            }

            /// Selected rows: those of an epoch on all ranks together. With row groups partitioned, those of this rank.
            pub fn rows_per_epoch(&self) -> u64 {
                self.core.plan.len()
            }

            /// How the rows were selected, and what was read for it. Of a mixture, those of its first dataset; see
            /// `selection_reports`.
            pub fn selection_report(&self) -> &SelectionReport {
                &self.core.plan.sources[0].report
            }

            /// How the rows of each dataset of a mixture were selected.
            pub fn selection_reports(&self) -> impl ExactSizeIterator<Item = &SelectionReport> {
                self.core.plan.sources.iter().map(|source| &source.report)
            }

            /// Batches of a whole epoch, the same on every rank.
            pub fn steps_per_epoch(&self) -> u64 {
                self.core.plan.steps_per_epoch()
            }

            /// Rank and world size, batch and remainder.
            pub fn share(&self) -> Share {
                let share = self.core.plan.share;
                match self.core.plan.shard {
                    Some((rank, world_size)) => Share {
                        rank,
                        world_size,
                        global_batch: share.global_batch * world_size,
                        ..share
                    },
                    None => share,
                }
            }

            /// Bytes of files that were fetched for batches so far, what is read ahead included; those of footers and of where-clauses
            /// are not counted.
            pub fn bytes_fetched(&self) -> u64 {
                self.core.counters.bytes_fetched()
            }

            /// What was done so far, and which stage limits.
            pub fn metrics(&self) -> Metrics {
                self.core.counters.metrics()
            }

            /// The same from elsewhere, while the reader is in use: for a thread that logs, say.
            pub fn meter(&self) -> Meter {
                Meter::new(self.core.counters.clone())
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
    pub(crate) fn new(opened: Opened) -> Self {
        Self {
            names: opened.plan.schema.names().map(Arc::from).collect(),
            core: Core::new(opened),
            batch: None,
        }
    }

    /// Where the reader stands. Rows are delivered in batches (see
    /// [`batch_size`](crate::ReaderBuilder::batch_size)) on all ranks alike, so this is an error inside of one.
    pub fn state(&self) -> Result<ReaderState> {
        self.check_between_batches()?;
        Ok(self.core.state())
    }

    /// Rows of this rank in a whole epoch, those of the padding counted.
    pub fn len(&self) -> u64 {
        self.core.plan.share.rows(self.core.plan.len())
    }

    /// Whether an epoch has no row for this rank.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forget(&mut self) {
        self.batch = None;
    }

    /// The reader as a stream, for an asynchronous caller: no thread of his is blocked while a row is not here.
    pub fn into_stream(self) -> ReaderStream<Self> {
        ReaderStream::new(self)
    }

    pub(crate) fn poll_next(&mut self, task: &Context<'_>) -> Poll<Option<Result<Row>>> {
        loop {
            if let Some(row) = self.next_of_batch() {
                return Poll::Ready(Some(row));
            }
            match ready!(self.core.poll_next(task)) {
                Some(Ok(batch)) => self.batch = Some((batch, 0)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        let rows_left = matches!(&self.batch, Some((batch, next)) if *next < batch.ids.len());
        self.core.ended && !rows_left
    }

    /// The next row of the batch that is given now.
    fn next_of_batch(&mut self) -> Option<Result<Row>> {
        let (batch, next) = self.batch.as_mut()?;
        let id = *batch.ids.get(*next)?;
        let row = row_at(&batch.columns, *next, id, &self.names, &self.core.plan.schema);
        *next += 1;
        Some(row)
    }

    fn check_between_batches(&self) -> Result<()> {
        match &self.batch {
            Some((batch, next)) if *next < batch.ids.len() => Err(Error::invalid(format!(
                "a reader stands between two batches at the end of one: read the {} rows that are left of it",
                batch.ids.len() - next
            ))),
            _ => Ok(()),
        }
    }

    /// The epoch of the last row that was given; of the first one if there was none.
    fn now(&self) -> u64 {
        match &self.batch {
            Some((batch, _)) => batch.epoch,
            None => self.core.now(),
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
            if let Some(row) = self.next_of_batch() {
                return Some(row);
            }
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
    pub(crate) fn new(opened: Opened) -> Self {
        Self {
            core: Core::new(opened),
        }
    }

    /// The next batch with epoch, step and the identity of each row.
    pub fn next_samples(&mut self) -> Option<Result<SampleBatch>> {
        self.core.next()
    }

    /// The reader as a stream, for an asynchronous caller: no thread of his is blocked while a batch is not here.
    pub fn into_stream(self) -> ReaderStream<Self> {
        ReaderStream::new(self)
    }

    pub(crate) fn poll_next(&mut self, task: &Context<'_>) -> Poll<Option<Result<SampleBatch>>> {
        self.core.poll_next(task)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.core.ended
    }

    /// Where the reader stands: behind the last batch that it gave.
    pub fn state(&self) -> ReaderState {
        self.core.state()
    }

    /// Batches of a whole epoch, the same on every rank.
    pub fn len(&self) -> u64 {
        self.steps_per_epoch()
    }

    /// Whether an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the count of bad rows away, for one who hands the batches out later: a loader.
    pub fn take_bad_rows(&mut self) -> BadRows {
        let none = BadRows::new(OnBadRow::Skip { at_most: u64::MAX });
        std::mem::replace(&mut self.core.bad_rows, none)
    }

    /// Takes the ledger away, for one who hands the batches out later: a loader. What it gave until then is written down.
    pub fn take_ledger(&mut self) -> Option<LedgerWriter> {
        self.core.ledger.take()
    }

    /// A batch reader holds no part of a batch.
    fn forget(&mut self) {}

    fn check_between_batches(&self) -> Result<()> {
        Ok(())
    }

    fn now(&self) -> u64 {
        self.core.now()
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

impl Epochs for Reader {
    fn epoch(&self) -> Option<u64> {
        match &self.batch {
            Some((batch, next)) if *next < batch.ids.len() => Some(batch.epoch),
            _ => self.core.epoch(),
        }
    }

    fn next_of(&mut self, epoch: u64) -> Option<Result<Row>> {
        // A rank's share of the last batch may be empty: the next row would be one of the next epoch.
        while self.epoch() == Some(epoch) {
            if let Some(row) = self.next_of_batch() {
                return Some(row);
            }
            match self.core.next()? {
                Ok(batch) => self.batch = Some((batch, 0)),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl Epochs for BatchReader {
    fn epoch(&self) -> Option<u64> {
        self.core.epoch()
    }
}
