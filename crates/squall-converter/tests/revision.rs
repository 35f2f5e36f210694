//! Datasets that are appended to and overwritten.

use std::path::Path;

use squall_converter::{Converted, Converter, Petastorm, SaveMode, session};
use squall_dataset::{Dataset, DatasetUrl};
use squall_schema::{ErrorKind, Result};

use super::{Destination, run};

fn write(url: &str, mode: SaveMode, sql: &str) -> Result<Converted> {
    write_with(Converter::new(url).mode(mode), sql)
}

fn write_with(converter: Converter, sql: &str) -> Result<Converted> {
    run(async {
        let rows = session().sql(sql).await.expect("a query");
        converter.convert(rows).await
    })
}

fn dataset(url: &str) -> Dataset {
    run(Dataset::open(&DatasetUrl::parse(url).expect("a URL"))).expect("a dataset")
}

fn series(first: i64, last: i64) -> String {
    format!("SELECT value AS id, [value, value] AS pair FROM generate_series({first}, {last})")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn places(name: &str) -> (Destination, Vec<String>) {
    let directory = Destination::new();
    let urls = vec![directory.url(), format!("memory://revision/{name}")];
    (directory, urls)
}

#[test]
fn rows_are_appended_behind_those_that_are_there() {
    let (directory, urls) = places("appended");
    for url in urls {
        let first = write(&url, SaveMode::Append, &series(1, 100)).expect("a new one");
        let before = dataset(&url);
        let second = write(&url, SaveMode::Append, &series(101, 150)).expect("an append");
        assert_eq!((first.rows(), second.rows()), (100, 150));
        assert_ne!(first.fingerprint(), second.fingerprint());
        let after = dataset(&url);
        assert_eq!((before.rows(), after.rows()), (100, 150));
        assert_eq!(after.schema().fields()[1].shape.as_fixed(), Some(vec![2]));
        // What was there stays, for those who have it open.
        assert!(
            before
                .files()
                .iter()
                .all(|old| after.files().iter().any(|new| new.path == old.path))
        );
        // Lists of another length: the shape is open then.
        let sql = "SELECT value AS id, [value, value, value] AS pair FROM generate_series(151, 152)";
        write(&url, SaveMode::Append, sql).expect("an append");
        assert_eq!(dataset(&url).schema().fields()[1].shape.0, [None]);
    }
    let hidden = names(&directory.0.path().join("out"));
    assert!(hidden.iter().all(|name| !name.starts_with('.')), "{hidden:?}");
}

#[test]
fn what_does_not_fit_is_not_appended() {
    let (_directory, urls) = places("misfits");
    for url in urls {
        write(&url, SaveMode::ErrorIfExists, &series(1, 10)).expect("a new one");
        let cases = [
            ("SELECT value AS id FROM generate_series(1, 3)", "the columns id, pair"),
            (
                "SELECT [value, value] AS pair, value AS id FROM generate_series(1, 3)",
                "the columns id, pair",
            ),
            (
                "SELECT CAST(value AS INT) AS id, [value, value] AS pair FROM generate_series(1, 3)",
                "id",
            ),
        ];
        for (sql, expected) in cases {
            let error = write(&url, SaveMode::Append, sql).expect_err("other columns");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let converter = Converter::new(&url).mode(SaveMode::Append);
        let error = write_with(converter.clone().partition_by(["id"]), &series(1, 3)).expect_err("directories");
        assert!(error.to_string().contains("directories by"), "{error}");
        let error = write_with(converter.petastorm(Petastorm::new("S")), &series(1, 3)).expect_err("Petastorm's");
        assert!(error.to_string().contains("not Petastorm's"), "{error}");
        let error = write(&url, SaveMode::ErrorIfExists, &series(1, 3)).expect_err("something is there");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(dataset(&url).rows(), 10);
    }
}

#[test]
fn an_overwrite_replaces_all_and_leaves_nothing() {
    let (directory, urls) = places("overwritten");
    for url in urls {
        let sql = "SELECT value AS id, value % 3 AS part FROM generate_series(1, 30)";
        let partitioned = Converter::new(&url).partition_by(["part"]);
        write_with(partitioned, sql).expect("a new one");
        let converted = write(&url, SaveMode::Overwrite, &series(1, 7)).expect("an overwrite");
        assert_eq!((converted.rows(), dataset(&url).rows()), (7, 7));
        assert_eq!(dataset(&url).schema().names().collect::<Vec<_>>(), ["id", "pair"]);
        // A failure leaves what was there.
        let error = write(&url, SaveMode::Overwrite, "SELECT 1 AS id WHERE false").expect_err("no row");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(dataset(&url).rows(), 7);
    }
    let left = names(&directory.0.path().join("out"));
    assert_eq!(left.len(), 2, "the metadata and a file: {left:?}");
}

#[test]
fn what_is_no_dataset_is_not_touched() {
    let directory = Destination::new();
    let path = directory.0.path().join("out");
    std::fs::create_dir(&path).expect("a directory");
    std::fs::write(path.join("precious.parquet"), "of somebody's").expect("a file");
    for mode in [SaveMode::Append, SaveMode::Overwrite] {
        let error = write(&directory.url(), mode, &series(1, 3)).expect_err("somebody else's");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_eq!(names(&path), ["precious.parquet"]);
}

#[test]
fn appends_at_the_same_time_are_all_there() {
    let (_directory, urls) = places("at-once");
    for url in urls {
        write(&url, SaveMode::ErrorIfExists, &series(0, 0)).expect("a new one");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let appends = (1..=8).map(|n| {
                let url = url.clone();
                tokio::spawn(async move {
                    let rows = session().sql(&series(n * 10, n * 10 + 9)).await.expect("a query");
                    Converter::new(url).mode(SaveMode::Append).convert(rows).await
                })
            });
            for done in futures::future::join_all(appends).await {
                done.expect("no panic").expect("an append");
            }
        });
        assert_eq!(dataset(&url).rows(), 81);
    }
}

#[test]
fn what_petastorm_opens_stays_so() {
    let directory = Destination::new();
    let url = directory.url();
    let petastorm = |name: &str| Converter::new(&url).petastorm(Petastorm::new(name));
    write_with(petastorm("Series"), &series(1, 10)).expect("a new one");
    write(&url, SaveMode::Append, &series(11, 20)).expect("an append");
    let set = dataset(&url);
    assert_eq!(set.rows(), 20);
    let pairs = run(squall_dataset::key_values(set.store())).expect("keys and values");
    let counts = &pairs[&b"dataset-toolkit.num_row_groups_per_file.v1"[..]];
    let counts: std::collections::BTreeMap<String, u64> = serde_json::from_slice(counts).expect("JSON");
    let files: Vec<_> = set.files().iter().map(|file| file.path.to_string()).collect();
    assert!(
        counts.len() == files.len() && files.iter().all(|file| counts.contains_key(file)),
        "{counts:?}"
    );

    let indexed = Converter::new(&url).mode(SaveMode::Overwrite);
    let indexed = indexed.petastorm(Petastorm::new("Series").index("by_id", "id"));
    write_with(indexed, &series(1, 5)).expect("an overwrite");
    let error = write(&url, SaveMode::Append, &series(6, 9)).expect_err("indexes");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_cache_is_not_appended_to() {
    let directory = Destination::new();
    let converter = Converter::new(directory.url()).mode(SaveMode::Append).cached();
    let error = write_with(converter, &series(1, 3)).expect_err("a cache");
    assert!(error.to_string().contains("cache"), "{error}");
}

#[test]
fn directories_with_escaped_names_are_appended_to_and_overwritten() {
    let (directory, urls) = places("escaped");
    let sql = "SELECT value AS id, CASE value % 5 WHEN 0 THEN 'a/b' WHEN 1 THEN '12:00' WHEN 2 THEN '50%' WHEN 3 THEN 'Zürich~' \
               ELSE 'x y' END AS part FROM generate_series(1, 20)";
    for url in urls {
        let converter = |mode| Converter::new(&url).mode(mode).partition_by(["part"]);
        write_with(converter(SaveMode::ErrorIfExists), sql).expect("a new one");
        write_with(converter(SaveMode::Append), sql).expect("an append");
        let set = dataset(&url);
        assert_eq!((set.rows(), set.files().len()), (40, 10));
        for file in set.files() {
            let found = run(set.store().head(&file.path)).expect("a look");
            assert!(found.is_some(), "{}", file.path);
        }
        write_with(converter(SaveMode::Overwrite), sql).expect("an overwrite");
        assert_eq!(dataset(&url).rows(), 20);
    }
    let below = |path: &Path| std::fs::read_dir(path).map_or(0, |entries| entries.count());
    let out = directory.0.path().join("out");
    for name in names(&out).iter().filter(|name| name.contains('=')) {
        assert_eq!(below(&out.join(name)), 1, "files of the version before in {name}");
    }
}

#[test]
fn what_others_keep_in_the_metadata_stays() {
    let directory = Destination::new();
    write(&directory.url(), SaveMode::ErrorIfExists, &series(1, 3)).expect("a new one");
    let path = directory.0.path().join("out");
    let set = dataset(&directory.url());
    let mut pairs = run(squall_dataset::key_values(set.store())).expect("pairs");
    pairs.insert(b"theirs".to_vec(), b"kept".to_vec());
    rewrite_metadata(&path, &pairs);
    write(&directory.url(), SaveMode::Append, &series(4, 6)).expect("an append");
    let pairs = run(squall_dataset::key_values(dataset(&directory.url()).store())).expect("pairs");
    assert_eq!(pairs.get(&b"theirs"[..]).map(Vec::as_slice), Some(&b"kept"[..]));
}

/// Writes the metadata file anew with these pairs, as tools of Petastorm's do.
fn rewrite_metadata(directory: &Path, pairs: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>) {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    let path = directory.join("_common_metadata");
    let file = std::fs::File::open(&path).expect("metadata");
    let schema = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("a footer")
        .schema()
        .clone();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let pairs = pairs.iter().filter(|(key, _)| !key.starts_with(b"squall.checksum"));
    let pairs = pairs
        .map(|(key, value)| KeyValue::new(text(key), text(value)))
        .collect();
    let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs)).build();
    let file = std::fs::File::create(&path).expect("a file");
    let writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
    writer.close().expect("written");
}
