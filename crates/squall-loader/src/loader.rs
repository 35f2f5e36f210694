//! Batches of a fixed size for a trainer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use futures::task::AtomicWaker;
use squall_reader::{
    BadRow, BadRows, BatchReader, Epochs, LedgerEntry, LedgerWriter, LoaderStage, Meter, Metrics, Reader, ReaderState,
    Remainder,
};
use squall_schema::{Error, Result, Schema, panic_text};

use crate::collate::collate;
use crate::sink::{Host, Sink};
use crate::stream::LoaderStream;

/// Batches that the sink has made before they are asked for, when nothing else is said.
const DEFAULT_PREFETCH: usize = 2;

/// Most batches that are loaded ahead: more is a mistake.
const MAX_PREFETCH: usize = 1 << 20;

/// A reader that becomes a loader.
pub trait IntoLoader: Sized {
    /// A loader of `batch_size` rows a batch on each rank, whatever batches and remainder the reader was given. It must not
    /// have begun.
    fn into_loader(self, batch_size: u64) -> LoaderBuilder<Host>;
}

impl IntoLoader for Reader {
    fn into_loader(self, batch_size: u64) -> LoaderBuilder<Host> {
        LoaderBuilder::new(Box::new(move |remainder| self.into_batches(batch_size, remainder)))
    }
}

impl IntoLoader for BatchReader {
    fn into_loader(self, batch_size: u64) -> LoaderBuilder<Host> {
        LoaderBuilder::new(Box::new(move |remainder| self.into_batches(batch_size, remainder)))
    }
}

type Rebatch = Box<dyn FnOnce(Remainder) -> Result<BatchReader> + Send>;

/// Options of a loader.
#[must_use]
pub struct LoaderBuilder<S> {
    reader: Rebatch,
    sink: S,
    remainder: Remainder,
    prefetch: usize,
}

impl LoaderBuilder<Host> {
    fn new(reader: Rebatch) -> Self {
        Self {
            reader,
            sink: Host,
            remainder: Remainder::Drop,
            prefetch: DEFAULT_PREFETCH,
        }
    }
}

impl<S: Sink> LoaderBuilder<S> {
    /// What happens to the rows at the end of an epoch that do not fill a global batch; [`Remainder::Drop`] if not given:
    /// all batches are full, and all ranks make the same number of steps.
    pub fn remainder(mut self, remainder: Remainder) -> Self {
        self.remainder = remainder;
        self
    }

    /// Batches that are made before they are asked for, on top of those that the reader has ready; 0 is 1.
    pub fn prefetch(mut self, batches: usize) -> Self {
        self.prefetch = batches;
        self
    }

    /// What batches become; [`Host`] if not given.
    pub fn sink<T: Sink>(self, sink: T) -> LoaderBuilder<T> {
        LoaderBuilder {
            reader: self.reader,
            sink,
            remainder: self.remainder,
            prefetch: self.prefetch,
        }
    }

    /// Checks the options and starts to load.
    pub fn build(self) -> Result<Loader<S>> {
        let mut reader = (self.reader)(self.remainder)?;
        if self.prefetch > MAX_PREFETCH {
            return Err(Error::invalid(format!(
                "expected at most {MAX_PREFETCH} batches that are loaded ahead, found {}",
                self.prefetch
            )));
        }
        let (ledger, bad_rows) = (reader.take_ledger(), reader.take_bad_rows());
        let mut loader = Loader {
            facts: Facts {
                schema: reader.schema().clone(),
                steps_per_epoch: reader.steps_per_epoch(),
                epoch: reader.epoch(),
                begin: reader.state(),
                state: reader.state(),
            },
            prefetch: self.prefetch,
            ledger,
            bad_rows,
            meter: reader.meter(),
            ended: false,
            run: None,
            parked: Some((reader, self.sink)),
        };
        loader.start()?;
        Ok(loader)
    }
}

/// A finished batch, and how the reader stands behind it.
struct Loaded<S: Sink> {
    batch: S::Batch,
    state: ReaderState,
    rows: u64,
    /// The epoch of the next batch.
    epoch: Option<u64>,
    /// The rows that were skipped in this one.
    bad_rows: Vec<BadRow>,
    /// What a ledger takes of it, where there is one.
    entry: Option<LedgerEntry>,
}

