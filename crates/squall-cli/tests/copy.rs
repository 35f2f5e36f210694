//! `squall copy` and `squall metadata`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::{converted, fail, ids, read, succeed};

fn facts(arguments: &[&str]) -> Value {
    let out = succeed(&[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&out).expect("a JSON object")
}

#[test]
fn some_columns_and_rows_are_copied() {
    let set = converted();
    let directory = TempDir::new().expect("a directory");
    let copy = directory.path().join("copy").display().to_string();
    let found = facts(&[
        "copy",
        &set.url,
        &copy,
        "--columns",
        "name,id",
        "--where",
        "id < 50 -- and no more",
        "--not-null",
        "name",
        "--row-group-bytes",
        "1KiB",
        "--files",
        "1",
    ]);
    // Every seventh name is null.
    assert_eq!(found["rows"], 42);
    let lines = read(&[&copy, "--no-shuffle"]);
    assert_eq!(ids(&lines), (0..50).filter(|id| id % 7 != 0).collect::<Vec<_>>());
    assert!(lines[0]["row"].get("x").is_none());
    succeed(&["verify", &copy]);
    let taken = fail(1, &["copy", &set.url, &copy]);
    assert!(taken.contains("the destination exists already"), "{taken}");
    let place = |name: &str| directory.path().join(name).display().to_string();
    // Petastorm's flags.
    let old = facts(&[
        "copy",
        &set.url,
        &place("old"),
        "--field-regex",
        "i.*",
        "--row-group-size-mb",
        "1",
    ]);
    assert_eq!(old["rows"], set.n_rows);
    for (wrong, text) in [
        (["--columns", "nope"], "no column \"nope\""),
        (["--columns-matching", "nope"], "matches no column"),
        (["--where", "nope = 1"], "the query does not fit the source"),
        (["--where", "id = 1) OR (id = 2"], "the query does not fit the source"),
        (["--not-null", "nope"], "no column \"nope\""),
    ] {
        let error = fail(2, &[&["copy", &set.url, &place("not")], &wrong[..]].concat());
        assert!(error.contains(text), "{error}");
    }
    assert!(!Path::new(&place("not")).exists());
}

#[test]
fn a_copy_of_what_petastorm_opens_is_what_petastorm_opens() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures/petastorm-0.13.1-all");
    let directory = TempDir::new().expect("a directory");
    let copy = directory.path().join("copy").display().to_string();
    succeed(&[
        "copy",
        fixture.to_str().expect("UTF-8"),
        &copy,
        "--columns-matching",
        "id",
        "png.*",
        "partition_key",
    ]);
    succeed(&["verify", &copy]);
    let shown = succeed(&["metadata", "show", &copy]);
    assert!(
        shown.contains("dataset-toolkit.unischema.v1") && shown.contains("partition_key"),
        "{shown}"
    );
    let keys = facts(&["metadata", "show", &copy])["keys"].to_string();
    assert!(
        keys.contains("a pickle in ASCII") && keys.contains("squall.dataset.v1"),
        "{keys}"
    );
}

#[test]
fn metadata_are_written_for_files_that_are_there() {
    let table = Table::write_partitioned("day", &["2024-01-01", "2024-01-02"], &Layout::default());
    let url = table.url();
    let lists = fail(1, &["metadata", "generate", &url, "--petastorm=Days"]);
    assert!(
        lists.contains("Petastorm reads arrays of shape [?] from encoded cells only"),
        "{lists}"
    );
    let made = facts(&["metadata", "generate", &url, "--checksums"]);
    assert_eq!((&made["rows"], &made["files"]), (&80.into(), &2.into()));
    assert!(made["petastorm"].is_null());
    let inspected = facts(&["inspect", &url]);
    assert_eq!(inspected["squall_metadata"], true);
    assert_eq!(inspected["partition_by"], serde_json::json!(["day"]));
    let report = facts(&["verify", &url]);
    assert_eq!(report["report"]["checksums"], 2);
    assert_eq!(ids(&read(&[&url])), (0..80).collect::<Vec<_>>());
    let again = fail(1, &["metadata", "generate", &url]);
    assert!(again.contains("has metadata already"), "{again}");

    // A schema of one's own, as it is printed, without the lists.
    let directory = TempDir::new().expect("a directory");
    let schema = directory.path().join("schema.json").display().to_string();
    let mut own = inspected["schema"].clone();
    let fields = own.as_array_mut().expect("fields");
    fields.retain(|field| field["name"] != "x");
    fs::write(&schema, own.to_string()).expect("written");
    let with = ["metadata", "generate", &url, "--overwrite", "--schema", &schema];
    let made = facts(&[&with[..], &["--petastorm=Days"]].concat());
    assert_eq!(made["petastorm"], "Days");
    succeed(&["verify", &url]);

    // A file more: what is there counts, and not what was written down.
    let day = table.path().join("day=2024-01-02");
    fs::copy(day.join("part-00000.parquet"), day.join("part-00001.parquet")).expect("copied");
    let orphans = facts(&["verify", &url])["report"]["orphans"].clone();
    assert_eq!(orphans, serde_json::json!(["day=2024-01-02/part-00001.parquet"]));
    let made = facts(&["metadata", "generate", &url, "--overwrite"]);
    assert_eq!((&made["rows"], &made["petastorm"]), (&110.into(), &"Days".into()));
    succeed(&["verify", &url]);

    own[0]["name"] = "nope".into();
    fs::write(&schema, own.to_string()).expect("written");
    let wrong = fail(2, &with);
    assert!(wrong.contains("no file has such a column"), "{wrong}");
    let obsolete = fail(2, &["metadata", "generate", &url, "--use-summary-metadata"]);
    assert!(obsolete.contains("obsolete"), "{obsolete}");
}

#[test]
fn indexes_are_shown_as_petastorms_tool_shows_them() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures/petastorm-0.7.6");
    let url = fixture.to_str().expect("UTF-8");
    let text = succeed(&["metadata", "show", url, "--index"]);
    assert!(
        text.contains("id of id: 100 values") && text.contains("\n    99: 1\n"),
        "{text}"
    );
    let text = succeed(&[
        "metadata",
        "show",
        url,
        "--index",
        "--print-values",
        "--skip-index",
        "id",
    ]);
    assert!(!text.contains("\n    99: 1") && text.contains("sensor_name"), "{text}");
    let shown = facts(&["metadata", "show", url]);
    assert!(
        shown["schema"].is_array() && shown["files"].as_array().map(Vec::len) == Some(10),
        "{shown}"
    );
}
