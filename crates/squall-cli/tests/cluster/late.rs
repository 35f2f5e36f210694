//! Executors that are not dead, but late.

use serde_json::Value;
use squall_testkit::Table;

use super::bucket::Bucket;
use super::processes::{Processes, end, files, wait_until};
use super::{SLOW, ids_of, sorted, squall, table};
use crate::{read, succeed};

/// A conversion to a bucket, one of whose executors is stopped in the middle of a unit, and goes on when the dataset is there.
fn stop_one(table: &Table, bucket: &Bucket, options: &[&str]) -> Value {
    let mut processes = Processes::start(squall(), 2, &bucket.environment());
    let storage = bucket.open_options();
    let storage: Vec<_> = storage.iter().map(String::as_str).collect();
    let options = [&["--sql", SLOW, "--lost-after", "3"], options, &storage].concat();
    let mut conversion = processes.convert(&table.url(), "s3://bucket/train", &options);
    wait_until("both executors are on a unit", || {
        let has_ended = conversion.try_wait().expect("a process").is_some();
        assert!(!has_ended, "it ended before both were");
        let there = files(&bucket.path());
        there.iter().filter(|file| file.contains("/beats/")).count() >= 2
    });
    processes.executors[0].signal("STOP");
    let output = end(conversion);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    processes.executors[0].signal("CONT");
    // It ends what it has before it ends itself.
    processes.executors[0].terminate();
    wait_until("the executor ends", || processes.executors[0].has_ended());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_unit_that_ends_late_leaves_nothing_in_the_dataset() {
    // Units that last for long enough that both executors are on one at the same time, though one may have started later.
    let table = table(8, 400);
    let n = table.n_rows() as i64;
    let bucket = Bucket::start();
    let reach = bucket.options();
    let reach: Vec<_> = ["s3://bucket/train"]
        .into_iter()
        .chain(reach.iter().map(String::as_str))
        .collect();
    for (options, rows) in [(&[][..], n), (&["--append"], 2 * n)] {
        let facts = stop_one(&table, &bucket, options);
        assert_eq!(facts["rows"].as_i64(), Some(rows));
        let text = succeed(&[&["verify", "--format", "json"], &reach[..]].concat());
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&found["sound"], &found["report"]["orphans"]),
            (&true.into(), &Value::Array(Vec::new()))
        );
        let there = files(&bucket.path().join("train"));
        let others: Vec<_> = there.iter().filter(|file| !file.ends_with(".parquet")).collect();
        assert_eq!(others, ["_common_metadata"], "{there:?}");
        let lines = read(&[&reach[..], &["--no-shuffle", "--columns", "id"]].concat());
        let ids = ids_of(&sorted(lines.into_iter().map(|mut line| line["row"].take()).collect()));
        let times = (rows / n) as usize;
        assert_eq!(
            ids,
            (0..n).flat_map(|id| std::iter::repeat_n(id, times)).collect::<Vec<_>>()
        );
    }
}
