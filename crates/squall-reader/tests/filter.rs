//! Where-clauses.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use squall_reader::{make_batch_reader, make_reader};
use squall_testkit::{Layout, Table, write_file};

use crate::{error, ids, sorted};

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

/// Constants are in nanoseconds, which do not reach the years of a column in microseconds.
#[test]
fn times_far_from_now_are_compared() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    // 2020-01-01, and the last microsecond of 9999.
    let times = TimestampMicrosecondArray::from(vec![1_577_836_800_000_000, 253_402_300_799_999_999]);
    let batch = RecordBatch::try_from_iter([("t", Arc::new(times.with_timezone("UTC")) as ArrayRef)]).expect("a batch");
    write_file(&directory.path().join("times.parquet"), &batch, &Layout::default());
    let count = |sql: &str| {
        let reader = make_reader(directory.path().display().to_string()).filter(sql).build();
        reader.expect("a reader").filter(|row| row.is_ok()).count()
    };
    assert_eq!(count("t > timestamp '2100-01-01'"), 1);
    assert_eq!(count("t < timestamp '2100-01-01' OR t IS NULL"), 1);
}
