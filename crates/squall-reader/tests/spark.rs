//! Files that differ, structs and views: what Spark writes, read from outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, PrimitiveArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{Field, Fields};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use squall_reader::{Reader, ReaderBuilder, make_batch_reader, make_reader};
use squall_schema::{Row, Value};
use squall_testkit::{Layout, Table, write_file};
use tempfile::TempDir;

/// A file's columns, as functions of the row's number `g`: see [`expected`]. A width says which of the types that are merged
/// a column has; a column of width 0 is not there.
#[derive(Debug, Clone)]
struct File {
    rows: usize,
    int: usize,
    float: usize,
    text: bool,
    /// The widths of the members `x` and `y` of the struct `s`; without members there is no struct.
    members: (usize, usize),
    reversed: bool,
}

/// The value that column `name` has in row `g` of this file.
fn expected(file: &File, name: &str, g: usize) -> Value {
    let number = (g % 100) as i64;
    // Every fifth struct is null.
    let whole = !g.is_multiple_of(5);
    match name {
        "g" => Value::Int(g as i64),
        "int" if file.int > 0 && g % 7 != 3 => Value::Int(number),
        "float" if file.float > 0 => Value::Float64(number as f64 / 4.0),
        "text" if file.text => Value::from(format!("row {g}")),
        "s.x" if file.members.0 > 0 && whole && g.is_multiple_of(2) => Value::Int(number),
        "s.y" if file.members.1 > 0 && whole => Value::from(format!("y {g}")),
        "s" if file.members != (0, 0) && whole => Value::Struct(
            ["x", "y"]
                .map(|member| (member.to_owned(), expected(file, &format!("s.{member}"), g)))
                .to_vec(),
        ),
        _ => Value::Null,
    }
}

fn numbers<T: ArrowPrimitiveType>(
    rows: std::ops::Range<usize>,
    value: impl Fn(usize) -> Option<T::Native>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter(rows.map(value)))
}

fn ints(width: usize, rows: std::ops::Range<usize>, some: impl Fn(usize) -> bool) -> ArrayRef {
    let value = |g: usize| some(g).then_some((g % 100) as i8);
    match width {
        1 => numbers::<Int8Type>(rows, value),
        2 => numbers::<Int16Type>(rows, |g| value(g).map(i16::from)),
        3 => numbers::<Int32Type>(rows, |g| value(g).map(i32::from)),
        _ => numbers::<Int64Type>(rows, |g| value(g).map(i64::from)),
    }
}

impl File {
    fn batch(&self, first: usize) -> RecordBatch {
        let rows = first..first + self.rows;
        let mut columns: Vec<(&str, ArrayRef)> = vec![("g", numbers::<Int64Type>(rows.clone(), |g| Some(g as i64)))];
        if self.int > 0 {
            columns.push(("int", ints(self.int, rows.clone(), |g| g % 7 != 3)));
        }
        match self.float {
            0 => {}
            1 => columns.push((
                "float",
                numbers::<Float32Type>(rows.clone(), |g| Some((g % 100) as f32 / 4.0)),
            )),
            _ => columns.push((
                "float",
                numbers::<Float64Type>(rows.clone(), |g| Some((g % 100) as f64 / 4.0)),
            )),
        }
        if self.text {
            let text = rows.clone().map(|g| Some(format!("row {g}")));
            columns.push(("text", Arc::new(StringArray::from_iter(text))));
        }
        let mut members: Vec<(&str, ArrayRef)> = Vec::new();
        if self.members.0 > 0 {
            members.push(("x", ints(self.members.0, rows.clone(), |g| g.is_multiple_of(2))));
        }
        if self.members.1 > 0 {
            let text = rows.clone().map(|g| Some(format!("y {g}")));
            members.push(("y", Arc::new(StringArray::from_iter(text))));
        }
        if self.reversed {
            columns.reverse();
            members.reverse();
        }
        if !members.is_empty() {
            let (fields, arrays): (Vec<_>, Vec<_>) = members
                .into_iter()
                .map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array))
                .unzip();
            let nulls: NullBuffer = rows.map(|g| !g.is_multiple_of(5)).collect();
            let structs = StructArray::new(Fields::from(fields), arrays, Some(nulls));
            columns.push(("s", Arc::new(structs)));
        }
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        RecordBatch::try_from_iter_with_nullable(columns).expect("a batch")
    }
}

