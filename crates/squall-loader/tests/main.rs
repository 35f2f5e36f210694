//! The loader over real files.

use futures::StreamExt;
use futures::stream::FusedStream;
use futures_executor::block_on;
mod child;
mod killed;
mod leaks;
mod many_row_groups;

use squall_loader::{HostBatch, HostColumn, IntoLoader, Sink};
use squall_reader::{Epochs, OnBadRow, Remainder, Stage, make_batch_reader, make_reader};
use squall_schema::{DType, Error, Field, Result, Shape};
use squall_testkit::{Layout, Table};

fn table() -> Table {
    Table::write(&Layout::default())
}

#[test]
fn batches_are_full_and_contiguous() {
    let table = table();
    let spec = squall_reader::TransformSpec::per_row(|_| Ok(())).edit(Field::new("x", DType::Int8, Shape::fixed(&[3])));
    let reader = make_reader(table.url())
        .epochs(2)
        .transform(spec)
        .build()
        .expect("a reader");
    let loader = reader.into_loader(16).build().expect("a loader");
    assert_eq!(loader.steps_per_epoch(), 7);
    let mut n = 0;
    for batch in loader {
        let batch = batch.expect("a batch");
        let ids = batch.slice::<i32>("id").expect("ids");
        let x = batch.slice::<i8>("x").expect("x");
        assert_eq!((batch.len(), ids.len(), x.len()), (16, 16, 48));
        for (id, x) in ids.iter().zip(x.chunks(3)) {
            let first = (id % 100) as i8;
            assert_eq!(x, [first, first + 1, first + 2]);
        }
        assert!(matches!(&batch["x"], HostColumn::Dense(x) if x.values.shape() == [16, 3]));
        assert!(matches!(batch["name"], HostColumn::Array(_)));
        assert!(batch.slice::<f32>("id").is_err() && batch.slice::<i32>("name").is_err());
        n += 1;
    }
    assert_eq!(n, 14);
}

