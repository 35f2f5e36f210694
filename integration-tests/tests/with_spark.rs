//! Real Spark writes and Squall reads; Squall writes and real Spark reads.
//!
//! Needs `SQUALL_PYSPARK_PYTHON`, a Python with pyspark, and a Java. `cargo xtask test` sets both up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value as Json, json};
use squall::convert::{Converter, FloatPrecision, convert_directory};
use squall::{Value, make_reader};

fn run_python(script: &str, arguments: &[&Path]) {
    let python = std::env::var_os("SQUALL_PYSPARK_PYTHON")
        .expect("SQUALL_PYSPARK_PYTHON is set: run the tests with `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("spark").join(script);
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The rows in a file of JSON lines, by id.
fn rows_in(path: &Path) -> BTreeMap<i64, Json> {
    let text = std::fs::read_to_string(path).expect("a file");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("a JSON object"));
    rows.map(|row| (row["id"].as_i64().expect("an id"), row)).collect()
}

/// The rows that Squall reads, by id, in the form of spark/write.py.
fn read(url: &str) -> BTreeMap<i64, Json> {
    let mut rows = BTreeMap::new();
    for row in make_reader(url).seed(1).build().expect("a reader") {
        let row = row.expect("a row");
        let object: Map<_, _> = row
            .iter()
            .map(|(name, value)| (name.to_owned(), plain(value)))
            .collect();
        let twice = rows.insert(row.int("id").expect("an id"), Json::Object(object));
        assert!(twice.is_none(), "{twice:?} came twice");
    }
    rows
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float32(value) => json!(f64::from(*value)),
        Value::Float64(value) => json!(value),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!(base64(bytes)),
        Value::Decimal(decimal) => json!(decimal.to_string()),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Tensor(tensor) => match tensor.as_slice::<f32>() {
            Ok(floats) => floats.iter().map(|x| json!(f64::from(*x))).collect(),
            Err(_) => tensor
                .as_slice::<i32>()
                .expect("float32 or int32")
                .iter()
                .map(|x| json!(x))
                .collect(),
        },
        time => {
            let text = time.to_iso().expect("a date or a time");
            // Python prints six digits of a second; ISO needs them only where they are not zero.
            let whole = text.strip_suffix('Z').filter(|text| !text.contains('.'));
            json!(whole.map_or(text.clone(), |whole| format!("{whole}.000000Z")))
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn assert_same(found: &BTreeMap<i64, Json>, expected: &BTreeMap<i64, Json>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (id, expected) in expected {
        assert_eq!(&found[id], expected, "row {id}");
    }
}

#[test]
fn what_spark_writes_is_read_and_converted_and_read_by_spark() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("write.py", &[&place("table"), &place("expected.jsonl")]);
    let expected = rows_in(&place("expected.jsonl"));
    assert_eq!(expected.len(), 200);

    let table = place("table").display().to_string();
    assert_same(&read(&table), &expected);

    let converted = place("converted").display().to_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let done = runtime
        .block_on(convert_directory(
            &table,
            Converter::new(&converted).floats(FloatPrecision::Keep),
            None,
        ))
        .expect("a conversion");
    assert_eq!(
        done.schema().get("vector").map(|field| field.to_string()),
        Some("vector: float32[3]".into())
    );
    assert_same(&read(&converted), &expected);

    run_python("read.py", &[&place("converted"), &place("spark.jsonl")]);
    assert_same(&rows_in(&place("spark.jsonl")), &expected);
}
