//! Executors that fail where others do not.

use std::collections::BTreeSet;

use super::bucket::Bucket;
use super::processes::{Processes, end, files};
use super::{SLOW, convert, squall, table, writers};
use crate::{ids, read};

/// The environment of an executor that a bucket does not know.
fn strange(bucket: &Bucket) -> Vec<(String, String)> {
    let environment = bucket.environment().into_iter();
    let is_secret = |key: &str| key.contains("SECRET");
    environment
        .map(|(key, value)| {
            if is_secret(&key) {
                (key, "wrong".to_owned())
            } else {
                (key, value)
            }
        })
        .collect()
}

#[test]
fn an_executor_that_cannot_write_is_not_the_end() {
    let table = table(8, 40);
    let bucket = Bucket::start();
    // One that cannot write is there first, and fastest to ask for work again.
    let mut processes = Processes::start(squall(), 0, &bucket.environment());
    processes.add_with(&strange(&bucket));
    processes.add();
    let storage = bucket.open_options();
    let storage: Vec<_> = storage.iter().map(String::as_str).collect();
    for options in [&["--sql", SLOW][..], &["--overwrite", "--shuffle", "7"]] {
        let options = [options, &storage].concat();
        let facts = convert(&processes, &table.url(), "s3://bucket/train", &options);
        let able = u64::from(processes.executors[1].id());
        assert_eq!(writers(&facts), BTreeSet::from([able]));
        let reach = bucket.options();
        let reach: Vec<_> = reach.iter().map(String::as_str).collect();
        let found = ids(&read(&[&["s3://bucket/train", "--no-shuffle"], &reach[..]].concat()));
        assert_eq!(found, (0..table.n_rows() as i64).collect::<Vec<_>>());
    }
}

#[test]
fn where_no_executor_can_write_one_is_named() {
    let table = table(2, 10);
    let bucket = Bucket::start();
    let mut processes = Processes::start(squall(), 0, &bucket.environment());
    processes.add_with(&strange(&bucket));
    let storage = bucket.open_options();
    let storage: Vec<_> = storage.iter().map(String::as_str).collect();
    let output = end(processes.convert(&table.url(), "s3://bucket/train", &storage));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains(&format!("executor {}", processes.executors[0].name)),
        "{errors}"
    );
    assert!(errors.contains("access is denied"), "{errors}");
    assert!(files(&bucket.path()).is_empty());
}
