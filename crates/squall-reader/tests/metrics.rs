//! What readers tell of themselves.

use std::thread::sleep;
use std::time::Duration;

use squall_reader::{BenchOptions, OnBadRow, Stage, TransformSpec, bench, make_batch_reader, make_reader};
use squall_schema::{Error, ErrorKind};
use squall_testkit::{Layout, Table};

fn table() -> Table {
    Table::write(&Layout::default())
}

/// A transform that takes so long for a batch.
fn slow(time: Duration) -> TransformSpec {
    TransformSpec::per_batch(move |batch| {
        sleep(time);
        Ok(batch)
    })
}

#[test]
fn counts_are_those_of_the_run() {
    let table = table();
    let mut reader = make_batch_reader(table.url())
        .batch_size(16)
        .epochs(2)
        .workers(2)
        .build()
        .expect("a reader");
    let before = reader.metrics();
    assert_eq!(
        (before.rows, before.wall, before.limiting_stage()),
        (0, Duration::ZERO, None)
    );
    assert!(before.to_string().ends_with("no batch was taken yet"), "{before}");
    let meter = reader.meter();
    assert_eq!(reader.by_ref().take(3).filter(|batch| batch.is_ok()).count(), 3);
    assert_eq!((reader.metrics().rows, meter.metrics().batches), (48, 3));
    assert_eq!(reader.by_ref().filter(|batch| batch.is_ok()).count(), 13);
    let metrics = reader.metrics();
    assert_eq!((metrics.rows, metrics.batches, metrics.consumer.jobs), (240, 16, 16));
    assert_eq!(metrics.build.jobs, 16);
    assert_eq!(metrics.bytes_fetched, reader.bytes_fetched());
    // An int32, three int8 with their offset, and a text of 5 to 7 bytes with its own.
    assert!(metrics.bytes_built >= 240 * 16, "{}", metrics.bytes_built);
    assert!(metrics.bytes_decoded >= 240 * 16, "{}", metrics.bytes_decoded);
    assert_eq!(
        (metrics.rank, metrics.world_size, &*metrics.dataset),
        (0, 1, &*reader.dataset().url().to_string())
    );
    // Time that has passed since the end does not count.
    assert_eq!(reader.metrics().wall, metrics.wall);
    assert!(metrics.first_batch <= Some(metrics.waited) && metrics.waited <= metrics.wall);
    assert_eq!(metrics.consumer.busy + metrics.consumer.starved, metrics.wall);
    let parts = metrics.build_parts;
    assert!(
        parts.gather + parts.cells + parts.transform <= metrics.build.busy,
        "{metrics:?}"
    );
    // A reader that begins again goes on counting.
    reader.reset().expect("a reader");
    assert_eq!(reader.by_ref().filter(|batch| batch.is_ok()).count(), 16);
    let since = reader.metrics().since(&metrics);
    assert_eq!(
        (since.rows, since.batches, since.first_batch),
        (240, 16, Some(Duration::ZERO))
    );
    drop(reader);
    assert_eq!(meter.metrics().rows, 480);
    // A reader that is dropped within an epoch has no more time.
    let mut reader = make_batch_reader(table.url()).build().expect("a reader");
    assert!(reader.next().is_some());
    let meter = reader.meter();
    drop(reader);
    assert_eq!(meter.metrics().wall, meter.metrics().wall);
}

/// Of each thread all time is told, but for what the driver needs to turn around. The bounds are wide: on a busy machine a
/// thread may wait for its turn where nothing counts.
#[test]
fn the_times_of_a_stage_make_its_whole() {
    let table = table();
    let reader = make_batch_reader(table.url())
        .batch_size(8)
        .transform(slow(Duration::from_millis(10)))
        .workers(2);
    let mut reader = reader.build().expect("a reader");
    assert_eq!(reader.by_ref().filter(|batch| batch.is_ok()).count(), 15);
    let metrics = reader.metrics();
    let idle = metrics.build.starved + metrics.build.blocked;
    let told = (metrics.decode.busy + metrics.build.busy + idle).as_secs_f64();
    let whole = 2.0 * metrics.wall.as_secs_f64();
    assert!((0.3..1.3).contains(&(told / whole)), "{told} of {whole}: {metrics:?}");
    assert!(metrics.build.busy >= Duration::from_millis(150), "{metrics:?}");
}

#[test]
fn a_slow_transform_limits() {
    let table = table();
    let reader = make_batch_reader(table.url())
        .batch_size(4)
        .transform(slow(Duration::from_millis(8)))
        .workers(2);
    let mut reader = reader.build().expect("a reader");
    assert_eq!(reader.by_ref().filter(|batch| batch.is_ok()).count(), 30);
    let metrics = reader.metrics();
    assert_eq!(metrics.limiting_stage(), Some(Stage::Transform), "{metrics}");
    assert!(metrics.build_parts.transform >= Duration::from_millis(240));
    assert!(metrics.waited_for.workers > metrics.waited_for.fetch, "{metrics:?}");
}

