//! Data sets that real Petastorm wrote, of many versions, against what real Petastorm reads from them.
//!
//! In `fixtures` beside this folder lies a JSON line for each row, sorted by id: of an array its dtype, shape and SHA-256, of
//! a scalar its dtype and value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use squall::convert::{Converter, FloatPrecision, Petastorm, convert_directory};
use squall::petastorm::Entries;
use squall::{DType, Value, make_reader};

use crate::digest;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn expected(name: &str) -> BTreeMap<i64, Json> {
    digest::rows_in(&fixture(&format!("{name}.expected.jsonl")))
}

fn check_rows(url: &str, name: &str, except: &[&str]) {
    digest::check_rows(url, &expected(name), except);
}

fn check(name: &str, except: &[&str]) {
    let original = fixture(name).display().to_string();
    check_rows(&original, name, except);
    // A conversion keeps what the columns mean.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let converted = directory.path().join("converted").display().to_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(convert_directory(
            &original,
            Converter::new(&converted).floats(FloatPrecision::Keep),
            None,
        ))
        .expect("a conversion");
    check_rows(&converted, name, except);
}

/// Its metadata is a `_metadata` file and a Unischema; there are no expected values, so rows are counted.
#[test]
fn petastorm_with_summary_metadata() {
    let reader = make_reader(fixture("petastorm-0.13.1-summary").display().to_string())
        .build()
        .expect("a reader");
    let rows = reader.rows_per_epoch();
    assert!(rows > 0);
    assert_eq!(reader.filter(|row| row.is_ok()).count() as u64, rows);
}

#[test]
fn petastorm_0_4_3() {
    check("petastorm-0.4.3", &[]);
}

#[test]
fn petastorm_0_7_0() {
    check("petastorm-0.7.0", &[]);
}

#[test]
fn petastorm_0_7_6() {
    check("petastorm-0.7.6", &[]);
}

#[test]
fn petastorm_0_13_1() {
    check("petastorm-0.13.1-all", digest::LOSSY);
}

/// Without the feature `jpeg-turbo` the pixels differ from OpenCV's by little, their mean by less.
#[test]
fn jpeg_pixels_are_close() {
    let expected = expected("petastorm-0.13.1-all");
    let mut images = 0;
    for row in make_reader(fixture("petastorm-0.13.1-all").display().to_string())
        .columns(["id", "jpeg"])
        .build()
        .expect("a reader")
    {
        let row = row.expect("a row");
        let value = &expected[&row.int("id").expect("an id")]["jpeg"];
        if value.is_null() {
            assert_eq!(row["jpeg"], Value::Null);
            continue;
        }
        let tensor = row.tensor("jpeg").expect("an image");
        assert_eq!(tensor.dtype(), DType::UInt8);
        assert_eq!(
            value["shape"],
            Json::from(tensor.shape().iter().map(|dim| *dim as u64).collect::<Vec<_>>())
        );
        let pixels = tensor.as_slice::<u8>().expect("uint8");
        let mean = pixels.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / pixels.len() as f64;
        let difference = (mean - value["mean"].as_f64().expect("a mean")).abs();
        assert!(difference < 0.5, "the mean differs by {difference}");
        images += 1;
    }
    assert!(images > 5);
}

