//! Datasets that Spark appends to and overwrites, whoever wrote them first.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use squall::convert::{Converter, FloatPrecision, SaveMode};
use squall::{Dataset, DatasetUrl, ErrorKind, Shuffle, VerifyOptions, make_reader, verify_dataset};

use super::server::server;
use super::{EVERY_TYPE, SLOWLY, assert_same, convert, has_begun, rows, run, session};

/// All files below a directory, hidden ones too, without the metadata.
fn files_below(directory: &Path) -> BTreeSet<String> {
    fn walk(directory: &Path, above: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = format!("{above}{}", entry.file_name().display());
            match entry.path().is_dir() {
                true => walk(&entry.path(), &format!("{path}/"), found),
                false => drop(found.insert(path)),
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(directory, "", &mut found);
    found.remove("_common_metadata");
    found
}

/// A dataset is sound, has these rows, and nothing but its files is in its directory.
#[track_caller]
fn check(url: &str, n_rows: u64) {
    let report = verify_dataset(url, &VerifyOptions::default()).expect("a report");
    assert!(report.is_sound() && report.orphans.is_empty(), "{report:?}");
    let dataset = run(Dataset::open(&DatasetUrl::parse(url).expect("a URL"))).expect("a dataset");
    assert_eq!(dataset.rows(), n_rows);
    let named: BTreeSet<_> = dataset.files().iter().map(|file| file.path.to_string()).collect();
    assert_eq!(files_below(Path::new(url)), named);
}

#[test]
fn rows_are_appended_and_readers_read_on() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().join("table").display().to_string();
    let to = |mode| Converter::new(&url).mode(mode).floats(FloatPrecision::Keep);
    let some = |from: u32, to: u32| {
        let sql = EVERY_TYPE.replace("range(0, 200, 1, 3)", &format!("range({from}, {to}, 1, 3)"));
        spark.sql(&sql).expect("rows")
    };
    // Where nothing is, an append makes a dataset.
    convert(&some(0, 120), to(SaveMode::Append)).expect("a dataset");
    let open = make_reader(&url).shuffle(Shuffle::None).build();
    let mut open = open.expect("a reader");
    open.next().expect("a row").expect("a row");

    let appended = convert(&some(120, 200), to(SaveMode::Append)).expect("an append");
    let rest: squall::Result<Vec<_>> = open.collect();
    assert_eq!(rest.expect("rows").len(), 119);
    assert_same(&appended, &some(0, 200));
    check(&url, 200);
    // Their files come behind those that were there.
    let ids: Vec<_> = rows(&appended)
        .iter()
        .map(|row| row.int("id").expect("an id"))
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");

    // Refused before Spark runs: the rows would end it otherwise.
    let refused = |columns: &str, expected: &str| {
        let sql = format!(
            "SELECT {columns} FROM (SELECT *, CAST(raise_error('it ran') AS STRING) AS ran FROM ({EVERY_TYPE}))"
        );
        let rows = spark.sql(&sql).expect("rows");
        let error = convert(&rows, to(SaveMode::Append)).expect_err("an error");
        assert!(error.kind() == ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused("id, flag, ran", "expected rows with the columns id, flag, tiny");
    refused("*", "point, table, ran");
    refused("* EXCEPT (ran, table), map(1, ran) AS table", "expected table");
    refused(
        "CAST(ran AS INT) AS id, * EXCEPT (ran, id)",
        "expected id: int64 to append, found id: int32",
    );
    refused("* EXCEPT (ran, id), CAST(ran AS BIGINT) AS id", "columns");
    check(&url, 200);
}

#[test]
fn an_append_of_other_nested_columns_or_nulls_is_refused() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().join("table").display().to_string();
    let append = |sql: &str| {
        let rows = spark.sql(sql).expect("rows");
        convert(&rows, Converter::new(&url).mode(SaveMode::Append))
    };
    append("SELECT id, named_struct('x', id, 'y', array(named_struct('z', 'a'))) AS point FROM range(5)")
        .expect("a dataset");
    append("SELECT id, named_struct('x', id, 'y', array(named_struct('z', 'b'))) AS point FROM range(5)")
        .expect("an append");
    for other in [
        "named_struct('x', id, 'y', 'a')",
        "named_struct('x', id, 'y', array(named_struct('z', 1)))",
        "'a'",
    ] {
        let error = append(&format!("SELECT id, {other} AS point FROM range(5)")).expect_err("another type");
        assert!(error.to_string().contains("to append, found point"), "{error}");
    }
    let error = append(
        "SELECT if(id = 1, NULL, id) AS id, named_struct('x', id, 'y', array(named_struct('z', 'b'))) AS point FROM range(5)",
    );
    let error = error.expect_err("nulls").to_string();
    assert!(
        error.contains("expected id: int64 to append, found id: int64 nullable"),
        "{error}"
    );
    check(&url, 10);
}

#[test]
fn rows_are_overwritten_and_a_failure_leaves_what_was_there() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().join("table").display().to_string();
    let to = || Converter::new(&url).mode(SaveMode::Overwrite);
    let query = |sql: &str| spark.sql(sql).expect("rows");
    let parts = query("SELECT id, concat('a/b ', id % 3) AS part FROM range(0, 30, 1, 2)");
    convert(&parts, to().partition_by(["part"])).expect("a dataset");
    check(&url, 30);
    let before = files_below(Path::new(&url));

    for sql in [
        "SELECT id FROM range(0)",
        "SELECT id, raise_error('in the middle') AS x FROM range(9)",
    ] {
        convert(&query(sql), to()).expect_err("an error");
        assert_eq!(files_below(Path::new(&url)).len(), before.len(), "{sql}");
        check(&url, 30);
    }
    // Other columns, and other directories.
    let written = convert(
        &query("SELECT id, id / 2 AS x FROM range(0, 7, 1, 2)"),
        to().sort_by(["x"]),
    )
    .expect("an overwrite");
    assert_eq!(written.schema().to_string(), "id: int64\nx: float32 nullable");
    assert!(files_below(Path::new(&url)).is_disjoint(&before));
    check(&url, 7);
    let names: Vec<_> = std::fs::read_dir(&url)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names.len(), written.files().len() + 1, "{names:?}");
    // A cache has a dataset for each conversion.
    let error = convert(&query("SELECT 1 AS id"), to().cached())
        .expect_err("an error")
        .to_string();
    assert!(error.contains("a cache"), "{error}");
}

