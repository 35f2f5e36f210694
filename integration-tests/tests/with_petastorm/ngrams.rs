//! The n-grams of real Petastorm and those of Squall: the same windows, in the same order, with the same values.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use squall::{DType, ErrorKind, Field, NGram, Predicate, Row, Shuffle, Tensor, Threshold, TransformSpec, make_reader};

use super::run_python;
use crate::digest::differs;

/// What `ngrams.py` asked Petastorm for, and what it answered.
struct Asked(Json);

impl Asked {
    fn text(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    fn windows(&self) -> Option<&Vec<Json>> {
        self.0["windows"].as_array()
    }

    /// What Squall says to the same request.
    fn read(&self, url: &str) -> squall::Result<Vec<BTreeMap<i64, Row>>> {
        let fields = self.0["fields"].as_object().expect("fields");
        let patterns = |names: &Json| -> Vec<String> {
            let names = names.as_array().expect("names").iter();
            names.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        let fields = fields
            .iter()
            .map(|(offset, names)| (offset.parse().expect("an offset"), patterns(names)));
        let threshold = match self.0["threshold"].as_f64() {
            Some(number) => Threshold::Number(number),
            None => {
                let micros = &self.0["threshold"]["microseconds"];
                Threshold::Time(Duration::from_micros(micros.as_u64().expect("microseconds")))
            }
        };
        let ngram = NGram::new(fields, self.text("timestamp").expect("a field"), threshold);
        let ngram = ngram.overlap(self.0["overlap"].as_bool().expect("true or false"));
        let mut reader = make_reader(url).shuffle(Shuffle::None).ngram(ngram);
        if let Some(name) = self.text("predicate") {
            reader = reader.predicate(predicate(name));
        }
        if let Some(name) = self.text("transform") {
            reader = reader.transform(transform(name));
        }
        reader.build()?.map(|window| NGram::split(window?)).collect()
    }

    /// Each window of Petastorm with that of Squall at the same place.
    fn compare(&self, found: &[BTreeMap<i64, Row>]) {
        let expected = self.windows().expect("windows");
        assert_eq!(found.len(), expected.len(), "{self}");
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            let expected = expected.as_object().expect("an object");
            let expected = expected
                .iter()
                .map(|(offset, row)| {
                    (
                        offset.parse::<i64>().expect("an offset"),
                        row.as_object().expect("a row"),
                    )
                })
                // Offsets without fields, which are empty tuples in Petastorm, are left out.
                .filter(|(_, row)| !row.is_empty())
                .collect::<BTreeMap<_, _>>();
            assert!(found.keys().eq(expected.keys()), "window {place} of {self}");
            for (offset, row) in expected {
                // Of fields that a transform added, Petastorm delivers none.
                let names = found[&offset]
                    .iter()
                    .map(|(name, _)| name)
                    .filter(|name| *name != "sum");
                let expected = sorted(row.keys().map(String::as_str));
                assert_eq!(sorted(names), expected, "{offset} of window {place} of {self}");
                for (name, value) in row {
                    let own = found[&offset].get(name).expect("a field");
                    if let Some(why) = differs(own, value) {
                        panic!("{name} at {offset} of window {place} of {self}: {why}");
                    }
                }
            }
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for name in ["fields", "timestamp", "threshold", "overlap", "predicate", "transform"] {
            write!(f, "{name} {} ", self.0[name])?;
        }
        write!(f, "error {}", self.0["error"])
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

fn predicate(name: &str) -> Predicate {
    match name {
        "even" => Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 2 == 0)),
        "third" => Predicate::in_lambda(["id", "t"], |row| Ok(row.int("id")? % 3 > 0 && row.int("t")? > 4)),
        "none" => Predicate::in_lambda(["id"], |row| Ok(row.int("id")? < 0)),
        other => panic!("no predicate {other:?}"),
    }
}

fn transform(name: &str) -> TransformSpec {
    match name {
        "faster" => {
            let faster = TransformSpec::per_row(|row| {
                row.set("speed", row.int("id")? as f64 / 4.0);
                let image = row.tensor("image")?;
                let brighter = image.as_slice::<i16>()?.iter().map(|value| value + 1).collect();
                let brighter = Tensor::from_vec(image.shape(), brighter)?;
                row.set("image", brighter);
                Ok(())
            });
            faster.edit(Field::scalar("speed", DType::Float64))
        }
        "added" => {
            let added = TransformSpec::per_row(|row| {
                row.set("sum", row.int("id")? + row.int("t")?);
                Ok(())
            });
            added.edit(Field::scalar("sum", DType::Int64))
        }
        "shifted" => TransformSpec::per_row(|row| {
            row.set("t", row.int("t")? * 100);
            Ok(())
        }),
        "removed" => TransformSpec::per_batch(Ok).remove("label"),
        other => panic!("no transform {other:?}"),
    }
}

/// Where the two differ on purpose: how Petastorm's answer begins, and Squall's message. `docs/ngrams.md` lists them.
fn difference(asked: &Asked) -> Option<(&'static str, &'static str)> {
    let timestamp = asked.text("timestamp").expect("a field");
    let number = asked.0["threshold"].is_number();
    let named = |name: &str| {
        let fields = asked.0["fields"].as_object().expect("fields");
        fields
            .values()
            .flat_map(|names| names.as_array().expect("names"))
            .any(|own| own == name)
    };
    match (timestamp, asked.text("error")) {
        // Petastorm looks at the pairs of a window only: there are none in windows of one row.
        ("unsorted", None) => Some(("", "expected rows that are sorted by it")),
        ("unsorted", Some(_)) => Some((
            "NotImplementedError: NGram assumes",
            "expected rows that are sorted by it",
        )),
        ("late", None) => Some(("", "expected a number or a time, found Null")),
        ("late", Some(_)) => Some(("TypeError: ", "expected a number or a time, found Null")),
        // A number of days or of microseconds, as the column has it.
        ("at" | "day", None) if number => Some(("", "expected a threshold that is a duration")),
        ("t.*", _) => Some((
            "ValueError: timestamp_field was matched to more than one",
            "expected one timestamp",
        )),
        ("nope", _) => Some(("IndexError: ", "matches no column")),
        ("points", _) => Some(("ValueError: The truth value", "the timestamp of an n-gram is a scalar")),
        ("label", _) => Some(("TypeError: ", "expected a number or a time, found")),
        (_, Some(_)) if asked.0["fields"] == Json::Object(Default::default()) => {
            Some(("ValueError: min() arg", "an n-gram has no offset"))
        }
        // Patterns that match nothing are passed over.
        (_, None) if named("nope") || asked.text("transform") == Some("removed") => Some(("", "matches no column")),
        _ => None,
    }
}

#[test]
fn ngrams_are_those_of_petastorm() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("ngrams.py", &[&place("written"), &place("found")], None);
    let url = place("written").display().to_string();
    let text = std::fs::read_to_string(place("found")).expect("windows");
    let (mut compared, mut empty) = (0, 0);
    for line in text.lines() {
        let asked = Asked(serde_json::from_str(line).expect("JSON"));
        let found = asked.read(&url);
        if let Some((petastorm, own)) = difference(&asked) {
            let error = asked.text("error").unwrap_or_default();
            assert!(error.starts_with(petastorm), "{asked}");
            let message = found.expect_err("an error").to_string();
            assert!(message.contains(own), "{asked}: {message}");
            continue;
        }
        if let Some(error) = asked.text("error") {
            // Columns that are not delivered: only Petastorm needs them delivered.
            assert!(
                error.starts_with("KeyError: 't'") || error.contains("are not valid schema names"),
                "{asked}"
            );
            assert!(!found.expect("windows").is_empty(), "{asked}");
            continue;
        }
        let expected = asked.windows().expect("windows");
        match (asked.text("transform"), found) {
            // The windows are those of the stored timestamps.
            (Some("shifted"), found) => assert!(found.expect("windows").len() > expected.len()),
            (_, Err(error)) if expected.is_empty() => {
                assert_eq!(error.kind(), ErrorKind::NoData, "{asked}: {error}");
                empty += 1;
            }
            (_, found) => {
                let found = found.unwrap_or_else(|error| panic!("{asked}: {error}"));
                asked.compare(&found);
                compared += found.len();
                if asked.text("transform") == Some("added") {
                    let sum = |row: &Row| row.int("sum").expect("a sum");
                    let row = &found[0][&0];
                    assert_eq!(sum(row), row.int("id").expect("an id") + row.int("t").expect("a time"));
                }
            }
        }
    }
    // The comparison is of something.
    assert!(compared > 4000 && empty > 3, "{compared} windows, {empty} without any");
}