/// Every id that a row group holds is in the index, and no other.
#[test]
fn row_group_indexes_name_the_row_groups_of_each_value() {
    for (name, index) in [
        ("petastorm-0.4.3", "id"),
        ("petastorm-0.7.0", "id"),
        ("petastorm-0.7.6", "id"),
        ("petastorm-0.13.1-all", "id_idx"),
    ] {
        let url = fixture(name).display().to_string();
        let reader = make_reader(&url).columns(["id"]).build().expect("a reader");
        let indexes = reader.dataset().row_group_indexes().expect("indexes");
        let ids = indexes.iter().find(|own| own.name == index).expect("an index of ids");
        assert_eq!(ids.column, "id");
        let (mut n_rows, Entries::Values(values)) = (0, &ids.entries) else {
            panic!("not of values");
        };
        for row in reader {
            let row = row.expect("a row");
            let found = ids.row_groups(&row["id"]).expect("an index");
            assert_eq!(found, [row.id().piece].into(), "{name} {:?}", row["id"]);
            n_rows += 1;
        }
        assert_eq!(values.len(), n_rows);
        assert!(ids.row_groups(&Value::Int(-1)).expect("an index").is_empty());
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

/// The ids that are read, and what is noted.
fn ids_and_notes(directory: &Path) -> (Vec<i64>, Vec<String>) {
    let reader = make_reader(directory.display().to_string()).columns(["id"]).build();
    let reader = reader.expect("a reader");
    let notes = reader.dataset().notes().to_vec();
    let mut ids: Vec<_> = reader
        .map(|row| row.and_then(|row| row.int("id")).expect("an id"))
        .collect();
    ids.sort_unstable();
    (ids, notes)
}

/// Petastorm fails with a KeyError where a file is not in its map.
#[test]
fn a_stale_row_group_map_is_noted_and_no_row_is_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy(&fixture("petastorm-0.7.6"), directory.path());
    let (ids, notes) = ids_and_notes(directory.path());
    assert_eq!((ids.len(), notes), (100, Vec::new()));

    let partition = |n: usize| directory.path().join(format!("partition_key=p_{n}"));
    let file = std::fs::read_dir(partition(0))
        .expect("a directory")
        .next()
        .expect("a file")
        .expect("a file");
    std::fs::copy(file.path(), partition(0).join("part-99999-new.parquet")).expect("a copy");
    std::fs::remove_dir_all(partition(3)).expect("a directory");
    let (ids, notes) = ids_and_notes(directory.path());
    assert_eq!(ids.len(), 100);
    assert_eq!(
        ids.iter()
            .filter(|id| ids.iter().filter(|own| own == id).count() == 2)
            .count(),
        20
    );
    assert_eq!(notes.len(), 2, "{notes:?}");
    let reader = make_reader(directory.path().display().to_string())
        .build()
        .expect("a reader");
    let stale = reader.dataset().row_group_indexes().expect_err("a stale index");
    assert!(stale.to_string().contains("the row-group indexes are stale"), "{stale}");
    assert!(
        notes[0].ends_with("it lacks partition_key=p_0/part-99999-new.parquet"),
        "{notes:?}"
    );
    assert!(
        notes[1].contains("partition_key=p_3/") && notes[1].ends_with("is gone"),
        "{notes:?}"
    );
}

/// Petastorm passes over the files that a summary does not list.
#[test]
fn a_stale_summary_loses_no_row() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy(&fixture("petastorm-0.13.1-summary"), directory.path());
    let (all, notes) = ids_and_notes(directory.path());
    assert_eq!((all.len(), notes), (10, Vec::new()));

    let p0 = directory.path().join("p=p0");
    let files: Vec<_> = std::fs::read_dir(&p0)
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .collect();
    std::fs::copy(&files[0], p0.join("part-99999-new.parquet")).expect("a copy");
    let (ids, notes) = ids_and_notes(directory.path());
    assert!(ids.len() > all.len());
    assert_eq!(notes, ["_metadata is stale: it lacks p=p0/part-99999-new.parquet"]);
    // A file that was written anew since.
    let p1 = directory.path().join("p=p1");
    let mut others = std::fs::read_dir(&p1).expect("a directory");
    let other = others.next().expect("a file").expect("a file").path();
    let rows = |path: &Path| {
        make_reader(path.display().to_string())
            .build()
            .expect("a reader")
            .rows_per_epoch()
    };
    let before = ids.len() as u64 - rows(&other);
    std::fs::copy(&files[0], &other).expect("a copy");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let file = std::fs::File::options().write(true).open(&other).expect("a file");
    file.set_modified(later).expect("a time");
    let (ids, _) = ids_and_notes(directory.path());
    assert_eq!(ids.len() as u64, before + rows(&files[0]));

    std::fs::write(directory.path().join("_metadata"), b"PAR1 not a footer PAR1").expect("a file");
    let (ids, notes) = ids_and_notes(directory.path());
    assert!(ids.len() > all.len());
    assert!(
        notes.len() == 1 && notes[0].starts_with("_metadata cannot be read"),
        "{notes:?}"
    );
}

