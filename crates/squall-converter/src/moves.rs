//! Files that get other paths in one store: a rename on a file system, a copy by the store itself elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{FutureExt, StreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::{DatasetUrl, Scheme, Store};
use squall_schema::{ByteSize, Error, Result};

use crate::error::store_error;

/// Files that are moved at a time. A store copies on its own side, so this is a number of requests, not of bytes.
const MOVES_AT_ONCE: usize = 16;
/// What S3 copies by one request at most.
const S3_COPY_BYTES: u64 = 5 << 30;

/// A file that gets another path.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) from: Path,
    pub(crate) to: Path,
    pub(crate) size: u64,
}

/// Moves files, some at a time. Before the first one is moved, those are refused that the store cannot move.
///
/// # Cancel safety
///
/// Dropping the future leaves some of them moved.
pub(crate) async fn move_files(store: &Store, moves: &[Move]) -> Result<()> {
    for one in moves {
        check_size(store.url(), one.size).map_err(|error| error.at("file", &one.from))?;
    }
    // Boxed, for the compiler does not see otherwise that a stream of them may be sent to another thread.
    let has_failed = &AtomicBool::new(false);
    let moved = moves.iter().map(|one| {
        let moved = async move {
            if has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let moved = rename(store, one).await;
            has_failed.fetch_or(moved.is_err(), Ordering::Relaxed);
            moved
        };
        moved.boxed()
    });
    let moved: Vec<_> = moved.collect();
    // Those that were begun are awaited: a store ends a copy that nobody waits for any more, and would put a file where all was
    // taken away.
    let ended: Vec<Result<()>> = stream::iter(moved).buffer_unordered(MOVES_AT_ONCE).collect().await;
    ended.into_iter().collect()
}

async fn rename(store: &Store, one: &Move) -> Result<()> {
    let moved = store.objects().rename(&one.from, &one.to).await;
    moved.map_err(|error| store_error(error).at("file", &one.from))
}

/// Refuses a file of more bytes than the store copies.
pub(crate) fn check_size(url: &DatasetUrl, bytes: u64) -> Result<()> {
    if url.scheme() != Scheme::S3 || bytes <= S3_COPY_BYTES {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "S3 copies files of at most {}, and a conversion here ends with copies: expected smaller files, found {}",
        ByteSize::new(S3_COPY_BYTES),
        ByteSize::new(bytes)
    ))
    .at("URL", url))
}
