//! What is forecast, beside what readers do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use squall_reader::{
    BatchReader, Forecast, ForecastOptions, Partition, ReaderBuilder, Remainder, Shuffle, make_batch_reader,
};
use squall_testkit::{Layout, Table};

use crate::error;

fn forecast(reader: ReaderBuilder<BatchReader>) -> Forecast {
    reader.forecast(&ForecastOptions::default()).expect("a forecast")
}

/// Waits for what is read ahead: a reader that ends drops fetches that nothing waits for.
fn wait_for_bytes(reader: &BatchReader, expected: u64) {
    let began = Instant::now();
    while reader.bytes_fetched() < expected {
        let found = reader.bytes_fetched();
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "fetched {found} bytes of {expected}"
        );
        std::thread::yield_now();
    }
}

/// Reads an epoch as each rank of this world and holds it to its forecast.
fn check(world_size: u64, options: impl Fn() -> ReaderBuilder<BatchReader>) -> Forecast {
    let forecast = forecast(options().rank(0, world_size));
    assert_eq!(forecast.ranks.len() as u64, world_size);
    assert!(!forecast.row_groups_taken.is_sample() && !forecast.batches_taken.is_sample());
    for expected in &forecast.ranks {
        // Far more batches are made than are asked for, so that all is fetched before the last one is taken.
        let mut reader = options()
            .rank(expected.rank, world_size)
            .prefetch(1000)
            .build()
            .expect("a reader");
        let mut found = BTreeMap::new();
        let mut steps = 0;
        while let Some(batch) = reader.next_samples() {
            let batch = batch.expect("a batch");
            if steps == 0 && expected.steps > 2 {
                wait_for_bytes(&reader, expected.bytes_fetched);
            }
            steps += 1;
            for id in &batch.ids {
                *found.entry(id.padded).or_insert(0) += 1;
            }
        }
        let count = |padded| found.get(&padded).copied().unwrap_or(0);
        assert_eq!(
            (steps, count(false), count(true)),
            (expected.steps, expected.rows, expected.padded)
        );
        if expected.steps > 2 {
            assert_eq!(
                reader.bytes_fetched(),
                expected.bytes_fetched,
                "rank {} of {world_size}",
                expected.rank
            );
        }
    }
    forecast
}

#[test]
fn readers_do_what_is_forecast() {
    for page_index in [true, false] {
        let table = Table::write(&Layout {
            page_index,
            ..Layout::default()
        });
        for world_size in [1, 2, 3, 6, 8] {
            for remainder in [Remainder::Keep, Remainder::Drop, Remainder::Pad] {
                let options = || {
                    make_batch_reader(table.url())
                        .lanes(4)
                        .window(6)
                        .batch_size(3)
                        .remainder(remainder)
                };
                let whole = check(world_size, options);
                assert_eq!(whole.rows, 120);
                let narrow = check(world_size, || options().columns(["id"]));
                assert_eq!(narrow.rows_fetched, whole.rows_fetched);
                assert!(narrow.bytes_fetched < whole.bytes_fetched);
            }
        }
    }
}

#[test]
fn every_order_and_partition_is_forecast() {
    let table = Table::write(&Layout::default());
    let options = || make_batch_reader(table.url()).batch_size(4).lanes(3).window(9);
    let none = check(2, || options().shuffle(Shuffle::None));
    let full = check(2, || options().shuffle(Shuffle::Full));
    assert!(
        full.quality.quality > 0.6 && none.quality.quality < 0.3,
        "{:?} {:?}",
        full.quality,
        none.quality
    );
    let shards = check(3, || options().partition(Partition::RowGroups));
    assert_eq!((shards.partition, shards.delivered), ("row-groups", 120));
    // Each row once; pages and dictionaries that lanes of one rank share, more often.
    assert_eq!(shards.rows_fetched, 120);
    assert!((1.0..1.5).contains(&shards.read_amplification));
    let error = error(
        options()
            .rank(0, 100)
            .partition(Partition::RowGroups)
            .forecast(&ForecastOptions::default()),
    );
    assert!(error.to_string().contains("found 9 for 100"), "{error}");
}

#[cfg(feature = "filter")]
#[test]
fn selected_rows_are_forecast() {
    let table = Table::write(&Layout::default());
    let found = check(2, || {
        make_batch_reader(table.url())
            .filter("id % 5 = 0 AND id > 20")
            .batch_size(2)
            .lanes(2)
            .window(4)
    });
    assert_eq!((found.rows, found.row_groups), (19, 7));
}

#[test]
fn more_ranks_than_any_machine_has_are_forecast() {
    let table = Table::write(&Layout::default());
    let found = forecast(make_batch_reader(table.url()).rank(1023, 1024).batch_size(2).seed(3));
    assert_eq!((found.ranks.len(), found.steps, found.delivered), (1024, 1, 120));
    // 120 rows for 1024 ranks: some have one, and the others have none and fetch nothing.
    assert_eq!(found.ranks.iter().filter(|rank| rank.rows == 1).count(), 120);
    assert!(
        found
            .ranks
            .iter()
            .all(|rank| (rank.rows == 0) == (rank.bytes_fetched == 0))
    );
    let error = error(
        make_batch_reader(table.url())
            .rank(0, 1 << 40)
            .forecast(&ForecastOptions::default()),
    );
    assert!(error.to_string().contains("expected at most 65536 ranks"), "{error}");
}

#[test]
fn an_epoch_has_a_forecast_of_its_own_and_a_map() {
    let table = Table::write(&Layout::default());
    let reader = || make_batch_reader(table.url()).rank(0, 2).batch_size(5).window(8);
    let first = forecast(reader());
    let options = ForecastOptions::default().with_epoch(3).with_map(9, 6, 2);
    let later = reader().forecast(&options).expect("a forecast");
    assert_eq!((first.epoch, later.epoch), (0, 3));
    let map = later.map.expect("a map");
    assert_eq!(map.counts.iter().sum::<u64>(), 120);
    assert_eq!((map.rows, map.columns, map.groups), (9, 6, 2));
}
