//! The reader from outside: real files, every row counted.

use std::collections::{BTreeMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type};
use proptest::prelude::*;
use squall_reader::{
    BatchReader, Partition, ReaderBuilder, ReaderState, Remainder, Shuffle, TransformSpec, make_batch_reader,
    make_reader,
};
use squall_schema::{DType, ErrorKind, Field, RowId, Shape, Value};
use squall_testkit::{Layout, Table, truncate};

/// The ids of a reader's batches, in order.
fn batches(mut reader: BatchReader) -> Vec<Vec<(i32, RowId)>> {
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_samples() {
        let batch = batch.expect("a batch");
        let ids = batch
            .columns
            .column_by_name("id")
            .expect("column id")
            .as_primitive::<Int32Type>();
        batches.push(ids.values().iter().copied().zip(batch.ids).collect());
    }
    batches
}

fn ids(reader: ReaderBuilder<BatchReader>) -> Vec<i32> {
    let reader = reader.build().expect("a reader");
    batches(reader).into_iter().flatten().map(|(id, _)| id).collect()
}

fn sorted(mut ids: Vec<i32>) -> Vec<i32> {
    ids.sort_unstable();
    ids
}

fn error<R>(builder: squall_schema::Result<R>) -> squall_schema::Error {
    builder.err().expect("an error")
}

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

#[test]
fn a_row_transform_edits_removes_and_selects() {
    let table = Table::write(&Layout::default());
    let spec = TransformSpec::per_row(|row| {
        let scaled = row.tensor("x")?.map(|x: i8| f32::from(x) / 2.0)?;
        row.set("x", scaled);
        row.set("double", 2 * row.int("id")?);
        Ok(())
    })
    .edit(Field::new("x", DType::Float32, Shape::fixed(&[3])))
    .edit(Field::scalar("double", DType::Int64))
    .remove("name");
    let reader = make_reader(table.url()).transform(spec).build().expect("a reader");
    assert_eq!(reader.schema().to_string(), "id: int32\nx: float32[3]\ndouble: int64");
    for row in reader {
        let row = row.expect("a row");
        assert_eq!(row["double"], Value::Int(2 * row.int("id").expect("an id")));
        assert_eq!(row.tensor("x").expect("x").dtype(), DType::Float32);
        assert_eq!(row.get("name"), None);
    }
}

#[test]
fn a_batch_transform_sees_columns() {
    let table = Table::write(&Layout::default());
    let spec = TransformSpec::per_batch(|batch| {
        let x = batch
            .column_by_name("x")
            .expect("x")
            .as_list::<i32>()
            .values()
            .as_primitive::<Int8Type>()
            .clone();
        assert_eq!(x.len(), 3 * batch.num_rows());
        Ok(batch)
    })
    .select(["x"]);
    let reader = make_batch_reader(table.url())
        .transform(spec)
        .build()
        .expect("a reader");
    assert_eq!(
        reader.map(|batch| batch.expect("a batch").num_rows()).sum::<usize>(),
        120
    );
}

#[test]
fn augmentation_is_the_same_on_any_number_of_threads_and_ranks() {
    use chacha20::rand_core::Rng;
    let table = Table::write(&Layout::default());
    let draws = |rank, world_size, workers| {
        let spec = TransformSpec::per_row_with_rng(|row, rng| {
            row.set("draw", rng.next_u64());
            Ok(())
        });
        let reader = make_reader(table.url()).transform(spec.edit(Field::scalar("draw", DType::UInt64)));
        let reader = reader
            .rank(rank, world_size)
            .global_batch(8)
            .workers(workers)
            .build()
            .expect("a reader");
        reader
            .map(|row| {
                row.map(|row| (row.int("id").expect("an id"), format!("{:?}", row["draw"])))
                    .expect("a row")
            })
            .collect::<BTreeMap<_, _>>()
    };
    let alone = draws(0, 1, 1);
    assert_eq!(alone.values().collect::<HashSet<_>>().len(), 120);
    let mut together = draws(0, 2, 2);
    together.extend(draws(1, 2, 3));
    assert_eq!(alone, together);
}