/// Runs on the loader's thread until the reader ends, fails, or nobody wants more.
fn load<S: Sink>(
    reader: &mut BatchReader,
    sink: &mut S,
    noted: bool,
    batches: &Sender<Result<Loaded<S>>>,
    waker: &AtomicWaker,
) {
    let meter = reader.meter();
    let _counted = meter.load();
    let schema = reader.schema().clone();
    let mut before = reader.state();
    loop {
        let mut next = || {
            Some(reader.next_samples()?.and_then(|samples| {
                let entry = noted.then(|| samples.entry(before.clone()));
                let bad_rows = samples.bad_rows.clone();
                let rows = samples.ids.len() as u64;
                let batch = meter.time(LoaderStage::Collate, || collate(samples, &schema))?;
                let batch = meter.time(LoaderStage::Sink, || sink.put(batch))?;
                Ok((batch, entry, bad_rows, rows))
            }))
        };
        let batch = match catch_unwind(AssertUnwindSafe(&mut next)) {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(panic) => Err(Error::internal(format!(
                "the loader's sink panicked: {}",
                panic_text(&*panic)
            ))),
        };
        let failed = batch.is_err();
        before = reader.state();
        let loaded = batch.map(|(batch, entry, bad_rows, rows)| Loaded {
            batch,
            entry,
            state: before.clone(),
            epoch: reader.epoch(),
            bad_rows,
            rows,
        });
        let gone = meter.time(LoaderStage::Blocked, || batches.send(loaded).is_err());
        if gone || failed {
            return;
        }
        waker.wake();
    }
}

struct Facts {
    schema: Schema,
    steps_per_epoch: u64,
    /// The epoch of the next batch.
    epoch: Option<u64>,
    /// Where the loader began.
    begin: ReaderState,
    state: ReaderState,
}

/// A loader's thread at work.
struct Run<S: Sink> {
    batches: Receiver<Result<Loaded<S>>>,
    /// Of the task that waits for a batch, where the caller is asynchronous.
    waker: Arc<AtomicWaker>,
    thread: JoinHandle<(BatchReader, S)>,
}

/// Batches for a trainer, made some steps ahead. It is an iterator; after an error it ends.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// use squall_loader::IntoLoader;
///
/// let reader = squall_reader::make_reader("/data/train").rank(0, 2).epochs(3).build()?;
/// for batch in reader.into_loader(64).build()? {
///     let batch = batch?;
///     let features: &[f32] = batch.slice("features")?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Loader<S: Sink> {
    facts: Facts,
    prefetch: usize,
    ledger: Option<LedgerWriter>,
    /// Those of the batches that were handed out.
    bad_rows: BadRows,
    meter: Meter,
    /// Whether a batch could not be handed out.
    ended: bool,
    /// `None` while reader and sink are parked.
    run: Option<Run<S>>,
    parked: Option<(BatchReader, S)>,
}

impl<S: Sink> Loader<S> {
    /// The fields of the batches.
    pub fn schema(&self) -> &Schema {
        &self.facts.schema
    }

    /// Steps of a whole epoch, the same on every rank.
    pub fn steps_per_epoch(&self) -> u64 {
        self.facts.steps_per_epoch
    }

    /// Batches of a whole epoch, the same on every rank: what `len(loader)` is in PyTorch.
    pub fn len(&self) -> u64 {
        self.facts.steps_per_epoch
    }

    /// Whether an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes back to where the loader began: to the first epoch, or to the state that it resumed. The batches come in the same
    /// order again.
    pub fn reset(&mut self) -> Result<()> {
        let begin = self.facts.begin.clone();
        self.seek(&begin)
    }

    /// Goes on where a state was saved, of this loader or of one with the same order.
    pub fn seek(&mut self, state: &ReaderState) -> Result<()> {
        let here = self.facts.state.clone();
        let reader = self.park()?;
        let sought = reader.seek(state);
        if sought.is_err() {
            // It goes on where it stood.
            reader.seek(&here)?;
        }
        self.start()?;
        sought
    }

    /// Passes over the next steps without loading them, over the ends of epochs too: past a spike of the loss, say. Call it on
    /// all ranks alike.
    pub fn skip_steps(&mut self, steps: u64) -> Result<()> {
        let here = self.facts.state.clone();
        let reader = self.park()?;
        reader.seek(&here)?;
        reader.skip_steps(steps)?;
        self.start()
    }

    /// The rows that were skipped so far because they are bad, on this rank. See
    /// [`on_bad_row`](squall_reader::ReaderBuilder::on_bad_row).
    pub fn bad_rows(&self) -> &[BadRow] {
        self.bad_rows.rows()
    }