#[test]
fn an_append_that_is_dropped_leaves_what_was_there() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let url = path.display().to_string();
    let to = || Converter::new(&url).mode(SaveMode::Append);
    let quick = spark
        .sql("SELECT id, if(id < 0, NULL, 'x') AS slept FROM range(3)")
        .expect("rows");
    convert(&quick, to()).expect("a dataset");
    let slow = spark.sql(&SLOWLY.replace("reflect", "'x' || reflect")).expect("rows");
    run(async {
        let mut conversion = Box::pin(to().convert_spark(&slow));
        let began = Instant::now();
        while !has_begun(&path) {
            let part = tokio::time::timeout(Duration::from_millis(50), &mut conversion).await;
            assert!(part.is_err() && began.elapsed() < Duration::from_secs(60), "{part:?}");
        }
    });
    let rows = |n: usize| {
        let found: squall::Result<Vec<_>> = make_reader(&url).build().expect("a reader").collect();
        assert_eq!(found.expect("rows").len(), n);
        let report = verify_dataset(&url, &VerifyOptions::default()).expect("a report");
        assert!(report.is_sound() && report.orphans.is_empty(), "{report:?}");
    };
    rows(3);
    convert(&quick, to()).expect("an append");
    rows(6);
}

/// What the embedded engine wrote, Spark appends to, in the same directories, and the other way round.
#[test]
fn spark_and_the_embedded_engine_append_to_each_other() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().join("table").display().to_string();
    let converter = || Converter::new(&url).mode(SaveMode::Append);
    let embedded = |from: i64, to: i64| {
        let sql = format!(
            "SELECT value AS id, CAST(value AS DOUBLE) AS x, CASE WHEN value % 4 = 0 THEN NULL ELSE 'ü' || value END AS text, \
             [CAST(value AS FLOAT), 1.5] AS pair, CAST('2024-01-01T12:00:00Z' AS TIMESTAMP) AS at, \
             CASE value % 3 WHEN 0 THEN '12:00' WHEN 1 THEN 'a/b' ELSE '50%' END AS part FROM generate_series({from}, {to})"
        );
        (sql, converter())
    };
    let convert_embedded = |(sql, converter): (String, Converter)| {
        run(async {
            let rows = squall::convert::session().sql(&sql).await.expect("a query");
            converter.convert(rows).await
        })
    };
    let wanted = squall::Schema::new(vec![
        squall::field!("id": i64),
        squall::field!("x": f32).with_nullable(true),
        squall::field!("text": String).with_nullable(true),
        squall::field!("pair": f32[2]).with_nullable(true),
        squall::field!("part": String),
    ]);
    let wanted = wanted.expect("a schema");
    let (sql, first) = embedded(0, 19);
    convert_embedded((sql, first.partition_by(["part"]).schema(wanted.clone()))).expect("a dataset");
    let sql =
        "SELECT id, id AS x, if(id % 4 = 0, NULL, concat('ü', id)) AS text, array(CAST(id AS FLOAT), 1.5F) AS pair,
        CASE id % 3 WHEN 0 THEN '12:00' WHEN 1 THEN 'a/b' ELSE '50%' END AS part FROM range(20, 50, 1, 2)";
    let rows = spark
        .sql(&sql.replace("id AS x", "CAST(id AS DOUBLE) AS x"))
        .expect("rows");
    convert(&rows, converter()).expect("an append by Spark");
    let (sql, last) = embedded(50, 59);
    let done = convert_embedded((sql, last.schema(wanted))).expect("an append");
    assert_eq!(done.rows(), 60);
    check(&url, 60);
    let mut ids = BTreeSet::new();
    for row in self::rows(&done) {
        let id = row.int("id").expect("an id");
        let text = (id % 4 != 0).then(|| squall::Value::Str(format!("ü{id}")));
        assert_eq!(row["text"], text.unwrap_or(squall::Value::Null));
        assert_eq!(row["x"], squall::Value::Float32(id as f32));
        let part = ["12:00", "a/b", "50%"][id as usize % 3];
        assert_eq!(row["part"], squall::Value::Str(part.into()));
        ids.insert(id);
    }
    assert!(ids.into_iter().eq(0..60));
    let directories = std::fs::read_dir(&url).expect("a directory").count();
    assert_eq!(directories, 3 + 1);
    // Other directories are not the dataset's.
    let error = convert(&rows, converter().partition_by(["id"]))
        .expect_err("an error")
        .to_string();
    assert!(error.contains("directories by"), "{error}");
}

