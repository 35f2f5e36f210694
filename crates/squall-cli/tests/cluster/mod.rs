//! Conversions on a scheduler and executors that are processes of their own.

mod bucket;
mod doubt;
mod late;
mod processes;
mod versions;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::{ids, read, succeed};
use bucket::Bucket;
use processes::{Processes, end, files, wait_until};

/// Rows that take a processor some milliseconds each, so that there is a middle of a conversion.
const SLOW: &str =
    "SELECT id, name, x, levenshtein(repeat(coalesce(name, 'none'), 40), repeat(name, 30)) AS d FROM source";

fn squall() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_squall"))
}

fn table(files: usize, rows: usize) -> Table {
    Table::write(&Layout {
        files: vec![rows; files],
        row_group: 64,
        ..Layout::default()
    })
}

/// What a conversion on the cluster printed.
fn convert(processes: &Processes, source: &str, destination: &str, options: &[&str]) -> Value {
    let output = end(processes.convert(source, destination, options));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn writers(facts: &Value) -> BTreeSet<u64> {
    let writers = facts["writers"].as_array().expect("writers").iter();
    writers
        .map(|writer| writer["process"].as_u64().expect("a process"))
        .collect()
}

/// Whether nothing is there but what the conversion says it wrote.
fn check_files(directory: &Path, facts: &Value) {
    let writers = facts["writers"].as_array().expect("writers").iter();
    let mut expected: Vec<_> = writers
        .map(|writer| writer["file"].as_str().expect("a path").to_owned())
        .collect();
    expected.push("_common_metadata".to_owned());
    expected.sort();
    assert_eq!(files(directory), expected);
}

fn rows(url: &str) -> Vec<Value> {
    let rows = read(&[url, "--no-shuffle", "--arrays", "values"]);
    rows.into_iter().map(|mut line| line["row"].take()).collect()
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

#[test]
fn both_executors_write_what_one_process_writes() {
    let table = table(8, 40);
    let processes = Processes::start(squall(), 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let own: BTreeSet<_> = processes
        .executors
        .iter()
        .map(|executor| u64::from(executor.id()))
        .collect();
    let small = ["--file-bytes", "2KiB", "--row-group-bytes", "1KiB"];
    let layouts: [(&str, &[&str]); 5] = [
        ("plain", &["--sql", SLOW]),
        ("sorted", &["--sort-by", "name,id"]),
        ("shuffled", &["--shuffle", "7"]),
        (
            "partitioned",
            &[
                "--sql",
                "SELECT id, name, id % 3 AS part FROM source",
                "--partition-by",
                "part",
            ],
        ),
        ("petastorm", &["--petastorm", "--row-group-index", "id"]),
    ];
    for (name, options) in layouts {
        let options = [options, &small[..]].concat();
        let facts = convert(&processes, &table.url(), &place(name), &options);
        check_files(&directory.path().join(name), &facts);
        let here = place(&format!("{name}-here"));
        succeed(&[&["convert", &table.url(), &here, "--quiet"], &options[..]].concat());
        assert_eq!(rows(&place(name)), rows(&here), "{name}");
        let fingerprint = succeed(&["inspect", &here, "--format", "json"]);
        let fingerprint: Value = serde_json::from_str(&fingerprint).expect("JSON");
        assert_eq!(facts["fingerprint"], fingerprint["fingerprint"], "{name}");
        assert!(writers(&facts).is_subset(&own));
        if name == "plain" {
            assert_eq!(writers(&facts), own);
        }
    }
}

#[test]
fn files_of_records_are_read_by_executors() {
    let source = TempDir::new().expect("a directory");
    let mut next = 0;
    for (day, name) in [(1, "a.csv"), (1, "b.csv"), (2, "a.csv")] {
        let directory = source.path().join(format!("day={day}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let lines = (next..next + 5).map(|id| format!("{id},text {id}\n"));
        next += 5;
        std::fs::write(directory.join(name), format!("id,name\n{}", lines.collect::<String>())).expect("a file");
    }
    let processes = Processes::start(squall(), 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let from = source.path().display().to_string();
    let facts = convert(&processes, &from, &place("out"), &["--sort-by", "id"]);
    assert_eq!(facts["rows"], 15);
    succeed(&["convert", &from, &place("here"), "--sort-by", "id", "--quiet"]);
    assert_eq!(rows(&place("out")), rows(&place("here")));
    let names = place("names");
    convert(
        &processes,
        &from,
        &names,
        &["--sql", "SELECT day, name FROM source WHERE id % 2 = 0"],
    );
    assert_eq!(rows(&names).len(), 8);
    // A value that does not fit is named with its file and line.
    std::fs::write(source.path().join("day=2/b.csv"), "id,name\n1,a\n2,b,c\n").expect("a file");
    let output = end(processes.convert(&from, &place("bad"), &["--infer-rows", "1"]));
    let here = crate::squall(&["convert", &from, &place("bad"), "--quiet", "--infer-rows", "1"]);
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&here.stderr)
    );
}

#[test]
fn queries_of_several_stages_run_on_executors() {
    let table = table(8, 40);
    let processes = Processes::start(squall(), 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("out").display().to_string();
    let sql = "SELECT a.id % 50 AS g, count(*) AS n, min(b.name) AS name FROM source a JOIN source b ON a.id = b.id GROUP BY 1";
    let facts = convert(&processes, &table.url(), &url, &["--sql", sql, "--sort-by", "g"]);
    check_files(Path::new(&url), &facts);
    let found = rows(&url);
    assert_eq!(found.len(), 50);
    let total: i64 = found.iter().map(|row| row["n"].as_i64().expect("a count")).sum();
    assert_eq!(total, table.n_rows() as i64);
    // One unit takes what is first of the parts: no other depends on which that is.
    let facts = convert(
        &processes,
        &table.url(),
        &format!("{url}-limit"),
        &["--sql", "SELECT * FROM source LIMIT 17"],
    );
    assert_eq!(facts["rows"], 17);
    let chance = "SELECT g, count(*) AS n FROM (SELECT CAST(random() * 10 AS INT) AS g FROM source) GROUP BY g";
    let output = end(processes.convert(&table.url(), &format!("{url}-random"), &["--sql", chance]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("gives something else when a lost part is done again"),
        "{errors}"
    );
}

#[test]
fn an_executor_that_is_killed_is_survived() {
    let table = table(8, 60);
    let directory = TempDir::new().expect("a directory");
    for (done, options) in [(0, &["--sql", SLOW][..]), (3, &["--sql", SLOW, "--shuffle", "3"][..])] {
        let mut processes = Processes::start(squall(), 2, &[]);
        let name = format!("out-{done}");
        let url = directory.path().join(&name).display().to_string();
        let options = [&["--lost-after", "3"], options].concat();
        let conversion = processes.convert(&table.url(), &url, &options);
        wait_until("units are done", || {
            let staged = files(directory.path());
            let count = |kind: &str| staged.iter().filter(|file| file.contains(kind)).count();
            count("/beats/") > 0 && count("/records/") >= done
        });
        processes.executors[0].kill();
        let output = end(conversion);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let facts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        check_files(&directory.path().join(&name), &facts);
        assert!(writers(&facts).contains(&u64::from(processes.executors[1].id())));
        let found = sorted(rows(&url));
        assert_eq!(ids_of(&found), (0..table.n_rows() as i64).collect::<Vec<_>>());
        // Nothing is left beside it.
        let beside = files(directory.path())
            .into_iter()
            .filter(|file| !file.starts_with("out-"));
        assert_eq!(beside.count(), 0);
    }
}

#[test]
fn a_conversion_that_is_killed_leaves_executors_to_the_next() {
    let table = table(8, 60);
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("out").display().to_string();
    let mut processes = Processes::start(squall(), 2, &[]);
    let mut conversion = processes.convert(&table.url(), &url, &["--sql", SLOW]);
    wait_until("a unit is done", || {
        files(directory.path()).iter().any(|file| file.contains("/records/"))
    });
    conversion.kill().expect("a process");
    conversion.wait().expect("a process");
    assert!(!Path::new(&url).exists());
    // One of them is asked to end as well, and ends with what it has.
    let conversion = processes.convert(&table.url(), &url, &["--sql", SLOW]);
    wait_until("a unit is done", || {
        files(directory.path()).iter().any(|file| file.contains("/records/"))
    });
    processes.executors[0].terminate();
    let output = end(conversion);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    check_files(Path::new(&url), &facts);
    assert_eq!(
        ids_of(&sorted(rows(&url))),
        (0..table.n_rows() as i64).collect::<Vec<_>>()
    );
    wait_until("the executor ends", || processes.executors[0].has_ended());
}

fn ids_of(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect()
}

#[test]
fn a_cluster_converts_on_s3() {
    let table = table(8, 40);
    let bucket = Bucket::start();
    let storage = bucket.open_options();
    let storage: Vec<_> = storage.iter().map(String::as_str).collect();
    let mut processes = Processes::start(squall(), 2, &bucket.environment());
    let url = "s3://bucket/train";
    let options = [&["--sql", SLOW, "--shuffle", "3", "--lost-after", "3"], &storage[..]].concat();
    let conversion = processes.convert(&table.url(), url, &options);
    wait_until("units are done", || {
        files(&bucket.path())
            .iter()
            .filter(|file| file.contains("/records/"))
            .count()
            > 1
    });
    processes.executors[0].kill();
    let output = end(conversion);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let there = files(&bucket.path().join("train"));
    let (parts, others): (Vec<_>, Vec<_>) = there.into_iter().partition(|file| file.ends_with(".parquet"));
    assert_eq!(parts.len(), facts["writers"].as_array().expect("writers").len());
    assert!(others.iter().all(|file| !file.contains("_units")), "{others:?}");
    let all = bucket.options();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let read = read(&[&[url, "--no-shuffle"][..], &all].concat());
    assert_eq!(ids(&read), (0..table.n_rows() as i64).collect::<Vec<_>>());
}

#[test]
fn a_bad_row_is_the_error_that_one_process_gives() {
    let table = table(8, 40);
    let processes = Processes::start(squall(), 2, &[]);
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("out").display().to_string();
    let sql = "SELECT id, CASE WHEN id = 123 THEN 1e300 ELSE 1.5 END AS y FROM source";
    let output = end(processes.convert(&table.url(), &url, &["--sql", sql]));
    let here = crate::squall(&["convert", &table.url(), &url, "--quiet", "--sql", sql]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&here.stderr)
    );
    assert_eq!(output.status.code(), here.status.code());
    assert!(String::from_utf8_lossy(&output.stderr).contains("row "));
    assert!(files(directory.path()).is_empty());
    let closed = crate::squall(&[
        "convert",
        &table.url(),
        &url,
        "--engine",
        "ballista",
        "--scheduler",
        "127.0.0.1:1",
    ]);
    assert!(String::from_utf8_lossy(&closed.stderr).contains("no scheduler answers there"));
}

#[test]
fn one_command_starts_a_cluster() {
    let table = table(4, 10);
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("out").display().to_string();
    let output = crate::squall(&[
        "convert",
        &table.url(),
        &url,
        "--engine",
        "ballista",
        "--executors",
        "2",
        "--quiet",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        text.lines()
            .filter(|line| line.contains(" written by 127.0.0.1:"))
            .count(),
        4,
        "{text}"
    );
    let alone = crate::fail(2, &["convert", &table.url(), &url, "--executors", "2"]);
    assert!(alone.contains("add --engine ballista"), "{alone}");
    for command in ["scheduler", "executor"] {
        assert!(succeed(&[command, "--help"]).contains(&format!("Example:\n  squall {command} ")));
    }
}
