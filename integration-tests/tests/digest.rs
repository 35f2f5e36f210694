//! The form in which rows of Petastorm's are compared, as petastorm/digest.py makes it: of an array dtype, shape and SHA-256,
//! of a scalar dtype and value.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use squall::{Row, TimeUnit, Value, make_reader};

/// The columns of jpeg images, whose last bits depend on the decoder.
pub(crate) const LOSSY: &[&str] = if cfg!(feature = "jpeg-turbo") {
    &[]
} else {
    &["jpeg", "photo"]
};

/// The rows in a file of JSON lines, by id.
pub(crate) fn rows_in(path: &Path) -> BTreeMap<i64, Json> {
    let text = std::fs::read_to_string(path).expect("expected values");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("a JSON object"));
    rows.map(|row| (row["id"]["value"].as_i64().expect("an id"), row))
        .collect()
}

/// Reads all rows, shuffled, and compares them; each must come once.
pub(crate) fn check_rows(url: &str, expected: &BTreeMap<i64, Json>, except: &[&str]) {
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in make_reader(url).seed(4).build().expect("a reader") {
        let row: Row = row.expect("a row");
        let id = row.int("id").expect("an id");
        *seen.entry(id).or_insert(0) += 1;
        let columns = expected[&id].as_object().expect("an object");
        assert_eq!(row.iter().count(), columns.len());
        for (column, value) in columns.iter().filter(|(column, _)| !except.contains(&column.as_str())) {
            let found = row.get(column).unwrap_or_else(|| panic!("no column {column}"));
            wrong.extend(differs(found, value).map(|why| format!("{id} {column}: {why}")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} values: {}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
    assert!(seen.keys().eq(expected.keys()) && seen.values().all(|times| *times == 1));
}

/// Why a value is not the expected one.
pub(crate) fn differs(found: &Value, expected: &Json) -> Option<String> {
    if let Some(values) = expected.get("values") {
        let mut items = Vec::new();
        flatten(found, &mut items);
        let items: Vec<_> = items.into_iter().map(text).collect();
        return (Json::Array(items.clone()) != *values).then(|| format!("{items:?} instead of {values}"));
    }
    let same = match found {
        Value::Null => expected.is_null(),
        Value::Tensor(tensor) => {
            let shape: Vec<u64> = tensor.shape().iter().map(|dim| *dim as u64).collect();
            tensor.dtype().descr() == expected["dtype"].as_str()
                && expected["shape"] == Json::from(shape)
                && expected["sha256"] == sha256(tensor.data().as_slice())
        }
        // An array of times, whose unit is that of its items.
        Value::List(items) => {
            let steps: Vec<u8> = items.iter().flat_map(steps).collect();
            let unit = expected["dtype"].as_str().unwrap_or_default();
            let units = items.iter().all(|item| *item == Value::Null || unit == descr(item));
            units && expected["shape"] == Json::from(vec![items.len()]) && expected["sha256"] == sha256(&steps)
        }
        Value::Bool(value) => expected["value"] == *value,
        Value::Int(value) => expected["value"] == *value,
        Value::UInt(value) => expected["value"] == *value,
        Value::Float32(value) => expected["value"] == f64::from(*value),
        // An array of no dimensions is a scalar.
        Value::Float64(value) if expected.get("sha256").is_some() => {
            expected["sha256"] == sha256(&value.to_le_bytes()) && expected["shape"] == Json::Array(Vec::new())
        }
        Value::Float64(value) => expected["value"] == *value,
        Value::Str(text) => expected["value"] == text.as_str(),
        Value::Bytes(bytes) => expected["value"] == String::from_utf8_lossy(bytes).as_ref(),
        // Python prints a small zero in scientific form.
        Value::Decimal(decimal) => {
            expected["value"].as_str().and_then(|text| text.parse::<f64>().ok()) == decimal.to_string().parse().ok()
        }
        time => {
            // Petastorm's times are instants without a zone.
            let found = time.to_iso().unwrap_or_default();
            let text = expected["value"].as_str().unwrap_or_default();
            // Python prints all six digits of a fraction, or none.
            let short = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            short(text) == short(found.trim_end_matches('Z'))
        }
    };
    (!same).then(|| format!("{found:?} instead of {expected}"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 64 bits that numpy holds a time in.
fn steps(time: &Value) -> [u8; 8] {
    match time {
        Value::Null => i64::MIN,
        Value::Date(days) => i64::from(*days),
        Value::Datetime { value, .. } => *value,
        other => panic!("{other:?} among times"),
    }
    .to_le_bytes()
}

fn descr(time: &Value) -> &'static str {
    match time {
        Value::Date(_) => "<M8[D]",
        Value::Datetime { unit, .. } => match unit {
            TimeUnit::Second => "<M8[s]",
            TimeUnit::Millisecond => "<M8[ms]",
            TimeUnit::Microsecond => "<M8[us]",
            TimeUnit::Nanosecond => "<M8[ns]",
        },
        other => panic!("{other:?} among times"),
    }
}

fn flatten<'a>(value: &'a Value, items: &mut Vec<&'a Value>) {
    match value {
        Value::List(list) => list.iter().for_each(|item| flatten(item, items)),
        item => items.push(item),
    }
}

fn text(item: &Value) -> Json {
    match item {
        Value::Str(text) => text.as_str().into(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        other => panic!("{other:?} among text"),
    }
}
