//! A loader as a stream, for asynchronous callers.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::FusedStream;
use squall_schema::Result;

use crate::loader::Loader;
use crate::sink::Sink;

/// A loader that is polled. Made by [`Loader::into_stream`]. It works in any executor; after an error it ends.
///
/// # Cancel safety
///
/// A batch that was not taken comes with the next poll, so a `next()` that loses a `select!` loses nothing; the state of the loader
/// counts what was taken. Dropping the stream joins the loader's threads.
pub struct LoaderStream<S: Sink> {
    loader: Loader<S>,
}

/// The sink and its batches are never pinned.
impl<S: Sink> Unpin for LoaderStream<S> {}

impl<S: Sink> LoaderStream<S> {
    pub(crate) fn new(loader: Loader<S>) -> Self {
        Self { loader }
    }

    /// The loader: its state, its metrics.
    pub fn loader(&self) -> &Loader<S> {
        &self.loader
    }

    /// The loader, which stands behind what was taken.
    pub fn into_inner(self) -> Loader<S> {
        self.loader
    }
}

impl<S: Sink> Stream for LoaderStream<S> {
    type Item = Result<S::Batch>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.loader.poll_next(task)
    }
}

impl<S: Sink> FusedStream for LoaderStream<S> {
    fn is_terminated(&self) -> bool {
        self.loader.has_ended()
    }
}
