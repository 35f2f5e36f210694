//! Readers as streams, for asynchronous callers.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use futures::Stream;
use futures::stream::FusedStream;
use squall_schema::{Result, Row};

use crate::reader::{BatchReader, Reader, SampleBatch};

/// A reader that is polled: rows of a [`Reader`], record batches of a [`BatchReader`]. Made by `into_stream`.
///
/// It is the reader's own machine: the same threads, the same order, the same batches ahead. It works in any executor, for what
/// it waits for runs on the reader's own threads. After an error it ends.
///
/// Each item is handed over at once, so a task that does nothing but take rows that are ready should yield now and then.
///
/// # Cancel safety
///
/// A row or batch that was not taken comes with the next poll, so a `next()` that loses a `select!` loses nothing; the state of the
/// reader counts what was taken. Dropping the stream ends its fetches and joins its threads, which takes as long as the
/// jobs that they have: decoding a window, a call of a transform.
///
/// ```no_run
/// # async fn read() -> squall_schema::Result<()> {
/// use futures::TryStreamExt;
///
/// let mut batches = squall_reader::make_batch_reader("/data/train").build()?.into_stream();
/// while let Some(batch) = batches.try_next().await? {
///     println!("{} rows", batch.num_rows());
/// }
/// # Ok(())
/// # }
/// ```
pub struct ReaderStream<R> {
    reader: R,
}

impl<R> ReaderStream<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader }
    }

    /// The reader: its state, its metrics.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// The reader, which stands behind what was taken.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl ReaderStream<BatchReader> {
    /// The next batch with epoch, step and the identity of each row.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next_samples(&mut self) -> Option<Result<SampleBatch>> {
        poll_fn(|task| self.reader.poll_next(task)).await
    }
}

impl Stream for ReaderStream<Reader> {
    type Item = Result<Row>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.reader.poll_next(task)
    }
}

impl Stream for ReaderStream<BatchReader> {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.reader.poll_next(task);
        next.map(|batch| batch.map(|batch| batch.map(|batch| batch.columns)))
    }
}

impl FusedStream for ReaderStream<Reader> {
    fn is_terminated(&self) -> bool {
        self.reader.has_ended()
    }
}

impl FusedStream for ReaderStream<BatchReader> {
    fn is_terminated(&self) -> bool {
        self.reader.has_ended()
    }
}