#[test]
fn a_failing_or_panicking_closure_names_its_row() {
    let table = Table::write(&Layout::default());
    for panics in [false, true] {
        let spec = TransformSpec::per_row(move |row| match row.int("id")? {
            67 if panics => panic!("no sixty-seven"),
            67 => Err(squall_schema::Error::invalid("no sixty-seven")),
            _ => Ok(()),
        });
        let mut reader = make_reader(table.url())
            .shuffle(Shuffle::None)
            .batch_size(10)
            .transform(spec)
            .build()
            .expect("a reader");
        // What comes before the batch is delivered, and nothing behind it.
        assert_eq!(reader.by_ref().take(60).filter(|row| row.is_ok()).count(), 60);
        let error = reader.next().expect("an item").expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Transform);
        let text = error.to_string();
        for part in [
            "no sixty-seven",
            "row 1,",
            "row group 1,",
            "part-00001.parquet",
            "epoch 0",
            "sample 67",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert!(reader.next().is_none());
    }
}

#[test]
fn what_a_closure_gives_is_checked() {
    let table = Table::write(&Layout::default());
    let first = |spec: TransformSpec| {
        make_reader(table.url())
            .transform(spec)
            .build()
            .expect("a reader")
            .next()
            .expect("an item")
            .expect_err("an error")
            .to_string()
    };
    let undeclared = first(TransformSpec::per_row(|row| {
        row.set("new", 1);
        Ok(())
    }));
    assert!(undeclared.contains("\"new\" that is not declared"), "{undeclared}");
    let missing = first(TransformSpec::per_row(|_| Ok(())).edit(Field::scalar("new", DType::Int8)));
    assert!(missing.contains("no column \"new\""), "{missing}");
    let wrong = first(TransformSpec::per_row(|row| {
        row.set("id", "text");
        Ok(())
    }));
    assert!(
        wrong.contains("expected int32, found str") && wrong.contains("part-0000"),
        "{wrong}"
    );
    let dropped = first(TransformSpec::per_batch(|batch| {
        Ok(batch.slice(1, batch.num_rows() - 1))
    }));
    assert!(dropped.contains("rows are dropped by a filter only"), "{dropped}");
    let refused = error(
        make_reader(table.url())
            .transform(TransformSpec::new().remove("nothing"))
            .build(),
    );
    assert!(refused.to_string().contains("no column \"nothing\""), "{refused}");
}