    /// Starts to load from where the parked reader stands.
    fn start(&mut self) -> Result<()> {
        let Some((mut reader, mut sink)) = self.parked.take() else {
            return Ok(());
        };
        self.facts.state = reader.state();
        self.facts.epoch = reader.epoch();
        // A channel that holds nothing would hand over only to a caller that blocks.
        let (batches_in, batches) = bounded(self.prefetch.max(1));
        let waker = Arc::new(AtomicWaker::new());
        let woken = waker.clone();
        let noted = self.ledger.is_some();
        let run = move || {
            load(&mut reader, &mut sink, noted, &batches_in, &woken);
            // The end is there to be seen before somebody is woken to see it.
            drop(batches_in);
            woken.wake();
            (reader, sink)
        };
        let thread = std::thread::Builder::new().name("squall-loader".into()).spawn(run);
        let thread = thread.map_err(|error| Error::internal("cannot start a thread").with_source(error))?;
        self.run = Some(Run { batches, waker, thread });
        self.ended = false;
        match &mut self.ledger {
            Some(ledger) => ledger.restart(),
            None => Ok(()),
        }
    }

    /// Stops to load, and gives the reader, which stands behind what was loaded ahead.
    fn park(&mut self) -> Result<&mut BatchReader> {
        if let Some(Run { batches, thread, .. }) = self.run.take() {
            drop(batches);
            // Panics of the sink are caught; the reader has none of its own.
            self.parked = thread.join().ok();
        }
        let parked = self.parked.as_mut().map(|(reader, _)| reader);
        parked.ok_or_else(|| Error::internal("the loader's thread died"))
    }

    /// Where the loader stands: behind the last batch that it gave, whatever was loaded ahead.
    pub fn state(&self) -> &ReaderState {
        &self.facts.state
    }

    /// What was done so far, and which stage limits: those of the reader, with the trainer as the consumer.
    pub fn metrics(&self) -> Metrics {
        self.meter.metrics()
    }

    /// The same from elsewhere, while the loader is in use: for a thread that logs, say.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// The loader as a stream, for an asynchronous caller: no thread of his is blocked while a batch is not here.
    pub fn into_stream(self) -> LoaderStream<S> {
        LoaderStream::new(self)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next batch, if it is here; the task is woken when it is.
    pub(crate) fn poll_next(&mut self, task: &Context<'_>) -> Poll<Option<Result<S::Batch>>> {
        let next = match &self.run {
            Some(run) if !self.ended => {
                self.meter.ask();
                ready!(run.poll_next(task))
            }
            _ => None,
        };
        Poll::Ready(self.hand_out(next))
    }

    fn hand_out(&mut self, next: Option<Result<Loaded<S>>>) -> Option<Result<S::Batch>> {
        let given = next.map(|loaded| loaded.and_then(|loaded| self.give(loaded)));
        if !matches!(given, Some(Ok(_))) && !self.ended {
            // Nothing comes behind the end, or behind an error.
            self.ended = true;
            self.facts.epoch = None;
            self.meter.end();
        }
        given
    }
}

impl<S: Sink> Run<S> {
    fn poll_next(&self, task: &Context<'_>) -> Poll<Option<Result<Loaded<S>>>> {
        // A batch that comes between a look and the registration wakes nobody: look again behind it.
        for registered in [false, true] {
            match self.batches.try_recv() {
                Ok(batch) => return Poll::Ready(Some(batch)),
                Err(TryRecvError::Disconnected) => return Poll::Ready(None),
                Err(TryRecvError::Empty) if registered => {}
                Err(TryRecvError::Empty) => self.waker.register(task.waker()),
            }
        }
        Poll::Pending
    }
}

impl<S: Sink> Iterator for Loader<S> {
    type Item = Result<S::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &self.run {
            Some(run) if !self.ended => {
                self.meter.ask();
                run.batches.recv().ok()
            }
            _ => None,
        };
        self.hand_out(next)
    }
}

impl<S: Sink> Loader<S> {
    /// Hands a batch out: what was loaded ahead and never is counts for nothing.
    fn give(&mut self, loaded: Loaded<S>) -> Result<S::Batch> {
        self.meter.take(loaded.rows, loaded.bad_rows.len() as u64);
        self.bad_rows.add(loaded.bad_rows)?;
        if let (Some(ledger), Some(entry)) = (&mut self.ledger, loaded.entry) {
            ledger.write(entry)?;
        }
        self.facts.state = loaded.state;
        self.facts.epoch = loaded.epoch;
        Ok(loaded.batch)
    }
}
impl<S: Sink> Epochs for Loader<S> {
    fn epoch(&self) -> Option<u64> {
        self.facts.epoch
    }
}

impl<S: Sink> Drop for Loader<S> {
    fn drop(&mut self) {
        // The thread ends at its next batch, and takes the reader with it.
        let _ = self.park();
    }
}
