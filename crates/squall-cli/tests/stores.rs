//! A dataset in S3, from its conversion to its rows.

use std::fs;

use serde_json::Value;
use squall_testkit::{Layout, S3Server, Table};
use tempfile::TempDir;

use crate::{fail, ids, read, succeed};

#[test]
fn a_table_goes_to_s3_and_comes_back() {
    let table = Table::write(&Layout::default());
    let root = TempDir::new().expect("a directory");
    fs::create_dir(root.path().join("bucket")).expect("a bucket");
    let server = S3Server::start(root.path());
    let options: Vec<_> = server
        .options()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let storage: Vec<_> = options.iter().flat_map(|option| ["--storage-option", option]).collect();
    let url = "s3://bucket/train";

    succeed(&[&["convert", &table.url(), url][..], &storage].concat());
    assert!(root.path().join("bucket/train/_common_metadata").exists());
    let again = fail(1, &[&["convert", &table.url(), url][..], &storage].concat());
    assert!(again.contains("the destination exists already"), "{again}");

    let facts = succeed(&[&["inspect", url, "--format", "json"][..], &storage].concat());
    let facts: Value = serde_json::from_str(&facts).expect("JSON");
    assert_eq!((&facts["rows"], &facts["url"]), (&Value::from(120), &Value::from(url)));
    let rows = read(&[&[url, "--seed", "3"][..], &storage].concat());
    assert_eq!(ids(&rows), (0..120).collect::<Vec<_>>());
    // From one bucket to the next.
    succeed(&[&["convert", url, "s3a://bucket/copy"][..], &storage].concat());
    let copied = read(&[&["s3://bucket/copy", "--seed", "3"][..], &storage].concat());
    assert_eq!(ids(&copied).len(), 120);

    let wrong = fail(2, &["inspect", url, "--storage-option", "hunter2"]);
    assert!(
        wrong.contains("--storage-option KEY=VALUE") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    let typo = fail(2, &["read", url, "--storage-option", "endpiont=hunter2"]);
    assert!(
        typo.contains("did you mean endpoint") && !typo.contains("hunter2"),
        "{typo}"
    );
}
