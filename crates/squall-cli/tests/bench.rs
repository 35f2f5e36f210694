//! `squall bench`.

use serde_json::Value;

use crate::{converted, fail, succeed};

#[test]
fn a_measurement_is_text_and_json() {
    let table = converted();
    let flags = [
        "bench",
        &table.url,
        "--batch-size",
        "8",
        "--batches",
        "20",
        "--workers",
        "2",
    ];
    let bench = |more: &[&str]| succeed(&[&flags[..], more].concat());
    let json = |more: &[&str]| -> Value {
        let text = bench(&[more, &["--format", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    };
    // Twenty batches behind the eight of the warm-up are more than an epoch has.
    let found = json(&[]);
    let report = &found["report"];
    assert_eq!(report["metrics"]["batches"], 20);
    assert_eq!(report["ended"], false);
    for number in ["first_batch_seconds", "rows_per_second", "bytes_per_second"] {
        assert!(report[number].as_f64().is_some_and(|n| n > 0.0), "{number} of {report}");
    }
    assert!(
        report["limiting_stage"].is_string() && report["advice"].is_string(),
        "{report}"
    );
    assert!(
        report["replay"]["rows_per_second"].as_f64() > report["rows_per_second"].as_f64(),
        "{report}"
    );
    assert!(report["stages"].as_array().is_some_and(|stages| stages.len() == 3));
    assert!(report["metrics"]["decode"]["busy_seconds"].is_f64() && found["open_seconds"].is_f64());

    // A trainer that takes its time limits.
    let report = &json(&["--step-ms", "10"])["report"];
    assert_eq!(report["limiting_stage"], "consumer", "{report}");
    assert!(
        report["rows_per_second"].as_f64().is_some_and(|speed| speed < 800.0),
        "{report}"
    );

    let report = &json(&["--epochs", "2", "--warmup", "1", "--rank", "1", "--world-size", "2"])["report"];
    assert_eq!(
        (&report["ended"], &report["metrics"]["rank"]),
        (&Value::from(true), &Value::from(1))
    );

    let report = &json(&["--memory-budget", "64MiB"])["report"];
    let memory = &report["metrics"]["memory"];
    assert_eq!(memory["budget"], 64 << 20);
    assert!(
        memory["high_water"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0 && bytes <= 64 << 20),
        "{report}"
    );

    let text = bench(&["--columns", "id"]);
    for part in [
        "rank 0 of 1: opened in",
        "20 batches",
        "busy  starved  blocked",
        "limited by",
        "bound: ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_measurement_that_cannot_be_is_refused() {
    let table = converted();
    let error = fail(2, &["bench", &table.url, "--epochs", "1", "--batch-size", "1000"]);
    assert!(error.contains("more than the 8 batches of the warm-up"), "{error}");
    assert!(fail(2, &["bench", &table.url, "--duration", "0"]).contains("expected seconds"));
    assert!(fail(2, &["bench", &table.url, "--step-ms", "nan"]).contains("expected milliseconds"));
    assert!(fail(2, &["bench", &table.url, "--columns", "nope"]).contains("no column \"nope\""));
    assert!(fail(2, &["bench", &table.url, "--memory-budget", "many"]).contains("many"));
    fail(1, &["bench", "/nonexistent"]);
}
