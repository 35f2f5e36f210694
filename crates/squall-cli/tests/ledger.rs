//! `squall verify`.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{converted, fail, squall, succeed};

#[test]
fn a_ledger_proves_that_every_row_came_once() {
    let dataset = converted();
    let directory = TempDir::new().expect("a temporary directory");
    let ledger = directory.path().join("ledger").display().to_string();
    let state = directory.path().join("state.json").display().to_string();
    let rank = |rank: &str, of: &str, more: &[&str]| {
        let flags = [
            "read",
            &dataset.url,
            "--rank",
            rank,
            "--world-size",
            of,
            "--ledger",
            &ledger,
            "--format",
            "none",
        ];
        let flags = [
            &flags[..],
            &["--global-batch", "24", "--epochs", "2", "--where", "id <> 7"],
            more,
        ]
        .concat();
        succeed(&flags);
    };
    let verify = ["verify", &dataset.url, "--ledger", &ledger];
    let same_rows = [&verify[..], &["--where", "id <> 7"]].concat();
    // Four batches on two ranks, the state behind the third one; the rest on three.
    for own in ["0", "1"] {
        rank(own, "2", &["--seed", "3", "--max-batches", "4"]);
    }
    let flags = [
        "read",
        &dataset.url,
        "--global-batch",
        "24",
        "--epochs",
        "2",
        "--where",
        "id <> 7",
        "--seed",
        "3",
    ];
    succeed(
        &[
            &flags[..],
            &["--max-batches", "3", "--state-out", &state, "--format", "none"],
        ]
        .concat(),
    );
    for own in ["0", "1", "2"] {
        rank(own, "3", &["--state-in", &state]);
    }
    let out = succeed(&same_rows);
    let delivered = 2 * (dataset.n_rows - 1);
    assert!(
        out.contains(&format!("{delivered} rows delivered, by 2 runs in 5 files")),
        "{out}"
    );
    assert!(
        out.contains("24 rows rolled back") && out.contains("exact: every row once an epoch"),
        "{out}"
    );
    // Other rows than those of the run.
    let message = fail(2, &verify);
    assert!(message.contains("the selection of rows changed"), "{message}");
    // A rank's file is lost.
    std::fs::remove_file(Path::new(&ledger).join("rank-000001-of-000003.jsonl")).expect("removed");
    let output = squall(&[&same_rows[..], &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    assert_eq!(report["exact"], json!(false));
    let missing = report["report"]["missing"].as_array().expect("rows");
    assert!(
        missing.len() > 40 && missing.iter().all(|row| row["file"].is_string()),
        "{report}"
    );
}