/// The program, as a user runs it.
#[test]
fn the_command_appends_and_overwrites_on_spark() {
    let program = std::env::current_exe().expect("the test's own path");
    let program = program.ancestors().nth(2).expect("the target folder").join("squall");
    assert!(
        program.exists(),
        "{} is not built: run the tests with `cargo xtask test`",
        program.display()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let (source, url) = (
        directory.path().join("table.csv"),
        directory.path().join("table").display().to_string(),
    );
    std::fs::write(&source, "id,name\n1,a\n2,b\n3,c\n").expect("a file");
    let squall = |arguments: &[&str]| {
        let source = source.display().to_string();
        let output = Command::new(&program)
            .args(["convert", &source, &url, "--quiet", "--engine", "spark"])
            .args(arguments)
            // Where no list of processes shows the token.
            .env("SPARK_REMOTE", server().url())
            .output();
        let output = output.expect("the program starts");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for arguments in [&[][..], &["--append", "--sql", "SELECT id + 3 AS id, name FROM source"]] {
        let (is_done, errors) = squall(arguments);
        assert!(is_done, "{arguments:?}: {errors}");
    }
    check(&url, 6);
    let (is_done, errors) = squall(&["--append", "--sql", "SELECT id FROM source"]);
    assert!(
        !is_done && errors.contains("expected rows with the columns id, name"),
        "{errors}"
    );
    let (is_done, errors) = squall(&[]);
    assert!(!is_done && errors.contains("exists already"), "{errors}");
    let (is_done, errors) = squall(&["--overwrite", "--sql", "SELECT id FROM source"]);
    assert!(is_done, "{errors}");
    check(&url, 3);
}
