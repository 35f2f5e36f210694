//! Dates and times that Spark counted in the calendar of Spark 2, against what Spark itself reads from the same files.

#[cfg(feature = "filter")]
use std::{fs::File, sync::Arc};

#[cfg(feature = "filter")]
use arrow_array::{ArrayRef, Date32Array, RecordBatch};
#[cfg(feature = "filter")]
use parquet::{
    arrow::ArrowWriter,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use squall_reader::{Shuffle, make_reader};
use squall_schema::{Error, Result, Value};

const DATES: [&str; 16] = [
    "0001-01-01",
    "0004-02-29",
    "0099-12-31",
    "0100-03-01",
    "1000-01-01",
    "1000-02-28",
    "1000-03-01",
    "1582-10-04",
    "1582-10-15",
    "1582-12-31",
    "1700-03-01",
    "1899-12-31",
    "1900-01-01",
    "1970-01-01",
    "2024-02-29",
    "9999-12-31",
];

/// The values of a column, by id.
fn read(file: &str, column: &str) -> Result<Vec<Value>> {
    let path = format!("{}/tests/legacy/{file}.parquet", env!("CARGO_MANIFEST_DIR"));
    let rows = make_reader(path)
        .columns(["id", column])
        .shuffle(Shuffle::None)
        .lanes(1)
        .build()?;
    let rows = rows.map(|row| row.and_then(|row| Ok((row.int("id")?, row[column].clone()))));
    let mut rows = rows.collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|(id, _)| *id);
    Ok(rows.into_iter().map(|(_, value)| value).collect())
}

fn texts(values: Result<Vec<Value>>) -> Vec<String> {
    let values = values.expect("values").into_iter();
    values.map(|value| value.to_iso().expect("a time")).collect()
}

#[test]
fn dates_are_those_that_spark_reads() {
    for file in [
        "utc-int96-legacy",
        "utc-timestamp-micros-legacy",
        "america-los-angeles-timestamp-micros-legacy",
        "america-los-angeles-int96-corrected",
    ] {
        assert_eq!(texts(read(file, "d")), DATES, "{file}");
        let walls = DATES.map(|date| format!("{date}T12:34:56.789012"));
        assert_eq!(texts(read(file, "ntz")), walls, "{file}");
    }
}

#[test]
fn times_of_a_session_in_utc_are_those_that_spark_reads() {
    for file in ["utc-int96-legacy", "utc-timestamp-micros-legacy"] {
        let instants = DATES.map(|date| format!("{date}T12:34:56.789012Z"));
        assert_eq!(texts(read(file, "ts")), instants, "{file}");
    }
}

/// The statistics of such files count in the old calendar: they rule nothing out.
#[cfg(feature = "filter")]
#[test]
fn clauses_compare_what_is_read() {
    let count = |file: &str, sql: &str| {
        let path = format!("{}/tests/legacy/{file}.parquet", env!("CARGO_MANIFEST_DIR"));
        let reader = make_reader(path).columns(["id"]).filter(sql).build();
        match reader {
            Ok(reader) => reader.rows_per_epoch() as usize,
            Err(error) if error.to_string().contains("no row fulfils") => 0,
            Err(error) => panic!("{sql}: {error}"),
        }
    };
    for file in ["utc-int96-legacy", "utc-timestamp-micros-legacy"] {
        for date in DATES {
            let expected = |holds: fn(&str, &str) -> bool| DATES.iter().filter(|own| holds(own, date)).count();
            assert_eq!(
                count(file, &format!("d <= DATE '{date}'")),
                expected(|a, b| a <= b),
                "{file}: {date}"
            );
            assert_eq!(
                count(file, &format!("d > DATE '{date}'")),
                expected(|a, b| a > b),
                "{file}: {date}"
            );
            assert_eq!(count(file, &format!("d = DATE '{date}'")), 1, "{file}: {date}");
        }
        assert_eq!(count(file, "ts < TIMESTAMP '1800-01-01T00:00:00Z'"), 11, "{file}");
    }
}

/// The number of the last Julian day is greater in the file than it is here.
#[cfg(feature = "filter")]
#[test]
fn statistics_in_the_old_calendar_rule_nothing_out() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let path = directory.path().join("old.parquet");
    let days: ArrayRef = Arc::new(Date32Array::from(vec![-141_428, -141_429, -141_430]));
    let batch = RecordBatch::try_from_iter([("d", days)]).expect("a batch");
    let version = KeyValue::new("org.apache.spark.version".to_owned(), "2.4.8".to_owned());
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![version]))
        .build();
    let file = File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows written");
    writer.close().expect("a footer written");
    let rows = |sql: &str| {
        let reader = make_reader(path.display().to_string()).filter(sql).build();
        reader.map(|reader| reader.rows_per_epoch())
    };
    assert_eq!(rows("d <= DATE '1582-10-04'").expect("rows"), 3);
    assert_eq!(rows("d = DATE '1582-10-04'").expect("a row"), 1);
    assert!(rows("d > DATE '1582-10-04'").is_err());
}

/// Instants are the same whatever zone a session had: `unix_micros(ts)` as Spark prints it. Los Angeles was 7:52:58 behind
/// UTC before 1883, and 8 hours since.
#[test]
fn times_of_a_session_elsewhere_are_instants_or_refused() {
    let values = read("america-los-angeles-int96-corrected", "ts").expect("values");
    let micros: Vec<_> = [0, 7, 11, 15]
        .iter()
        .map(|id| match values[*id] {
            Value::Datetime { value, utc: true, .. } => value,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        micros,
        [
            -62_135_523_125_210_988,
            -12_220_169_525_210_988,
            -2_209_001_103_210_988,
            253_402_288_496_789_012
        ]
    );

    let error: Error = read("america-los-angeles-timestamp-micros-legacy", "ts").expect_err("old times");
    let text = error.to_string();
    assert!(
        text.starts_with("a time before 1900 in the calendar of an old Spark, written in America/Los_Angeles, cannot"),
        "{text}"
    );
    assert_eq!((error.place("row"), error.place("column")), (Some("0"), Some("ts")));
    assert!(
        error.place("file").is_some_and(|file| file.contains("los-angeles")),
        "{text}"
    );
}
