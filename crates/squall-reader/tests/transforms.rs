//! Closures over rows and batches.

use std::collections::{BTreeMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type};
use squall_reader::{OnBadRow, Shuffle, TransformSpec, make_batch_reader, make_reader};
use squall_schema::{DType, ErrorKind, Field, Shape, Value};
use squall_testkit::{Layout, Table};

use crate::error;

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

/// A bad row is replaced by one of its window, the same on any number of ranks, and nobody makes a step less.
#[test]
fn bad_rows_are_replaced_and_named() {
    let table = Table::write(&Layout::default());
    let is_bad = |id: i64| id % 10 == 3;
    let builder = |at_most| {
        let spec = TransformSpec::per_row(move |row| match row.int("id")? {
            id if is_bad(id) => Err(squall_schema::Error::invalid(format!("row {id} is bad"))),
            _ => Ok(()),
        });
        let reader = make_batch_reader(table.url())
            .transform(spec)
            .lanes(3)
            .window(10)
            .seed(2);
        reader.global_batch(24).on_bad_row(OnBadRow::Skip { at_most })
    };
    let run = |world_size| {
        let mut samples = BTreeMap::new();
        let mut bad = BTreeMap::new();
        for rank in 0..world_size {
            let mut reader = builder(12).rank(rank, world_size).build().expect("a reader");
            let mut steps = 0;
            while let Some(batch) = reader.next_samples() {
                let batch = batch.expect("a batch");
                steps += 1;
                assert_eq!(batch.ids.len() as u64, 24 / world_size);
                let ids = batch
                    .columns
                    .column_by_name("id")
                    .expect("id")
                    .as_primitive::<Int32Type>();
                for (id, place) in ids.values().iter().zip(&batch.ids) {
                    assert!(!is_bad(i64::from(*id)));
                    assert!(samples.insert(place.sample, (*id, place.piece, place.row)).is_none());
                }
            }
            assert_eq!(steps, 5);
            for own in reader.bad_rows() {
                assert!(
                    own.error.contains("is bad") && own.error.contains("row group"),
                    "{}",
                    own.error
                );
                assert_eq!(own.row.sample, own.substitute.sample);
                bad.insert(own.row.sample, (own.row.piece, own.row.row, own.substitute.row));
            }
        }
        (samples, bad)
    };
    let alone = run(1);
    assert_eq!((alone.0.len(), alone.1.len()), (120, 12));
    assert_eq!(run(2), alone);
    assert_eq!(run(4), alone);
    // One more than is put up with.
    let mut reader = builder(11).build().expect("a reader");
    let failed = reader.by_ref().find_map(Result::err).expect("an error").to_string();
    assert!(
        failed.contains("more than 11 rows are bad") && failed.contains("is bad"),
        "{failed}"
    );
    assert_eq!(reader.bad_rows().len(), 11);
    // Where all of a window is bad, there is no substitute.
    let spec = TransformSpec::per_row(|_| Err(squall_schema::Error::invalid("never good")));
    let reader = make_reader(table.url())
        .transform(spec)
        .on_bad_row(OnBadRow::Skip { at_most: u64::MAX })
        .build();
    let failed = reader
        .expect("a reader")
        .next()
        .expect("an error")
        .expect_err("no good row");
    assert!(failed.to_string().contains("never good"), "{failed}");
}
