//! Batches of a fixed size for a trainer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use squall_reader::{BatchReader, Reader, ReaderState, Remainder};
use squall_schema::{Error, Result, Schema, panic_text};

use crate::collate::collate;
use crate::sink::{Host, Sink};

/// Batches that the sink has made before they are asked for, when nothing else is said.
const DEFAULT_PREFETCH: usize = 2;

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

    /// Batches that are made before they are asked for, on top of those that the reader has ready.
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
        let mut sink = self.sink;
        let loader = Facts {
            schema: reader.schema().clone(),
            steps_per_epoch: reader.steps_per_epoch(),
            state: reader.state(),
        };
        let (batches_in, batches) = bounded(self.prefetch);
        let run = move || load(&mut reader, &mut sink, &batches_in);
        let thread = std::thread::Builder::new().name("squall-loader".into()).spawn(run);
        let thread = thread.map_err(|error| Error::internal("cannot start a thread").with_source(error))?;
        Ok(Loader {
            facts: loader,
            batches: Some(batches),
            thread: Some(thread),
        })
    }
}

/// A finished batch, and the state behind it.
type Loaded<S> = (<S as Sink>::Batch, ReaderState);

/// Runs on the loader's thread until the reader ends, fails, or nobody wants more.
fn load<S: Sink>(reader: &mut BatchReader, sink: &mut S, batches: &Sender<Result<Loaded<S>>>) {
    let schema = reader.schema().clone();
    loop {
        let mut next = || {
            Some(
                reader
                    .next_samples()?
                    .and_then(|samples| sink.put(collate(samples, &schema)?)),
            )
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
        let loaded = batch.map(|batch| (batch, reader.state()));
        if batches.send(loaded).is_err() || failed {
            return;
        }
    }
}

struct Facts {
    schema: Schema,
    steps_per_epoch: u64,
    state: ReaderState,
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
    /// `None` once it is dropped.
    batches: Option<Receiver<Result<Loaded<S>>>>,
    thread: Option<JoinHandle<()>>,
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

    /// Where the loader stands: behind the last batch that it gave, whatever was loaded ahead.
    pub fn state(&self) -> &ReaderState {
        &self.facts.state
    }
}

impl<S: Sink> Iterator for Loader<S> {
    type Item = Result<S::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.batches.as_ref()?.recv().ok()? {
            Ok((batch, state)) => {
                self.facts.state = state;
                Some(Ok(batch))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl<S: Sink> Drop for Loader<S> {
    fn drop(&mut self) {
        // The thread ends at its next batch, and takes the reader with it.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // Panics of the sink are caught; the reader has none of its own.
            let _ = thread.join();
        }
    }
}