#[test]
fn wrong_requests_are_one_clear_sentence() {
    let table = Table::write(&Layout::default());
    let check = |builder: ReaderBuilder<BatchReader>, expected: &str| {
        let error = error(builder.build()).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    let reader = || make_batch_reader(table.url());
    check(
        make_batch_reader("/no/such/place"),
        "no such file or directory (URL /no/such/place)",
    );
    check(
        make_batch_reader("ftp://host/x"),
        "no store for URLs that begin with ftp://",
    );
    check(
        reader().columns(["id", "nope"]),
        "no column \"nope\": the columns are id, name, x",
    );
    check(reader().rank(4, 4), "expected a rank below the world size 4, found 4");
    check(
        reader().rank(0, 3).global_batch(4),
        "multiple of the world size 3, found 4",
    );
    check(reader().batch_size(1).global_batch(1), "not both");
    check(reader().batch_size(0), "found 0");
    check(reader().lanes(0), "found 0");
    check(reader().workers(0), "at least one worker");
    check(
        reader().endless().batch_size(500).remainder(Remainder::Drop),
        "120 rows are fewer than the global batch 500",
    );
    let empty = tempfile::tempdir().expect("a directory");
    check(
        make_batch_reader(empty.path().to_str().expect("UTF-8")),
        "there is no Parquet file in the directory",
    );
}

#[test]
fn damaged_files_are_named() {
    let table = Table::write(&Layout::default());
    truncate(&table.files()[1]);
    let found = error(make_reader(table.url()).build());
    assert_eq!(found.kind(), ErrorKind::Corrupt);
    assert!(found.to_string().contains("part-00001.parquet"), "{found}");

    // A file that changes after the dataset was opened.
    let table = Table::write(&Layout::default());
    let reader = make_reader(table.url()).build().expect("a reader");
    truncate(&table.files()[2]);
    let found = reader.filter_map(Result::err).next().expect("an error");
    assert!(found.to_string().contains("part-00002.parquet"), "{found}");

    // A flipped byte in a page.
    let table = Table::write(&Layout {
        row_group: 60,
        page: 60,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[4..40].fill(0xff);
    std::fs::write(path, bytes).expect("written");
    let found = make_reader(table.url())
        .build()
        .expect("a reader")
        .filter_map(Result::err)
        .next()
        .expect("an error");
    assert!(
        found.to_string().contains("row group 0") && found.to_string().contains("part-00000.parquet"),
        "{found}"
    );
}

/// An error comes in its place: the batches before it are delivered, however far ahead the reader is.
#[test]
fn an_error_takes_its_place_in_the_order() {
    let layout = Layout {
        files: vec![400; 6],
        row_group: 50,
        ..Layout::default()
    };
    let reader = |table: &Table| {
        let reader = make_batch_reader(table.url())
            .lanes(2)
            .window(60)
            .batch_size(10)
            .seed(3)
            .workers(3);
        reader.build().expect("a reader")
    };
    let whole = batches(reader(&Table::write(&layout)));
    let whole: Vec<Vec<_>> = whole
        .into_iter()
        .map(|batch| batch.into_iter().map(|(_, id)| id).collect())
        .collect();
    for file in [0, 3, 5, 0, 3, 5] {
        let table = Table::write(&layout);
        let mut reader = reader(&table);
        std::fs::remove_file(&table.files()[file]).expect("removed");
        let mut delivered = Vec::new();
        let error = loop {
            match reader.next_samples().expect("an error before the end") {
                Ok(batch) => delivered.push(batch.ids),
                Err(error) => break error,
            }
        };
        assert!(
            error.to_string().contains(&format!("part-0000{file}.parquet")),
            "{error}"
        );
        assert_eq!(delivered, whole[..delivered.len()]);
        // A batch fails with its window: with windows of 60 rows on two lanes, up to twelve batches before the first row
        // that is missing.
        let missing = |id: &RowId| id.piece as usize / 8 == file;
        let first = whole
            .iter()
            .position(|batch| batch.iter().any(missing))
            .expect("a row of the file");
        assert!(
            (first.saturating_sub(12)..=first).contains(&delivered.len()),
            "{} of {first}",
            delivered.len()
        );
    }
}

/// No damage to a footer hangs a reader or ends its data early without an error.
#[test]
fn flipped_bits_in_a_footer_end_in_rows_or_an_error() {
    let table = Table::write(&Layout {
        files: vec![20],
        row_group: 10,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let bytes = std::fs::read(path).expect("a file");
    let footer = bytes.len()
        - 8
        - u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes")) as usize;
    // The offset index stands before the footer.
    for at in footer - 300..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(path, damaged).expect("written");
        if let Ok(reader) = make_reader(table.url()).workers(1).build() {
            let expected = reader.rows_per_epoch();
            let mut rows = 0;
            let mut failed = false;
            for row in reader.take(100) {
                rows += u64::from(row.is_ok());
                failed |= row.is_err();
            }
            assert!(
                failed || rows == expected.min(100),
                "byte {at}: {rows} of {expected} rows and no error"
            );
        }
    }
}

/// Runs alone in a process of its own: threads of other tests have the same names.
#[test]
fn dropping_a_reader_ends_its_threads() {
    const ALONE: &str = "SQUALL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("the test's own path");
        let arguments = ["--exact", "dropping_a_reader_ends_its_threads"];
        let output = std::process::Command::new(own)
            .args(arguments)
            .env(ALONE, "1")
            .output()
            .expect("the test starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        return;
    }
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task")
            .expect("Linux")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("squall-")).count()
    };
    let table = Table::write(&Layout::default());
    let mut reader = make_reader(table.url()).endless().workers(3).build().expect("a reader");
    assert!(reader.next().is_some_and(|row| row.is_ok()));
    // Three workers, a driver, and those of the I/O.
    assert!(threads() >= 5, "{} threads", threads());
    drop(reader);
    assert_eq!(threads(), 0);
}

#[test]
fn a_reader_can_be_built_and_dropped_inside_a_runtime() {
    let table = Table::write(&Layout::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rows = runtime.block_on(async { make_reader(table.url()).build().expect("a reader").count() });
    assert_eq!(rows, 120);
}

#[test]
fn a_state_resumes_on_another_world_size() {
    let table = Table::write(&Layout::default());
    let builder = || {
        make_batch_reader(table.url())
            .seed(3)
            .lanes(4)
            .window(9)
            .epochs(3)
            .global_batch(12)
    };
    let whole: Vec<_> = batches(builder().build().expect("a reader"))
        .into_iter()
        .map(|batch| sorted(batch.into_iter().map(|(id, _)| id).collect()))
        .collect();
    for done in [0, 1, 9, 10, 11, 29, 30] {
        let mut first = builder().build().expect("a reader");
        (0..done).for_each(|_| drop(first.next().expect("a batch")));
        let state = ReaderState::from_json(&first.state().to_json()).expect("own text");
        // The options that are not given come from the state.
        let rest = |rank| {
            batches(
                make_batch_reader(table.url())
                    .epochs(3)
                    .resume(state.clone())
                    .rank(rank, 3)
                    .global_batch(12)
                    .workers(3)
                    .build()
                    .expect("a reader"),
            )
        };
        let ranks = [rest(0), rest(1), rest(2)];
        let steps = whole.len() - done;
        for step in 0..steps {
            let batch = ranks
                .iter()
                .flat_map(|rank| rank[step].iter().map(|(id, _)| *id))
                .collect();
            assert_eq!(sorted(batch), whole[done + step], "step {step} after {done}");
        }
        assert!(ranks.iter().all(|rank| rank.len() == steps));
    }
}

#[test]
fn a_state_of_another_order_is_refused() {
    let table = Table::write(&Layout::default());
    let mut reader = make_batch_reader(table.url()).seed(3).build().expect("a reader");
    assert!(reader.next().is_some());
    let state = reader.state();
    let refused = error(make_batch_reader(table.url()).seed(4).resume(state.clone()).build());
    assert!(
        refused
            .to_string()
            .contains("the seed changed since the state was saved, from 3 to 4"),
        "{refused}"
    );
    let beyond = state.to_json().replace("\"next\":64", "\"next\":121");
    let beyond = ReaderState::from_json(&beyond).expect("a state");
    let refused = error(make_batch_reader(table.url()).resume(beyond).build());
    assert!(
        refused.to_string().contains("stands at sample 121 of an epoch of 120"),
        "{refused}"
    );
    let other = Table::write(&Layout {
        files: vec![7, 9],
        ..Layout::default()
    });
    let refused = error(make_batch_reader(other.url()).resume(state).build());
    assert!(
        refused.to_string().contains("the dataset's fingerprint changed"),
        "{refused}"
    );
}

#[cfg(feature = "filter")]
#[test]
fn a_where_clause_selects_rows_before_they_are_shared() {
    let layout = Layout {
        files: vec![50, 30, 40],
        ..Layout::default()
    };
    let table = Table::write_partitioned("part", &["1", "2", "3"], &layout);
    let check = |sql: &str, expected: Vec<i32>| {
        let mut all = Vec::new();
        for rank in 0..2 {
            all.extend(ids(make_batch_reader(table.url())
                .filter(sql)
                .lanes(3)
                .window(5)
                .rank(rank, 2)
                .columns(["id"])));
        }
        assert_eq!(sorted(all), expected, "{sql}");
    };
    check("id % 3 = 0", (0..120).filter(|id| id % 3 == 0).collect());
    check("id BETWEEN 47 AND 52 OR id = 119", vec![47, 48, 49, 50, 51, 52, 119]);
    check("name IS NULL", (0..120).filter(|id| id % 7 == 0).collect());
    // Unknown is not true.
    check(
        "name <> 'row 1'",
        (0..120).filter(|id| id % 7 != 0 && *id != 1).collect(),
    );
    check("part = 2", (50..80).collect());
    check(
        "part = 2 AND UPPER(name) LIKE 'ROW 6_'",
        (60..70).filter(|id| id % 7 != 0).collect(),
    );
    let refused = |sql: &str| error(make_batch_reader(table.url()).filter(sql).build()).to_string();
    for (sql, expected) in [
        ("id > ", "where-clause \"id > \""),
        ("nope = 1", "nope"),
        ("id + 1", "not true or false, but a Int64"),
        ("random() < 0.5", "changes from call to call"),
        ("id < 0", "no row fulfils the where-clause"),
        ("id IN (SELECT 1)", "where-clause"),
    ] {
        let error = refused(sql);
        assert!(error.contains(expected) && !error.contains('\n'), "{sql}: {error}");
    }
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
