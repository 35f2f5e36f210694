//! The order of a release is that of every later one: what is delivered, to the row, for some readers.
//!
//! A change here changes the order of every user, and needs a new `ORDER_VERSION`.

use chacha20::rand_core::Rng;
use squall_reader::{
    BatchReader, Ending, ORDER_VERSION, ReaderBuilder, Shuffle, TransformSpec, make_batch_reader, make_mixed_reader,
    make_reader,
};
use squall_schema::{DType, Field};
use squall_testkit::{Layout, Table};

use crate::batches;

fn table(rows: usize) -> Table {
    Table::write(&Layout {
        files: vec![rows],
        row_group: 5,
        ..Layout::default()
    })
}

/// Batches of ids.
fn ids(builder: ReaderBuilder<BatchReader>) -> Vec<Vec<i32>> {
    let batches = batches(builder.build().expect("a reader")).into_iter();
    batches
        .map(|batch| batch.into_iter().map(|(id, _)| id).collect())
        .collect()
}

#[test]
fn delivered_batches_are_pinned() {
    assert_eq!(ORDER_VERSION, 1);
    let table = table(24);
    let builder = |shuffle| {
        let reader = make_batch_reader(table.url())
            .shuffle(shuffle)
            .seed(7)
            .lanes(3)
            .window(4);
        reader.batch_size(6)
    };
    let rank = |rank| builder(Shuffle::Windows).rank(rank, 2).epochs(2);
    assert_eq!(
        ids(rank(0)),
        [
            [8, 3, 4, 10, 0, 1],
            [2, 9, 7, 14, 6, 5],
            [3, 1, 0, 13, 14, 2],
            [6, 4, 12, 10, 8, 11]
        ]
    );
    assert_eq!(
        ids(rank(1)),
        [
            [11, 23, 15, 22, 21, 12],
            [18, 17, 16, 19, 13, 20],
            [15, 9, 21, 22, 23, 5],
            [17, 16, 7, 20, 19, 18]
        ]
    );
    assert_eq!(
        ids(builder(Shuffle::Full)),
        [
            [7, 20, 5, 10, 1, 12],
            [4, 17, 8, 2, 3, 21],
            [0, 18, 6, 9, 16, 22],
            [23, 11, 15, 19, 13, 14]
        ]
    );
}

#[test]
fn mixed_batches_are_pinned() {
    let (a, b) = (table(24), table(10));
    let member = |table: &Table| make_batch_reader(table.url()).lanes(2).window(4);
    let mixed = make_mixed_reader([(member(&a), 3.0), (member(&b), 1.0)]).ending(Ending::Longest);
    let reader = mixed.seed(7).batch_size(8).rank(1, 2).build().expect("a reader");
    let found: Vec<Vec<_>> = batches(reader)
        .into_iter()
        .map(|batch| batch.into_iter().map(|(id, row)| (row.dataset, id)).collect())
        .collect();
    let expected = [
        vec![(0, 16), (1, 0), (0, 9), (0, 18), (0, 8), (1, 7), (0, 15), (1, 1)],
        vec![(0, 0), (0, 17), (0, 2), (0, 19), (0, 3), (0, 1), (1, 2), (1, 4)],
        vec![(1, 3)],
    ];
    assert_eq!(found, expected);
}

#[test]
fn random_numbers_of_transforms_are_pinned() {
    let table = table(4);
    let draw = TransformSpec::per_row_with_rng(|row, rng| {
        row.set("drawn", i64::from(rng.next_u32()));
        Ok(())
    });
    let reader = make_reader(table.url()).shuffle(Shuffle::None).seed(7).columns(["id"]);
    let reader = reader
        .transform(draw.edit(Field::scalar("drawn", DType::Int64)))
        .build()
        .expect("a reader");
    let drawn: Vec<_> = reader
        .map(|row| row.expect("a row").int("drawn").expect("a number"))
        .collect();
    assert_eq!(drawn, [127_257_528, 615_730_943, 2_682_971_892, 2_483_040_104]);
}
