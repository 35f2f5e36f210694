//! What real Petastorm and real Spark wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::read;

/// Every array that real Petastorm reads from a data set of its own, by dtype, shape and SHA-256.
#[test]
fn digests_are_those_of_petastorm() {
    for name in [
        "petastorm-0.4.3",
        "petastorm-0.7.0",
        "petastorm-0.7.6",
        "petastorm-0.13.1-all",
    ] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures");
        let expected =
            std::fs::read_to_string(fixtures.join(format!("{name}.expected.jsonl"))).expect("expected values");
        let expected = expected
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let expected: BTreeMap<_, _> = expected.map(|row| (row["id"]["value"].as_i64(), row)).collect();
        let rows = read(&[&fixtures.join(name).display().to_string()]);
        assert_eq!(rows.len(), expected.len());
        let mut arrays = 0;
        for row in rows {
            let own = &expected[&row["row"]["id"].as_i64()];
            let columns = row["row"].as_object().expect("an object");
            let names = |row: &serde_json::Map<String, Value>| row.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(columns), names(own.as_object().expect("an object")), "{name}");
            let columns = columns.iter();
            // Without libjpeg-turbo the last bits of jpeg are others.
            for (column, value) in columns.filter(|(column, _)| cfg!(feature = "jpeg-turbo") || *column != "jpeg") {
                let own = &own[column.as_str()];
                match own.get("sha256") {
                    Some(_) => {
                        for key in ["dtype", "shape", "sha256"] {
                            assert_eq!(value[key], own[key], "{column} of {name}");
                        }
                        arrays += 1;
                    }
                    None => assert!(
                        same_scalar(value, &own["value"]),
                        "{column} of {name}: {value}, not {own}"
                    ),
                }
            }
        }
        assert!(arrays > 20, "{arrays} arrays in {name}");
    }
}

/// Decimals and times have a text of Python's in what is expected: `0E-9`, and no zone.
fn same_scalar(found: &Value, expected: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let time = |value: &Value| {
        let text = value.as_str()?.trim_end_matches('Z').replace(' ', "T");
        Some(text.strip_suffix(".000000").map(str::to_owned).unwrap_or(text))
    };
    match (number(found), number(expected)) {
        // An f32 is printed in the fewest digits that are it again.
        (Some(found), Some(expected)) => found == expected || found as f32 == expected as f32,
        (None, None) => found == expected || (found.is_string() && time(found) == time(expected)),
        _ => false,
    }
}

/// Every value that real Spark reads from tables of its own, of every type that it has.
#[test]
fn values_are_those_of_spark() {
    for name in ["spark-3.5-types", "spark-4.0-types"] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures");
        let expected =
            std::fs::read_to_string(fixtures.join(format!("{name}.expected.jsonl"))).expect("expected values");
        let expected = expected
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let expected: BTreeMap<_, _> = expected.map(|row| (row["id"].as_i64(), row)).collect();
        let rows = read(&[&fixtures.join(name).display().to_string(), "--arrays", "values"]);
        assert_eq!(rows.len(), expected.len());
        for row in rows {
            let own = &expected[&row["row"]["id"].as_i64()];
            let columns = row["row"].as_object().expect("an object");
            assert_eq!(columns.len(), own.as_object().expect("an object").len(), "{name}");
            for (column, value) in columns {
                assert!(
                    same(value, &own[column.as_str()]),
                    "{column} of {name}: {value}, not {}",
                    own[column.as_str()]
                );
            }
        }
    }
}

/// Structs and lists member by member; a map is a list of its entries.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| same(found, expected))
        }
        (Value::Array(entries), Value::Object(map)) => {
            let member = |entry: &Value| {
                let key = entry["key"].as_str().unwrap_or_default();
                map.get(key).is_some_and(|expected| same(&entry["value"], expected))
            };
            entries.len() == map.len() && entries.iter().all(member)
        }
        (Value::Object(found), Value::Object(expected)) => {
            let member = |(name, value)| expected.get(name).is_some_and(|expected| same(value, expected));
            found.len() == expected.len() && found.iter().all(member)
        }
        (Value::Bool(_) | Value::Null, _) => found == expected,
        _ => same_scalar(found, expected),
    }
}
