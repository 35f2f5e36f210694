//! What is forecast, beside what readers do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use squall_reader::{
    BatchReader, Forecast, ForecastOptions, MapSize, NGram, Partition, Predicate, ReaderBuilder, Remainder, Sampler,
    Shuffle, Split, Topology, make_batch_reader,
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
            if steps == 0 {
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
        assert_eq!(
            reader.bytes_fetched(),
            expected.bytes_fetched,
            "rank {} of {world_size}, {} steps",
            expected.rank,
            expected.steps
        );
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

#[test]
fn narrowed_and_drawn_rows_are_forecast() {
    let table = Table::write(&Layout::default());
    let options = || make_batch_reader(table.url()).batch_size(3).lanes(3).window(5).seed(2);
    let third = || Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 3 == 0));
    let found = check(2, || options().predicate(third()));
    assert_eq!((found.rows, found.row_groups), (40, 9));
    check(3, || options().split(Split::by_row([0.5, 0.5], 1)));
    check(2, || options().split(Split::by_column("name", [0.5, 0.5], 0)));
    let found = check(2, || options().skip(17).take(70).remainder(Remainder::Pad));
    assert_eq!((found.rows, found.row_groups), (70, 6));
    let found = check(2, || options().rows(3..9).rows(60..100).predicate(third()).skip(1));
    assert_eq!(found.rows, 15);
    for sampler in [
        Sampler::weighted("id").samples(90),
        Sampler::weighted("id").samples(200),
        Sampler::weighted("id").replacement(false).samples(50),
    ] {
        let found = check(2, || options().sampler(sampler.clone()));
        assert_eq!(found.rows, found.delivered);
    }
    for remainder in [Remainder::Keep, Remainder::Pad] {
        let found = check(2, || {
            options()
                .ngram(NGram::new([(-1, ["id"]), (1, ["id"])], "id", 4))
                .remainder(remainder)
        });
        assert!(found.rows > 60 && found.rows < 120, "{}", found.rows);
    }
    let shards = check(3, || {
        options().partition(Partition::RowGroups).predicate(third()).skip(2)
    });
    assert_eq!((shards.rows, shards.rows_fetched), (38, 38));
}

#[test]
fn ranks_of_a_group_have_the_same_figures() {
    let table = Table::write(&Layout::default());
    let options = || make_batch_reader(table.url()).batch_size(4).lanes(4).window(6);
    let groups = forecast(options().rank(0, 3));
    for (topology, group_of_each) in [
        (Topology::consecutive(2), [0, 0, 1, 1, 2, 2]),
        (Topology::strided(2), [0, 1, 2, 0, 1, 2]),
        (
            Topology::groups([vec![5], vec![0, 2, 4, 3], vec![1]]),
            [1, 2, 1, 1, 1, 0],
        ),
    ] {
        let found = check(6, || options().topology(topology.clone()));
        assert_eq!((found.world_size, found.groups, found.global_batch), (6, 3, 12));
        assert_eq!((found.rows, found.delivered, found.steps), (120, 120, groups.steps));
        let mut bytes = 0;
        for (rank, group) in (0..).zip(group_of_each) {
            let expected = &groups.ranks[group as usize];
            let own = &found.ranks[rank as usize];
            assert_eq!((own.rank, own.group, own.rows), (rank, group, expected.rows));
            assert_eq!(own.bytes_fetched, expected.bytes_fetched);
            bytes += expected.bytes_fetched;
        }
        assert_eq!(found.bytes_fetched, bytes);
        assert_eq!(found.read_amplification, bytes as f64 / found.bytes as f64);
    }
    let shards = check(6, || {
        options().topology(Topology::strided(2)).partition(Partition::RowGroups)
    });
    assert_eq!((shards.delivered, shards.rows_fetched), (120, 240));
}

