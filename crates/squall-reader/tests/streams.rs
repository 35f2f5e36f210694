//! Readers as streams.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::FusedStream;
use futures::{StreamExt, TryStreamExt};
use futures_executor as executor;
use squall_reader::{BatchReader, Epochs, ReaderBuilder, TransformSpec, make_batch_reader, make_reader};
use squall_schema::Error;
use squall_testkit::{Layout, Table};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::{batches, ids};

fn table() -> Table {
    Table::write(&Layout::default())
}

fn reader(table: &Table) -> ReaderBuilder<BatchReader> {
    make_batch_reader(table.url())
        .seed(3)
        .batch_size(7)
        .epochs(2)
        .workers(2)
}

async fn collect(reader: BatchReader) -> Vec<i32> {
    let mut stream = reader.into_stream();
    let mut ids = Vec::new();
    while let Some(batch) = stream.next_samples().await {
        ids.extend(batch.expect("a batch").ids.iter().map(|id| id.row as i32));
    }
    assert!(stream.is_terminated() && stream.next().await.is_none());
    ids
}

#[test]
fn a_stream_gives_what_the_iterator_gives_in_any_executor() {
    let table = table();
    let rows = |reader: BatchReader| batches(reader).concat();
    let expected: Vec<_> = rows(reader(&table).build().expect("a reader"));
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id.row as i32).collect();
    let build = || reader(&table).build().expect("a reader");
    assert_eq!(executor::block_on(collect(build())), expected);
    let current = Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(current.block_on(async { collect(build()).await }), expected);
    let many = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let own = build();
    assert_eq!(
        many.block_on(async { tokio::spawn(collect(own)).await.expect("a task") }),
        expected
    );
    assert_eq!(ids(reader(&table)).len(), expected.len());
}

#[test]
fn rows_come_as_a_stream_too() {
    let table = table();
    let build = || make_reader(table.url()).seed(1).build().expect("a reader");
    let id = |row: squall_schema::Row| row.int("id");
    let expected: Vec<_> = build().map(|row| row.and_then(id).expect("an id")).collect();
    let found = executor::block_on(
        build()
            .into_stream()
            .map(|row| row.and_then(id))
            .try_collect::<Vec<_>>(),
    );
    assert_eq!(found.expect("rows"), expected);
}

#[tokio::test]
async fn a_poll_that_is_given_up_loses_nothing() {
    let table = table();
    let expected = ids(reader(&table));
    let slow = TransformSpec::per_batch(|batch| {
        std::thread::sleep(Duration::from_millis(4));
        Ok(batch)
    });
    let mut stream = reader(&table)
        .transform(slow)
        .prefetch(1)
        .build()
        .expect("a reader")
        .into_stream();
    let (mut found, mut given_up) = (0, 0);
    loop {
        match timeout(Duration::from_millis(1), stream.next_samples()).await {
            Ok(Some(batch)) => found += batch.expect("a batch").ids.len(),
            Ok(None) => break,
            Err(_) => given_up += 1,
        }
    }
    assert_eq!(found, expected.len());
    assert!(given_up > 0);
    assert_eq!(stream.reader().metrics().rows, 240);
}

/// A stream can go back to being an iterator, and where it stands is what was taken.
#[tokio::test]
async fn the_state_counts_what_was_taken() {
    let table = table();
    let expected = ids(reader(&table));
    let mut stream = reader(&table).build().expect("a reader").into_stream();
    for _ in 0..3 {
        stream.next().await.expect("a batch").expect("rows");
    }
    let state = stream.reader().state();
    let left = batches(stream.into_inner()).concat();
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected[21..]);
    let resumed = reader(&table).resume(state).build().expect("a reader").into_stream();
    let resumed = pin!(resumed.into_inner()).epoch();
    assert_eq!(resumed, Some(0));
}

#[tokio::test]
async fn an_error_ends_a_stream() {
    let table = table();
    let spec = TransformSpec::per_row(|row| match row.int("id")? {
        50 => Err(Error::invalid("fifty")),
        _ => Ok(()),
    });
    let mut stream = reader(&table).transform(spec).build().expect("a reader").into_stream();
    let items: Vec<_> = stream.by_ref().collect().await;
    let (last, others) = items.split_last().expect("an item");
    assert!(last.as_ref().is_err_and(|error| error.to_string().contains("fifty")));
    assert!(others.iter().all(|batch| batch.is_ok()) && stream.is_terminated());
}

/// The closure is held by whatever still works for the reader.
#[test]
fn a_stream_that_is_dropped_in_a_runtime_leaves_nothing_running() {
    let table = table();
    for workers in [1, 2] {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(async {
            let held = Arc::new(());
            let own = held.clone();
            let spec = TransformSpec::per_batch(move |batch| {
                let _held = &own;
                Ok(batch)
            });
            let mut stream = reader(&table).transform(spec).build().expect("a reader").into_stream();
            stream.next().await.expect("a batch").expect("rows");
            // A poll that found nothing is registered when it is dropped.
            let _ = futures::poll!(stream.next());
            drop(stream);
            // Fetches that were under way end on a thread of their own.
            let until = Instant::now() + Duration::from_secs(5);
            while Arc::strong_count(&held) > 1 && Instant::now() < until {
                tokio::task::yield_now().await;
            }
            assert_eq!(Arc::strong_count(&held), 1);
        });
    }
}