fn write(files: &[File], page_index: bool) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let layout = Layout {
        row_group: 5,
        page: 2,
        page_index,
        ..Layout::default()
    };
    let mut first = 0;
    for (i, file) in files.iter().enumerate() {
        write_file(
            &directory.path().join(format!("part-{i:05}.parquet")),
            &file.batch(first),
            &layout,
        );
        first += file.rows;
    }
    directory
}

fn reader(directory: &TempDir) -> ReaderBuilder<Reader> {
    make_reader(directory.path().to_str().expect("a UTF-8 path"))
        .lanes(3)
        .window(4)
}

/// Rows with their file and their number in the whole dataset.
fn read(reader: ReaderBuilder<Reader>) -> Vec<(usize, usize, Row)> {
    let reader = reader.build().expect("a reader");
    let pieces = reader.dataset().pieces().to_vec();
    let place = |row: squall_schema::Result<Row>| {
        let row = row.expect("a row");
        let piece = row.id().piece as usize;
        let before: u64 = pieces[..piece].iter().map(|piece| piece.rows).sum();
        (pieces[piece].file as usize, (before + row.id().row) as usize, row)
    };
    reader.map(place).collect()
}

/// Every row of the files once, with these values.
fn check(files: &[File], rows: &[(usize, usize, Row)]) {
    let mut seen: Vec<_> = rows.iter().map(|(_, g, _)| *g).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..files.iter().map(|file| file.rows).sum()).collect::<Vec<_>>());
    for (file, g, row) in rows {
        for (name, value) in row.iter() {
            // A struct has the members that some file has.
            let expected = match (expected(&files[*file], name, *g), value) {
                (Value::Struct(mut members), Value::Struct(found)) => {
                    members.retain(|(name, _)| found.iter().any(|(own, _)| own == name));
                    members.sort_by_key(|(name, _)| found.iter().position(|(own, _)| own == name));
                    Value::Struct(members)
                }
                (expected, _) => expected,
            };
            // Where no file has the wide type, a column is narrow.
            let same = match (value, &expected) {
                (Value::Float32(found), Value::Float64(expected)) => f64::from(*found) == *expected,
                (found, expected) => found == expected,
            };
            assert!(same, "{name} of row {g} is {value:?} instead of {expected:?}");
        }
    }
}

fn files() -> impl Strategy<Value = Vec<File>> {
    let file = (
        0..12usize,
        0..5usize,
        0..3usize,
        any::<bool>(),
        (0..5usize, 0..2usize),
        any::<bool>(),
    );
    let file = file.prop_map(|(rows, int, float, text, members, reversed)| File {
        rows,
        int,
        float,
        text,
        members,
        reversed,
    });
    prop::collection::vec(file, 1..6).prop_filter("no rows", |files| files.iter().any(|file| file.rows > 0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_files_that_differ_are_their_union(files in files(), page_index: bool, flat: bool, some in 0..64usize) {
        let directory = write(&files, page_index);
        let all = |reader: ReaderBuilder<Reader>| if flat { reader.flatten_structs() } else { reader };
        let rows = read(all(reader(&directory)));
        check(&files, &rows);
        let names: Vec<_> = rows[0].2.iter().map(|(name, _)| name.to_owned()).collect();
        prop_assert!(!flat || names.iter().all(|name| name != "s"));
        // Any selection of them; a file may have none of the columns.
        let selected: Vec<_> = names.iter().enumerate().filter(|(i, _)| some >> i & 1 == 1).map(|(_, name)| name).collect();
        if !selected.is_empty() {
            check(&files, &read(all(reader(&directory)).columns(selected)));
        }
    }
}

/// A file with a timestamp of 96 bits, `t`, and another in a struct, `s.t`, both at these days and nanoseconds.
fn write_int96(path: &std::path::Path, times: &[(i32, u64)]) {
    let schema = "message m { required int96 t; required group s { required int96 t; } }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let file = std::fs::File::create(path).expect("a new file");
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).expect("a writer");
    let mut row_group = writer.next_row_group().expect("a row group");
    let value = |(day, nanos): &(i32, u64)| {
        let mut value = Int96::new();
        value.set_data(*nanos as u32, (nanos >> 32) as u32, (day + 2_440_588) as u32);
        value
    };
    let values: Vec<_> = times.iter().map(value).collect();
    while let Some(mut column) = row_group.next_column().expect("a column") {
        column
            .typed::<Int96Type>()
            .write_batch(&values, None, None)
            .expect("values");
        column.close().expect("a column");
    }
    row_group.close().expect("a row group");
    writer.close().expect("a footer");
}

#[test]
fn timestamps_of_96_and_64_bits_are_instants_to_the_microsecond() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let last = 86_399_999_999_999;
    // Year 1, the last nanosecond of 1969, and year 9999: of nanoseconds, 64 bits reach to 2262.
    write_int96(
        &directory.path().join("a.parquet"),
        &[(-719_162, 1_999), (-1, last), (2_932_896, last)],
    );
    let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC"));
    let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![7]).with_timezone("UTC"));
    let members = [("t", millis)].map(|(name, own)| (Arc::new(Field::new(name, own.data_type().clone(), false)), own));
    let members: ArrayRef = Arc::new(StructArray::from(members.to_vec()));
    let batch = RecordBatch::try_from_iter([("s", members), ("t", micros)]).expect("a batch");
    write_file(&directory.path().join("b.parquet"), &batch, &Layout::default());
    let reader = || reader(&directory).flatten_structs();
    let schema = reader().build().expect("a reader").schema().to_string();
    assert_eq!(schema, "t: datetime64[us, UTC]\ns.t: datetime64[us, UTC]");
    let mut rows = read(reader());
    rows.sort_by_key(|(_, g, _)| *g);
    let micros = |name: &str| -> Vec<i64> {
        let value = |(_, _, row): &(usize, usize, Row)| match row[name] {
            Value::Datetime { value, utc: true, .. } => value,
            ref other => panic!("{other:?}"),
        };
        rows.iter().map(value).collect()
    };
    let expected = [-62_135_596_800_000_000 + 1, -1, 253_402_300_799_999_999];
    assert_eq!(micros("t"), [&expected[..], &[5]].concat());
    assert_eq!(micros("s.t"), [&expected[..], &[7_000]].concat());
}

