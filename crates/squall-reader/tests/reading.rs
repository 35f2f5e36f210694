//! Which rows come, in which order, to which rank.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, NullArray, RecordBatch};
use proptest::prelude::*;
use squall_reader::{Partition, Remainder, Shuffle, make_batch_reader, make_reader};
use squall_schema::Value;
use squall_testkit::{Layout, Table, write_file};

use crate::{batches, error, ids, sorted};

#[test]
fn every_cell_of_every_row_is_read() {
    for page_index in [true, false] {
        let table = Table::write(&Layout {
            page_index,
            ..Layout::default()
        });
        let reader = make_reader(table.url())
            .lanes(5)
            .window(7)
            .workers(3)
            .build()
            .expect("a reader");
        let mut seen = HashSet::new();
        for row in reader {
            let row = row.expect("a row");
            let id = row.int("id").expect("an id");
            assert!(seen.insert(id), "row {id} came twice");
            let name = if id % 7 == 0 {
                Value::Null
            } else {
                Value::from(format!("row {id}"))
            };
            assert_eq!(row["name"], name);
            let first = (id % 100) as i8;
            assert_eq!(
                row.tensor("x").expect("x").as_slice::<i8>().expect("int8"),
                [first, first + 1, first + 2]
            );
            // Ids ascend through files and row groups, so the identity can be checked.
            let piece = row.id().piece as usize;
            let before: usize = [16, 16, 16, 2, 16, 14, 16, 16, 8][..piece].iter().sum();
            assert_eq!(before as u64 + row.id().row, id as u64);
        }
        assert_eq!(seen.len(), table.n_rows());
    }
}

#[test]
fn without_shuffling_rows_come_as_they_are_stored() {
    let table = Table::write(&Layout::default());
    let reader = make_batch_reader(table.url()).shuffle(Shuffle::None).columns(["id"]);
    assert_eq!(ids(reader), (0..120).collect::<Vec<_>>());
}

#[test]
fn a_batch_may_be_larger_than_everything() {
    let table = Table::write(&Layout::default());
    let reader = || {
        make_batch_reader(table.url())
            .lanes(1000)
            .window(u64::MAX)
            .batch_size(u64::MAX)
    };
    assert_eq!(sorted(ids(reader())), (0..120).collect::<Vec<_>>());
    assert!(ids(reader().remainder(Remainder::Drop)).is_empty());
    let padded = batches(
        reader()
            .batch_size(500)
            .remainder(Remainder::Pad)
            .build()
            .expect("a reader"),
    );
    assert_eq!((padded.len(), padded[0].len()), (1, 500));
    let mut times = BTreeMap::new();
    padded[0].iter().for_each(|(id, _)| *times.entry(*id).or_insert(0) += 1);
    assert!(
        times.len() == 120 && times.values().all(|times| (4..=5).contains(times)),
        "{times:?}"
    );
}

#[test]
fn epochs_differ_and_repeat_with_the_seed() {
    let table = Table::write(&Layout::default());
    let read = |seed, workers| {
        ids(make_batch_reader(table.url())
            .seed(seed)
            .epochs(2)
            .lanes(4)
            .window(9)
            .workers(workers))
    };
    let run = read(1, 1);
    assert_eq!(run, read(1, 4), "the order depends on the number of threads");
    assert_ne!(run, read(2, 1));
    assert_ne!(run[..120], run[120..]);
    assert_eq!(sorted(run[120..].to_vec()), (0..120).collect::<Vec<_>>());
}

#[test]
fn columns_come_in_the_order_asked_for_and_rows_in_the_same_order() {
    let table = Table::write(&Layout::default());
    let reader = make_batch_reader(table.url())
        .columns(["x", "id"])
        .build()
        .expect("a reader");
    assert_eq!(reader.schema().names().collect::<Vec<_>>(), ["x", "id"]);
    let both: Vec<_> = batches(reader).into_iter().flatten().map(|(id, _)| id).collect();
    assert_eq!(both, ids(make_batch_reader(table.url()).columns(["id"])));
}

#[test]
fn partition_values_are_columns() {
    let layout = Layout {
        files: vec![10, 20, 5],
        ..Layout::default()
    };
    let table = Table::write_partitioned("key", &["a%2Fb", "__HIVE_DEFAULT_PARTITION__", "c"], &layout);
    let mut counts = BTreeMap::new();
    for row in make_reader(table.url()).build().expect("a reader") {
        let key = row.expect("a row")["key"].as_str().map(str::to_owned);
        *counts.entry(key).or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        BTreeMap::from([(Some("a/b".into()), 10), (None, 20), (Some("c".into()), 5)])
    );
    // No column of a file is read.
    let reader = make_reader(table.url()).columns(["key"]).build().expect("a reader");
    assert_eq!(reader.count(), 35);
}

#[test]
fn petastorms_shards_are_whole_row_groups() {
    let table = Table::write(&Layout::default());
    let mut all = Vec::new();
    for rank in 0..4 {
        let reader = make_batch_reader(table.url())
            .rank(rank, 4)
            .partition(Partition::RowGroups)
            .build()
            .expect("a reader");
        for (id, place) in batches(reader).into_iter().flatten() {
            assert_eq!(u64::from(place.piece) % 4, rank);
            all.push(id);
        }
    }
    assert_eq!(sorted(all), (0..120).collect::<Vec<_>>());
    let error = error(
        make_reader(table.url())
            .rank(0, 10)
            .partition(Partition::RowGroups)
            .build(),
    );
    assert!(error.to_string().contains("found 9 for 10"), "{error}");
}

