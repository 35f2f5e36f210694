//! Real Petastorm writes and Squall reads; Squall writes, and real Petastorm and Spark read.
//!
//! Needs `SQUALL_PETASTORM_PYTHON`, a Python with Petastorm 0.13.1 and what it works with, and a Java. `cargo xtask test` sets
//! both up.

mod losses;
mod mixtures;
mod ngrams;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use squall::codec::Codec;
use squall::convert::{Converter, FloatPrecision, Petastorm, convert_directory};
use squall::{
    DType, Dataset, DatasetUrl, Decimal, ErrorKind, Field, Partition, Predicate, Reader, ReaderBuilder, Reduce, Row,
    RowGroupSelector, RowId, Schema, Shape, Tensor, TimeUnit, Value, VerifyOptions, field, make_reader, verify_dataset,
};

use crate::digest::{LOSSY, check_rows, rows_in};

pub(crate) fn run_python(script: &str, arguments: &[&Path], option: Option<&str>) {
    let python = std::env::var_os("SQUALL_PETASTORM_PYTHON")
        .expect("SQUALL_PETASTORM_PYTHON is set: run the tests with `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("petastorm").join(script);
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .args(option)
        .env("TZ", "UTC")
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

pub(crate) type Indexes = BTreeMap<String, BTreeMap<Option<String>, BTreeSet<u32>>>;

/// The row-group indexes that read.py found.
pub(crate) fn indexes_in(path: &Path) -> Indexes {
    let text = std::fs::read_to_string(path).expect("indexes");
    type Pairs = Vec<(Option<String>, BTreeSet<u32>)>;
    let indexes: BTreeMap<String, Pairs> = serde_json::from_str(&text).expect("JSON");
    indexes
        .into_iter()
        .map(|(name, pairs)| (name, pairs.into_iter().collect()))
        .collect()
}

/// Every codec and kind of array, written by Petastorm; what Petastorm reads, Squall reads, also after Squall converted it,
/// and Petastorm reads that too.
#[test]
fn what_petastorm_writes_is_read_and_converted_and_read_by_petastorm() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("write.py", &[&place("written")], None);
    run_python("read.py", &[&place("written"), &place("rows"), &place("indexes")], None);
    let expected = rows_in(&place("rows"));
    assert_eq!(expected.len(), 60);
    let written = place("written").display().to_string();
    check_rows(&written, &expected, LOSSY);
    assert_eq!(squall_indexes(&written), indexes_in(&place("indexes")));

    let converted = place("converted").display().to_string();
    let petastorm = Petastorm::new("Everything")
        .index("by_id", "id")
        .index("by_text", "text")
        .index("by_name", "names")
        .not_null_index("has_text", "text");
    let converter = Converter::new(&converted)
        .floats(FloatPrecision::Keep)
        .row_group_bytes(1 << 14)
        .petastorm(petastorm);
    run(convert_directory(&written, converter, None)).expect("a conversion");
    check_rows(&converted, &expected, LOSSY);
    run_python(
        "read.py",
        &[
            &place("converted"),
            &place("again"),
            &place("own_indexes"),
            &place("spark"),
        ],
        None,
    );
    assert_eq!(rows_in(&place("again")), expected);
    let own = indexes_in(&place("own_indexes"));
    assert_eq!(own, squall_indexes(&converted));
    assert_eq!(
        own["by_text"].keys().count(),
        expected.values().filter(|row| !row["text"].is_null()).count()
    );

    // Petastorm's own tools may go on with the dataset.
    run_python(
        "index.py",
        &[&place("converted"), Path::new("added"), Path::new("i8")],
        None,
    );
    check_rows(&converted, &expected, LOSSY);
    let indexes = squall_indexes(&converted);
    assert_eq!((indexes.len(), indexes["added"].len()), (1, 60));
    let report = verify_dataset(&converted, &VerifyOptions::default()).expect("a report");
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(
        report.notes.iter().any(|note| note.contains("by pyarrow")),
        "{:?}",
        report.notes
    );

    let spark = std::fs::read_to_string(place("spark")).expect("Spark's rows");
    let spark: Vec<Json> = spark
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(spark.len(), 60);
    for row in &spark {
        let own = &expected[&row["id"].as_i64().expect("an id")];
        for (column, value) in row.as_object().expect("an object") {
            let expected = own[column].get("value").unwrap_or(&Json::Null);
            assert_eq!(value, expected, "column {column} of row {}", row["id"]);
        }
    }
}

/// The indexes as Squall reads them, with keys as Python prints them.
pub(crate) fn squall_indexes(url: &str) -> Indexes {
    let dataset = run(Dataset::open(&DatasetUrl::parse(url).expect("a URL"))).expect("a dataset");
    let indexes = dataset.row_group_indexes().expect("indexes");
    let text = |value: &Value| match value {
        Value::Int(int) => int.to_string(),
        Value::Str(text) => text.clone(),
        other => panic!("{other:?} in an index"),
    };
    indexes
        .iter()
        .map(|index| {
            use squall::petastorm::Entries;
            let values = match &index.entries {
                Entries::Values(values) => values
                    .iter()
                    .map(|(value, found)| (Some(text(value)), found.clone()))
                    .collect(),
                Entries::NotNull(found) => [(None, found.clone())].into(),
                other => panic!("{other:?}"),
            };
            (index.name.clone(), values)
        })
        .collect()
}

/// A dataset with a `_metadata` file in place of the row-group map.
#[test]
fn summary_metadata_of_petastorm_is_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("write.py", &[&place("written")], Some("--summary"));
    run_python("read.py", &[&place("written"), &place("rows"), &place("indexes")], None);
    check_rows(&place("written").display().to_string(), &rows_in(&place("rows")), LOSSY);
}