/// Two files of 6 and 4 rows: the first has `g`, `int` and `s` of `x` and `y`; the second lacks `int` and `s.x`.
fn two() -> [File; 2] {
    let first = File {
        rows: 6,
        int: 3,
        float: 0,
        text: false,
        members: (3, 1),
        reversed: false,
    };
    let second = File {
        rows: 4,
        int: 0,
        members: (0, 1),
        ..first.clone()
    };
    [first, second]
}

#[test]
fn structs_are_taken_apart_or_selected_by_member() {
    let directory = write(&two(), true);
    let names = |reader: ReaderBuilder<Reader>| {
        let reader = reader.build().expect("a reader");
        reader.schema().to_string().replace('\n', ", ")
    };
    let all = "g: int64 nullable, int: int32 nullable, s.x: int32 nullable, s.y: str nullable";
    assert_eq!(names(reader(&directory).flatten_structs()), all);
    let members = "s.x: int32 nullable, s.y: str nullable";
    assert_eq!(names(reader(&directory).flatten_structs().columns(["s"])), members);
    assert_eq!(names(reader(&directory).columns(["s.x", "s.y"])), members);
    check(&two(), &read(reader(&directory).columns(["s.y"])));
    check(&two(), &read(reader(&directory).columns(["s.y", "s", "s.x"])));
    let batches = make_batch_reader(directory.path().to_str().expect("a UTF-8 path")).columns(["s.x"]);
    let batches: Vec<_> = batches
        .build()
        .expect("a reader")
        .map(|batch| batch.expect("a batch"))
        .collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    assert_eq!(batches[0].schema().field(0).name(), "s.x");
    let error = reader(&directory)
        .columns(["s.z"])
        .build()
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.starts_with("no column \"s.z\": the columns are g, int, s (URL "),
        "{error}"
    );
}

/// The data sets of the integration tests, as Spark 3.5 and 4.0 read them back: times in UTC.
#[test]
fn times_and_members_are_those_that_spark_reads() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../integration-tests/fixtures");
    for name in ["spark-3.5-types", "spark-4.0-types"] {
        let expected = std::fs::read_to_string(format!("{fixtures}/{name}.expected.jsonl")).expect("expected values");
        let expected = expected
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object"));
        let expected: Vec<serde_json::Value> = expected.collect();
        let columns = ["id", "at", "at_ntz", "day", "point.x"];
        let reader = make_reader(format!("{fixtures}/{name}"))
            .columns(columns)
            .build()
            .expect("a reader");
        let mut rows = 0;
        for row in reader {
            let row = row.expect("a row");
            let own = &expected[usize::try_from(row.int("id").expect("an id")).expect("a line")];
            for column in ["at", "at_ntz", "day"] {
                let found = row[column]
                    .to_iso()
                    .map(|text| text.trim_end_matches('Z').replace('T', " "));
                assert_eq!(found.as_deref(), own[column].as_str(), "{name} {column}");
            }
            assert_eq!(row["point.x"].as_f64(), own["point"]["x"].as_f64(), "{name}");
            rows += 1;
        }
        assert_eq!(rows, expected.len());
    }
}