/// The rows as Spark itself reads them back: times in UTC, vectors dense, binary as base64.
fn check_spark(name: &str) {
    let text = std::fs::read_to_string(fixture(&format!("{name}.expected.jsonl"))).expect("expected values");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("a JSON object"));
    let expected: BTreeMap<_, _> = rows.map(|row| (row["id"].as_i64().expect("an id"), row)).collect();
    let mut n_rows = 0;
    for row in make_reader(fixture(name).display().to_string())
        .seed(2)
        .build()
        .expect("a reader")
    {
        let row = row.expect("a row");
        let id = row.int("id").expect("an id");
        let own = &expected[&id];
        assert_eq!(row.iter().count(), own.as_object().expect("an object").len());
        for (column, value) in row.iter() {
            let found = match plain(value) {
                // A map without entries is a list without items.
                Json::Array(items) if items.is_empty() && own[column].is_object() => Json::Object(Default::default()),
                found => found,
            };
            assert_eq!(found, own[column], "column {column} of row {id}");
        }
        n_rows += 1;
    }
    assert_eq!(n_rows, expected.len());
}

/// Vectors of Spark ML, dense and sparse, become vectors of doubles; in npy cells for Petastorm.
#[test]
fn vectors_of_spark_are_converted() {
    let text = std::fs::read_to_string(fixture("spark-3.5-types.expected.jsonl")).expect("expected values");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("a JSON object"));
    let expected: BTreeMap<_, _> = rows.map(|row| (row["id"].as_i64().expect("an id"), row)).collect();
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, petastorm) in [("plain", None), ("petastorm", Some(Petastorm::new("Vectors")))] {
        let url = directory.path().join(name).display().to_string();
        let converter = Converter::new(&url).floats(FloatPrecision::Keep);
        let converter = match petastorm {
            Some(petastorm) => converter.petastorm(petastorm),
            None => converter,
        };
        let source = fixture("spark-3.5-types").display().to_string();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let converted = convert_directory(&source, converter, Some("SELECT id, vec FROM source"));
        let converted = runtime.block_on(converted).expect("a conversion");
        let field = converted.schema().get("vec").expect("the vectors").clone();
        assert_eq!(
            (field.dtype, field.codec.is_some()),
            (DType::Float64, name == "petastorm")
        );
        let mut n_rows = 0;
        for row in make_reader(&url).build().expect("a reader") {
            let row = row.expect("a row");
            assert_eq!(plain(&row["vec"]), expected[&row.int("id").expect("an id")]["vec"]);
            n_rows += 1;
        }
        assert_eq!(n_rows, expected.len());
    }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float32(value) => f64::from(*value).into(),
        Value::Float64(value) => (*value).into(),
        Value::Str(text) => text.as_str().into(),
        Value::Bytes(bytes) => base64(bytes).into(),
        Value::Decimal(decimal) => decimal.to_string().into(),
        Value::Date(_) => value.to_iso().into(),
        Value::Datetime { .. } => {
            let text = value.to_iso().expect("a time in range");
            text.trim_end_matches('Z').replace('T', " ").into()
        }
        Value::Tensor(tensor) => match tensor.dtype() {
            DType::Float32 => tensor
                .as_slice::<f32>()
                .expect("float32")
                .iter()
                .map(|x| Json::from(f64::from(*x)))
                .collect(),
            DType::Float64 => tensor
                .as_slice::<f64>()
                .expect("float64")
                .iter()
                .map(|x| Json::from(*x))
                .collect(),
            _ => tensor
                .as_slice::<i32>()
                .expect("int32")
                .iter()
                .map(|x| Json::from(*x))
                .collect(),
        },
        // The entries of a map are structs of a key and a value.
        Value::List(items) => match items.first() {
            Some(Value::Struct(members)) if members[0].0 == "key" => {
                let entry = |item: &Value| match item {
                    Value::Struct(entry) => (entry[0].1.as_str().expect("a key").to_owned(), plain(&entry[1].1)),
                    other => panic!("{other:?} in a map"),
                };
                Json::Object(items.iter().map(entry).collect())
            }
            _ => items.iter().map(plain).collect(),
        },
        Value::Struct(members) => Json::Object(
            members
                .iter()
                .map(|(name, member)| (name.clone(), plain(member)))
                .collect(),
        ),
        other => panic!("{other:?}"),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn spark_3_5() {
    check_spark("spark-3.5-types");
}

#[test]
fn spark_4_0() {
    check_spark("spark-4.0-types");
}