/// Parquet does not say that all lists of a column have one length; who knows it says it.
#[test]
fn lists_of_a_known_length_are_tensors() {
    let table = Table::write(&Layout::default());
    let rows = make_reader(table.url()).shape("x", [3]).build().expect("a reader");
    assert_eq!(
        rows.schema().get("x").map(ToString::to_string).as_deref(),
        Some("x: int8[3]")
    );
    for row in rows {
        let row = row.expect("a row");
        let first = (row.int("id").expect("an id") % 100) as i8;
        let x = row.tensor("x").expect("a tensor");
        assert_eq!(
            (x.shape(), x.as_slice::<i8>().expect("int8")),
            (&[3][..], &[first, first + 1, first + 2][..])
        );
    }
    let mut batches = make_batch_reader(table.url())
        .columns(["x"])
        .shape("x", [3, 1])
        .build()
        .expect("a reader");
    let batch = batches.next().expect("a batch").expect("rows");
    assert_eq!(batch.column(0).as_fixed_size_list().value_length(), 3);
    let mut rows = make_reader(table.url()).shape("x", [4]).build().expect("a reader");
    let wrong = rows.next().expect("a row").expect_err("lists of 3").to_string();
    assert!(wrong.contains("a list of 3 elements: expected 4"), "{wrong}");
    let wrong = |column: &str| error(make_reader(table.url()).shape(column, [2]).build()).to_string();
    assert!(wrong("id").contains("id: int32 cannot have the shape [2]"));
    assert!(wrong("nope").contains("no column \"nope\""));
}

/// pandas and pyarrow write columns of nothing but nulls, and dictionaries of text.
#[test]
fn columns_of_nulls_and_dictionaries() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let write = |name: &str, columns: [(&str, ArrayRef); 3]| {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        write_file(
            &directory.path().join(name),
            &batch.expect("a batch"),
            &Layout::default(),
        );
    };
    let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let (nulls, numbers): (ArrayRef, ArrayRef) =
        (Arc::new(NullArray::new(3)), Arc::new(Int32Array::from(vec![1, 2, 3])));
    write(
        "0.parquet",
        [
            ("word", Arc::new(words.clone())),
            ("x", nulls.clone()),
            ("none", nulls.clone()),
        ],
    );
    write(
        "1.parquet",
        [("word", Arc::new(words)), ("x", numbers), ("none", nulls)],
    );
    let reader = make_reader(directory.path().display().to_string())
        .shuffle(Shuffle::None)
        .build();
    let reader = reader.expect("a reader");
    assert_eq!(
        reader.schema().to_string(),
        "word: str nullable\nx: int32 nullable\nnone: nested (Null) nullable"
    );
    let rows = reader.map(|row| row.expect("a row")).map(|row| {
        assert_eq!(row["none"], Value::Null);
        (row["word"].as_str().unwrap_or_default().to_owned(), row["x"].as_i64())
    });
    let expected = [
        ("a", None),
        ("b", None),
        ("a", None),
        ("a", Some(1)),
        ("b", Some(2)),
        ("a", Some(3)),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), expected.map(|(word, x)| (word.to_owned(), x)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The union of the ranks is the table, each row once an epoch, in equal steps, for any layout and options.
    #[test]
    fn ranks_read_every_row_once_an_epoch(
        files in prop::collection::vec(1usize..40, 1..4), row_group in 1usize..20, page in 1usize..8, page_index: bool,
        world_size in 1u64..6, batch_size in 1u64..10, lanes in 1u64..9, window in 1u64..20, seed: u64,
        remainder in prop::sample::select(vec![Remainder::Keep, Remainder::Drop, Remainder::Pad]),
    ) {
        let table = Table::write(&Layout { files, row_group, page, page_index });
        let epochs = 2;
        let ranks: Vec<_> = (0..world_size).map(|rank| {
            let reader = make_batch_reader(table.url()).rank(rank, world_size).batch_size(batch_size).epochs(epochs);
            batches(reader.lanes(lanes).window(window).seed(seed).remainder(remainder).workers(2).build().expect("a reader"))
        }).collect();
        let rows = table.n_rows() as u64;
        let global = batch_size * world_size;
        let steps = if remainder == Remainder::Drop { rows / global } else { rows.div_ceil(global) };
        for rank in &ranks {
            prop_assert_eq!(rank.len() as u64, epochs * steps);
            if remainder != Remainder::Keep {
                prop_assert!(rank.iter().all(|batch| batch.len() as u64 == batch_size));
            }
        }
        for epoch in 0..epochs {
            let own = ranks.iter().flatten().flatten().filter(|(_, id)| id.epoch == epoch && !id.padded);
            let seen = sorted(own.map(|(id, _)| *id).collect());
            match remainder {
                Remainder::Drop => {
                    prop_assert_eq!(seen.len() as u64, steps * global);
                    prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "a row came twice");
                }
                _ => prop_assert_eq!(seen, (0..rows as i32).collect::<Vec<_>>()),
            }
        }
    }
}