#[test]
fn a_shard_without_rows_is_forecast_as_such() {
    let table = Table::write(&Layout::default());
    // Row groups 0 to 2, of nine for four ranks.
    let options = || {
        make_batch_reader(table.url())
            .partition(Partition::RowGroups)
            .rows(0..40)
            .batch_size(4)
    };
    let size = MapSize {
        rows: 3,
        columns: 4,
        groups: 4,
    };
    let found = options()
        .rank(2, 4)
        .forecast(&ForecastOptions::default().with_map(size));
    let found = found.expect("a forecast");
    assert_eq!((found.world_size, found.ranks.len()), (4, 4));
    let rows: Vec<_> = found.ranks.iter().map(|rank| (rank.rank, rank.rows)).collect();
    assert_eq!(rows, [(0, 16), (1, 16), (2, 8), (3, 0)]);
    assert_eq!(found.ranks_without_rows, [3]);
    let empty = &found.ranks[3];
    assert_eq!((empty.steps, empty.bytes_fetched, empty.memory.total()), (0, 0, 0));
    assert_eq!(found.map.expect("a map").cell(2, 0), [0, 0, 4, 0]);
    let error = error(options().rank(3, 4).build()).to_string();
    assert!(
        error.contains("no selected row is in the row groups of rank 3 of 4"),
        "{error}"
    );
    let grouped = options()
        .rank(0, 8)
        .topology(Topology::consecutive(2))
        .forecast(&ForecastOptions::default());
    assert_eq!(grouped.expect("a forecast").ranks_without_rows, [6, 7]);
}

#[test]
fn padding_takes_memory() {
    let table = Table::write(&Layout::default());
    let options = || {
        make_batch_reader(table.url())
            .remainder(Remainder::Pad)
            .window(8)
            .lanes(4)
    };
    let memory = |world_size, batch_size| {
        let found = forecast(options().rank(0, world_size).batch_size(batch_size));
        found.ranks.into_iter().map(|rank| rank.memory).collect::<Vec<_>>()
    };
    let (whole, ten_times) = (memory(1, 120)[0], memory(1, 1200)[0]);
    assert_eq!(ten_times.batches, 10 * whole.batches);
    assert_eq!(ten_times.windows, 10 * whole.windows);
    // The first of four ranks gets all rows, the others padding alone.
    let ranks = memory(4, 120);
    for rank in &ranks[1..] {
        assert_eq!(rank.batches, ranks[0].batches);
        assert!(rank.windows > 0 && rank.fetched > 0, "{rank:?}");
        assert!(rank.windows >= whole.windows, "{rank:?}, {whole:?}");
    }
    // Hands without number are as many as there are batches.
    let most = forecast(options().batch_size(10).prefetch(1 << 20).workers(1));
    assert_eq!(
        most.ranks[0].memory,
        forecast(options().batch_size(10).prefetch(1000).workers(1)).ranks[0].memory
    );
}

#[test]
fn a_full_shuffle_has_the_quality_of_chance() {
    for (files, batch_size) in [
        (vec![1437], 128),
        (vec![1437], 700),
        (vec![1437], 2000),
        (vec![50, 30, 40], 10),
        (vec![50, 30, 40], 50),
        (vec![300; 3], 256),
        (vec![7], 4),
    ] {
        let layout = Layout {
            files: files.clone(),
            row_group: 60,
            ..Layout::default()
        };
        let table = Table::write(&layout);
        for seed in 0..3 {
            let options = make_batch_reader(table.url())
                .columns(["id"])
                .rank(0, 2)
                .global_batch(batch_size);
            let found = forecast(options.shuffle(Shuffle::Full).seed(seed)).quality;
            let what = format!("{files:?} in batches of {batch_size}, seed {seed}: {found:?}");
            assert!(found.batches >= 64 || found.epochs > 7, "{what}");
            for (deff, quality, error) in [
                (found.design_effect, found.quality, found.standard_error),
                (found.rank_design_effect, found.rank_quality, found.rank_standard_error),
            ] {
                let error = error.expect("a standard error");
                assert!(error <= 0.07, "{what}");
                let error_of_effect = error * deff.max(1.0).powi(2);
                assert!((deff - 1.0).abs() <= 4.0 * error_of_effect + 1e-9, "{what}");
                assert!(quality + 4.0 * error >= 1.0 && quality <= 1.0, "{what}");
            }
        }
    }
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
    let shards = check(3, || {
        make_batch_reader(table.url())
            .filter("id % 5 = 0")
            .partition(Partition::RowGroups)
            .batch_size(4)
            .lanes(2)
    });
    assert_eq!((shards.rows, shards.ranks_without_rows.len()), (24, 0));
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
    let options = ForecastOptions::default().with_epoch(3).with_map(MapSize {
        rows: 9,
        columns: 6,
        groups: 2,
    });
    let later = reader().forecast(&options).expect("a forecast");
    assert_eq!((first.epoch, later.epoch), (0, 3));
    let map = later.map.expect("a map");
    assert_eq!(map.counts.iter().sum::<u64>(), 120);
    assert_eq!((map.rows, map.columns, map.groups), (9, 6, 2));
}