/// Rows made in Rust, of every dtype and codec.
#[test]
fn what_rust_materializes_is_read_by_petastorm() {
    let (unit, utc) = (TimeUnit::Nanosecond, false);
    let cells = |name: &str, dtype, shape: &[Option<usize>], codec| {
        Field::new(name, dtype, Shape(shape.to_vec())).with_codec(Some(codec))
    };
    let schema = Schema::new(vec![
        field!("id": i64),
        field!("u64": u64),
        Field::scalar("half", DType::Float16),
        Field::scalar("flag", DType::Bool).with_nullable(true),
        Field::scalar("text", DType::Str).with_nullable(true),
        Field::scalar("day", DType::Date),
        Field::scalar("at", DType::Datetime { unit, utc }),
        field!("plain": f32[2, 2]),
        Field::new("words", DType::Str, Shape(vec![None])),
        cells("grey", DType::UInt16, &[Some(3), Some(5)], Codec::Png),
        cells(
            "photo",
            DType::UInt8,
            &[None, None, Some(3)],
            Codec::Jpeg { quality: 95 },
        ),
        cells("npz", DType::Int32, &[None], Codec::CompressedNdarray).with_nullable(true),
    ])
    .expect("a schema");
    let rows = (0..50i64).map(|id| {
        let mut row = Row::new(RowId::default(), Vec::new());
        row.set("id", id);
        row.set("u64", u64::MAX - id as u64);
        row.set("half", id as f32 / 4.0);
        row.set("flag", (id % 3 > 0).then_some(id % 2 == 0));
        // A name that is missing is null.
        if id % 5 > 0 {
            row.set("text", format!("row {id} é"));
        }
        row.set("day", Value::Date(id as i32 - 25));
        row.set(
            "at",
            Value::Datetime {
                value: id * 1_000_001_000,
                unit,
                utc,
            },
        );
        row.set("plain", Tensor::from_vec(&[2, 2], vec![id as f32; 4])?);
        row.set(
            "words",
            Value::List((0..id % 3).map(|i| Value::from(format!("w{i}"))).collect()),
        );
        row.set(
            "grey",
            Tensor::from_vec(&[3, 5], (0..15).map(|i| i * id as u16 * 70).collect())?,
        );
        let width = 9 + id as usize % 4;
        row.set(
            "photo",
            Tensor::from_vec(&[4, width, 3], vec![(id * 5) as u8; 12 * width])?,
        );
        let npz = (id % 7 > 0).then(|| Tensor::from_vec(&[id as usize % 4], vec![id as i32; id as usize % 4]));
        row.set("npz", npz.transpose()?);
        Ok(row)
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    let url = place("made").display().to_string();
    let converter = Converter::new(&url).petastorm(Petastorm::new("Made").index("by_day", "day"));
    let made = run(converter.materialize(&schema, rows)).expect("a dataset");
    assert_eq!(made.rows(), 50);
    run_python(
        "read.py",
        &[&place("made"), &place("rows"), &place("indexes"), &place("spark")],
        None,
    );
    let expected = rows_in(&place("rows"));
    assert_eq!(expected.len(), 50);
    check_rows(&url, &expected, LOSSY);
    assert_eq!(indexes_in(&place("indexes"))["by_day"].len(), 50);
    // What was put in, not only what both read.
    assert_eq!(expected[&49]["u64"]["value"], u64::MAX - 49);
    assert_eq!(expected[&9]["at"]["value"], "1970-01-01T00:00:09.000009");
    let grey = make_reader(&url).columns(["id", "grey"]).build().expect("a reader");
    for row in grey {
        let row = row.expect("a row");
        let id = row.int("id").expect("an id") as u16;
        let pixels = row
            .tensor("grey")
            .and_then(|grey| Ok(grey.as_slice::<u16>()?.to_vec()))
            .expect("pixels");
        assert_eq!(pixels, (0..15).map(|i| i * id * 70).collect::<Vec<_>>());
    }
}

/// Predicates, selectors and shards give the rows that real Petastorm gives.
#[test]
fn the_rows_are_those_that_petastorm_selects() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("write.py", &[&place("written")], Some("--many-files"));
    run_python("rows.py", &[&place("written"), &place("rows")], None);
    let url = place("written").display().to_string();
    let text = std::fs::read_to_string(place("rows")).expect("rows");
    let expected: BTreeMap<String, Json> = serde_json::from_str(&text).expect("JSON");
    let dataset = run(Dataset::open(&DatasetUrl::parse(&url).expect("a URL"))).expect("a dataset");
    assert!(dataset.pieces().len() >= 12, "{}", dataset.pieces().len());
    for (name, expected) in &expected {
        let reader = selected(name, make_reader(&url).columns(["id"]));
        let found = match reader.build() {
            Ok(reader) => {
                let mut ids: Vec<_> = reader
                    .map(|row| row.and_then(|row| row.int("id")).expect("an id"))
                    .collect();
                ids.sort_unstable();
                Json::from(ids)
            }
            Err(error)
                if error.kind() == ErrorKind::NoData && error.message().contains("as many row groups as ranks") =>
            {
                "NoDataAvailableError".into()
            }
            // Petastorm warns, and gives an empty reader.
            Err(error) if error.kind() == ErrorKind::NoData => Json::Array(Vec::new()),
            Err(error) if error.kind() == ErrorKind::InvalidInput => "ValueError".into(),
            Err(error) => panic!("{name}: {error}"),
        };
        assert_eq!(&found, expected, "{name}");
    }
    // The comparison is of something.
    let failed = expected
        .iter()
        .filter(|(_, rows)| !rows.is_array())
        .map(|(name, _)| name.as_str());
    assert!(
        failed
            .clone()
            .all(|name| name.ends_with(" 100") || name == "select unknown"),
        "{:?}",
        failed.collect::<Vec<_>>()
    );
    let rows = |name: &str| expected[name].as_array().map(Vec::len);
    let nothing = ["set float", "select intersect"].map(rows).contains(&Some(0));
    assert!(!nothing && rows("intersection int") < Some(60) && rows("set half") == Some(2));
    assert_eq!(expected["shard 0 100"], "NoDataAvailableError");
    assert_eq!(expected["select unknown"], "ValueError");
}

/// The reader of this name in rows.py.
fn selected(name: &str, reader: ReaderBuilder<Reader>) -> ReaderBuilder<Reader> {
    if let [kind @ .., rank, count] = &name.split(' ').collect::<Vec<_>>()[..]
        && let (["shard" | "seeded"] | [_, "shard"], Ok(rank), Ok(count)) = (kind, rank.parse(), count.parse())
    {
        let reader = reader
            .partition(Partition::RowGroups)
            .rank(rank, count)
            .global_batch(count);
        return match kind[0] {
            "select" => selected("select union", reader),
            "partition" => selected("set partition", reader),
            "predicate" => reader.predicate(even()),
            _ => reader,
        };
    }
    if let ["split", field, subset] = name.split(' ').collect::<Vec<_>>()[..] {
        let subset = subset.parse().expect("a subset");
        return reader.predicate(Predicate::in_pseudorandom_split([0.5, 0.3, 0.2], subset, field));
    }
    if let Some(selector) = name.strip_prefix("select ") {
        return reader.row_group_selector(selector_of(selector));
    }
    reader.predicate(predicate(name))
}

fn even() -> Predicate {
    Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 2 == 0))
}

