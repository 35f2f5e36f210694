//! The command from outside: what it prints, its exit codes, and what it leaves behind.

mod bench;
#[cfg(feature = "ballista")]
mod cluster;
mod copy;
mod fixtures;
mod ledger;
mod order;
mod plan;
mod rows;
mod stores;
mod verify;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use squall_testkit::{Layout, Table, truncate};
use tempfile::TempDir;

pub(crate) fn squall(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.args(arguments).output().expect("the command starts")
}

/// The standard output of a command that must succeed, in silence on standard error.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = squall(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The sentence of a command that must fail with this exit code.
pub(crate) fn fail(code: i32, arguments: &[&str]) -> String {
    let output = squall(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// The objects that `squall read` prints.
pub(crate) fn read(arguments: &[&str]) -> Vec<Value> {
    let out = succeed(&[&["read"], arguments].concat());
    out.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect()
}

pub(crate) fn ids(lines: &[Value]) -> Vec<i64> {
    let mut ids: Vec<_> = lines
        .iter()
        .map(|line| line["row"]["id"].as_i64().expect("an id"))
        .collect();
    ids.sort_unstable();
    ids
}

/// A table, and the dataset that it was converted to.
pub(crate) struct Converted {
    _directory: TempDir,
    pub(crate) url: String,
    pub(crate) n_rows: i64,
}

pub(crate) fn converted() -> Converted {
    let table = Table::write(&Layout::default());
    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("out").display().to_string();
    succeed(&["convert", &table.url(), &url]);
    Converted {
        _directory: directory,
        url,
        n_rows: table.n_rows() as i64,
    }
}

#[test]
fn help_has_examples() {
    for command in [
        "bench", "convert", "copy", "inspect", "metadata", "plan", "read", "verify",
    ] {
        let help = succeed(&[command, "--help"]);
        assert!(help.contains("Example"), "{help}");
        assert!(help.contains(&format!(":\n  squall {command} ")), "{help}");
    }
}

#[test]
fn rows_are_printed_as_json() {
    let table = converted();
    let rows = read(&[&table.url, "--no-shuffle", "--arrays", "values", "--batch-size", "50"]);
    assert_eq!(
        rows[1],
        json!({"epoch": 0, "batch": 0, "row": {"id": 1, "name": "row 1", "x": [1, 2, 3]}})
    );
    assert_eq!(
        rows[119],
        json!({"epoch": 0, "batch": 2, "row": {"id": 119, "name": null, "x": [19, 20, 21]}})
    );
    let text = succeed(&[
        "read",
        &table.url,
        "--no-shuffle",
        "--columns",
        "x, id",
        "--arrays",
        "values",
        "--max-batches",
        "1",
    ]);
    assert!(
        text.starts_with("{\"epoch\":0,\"batch\":0,\"row\":{\"x\":[0,1,2],\"id\":0}}\n"),
        "{text}"
    );
    let digest = &read(&[&table.url, "--no-shuffle", "--columns", "x"])[0]["row"];
    // printf '\x00\x01\x02' | sha256sum
    let sha256 = "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc";
    assert_eq!(digest, &json!({"x": {"dtype": "|i1", "shape": [3], "sha256": sha256}}));
}

#[test]
fn inspect_and_convert_print_facts() {
    let table = Table::write_partitioned(
        "day",
        &["2024-01-01", "2024-01-02"],
        &Layout {
            files: vec![20, 30],
            ..Layout::default()
        },
    );
    let facts: Value = serde_json::from_str(&succeed(&["inspect", &table.url(), "--format", "json"])).expect("JSON");
    assert_eq!(facts["rows"], 50);
    assert_eq!(facts["rows_per_row_group"], json!([16, 4, 16, 14]));
    assert_eq!(facts["partition_by"], json!(["day"]));
    assert_eq!(facts["squall_metadata"], false);
    assert_eq!(
        facts["schema"][3],
        json!({"name": "day", "dtype": "datetime64[D]", "shape": [], "nullable": false})
    );

    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("out").display().to_string();
    let sql = "SELECT id, CAST(id AS DOUBLE) AS x FROM source WHERE day = DATE '2024-01-02'";
    let converted = succeed(&[
        "convert",
        &table.url(),
        &url,
        "--sql",
        sql,
        "--compression",
        "snappy",
        "--format",
        "json",
    ]);
    let converted: Value = serde_json::from_str(&converted).expect("JSON");
    assert_eq!((&converted["rows"], &converted["row_groups"]), (&json!(30), &json!(1)));
    let facts: Value = serde_json::from_str(&succeed(&["inspect", &url, "--format", "json"])).expect("JSON");
    assert_eq!(
        (&facts["fingerprint"], &facts["schema"]),
        (&converted["fingerprint"], &converted["schema"])
    );
    assert_eq!(facts["squall_metadata"], true);
    let text = succeed(&["inspect", &url]);
    assert!(
        text.contains("rows         30\n") && text.contains("    x: float32"),
        "{text}"
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let table = converted();
    let line = format!(
        "'{}' read '{}' --epochs 200 | head -n 1",
        env!("CARGO_BIN_EXE_squall"),
        table.url
    );
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &line])
        .output()
        .expect("bash");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn failures_are_one_clear_sentence() {
    let table = Table::write(&Layout::default());
    let damaged = Table::write(&Layout::default());
    truncate(&damaged.files()[1]);
    let empty = TempDir::new().expect("a temporary directory");
    let empty = empty.path().display().to_string();
    let parent = TempDir::new().expect("a temporary directory");
    let destination = parent.path().join("out").display().to_string();
    let (url, damaged) = (table.url(), damaged.url());
    let check = |code, arguments: &[&str], expected: &str| {
        let error = fail(code, arguments);
        assert!(
            error.starts_with("squall: ") && error.contains(expected),
            "{arguments:?}: {error}"
        );
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(
            Path::new(&parent.path())
                .read_dir()
                .expect("a directory")
                .next()
                .is_none(),
            "left behind by {arguments:?}"
        );
    };
    for (command, rest) in [
        ("inspect", None),
        ("read", None),
        ("convert", Some(destination.as_str())),
    ] {
        let on = |url| {
            [Some(command), Some(url), rest]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        check(
            1,
            &on("/no/such/place"),
            "no such file or directory (URL /no/such/place)",
        );
        check(
            1,
            &on(&empty),
            &format!("there is no Parquet file in the directory (URL {empty})"),
        );
        check(1, &on(&damaged), "part-00001.parquet");
        check(1, &on("gopher://x/y"), "no store for URLs that begin with gopher://");
    }
    check(
        2,
        &["read", &url, "--columns", "id,nope"],
        "no column \"nope\": the columns are id, name, x",
    );
    check(
        2,
        &["read", &url, "--rank", "2", "--world-size", "2"],
        "expected a rank below the world size 2, found 2",
    );
    check(2, &["read", &url, "--where", "id >"], "where-clause");
    check(
        2,
        &["convert", &url, &destination, "--sql", "SELECT nope FROM source"],
        "nope",
    );
    check(
        1,
        &[
            "convert",
            &url,
            &destination,
            "--sql",
            "SELECT 1 / (id - 119) AS x FROM source",
        ],
        "Divide by zero",
    );
    let other = Table::write(&Layout::default());
    check(1, &["convert", &url, &other.url()], "exists already and is not empty");
    check(
        2,
        &["convert", &url, &format!("{url}/out")],
        "the destination lies inside the source",
    );
    check(
        1,
        &["read", &url, "--state-in", &format!("{empty}/none")],
        "cannot read the state",
    );
    // Wrong flags are told by clap, over more than a line.
    assert!(fail(2, &["read", &url, "--batch-size", "4", "--global-batch", "4"]).contains("cannot be used with"));
    assert!(fail(2, &["read"]).contains("<URL>"));
    assert!(fail(2, &["read", &url, "--rank", "-1"]).contains("'-1'"));
}
