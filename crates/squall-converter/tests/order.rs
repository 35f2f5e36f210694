//! Sorting and shuffling while writing, in little memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use squall_converter::{Converted, Converter, SourceTable, session};
use squall_dataset::DatasetUrl;
use squall_schema::{ByteSize, ErrorKind, Result, Row, RowId, Schema, field};

use crate::{Destination, run};

const ROWS: i64 = 40_000;
/// The first rows of the shuffle with seed 7.
const GOLDEN: [i64; 4] = [26408, 24729, 21546, 13665];

fn converter(destination: &Destination) -> Converter {
    Converter::new(destination.url())
        .row_group_bytes(1 << 16)
        .file_bytes(1 << 18)
}

fn convert(sql: &str, converter: Converter) -> Result<Converted> {
    run(async { converter.convert(session().sql(sql).await.expect("a query")).await })
}

/// A column of integers in stored order.
pub(crate) fn column(converted: &Converted, name: &str) -> Vec<i64> {
    column_at(&converted.url(), name)
}

/// The values of a column, in their order.
pub(crate) fn column_at(url: &str, name: &str) -> Vec<i64> {
    run(async {
        let table = SourceTable::open(&DatasetUrl::parse(url).expect("a URL"))
            .await
            .expect("a table");
        let session = session();
        session.register_table("source", Arc::new(table)).expect("a table");
        let rows = session
            .sql(&format!("SELECT {name} FROM source"))
            .await
            .expect("a query");
        let batches = rows.collect_partitioned().await.expect("rows");
        let batches = batches.iter().flatten();
        batches
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    })
}

fn ids() -> String {
    // In two partitions, with a payload.
    format!(
        "SELECT value AS id, value % 10 AS k, concat('payload ', value * 7919 % 65537) AS text FROM generate_series(0, {})",
        ROWS - 1
    )
}

#[test]
fn a_shuffle_has_each_row_once_and_depends_on_the_seed_alone() {
    let shuffled = |seed, limit| {
        let destination = Destination::new();
        let mut converter = converter(&destination).shuffle(seed);
        if let Some(limit) = limit {
            converter = converter.memory_limit(limit);
        }
        let converted = convert(&ids(), converter).expect("a dataset");
        assert_eq!(destination.entries(), ["out"]);
        (column(&converted, "id"), converted.fingerprint().to_owned())
    };
    let (first, fingerprint) = shuffled(7, None);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len() as i64, ROWS);
    // The order of a release is the order of later ones.
    assert_eq!(first[..4], GOLDEN);
    assert_eq!(shuffled(7, None), (first.clone(), fingerprint));
    // However much memory there is.
    assert_eq!(shuffled(7, Some(ByteSize::mib(64))).0, first);
    assert_ne!(shuffled(8, None).0, first);

    // Where a row lands says nothing of where it came from: each tenth holds as many rows of each tenth.
    let n = ROWS as usize / 10;
    let expected = n as f64 / 10.0;
    let mut chi = 0.0;
    for tenth in first.chunks(n) {
        for from in 0..10 {
            let range = from * n as i64..(from + 1) * n as i64;
            let found = tenth.iter().filter(|id| range.contains(id)).count() as f64;
            chi += (found - expected).powi(2) / expected;
        }
    }
    // 81 degrees of freedom: 140 is passed once in twenty thousand seeds.
    assert!(chi < 140.0, "chi-square {chi}");
    // And neighbours do not stay together.
    let together = first.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
    assert!(together < 20, "{together} neighbours");
}

#[test]
fn a_sort_orders_all_files() {
    let destination = Destination::new();
    let sql = format!(
        "SELECT value AS id, value * 7919 % 10007 AS x, concat('t', value) AS text FROM generate_series(0, {})",
        ROWS - 1
    );
    let converted = convert(&sql, converter(&destination).sort_by(["x"])).expect("a dataset");
    assert!(converted.files().len() > 1, "one file shows little");
    let (x, id) = (column(&converted, "x"), column(&converted, "id"));
    assert!(x.is_sorted());
    // Rows of equal values stay as they were.
    let rows: Vec<_> = x.iter().zip(&id).collect();
    assert!(rows.is_sorted() && id.len() as i64 == ROWS);
}

#[test]
fn one_value_in_all_rows_is_sorted_too() {
    let destination = Destination::new();
    let sql = format!("SELECT value AS id, 1 AS k FROM generate_series(0, {})", ROWS - 1);
    let converted = convert(&sql, converter(&destination).sort_by(["k"])).expect("a dataset");
    assert!(column(&converted, "id").iter().copied().eq(0..ROWS));
}

#[test]
fn directories_are_sorted_or_shuffled_each() {
    for shuffle in [false, true] {
        let destination = Destination::new();
        let converter = converter(&destination).partition_by(["k"]);
        let converter = if shuffle {
            converter.shuffle(3)
        } else {
            converter.sort_by(["text"])
        };
        let converted = convert(&ids(), converter).expect("a dataset");
        let (k, id) = (column(&converted, "k"), column(&converted, "id"));
        assert!(k.is_sorted() && id.iter().zip(&k).all(|(id, k)| id % 10 == *k));
        assert_eq!(id.iter().collect::<BTreeSet<_>>().len() as i64, ROWS);
        let of_zero = &id[..ROWS as usize / 10];
        assert!(!of_zero.is_sorted(), "nothing was done");
    }
}

#[test]
fn rows_made_in_rust_are_shuffled_too() {
    let schema = Schema::new(vec![field!("id": i64)]).expect("a schema");
    let rows = || {
        (0..3000i64).map(|id| {
            let mut row = Row::new(RowId::default(), Vec::new());
            row.set("id", id);
            Ok(row)
        })
    };
    let destination = Destination::new();
    let converted = run(converter(&destination).shuffle(1).materialize(&schema, rows())).expect("a dataset");
    let mut found = column(&converted, "id");
    assert!(!found.is_sorted());
    found.sort_unstable();
    assert!(found.into_iter().eq(0..3000));
}

#[test]
fn a_limit_that_does_not_suffice_is_named() {
    let destination = Destination::new();
    let limit = |limit| Converter::new(destination.url()).memory_limit(limit);
    let error = convert(&ids(), limit(ByteSize::mib(50))).expect_err("too little");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(
        error.to_string().contains("50 MiB") && error.to_string().contains("32 MiB"),
        "{error}"
    );
    // A list of all values has to be in memory, and the engine cannot spill it.
    let sql = "SELECT array_agg(repeat(concat('x', value), 50)) AS v FROM generate_series(0, 2000000)";
    let error = convert(sql, limit(ByteSize::mib(128))).expect_err("too much");
    assert!(error.to_string().contains("memory limit of 128 MiB"), "{error}");
    assert_eq!(destination.entries(), [""; 0]);
}

#[test]
fn keys_of_many_rows_are_sorted_without_being_loaded_at_once() {
    // Of each of four labels there are many times more rows than fit in the memory for them.
    let destination = Destination::new();
    let sql = "SELECT value % 4 AS label, value AS id, repeat(CAST(value AS VARCHAR), 20) AS text \
               FROM generate_series(1, 200000)";
    let converter = Converter::new(destination.url()).row_group_bytes(1 << 20);
    let converted = convert(sql, converter.sort_by(["label"]).memory_limit(ByteSize::mib(64)));
    let converted = converted.expect("a conversion");
    assert_eq!(converted.rows(), 200_000);
    let rows: Vec<_> = column(&converted, "label")
        .into_iter()
        .zip(column(&converted, "id"))
        .collect();
    assert!(rows.is_sorted(), "rows of equal labels keep their order");
}
