//! Real Petastorm reads what Spark wrote for it.

use squall::convert::{Converter, FloatPrecision, Petastorm, SaveMode};
use squall::{VerifyOptions, verify_dataset};

use super::{convert, session};
use crate::digest::{check_rows, rows_in};
use crate::with_petastorm::{indexes_in, run_python, squall_indexes};

/// What Petastorm holds as scalars, some of it null.
fn query(from: u32, to: u32) -> String {
    format!(
        "SELECT id, CAST(id % 100 AS TINYINT) AS tiny, CAST(id AS SMALLINT) AS short, CAST(id AS INT) AS int, id % 2 = 0 AS flag,
            CAST(id / 7 AS FLOAT) AS x, CAST(id / 7 AS DOUBLE) AS y,
            if(id % 5 = 3, NULL, concat('Zürich ', id % 10)) AS text, CAST(concat('b', id) AS BINARY) AS bytes,
            CAST(id / 100 AS DECIMAL(9, 2)) AS price, DATE'2024-01-01' + CAST(id AS INT) AS day,
            TIMESTAMP'1999-12-31 23:59:59.123456 UTC' + make_dt_interval(CAST(id * 777 AS INT)) AS at
         FROM range({from}, {to}, 1, 3)"
    )
}

#[test]
fn what_spark_wrote_and_appended_is_read_by_petastorm() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let url = place("table").display().to_string();
    let rows = |from, to| spark.sql(&query(from, to)).expect("rows");
    let converter = || Converter::new(&url).floats(FloatPrecision::Keep);
    let petastorm = Petastorm::new("Table")
        .index("by_text", "text")
        .not_null_index("has_text", "text");
    let check = |n_rows: usize| {
        run_python("read.py", &[&place("table"), &place("rows"), &place("indexes")], None);
        let expected = rows_in(&place("rows"));
        assert_eq!(expected.len(), n_rows);
        check_rows(&url, &expected, &[]);
        assert_eq!(squall_indexes(&url), indexes_in(&place("indexes")));
        let report = verify_dataset(&url, &VerifyOptions::default()).expect("a report");
        assert!(report.is_sound() && report.orphans.is_empty(), "{report:?}");
        expected
    };
    convert(&rows(0, 60), converter().petastorm(petastorm)).expect("a conversion");
    let expected = check(60);
    assert_eq!(expected[&7]["text"]["value"], "Zürich 7");
    assert_eq!(squall_indexes(&url)["by_text"].len(), 8);
    // Indexes name row groups by their numbers in all files.
    let error = convert(&rows(60, 90), converter().mode(SaveMode::Append))
        .expect_err("an error")
        .to_string();
    assert!(error.contains("row-group indexes"), "{error}");

    let plain = converter().mode(SaveMode::Overwrite).petastorm(Petastorm::new("Table"));
    convert(&rows(0, 60), plain).expect("an overwrite");
    // It stays what Petastorm opens, unasked.
    convert(&rows(60, 90), converter().mode(SaveMode::Append)).expect("an append");
    check(90);

    let arrays = spark.sql("SELECT id, array(id) AS v FROM range(3)").expect("rows");
    let plain = converter().mode(SaveMode::Overwrite).petastorm(Petastorm::new("Table"));
    let error = convert(&arrays, plain).expect_err("an error").to_string();
    assert!(
        error.contains("cells, which Spark does not write") && error.contains("column v"),
        "{error}"
    );
    check(90);
}