#[test]
fn times_in_directory_names_stand_in_a_zone() {
    let layout = Layout {
        files: vec![2, 1],
        ..Layout::default()
    };
    let table = Table::write_partitioned("at", &["2024-07-01 12%3A00%3A00", "2024-01-01"], &layout);
    let times = |zone: Option<&str>| {
        let reader = make_reader(table.url()).columns(["at"]);
        let reader = match zone {
            Some(zone) => reader.time_zone(zone),
            None => reader,
        };
        let reader = reader.build()?;
        assert_eq!(reader.schema().to_string(), "at: datetime64[us, UTC]");
        let times = reader.map(|row| Ok(row?["at"].to_iso().expect("a time")));
        times.collect::<squall_schema::Result<BTreeSet<_>>>()
    };
    let set = |times: [&str; 2]| BTreeSet::from(times.map(str::to_owned));
    let utc = set(["2024-01-01T00:00:00Z", "2024-07-01T12:00:00Z"]);
    assert_eq!(times(None).expect("times"), utc);
    let zurich = set(["2023-12-31T23:00:00Z", "2024-07-01T10:00:00Z"]);
    assert_eq!(times(Some("Europe/Zurich")).expect("times"), zurich);
    let error = times(Some("Zurich")).expect_err("no zone").to_string();
    assert!(error.starts_with("no time zone \"Zurich\""), "{error}");
}

#[test]
fn a_file_without_the_selected_columns_gives_its_rows() {
    let directory = write(&two(), true);
    let rows = read(reader(&directory).columns(["int"]));
    check(&two(), &rows);
    assert_eq!(rows.iter().filter(|(file, ..)| *file == 1).count(), 4);
    assert!(
        rows.iter()
            .all(|(file, _, row)| *file == 0 || row["int"] == Value::Null)
    );
}

#[test]
fn columns_are_chosen_by_patterns() {
    let directory = write(&two(), true);
    let names = |reader: ReaderBuilder<Reader>| match reader.build() {
        Ok(reader) => reader.schema().names().collect::<Vec<_>>().join(" "),
        Err(error) => error.message().to_owned(),
    };
    assert_eq!(names(reader(&directory).columns_matching(["s", "i.*"])), "int s");
    assert_eq!(
        names(reader(&directory).columns_matching(["[gi].*"]).columns(["s.y", "int"])),
        "s.y int g"
    );
    assert_eq!(
        names(reader(&directory).columns_matching([r"s\..", "g"]).flatten_structs()),
        "g s.x s.y"
    );
    let unmatched = "the pattern \"in\" matches no column: the columns are g, int, s";
    assert_eq!(names(reader(&directory).columns_matching(["in"])), unmatched);
    assert_eq!(
        names(reader(&directory).columns_matching::<&str>([])),
        "no column is selected"
    );
    check(
        &two(),
        &read(reader(&directory).columns_matching([".*"]).flatten_structs()),
    );
}

#[cfg(feature = "filter")]
#[test]
fn where_clauses_see_missing_columns_and_members() {
    let directory = write(&two(), true);
    let ids = |reader: ReaderBuilder<Reader>| {
        let mut ids: Vec<_> = read(reader).into_iter().map(|(_, g, _)| g).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(reader(&directory).filter("int >= 1")), [1, 2, 4, 5]);
    assert_eq!(ids(reader(&directory).filter("int IS NULL")), [3, 6, 7, 8, 9]);
    let flat = || reader(&directory).flatten_structs();
    assert_eq!(ids(flat().filter("\"s.x\" IS NOT NULL")), [2, 4]);
    assert_eq!(ids(flat().filter("\"s.y\" >= 'y 6'").columns(["g"])), [6, 7, 8, 9]);
    let error = reader(&directory)
        .filter("\"s.x\" > 1")
        .build()
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.contains("does not fit the columns") && error.contains("s.x"),
        "{error}"
    );
}
