//! Datasets that a cluster appends to and overwrites.

use std::path::Path;

use serde_json::Value;
use squall::{Shuffle, StoreOptions, make_reader};
use squall_testkit::Table;
use tempfile::TempDir;

use super::bucket::Bucket;
use super::processes::{Processes, end, files};
use super::{convert, squall, table};
use crate::{ids, read, succeed};

/// Where datasets are, and how they are reached: from here, and from the processes of a cluster.
struct Place {
    url: String,
    /// The directory behind it.
    path: std::path::PathBuf,
    here: Vec<String>,
    with_conversion: Vec<String>,
    options: StoreOptions,
}

impl Place {
    fn rows(&self) -> Vec<i64> {
        ids(&read(&[&[&self.url, "--no-shuffle"][..], &strs(&self.here)].concat()))
    }

    /// Nothing is wrong with it, and nothing is there but what its metadata name.
    fn check(&self) {
        let text = succeed(&[&["verify", &self.url, "--format", "json"][..], &strs(&self.here)].concat());
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&found["sound"], &found["report"]["orphans"]),
            (&true.into(), &Value::Array(Vec::new()))
        );
        let is_known = |file: &String| file == "_common_metadata" || file.ends_with(".parquet");
        let there: Vec<_> = self.there().into_iter().filter(|file| !is_known(file)).collect();
        assert!(there.is_empty(), "{there:?}");
    }

    /// Its files, without what the S3 server keeps of its own.
    fn there(&self) -> Vec<String> {
        let mut there = files(&self.path);
        there.retain(|file| !file.contains(".s3s-fs") && !file.contains("metadata-"));
        there
    }
}

fn strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

/// Appends to a dataset that has the rows of `table` and overwrites it, on a cluster.
fn next_versions(processes: &Processes, table: &Table, place: &Place) {
    let n = table.n_rows() as i64;
    let at = |options: &[&str]| {
        let options = [options, &["--row-group-bytes", "1KiB"], &strs(&place.with_conversion)].concat();
        convert(processes, &table.url(), &place.url, &options)
    };
    let more = "SELECT CAST(id + 100000 AS INT) AS id, name, x FROM source WHERE id % 2 = 0";
    at(&["--sql", "SELECT id, name, x FROM source", "--append"]);
    let before = place.there();
    // A reader that has a version open reads on after an append.
    let reader = make_reader(&place.url)
        .store(place.options.clone())
        .shuffle(Shuffle::None)
        .epochs(1);
    let mut open = reader.build().expect("a reader");
    let first = open.next().expect("a row").expect("a row");
    assert_eq!(first["id"].as_i64(), Some(0));
    let facts = at(&["--sql", more, "--append", "--shuffle", "7"]);
    assert_eq!(facts["rows"].as_i64(), Some(n + n / 2));
    assert_eq!(open.count() as i64, n - 1);
    place.check();
    let now = place.there();
    assert!(before.iter().all(|file| now.contains(file)), "{now:?}");
    let writers = facts["writers"].as_array().expect("writers");
    let written: Vec<_> = writers
        .iter()
        .map(|writer| writer["file"].as_str().expect("a file").to_owned())
        .collect();
    let new: Vec<_> = now.into_iter().filter(|file| !before.contains(file)).collect();
    assert_eq!(new, written);
    let both = (0..n).chain((0..n).step_by(2).map(|id| id + 100_000));
    assert_eq!(place.rows(), both.collect::<Vec<_>>());

    let facts = at(&[
        "--sql",
        "SELECT id FROM source WHERE id < 100 ORDER BY id",
        "--overwrite",
    ]);
    assert_eq!(facts["rows"], 100);
    place.check();
    assert_eq!(place.rows(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_cluster_appends_and_overwrites() {
    let table = table(8, 40);
    let bucket = Bucket::start();
    let mut processes = Processes::start(squall(), 2, &bucket.environment());
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("out");
    let disk = Place {
        url: path.display().to_string(),
        path,
        here: Vec::new(),
        with_conversion: Vec::new(),
        options: StoreOptions::default(),
    };
    next_versions(&processes, &table, &disk);
    let pairs = bucket.pairs();
    let store = Place {
        url: "s3://bucket/train".to_owned(),
        path: bucket.path().join("train"),
        here: bucket.options(),
        with_conversion: bucket.open_options(),
        options: StoreOptions::default().with_options(pairs),
    };
    next_versions(&processes, &table, &store);

    // What does not fit is refused before anything runs: the scheduler is not asked.
    let before = disk.there();
    processes.scheduler.kill();
    for (sql, expected) in [
        (
            "SELECT id, x FROM source",
            "expected rows with the columns id to append",
        ),
        ("SELECT CAST(id AS BIGINT) AS id FROM source", "to append, found"),
    ] {
        let output = end(processes.convert(&table.url(), &disk.url, &["--append", "--sql", sql]));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(expected), "{errors}");
    }
    let output = end(processes.convert(&table.url(), &disk.url, &["--append", "--sql", "SELECT id FROM source"]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no scheduler answers there"));
    assert_eq!(disk.there(), before);
}

#[test]
fn an_append_on_a_cluster_is_that_of_one_process() {
    let table = table(8, 40);
    let processes = Processes::start(squall(), 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let sql = "SELECT id, name, id % 3 AS part FROM source";
    let first = [
        "--sql",
        sql,
        "--partition-by",
        "part",
        "--petastorm",
        "--row-group-bytes",
        "1KiB",
    ];
    for name in ["cluster", "here"] {
        succeed(&[&["convert", &table.url(), &place(name), "--quiet"], &first[..]].concat());
    }
    // The directories and the Unischema are those of what is there, and so are columns that may be null.
    let sql = "SELECT id, coalesce(name, 'none') AS name, id % 5 AS part FROM source";
    let options = ["--sql", sql, "--append", "--row-group-bytes", "1KiB"];
    let facts = convert(&processes, &table.url(), &place("cluster"), &options);
    succeed(&[&["convert", &table.url(), &place("here"), "--quiet"], &options[..]].concat());
    let here = succeed(&["inspect", &place("here"), "--format", "json"]);
    let here: Value = serde_json::from_str(&here).expect("JSON");
    assert_eq!(facts["fingerprint"], here["fingerprint"]);
    let text = succeed(&["verify", &place("cluster")]);
    assert!(
        text.ends_with("sound: nothing is wrong\n") && !text.contains("orphan"),
        "{text}"
    );
    assert!(
        files(Path::new(&place("cluster")))
            .iter()
            .any(|file| file.starts_with("part=4/part-"))
    );
}