#[test]
fn a_slow_consumer_limits() {
    let table = table();
    let reader = make_batch_reader(table.url()).batch_size(8).workers(2).prefetch(8);
    let mut reader = reader.build().expect("a reader");
    for batch in reader.by_ref() {
        batch.expect("a batch");
        sleep(Duration::from_millis(15));
    }
    let metrics = reader.metrics();
    assert_eq!(metrics.limiting_stage(), Some(Stage::Consumer), "{metrics}");
    assert!(metrics.build.blocked > metrics.build.busy, "{metrics}");
    assert!(metrics.consumer.busy >= Duration::from_millis(225), "{metrics}");
    assert!(
        metrics.to_string().contains("limited by consumer: batches wait ready"),
        "{metrics}"
    );
}

#[test]
fn bad_rows_are_counted() {
    let table = table();
    let spec = TransformSpec::per_row(|row| match row.int("id")? % 60 {
        0 => Err(Error::invalid("bad")),
        _ => Ok(()),
    });
    let reader = make_reader(table.url())
        .transform(spec)
        .on_bad_row(OnBadRow::Skip { at_most: 2 });
    let mut reader = reader.build().expect("a reader");
    assert_eq!(reader.by_ref().filter(|row| row.is_ok()).count(), 120);
    let metrics = reader.metrics();
    assert_eq!((metrics.rows, metrics.bad_rows), (120, 2));
}

#[test]
fn json_has_seconds() {
    let table = table();
    let mut reader = make_batch_reader(table.url()).rank(1, 2).build().expect("a reader");
    assert!(reader.by_ref().all(|batch| batch.is_ok()));
    let json = serde_json::to_value(reader.metrics()).expect("JSON");
    assert_eq!((json["rows"].as_u64(), json["rank"].as_u64()), (Some(60), Some(1)));
    for time in ["wall_seconds", "first_batch_seconds", "waited_seconds"] {
        assert!(json[time].as_f64().is_some_and(|time| time > 0.0), "{json}");
    }
    assert!(
        json["build_parts"]["gather_seconds"].is_f64() && json["fetch"]["busy_seconds"].is_f64(),
        "{json}"
    );
    assert_eq!(serde_json::to_value(Stage::Consumer).expect("JSON"), "consumer");
}

#[cfg(target_os = "linux")]
#[test]
fn processor_time_is_that_of_the_threads_that_load() {
    let table = table();
    let spec = TransformSpec::per_batch(|batch| {
        // Work, and not time: on a busy machine a thread has little of the processor in a given time.
        (0..1_000_000u64).for_each(|n| {
            std::hint::black_box(n);
        });
        Ok(batch)
    });
    let reader = make_batch_reader(table.url()).batch_size(12).transform(spec).workers(2);
    let mut reader = reader.build().expect("a reader");
    assert_eq!(reader.by_ref().filter(|batch| batch.is_ok()).count(), 10);
    let metrics = reader.metrics();
    let (loading, process) = (
        metrics.cpu.loading.expect("a time"),
        metrics.cpu.process.expect("a time"),
    );
    // Other tests take processor time too, of this thread and of the process.
    assert!(loading > Duration::from_millis(2), "{loading:?}");
    assert!(
        loading <= process + Duration::from_millis(50),
        "{loading:?} of {process:?}"
    );
    assert!(metrics.cpu_share().is_some_and(|share| share > 0.0 && share <= 1.0));
}

#[test]
fn a_bench_measures_behind_its_warm_up() {
    let table = table();
    let mut options = BenchOptions::default();
    options.warmup = 3;
    options.step = Duration::from_millis(2);
    let build = |epochs| {
        make_batch_reader(table.url())
            .batch_size(8)
            .epochs(epochs)
            .build()
            .expect("a reader")
    };
    // The data ends before the time does.
    let report = bench(&mut build(1), &options).expect("a report");
    assert_eq!(
        (report.metrics.batches, report.metrics.rows, report.ended),
        (12, 96, true)
    );
    assert!(report.first_batch_seconds > 0.0 && report.metrics.consumer.busy >= Duration::from_millis(24));
    assert_eq!((report.replay.kept, report.replay.batches), (12, 12));
    assert!(report.replay.rows_per_second < 8.0 / 0.002, "{report:?}");
    assert_eq!(report.stages.len(), 3);
    // Batches that are too large for the memory that is left to them are not replayed.
    options.batches = Some(5);
    options.replay_bytes = 0;
    let report = bench(&mut build(1), &options).expect("a report");
    assert_eq!(
        (report.metrics.batches, report.replay.batches, report.ended),
        (5, 0, false)
    );
    options.warmup = 15;
    let error = bench(&mut build(1), &options).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::NoData);
}