#[test]
fn vectors_of_free_length_have_offsets() {
    let table = table();
    let reader = make_batch_reader(table.url()).columns(["x"]).build().expect("a reader");
    let batch = reader
        .into_loader(10)
        .build()
        .expect("a loader")
        .next()
        .expect("a batch")
        .expect("no error");
    match &batch["x"] {
        HostColumn::Ragged { values, offsets, .. } => {
            assert_eq!(values.shape(), [30]);
            assert_eq!(offsets, &(0..=10).map(|row| 3 * row).collect::<Vec<i64>>());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_state_counts_what_was_given_and_not_what_was_loaded() {
    let table = table();
    let loader = |state| {
        let reader = make_batch_reader(table.url()).columns(["id"]).seed(5);
        let reader = match state {
            Some(state) => reader.resume(state),
            None => reader,
        };
        reader
            .build()
            .expect("a reader")
            .into_loader(8)
            .remainder(Remainder::Keep)
            .prefetch(4)
            .build()
            .expect("a loader")
    };
    let ids = |batch: Result<HostBatch>| batch.expect("a batch").slice::<i32>("id").expect("ids").to_vec();
    let whole: Vec<_> = loader(None).map(ids).collect();
    let mut first = loader(None);
    assert_eq!(first.by_ref().take(5).map(ids).collect::<Vec<_>>(), whole[..5]);
    let rest: Vec<_> = loader(Some(first.state().clone())).map(ids).collect();
    assert_eq!(rest, whole[5..]);
}

struct Failing(u64);

impl Sink for Failing {
    type Batch = u64;

    fn put(&mut self, batch: HostBatch) -> Result<u64> {
        match batch.step {
            step if step < self.0 => Ok(step),
            step if step % 2 == 0 => Err(Error::invalid("even")),
            _ => panic!("odd"),
        }
    }
}

#[test]
fn a_failing_sink_ends_the_loader() {
    let table = table();
    for (at, expected) in [(2, "even"), (3, "the loader's sink panicked: odd")] {
        let reader = make_batch_reader(table.url()).build().expect("a reader");
        let mut loader = reader.into_loader(8).sink(Failing(at)).build().expect("a loader");
        assert_eq!(
            loader.by_ref().take(at as usize).filter(|step| step.is_ok()).count(),
            at as usize
        );
        assert_eq!(
            loader.next().expect("an item").expect_err("an error").to_string(),
            expected
        );
        assert!(loader.next().is_none());
    }
}

#[test]
fn a_reader_that_has_begun_is_refused() {
    let table = table();
    let mut reader = make_batch_reader(table.url()).build().expect("a reader");
    assert!(reader.next().is_some());
    let error = reader.into_loader(8).build().err().expect("an error");
    assert!(error.to_string().contains("once the reader has begun"), "{error}");
}

#[test]
fn a_loader_moves_in_its_order() {
    let table = table();
    let load = || {
        let reader = make_batch_reader(table.url()).columns(["id"]).epochs(2).seed(4);
        reader
            .build()
            .expect("a reader")
            .into_loader(16)
            .prefetch(3)
            .build()
            .expect("a loader")
    };
    let ids = |batch: Result<HostBatch>| batch.expect("a batch").slice::<i32>("id").expect("ids").to_vec();
    let mut loader = load();
    assert_eq!(loader.len(), 7);
    let mut epochs = Vec::new();
    while let Some(epoch) = loader.next_epoch() {
        epochs.push(epoch.map(ids).collect::<Vec<_>>());
    }
    let all = epochs.concat();
    assert_eq!(epochs.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7]);
    // Behind the end, in the middle, and over the end of an epoch.
    loader.reset().expect("a loader");
    assert_eq!(loader.by_ref().take(3).map(ids).collect::<Vec<_>>(), all[..3]);
    let state = loader.state().clone();
    loader.skip_steps(6).expect("a loader");
    assert_eq!(loader.epoch(), Some(1));
    assert_eq!(loader.by_ref().map(ids).collect::<Vec<_>>(), all[9..]);
    loader.seek(&state).expect("a state of its own");
    assert_eq!(loader.map(ids).collect::<Vec<_>>(), all[3..]);
}

#[test]
fn a_loader_lists_the_rows_that_it_skipped() {
    let table = table();
    let spec = squall_reader::TransformSpec::per_row(|row| match row.int("id")? {
        50 => Err(Error::invalid("fifty")),
        _ => Ok(()),
    });
    let reader = make_batch_reader(table.url())
        .transform(spec)
        .on_bad_row(OnBadRow::Skip { at_most: 1 });
    let mut loader = reader
        .build()
        .expect("a reader")
        .into_loader(12)
        .build()
        .expect("a loader");
    assert_eq!(
        loader
            .by_ref()
            .filter(|batch| batch.as_ref().is_ok_and(|batch| batch.len() == 12))
            .count(),
        10
    );
    assert!(matches!(loader.bad_rows(), [bad] if bad.error.contains("fifty")));
}

#[test]
fn the_epochs_of_a_loader_end() {
    // Fewer rows than a batch, which are dropped.
    let table = Table::write(&Layout {
        files: vec![20],
        ..Layout::default()
    });
    let reader = make_reader(table.url()).epochs(3).build().expect("a reader");
    let mut loader = reader.into_loader(64).build().expect("a loader");
    let mut batches = 0;
    while let Some(epoch) = loader.next_epoch() {
        batches += epoch.count();
    }
    assert_eq!((batches, loader.epoch()), (0, None));
    // An error that nobody returns on.
    let reader = make_reader(table.url()).epochs(3).build().expect("a reader");
    let mut loader = reader.into_loader(4).sink(Failing(2)).build().expect("a loader");
    let mut items = 0;
    while let Some(epoch) = loader.next_epoch() {
        items += epoch.count();
    }
    assert_eq!((items, loader.epoch()), (3, None));
}

#[test]
fn a_seek_that_is_refused_changes_nothing() {
    let table = table();
    let load = |seed| {
        let reader = make_batch_reader(table.url())
            .columns(["id"])
            .seed(seed)
            .build()
            .expect("a reader");
        reader.into_loader(16).build().expect("a loader")
    };
    let ids = |batch: Result<HostBatch>| batch.expect("a batch").slice::<i32>("id").expect("ids").to_vec();
    let whole: Vec<_> = load(1).map(ids).collect();
    let mut loader = load(1);
    assert_eq!(ids(loader.next().expect("a batch")), whole[0]);
    assert!(loader.seek(load(2).state()).is_err());
    assert_eq!(loader.map(ids).collect::<Vec<_>>(), whole[1..]);
}

/// What was loaded ahead and is loaded again is not bad twice.
#[test]
fn bad_rows_are_counted_where_they_are_handed_out() {
    let table = table();
    let spec = squall_reader::TransformSpec::per_row(|row| match row.int("id")? % 10 {
        0 => Err(Error::invalid("bad")),
        _ => Ok(()),
    });
    let reader = make_batch_reader(table.url())
        .epochs(3)
        .transform(spec)
        .on_bad_row(OnBadRow::Skip { at_most: 12 });
    let mut loader = reader
        .build()
        .expect("a reader")
        .into_loader(12)
        .prefetch(100)
        .build()
        .expect("a loader");
    for _ in 0..3 {
        loader.next().expect("a batch").expect("rows");
        loader.skip_steps(0).expect("a loader");
    }
    assert!(loader.bad_rows().len() <= 12);
    assert_eq!(loader.by_ref().filter(|batch| batch.is_ok()).count(), 27);
    assert_eq!(loader.bad_rows().len(), 12);
}

/// Takes its time.
struct Slow;

impl Sink for Slow {
    type Batch = usize;

    fn put(&mut self, batch: HostBatch) -> Result<usize> {
        std::thread::sleep(std::time::Duration::from_millis(8));
        Ok(batch.len())
    }
}

#[test]
fn a_slow_sink_or_a_slow_trainer_limits() {
    let table = table();
    let load = || {
        let reader = make_batch_reader(table.url()).build().expect("a reader");
        reader.into_loader(8).sink(Slow).build().expect("a loader")
    };
    let mut loader = load();
    assert_eq!(loader.by_ref().map(|rows| rows.expect("a batch")).sum::<usize>(), 120);
    let metrics = loader.metrics();
    assert_eq!(metrics.limiting_stage(), Some(Stage::Sink), "{metrics}");
    assert_eq!((metrics.rows, metrics.batches), (120, 15));
    assert!(
        metrics
            .loader
            .is_some_and(|loader| loader.sink.as_millis() >= 120 && loader.batches == 15)
    );

    let mut loader = load();
    for batch in loader.by_ref() {
        batch.expect("a batch");
        std::thread::sleep(std::time::Duration::from_millis(16));
    }
    let metrics = loader.metrics();
    assert_eq!(metrics.limiting_stage(), Some(Stage::Consumer), "{metrics}");
    assert!(metrics.loader.is_some_and(|loader| !loader.blocked.is_zero()));
}

#[test]
fn a_loader_is_a_stream_too() {
    let table = table();
    for prefetch in [0, 3] {
        let load = || {
            let reader = make_batch_reader(table.url())
                .columns(["id"])
                .seed(4)
                .build()
                .expect("a reader");
            reader.into_loader(16).prefetch(prefetch).build().expect("a loader")
        };
        let ids = |batch: Result<HostBatch>| batch.expect("a batch").slice::<i32>("id").expect("ids").to_vec();
        let expected: Vec<_> = load().map(ids).collect();
        let mut stream = load().into_stream();
        let found: Vec<_> = block_on(stream.by_ref().map(ids).collect());
        assert_eq!(found, expected);
        assert!(stream.is_terminated());
        // It goes on as an iterator.
        let mut stream = load().into_stream();
        block_on(stream.next()).expect("a batch").expect("rows");
        assert_eq!(stream.into_inner().map(ids).collect::<Vec<_>>(), expected[1..]);
    }
}