fn predicate(name: &str) -> Predicate {
    let text = |ids: &[i32]| {
        ids.iter()
            .map(|id| Value::from(format!("row {id} é漢")))
            .collect::<Vec<_>>()
    };
    let third = || Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 3 == 0));
    let part = |values: &[&'static str]| Predicate::in_set(values.iter().copied(), "part");
    let eighth = Value::Decimal(Decimal {
        unscaled: 125.into(),
        precision: 3,
        scale: 3,
    });
    match name {
        "set int" => Predicate::in_set([3.into(), 5.into(), 59.0.into(), Value::from(3.5)], "id"),
        "set text" => Predicate::in_set(text(&[1, 8, 3]), "text"),
        "set none" => Predicate::in_set([&text(&[2])[..], &[Value::Null]].concat(), "text"),
        "set decimal" => Predicate::in_set([eighth, 2.into(), 1.5.into(), 0.1.into()], "price"),
        "set float" => Predicate::in_set([1.0 / 3.0, 2.0, 0.1], "f64"),
        "set half" => Predicate::in_set([0.125, 3.0, 0.1], "f16"),
        "set flag" => Predicate::in_set([true], "flag"),
        "set day" => Predicate::in_set([Value::Date(0), Value::Date(-7)], "day"),
        "set partition" => part(&["p_1", "p_7"]),
        "intersection int" => Predicate::in_intersection([7.0, 8.0, -250.0, 100.0], "fortran"),
        "intersection bytes" => Predicate::in_intersection([b"xx".to_vec(), b"z".to_vec()], "codes"),
        "intersection bool" => Predicate::in_intersection([true], "bools"),
        "lambda" => Predicate::in_lambda(["u32", "f64"], |row| {
            Ok(row["u32"] != Value::Null && row["f64"].as_f64() > Some(5.0))
        }),
        "negate" => Predicate::in_negate(even()),
        "negate set" => Predicate::in_negate(Predicate::in_set([Value::Null], "text")),
        "reduce all" => Predicate::in_reduce([even(), third()], Reduce::All),
        "reduce any" => Predicate::in_reduce([even(), Predicate::in_negate(third())], Reduce::Any),
        "reduce custom" => {
            let one = Reduce::custom(|answers| answers.iter().filter(|answer| **answer).count() == 1);
            Predicate::in_reduce([even(), third(), part(&["p_1"])], one)
        }
        "reduce partition" => Predicate::in_reduce([third(), part(&["p_0"])], Reduce::All),
        other => panic!("no predicate {other:?}"),
    }
}

fn selector_of(name: &str) -> RowGroupSelector {
    let by_id = |ids: &[i32]| RowGroupSelector::single("by_id", ids.iter().copied());
    match name {
        "single" => by_id(&[3, 40, 1000]),
        "text" => RowGroupSelector::single("by_text", ["row 12 é漢"]),
        "not null" => RowGroupSelector::single("has_text", [Value::Null]),
        "intersect" => RowGroupSelector::intersect([by_id(&[3, 40, 1000]), RowGroupSelector::single("by_name", ["a"])]),
        "union" => RowGroupSelector::union([by_id(&[3, 40, 1000]), by_id(&[17, 18])]),
        "nothing" => by_id(&[-1]),
        "unknown" => RowGroupSelector::single("nope", [1]),
        other => panic!("no selector {other:?}"),
    }
}
