//! Conversions that are found again, by one process or many, and what killed ones leave.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use datafusion::dataframe::DataFrame;
use squall_converter::{Cache, Compression, Converted, Converter, Limits, SourceTable, convert_directory, session};
use squall_dataset::DatasetUrl;
use squall_schema::{ByteSize, ErrorKind, Result};
use squall_testkit::{Layout, Table};

use super::{Destination, run};

async fn rows(table: &Table, sql: &str) -> DataFrame {
    let session = session();
    let url = DatasetUrl::parse(&table.url()).expect("a URL");
    let source = SourceTable::open(&url).await.expect("a table");
    session
        .register_table("source", std::sync::Arc::new(source))
        .expect("registered");
    session.sql(sql).await.expect("a query")
}

fn cached(table: &Table, cache: &str, sql: &str) -> Result<Converted> {
    run(async { Converter::new(cache).cached().convert(rows(table, sql).await).await })
}

/// All files below a directory with their lengths and times.
fn files(directory: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let facts = entry.metadata().expect("metadata");
            if facts.is_dir() {
                left.push(entry.path());
            }
            let modified = facts.modified().expect("a time");
            found.insert(entry.path().display().to_string(), (facts.len(), modified));
        }
    }
    found
}

#[test]
fn the_same_conversion_is_made_once_and_a_hit_touches_nothing() {
    let table = Table::write(&Layout::default());
    let cache = Destination::new();
    let first = cached(&table, &cache.url(), "SELECT id FROM source").expect("a conversion");
    assert!(!first.is_hit());
    let before = files(cache.0.path());
    let second = cached(&table, &cache.url(), "SELECT id FROM source").expect("a hit");
    assert!(second.is_hit());
    assert_eq!(
        (second.url(), second.len(), second.fingerprint()),
        (first.url(), first.len(), first.fingerprint())
    );
    assert_eq!(files(cache.0.path()), before);
}

#[test]
fn other_queries_options_and_sources_are_other_conversions() {
    let table = Table::write(&Layout::default());
    let cache = Destination::new();
    let all = |sql| cached(&table, &cache.url(), sql).expect("a conversion").url();
    let mut urls = vec![
        all("SELECT id FROM source"),
        all("SELECT id AS other FROM source"),
        all("SELECT id FROM source WHERE id < 50"),
        all("SELECT id FROM source WHERE id < 51"),
        // Of long lists and bytes a plan's text shows the beginning only.
        all("SELECT column1 AS id FROM (VALUES (1), (2), (3), (4), (5), (6), (7))"),
        all("SELECT column1 AS id FROM (VALUES (1), (2), (3), (4), (5), (6), (8))"),
        all("SELECT id, X'000102030405060708090a0b0c' AS x FROM source"),
        all("SELECT id, X'000102030405060708090a0b0d' AS x FROM source"),
    ];
    let lz4 = run(async {
        let rows = rows(&table, "SELECT id FROM source").await;
        Converter::new(cache.url())
            .compression(Compression::Lz4)
            .cached()
            .convert(rows)
            .await
    });
    urls.push(lz4.expect("a conversion").url());
    // The same rows, written anew: another time.
    let again = Table::write(&Layout::default());
    urls.push(
        cached(&again, &cache.url(), "SELECT id FROM source")
            .expect("a conversion")
            .url(),
    );
    let n = urls.len();
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), n);
}

#[test]
fn a_directory_is_found_again_until_a_file_of_it_changes() {
    let table = Table::write(&Layout::default());
    let cache = Destination::new();
    let convert = || {
        run(convert_directory(
            &table.url(),
            Converter::new(cache.url()).cached(),
            None,
        ))
        .expect("a dataset")
    };
    assert_eq!([convert().is_hit(), convert().is_hit()], [false, true]);
    let directory = DatasetUrl::parse(&table.url())
        .expect("a URL")
        .to_file_path()
        .expect("a path");
    let file = files(&directory)
        .into_keys()
        .find(|path| path.ends_with(".parquet"))
        .expect("a file");
    let bytes = std::fs::read(&file).expect("bytes");
    std::fs::remove_file(&file).expect("gone");
    std::fs::write(&file, bytes).expect("written anew");
    assert_eq!([convert().is_hit(), convert().is_hit()], [false, true]);
}

#[test]
fn what_changes_by_itself_is_refused_or_named() {
    let table = Table::write(&Layout::default());
    let cache = Destination::new();
    let error = cached(&table, &cache.url(), "SELECT id, now() AS at FROM source").expect_err("a function");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("now()") && error.to_string().contains("cache_key"),
        "{error}"
    );
    let sql = "SELECT value AS id FROM generate_series(1, 10)";
    let error = cached(&table, &cache.url(), sql).expect_err("a table");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(files(cache.0.path()).len(), 0);
    let named = |name: &str| {
        run(async {
            let rows = session().sql(sql).await.expect("a query");
            Converter::new(cache.url())
                .cache_key(name)
                .convert(rows)
                .await
                .expect("a dataset")
        })
    };
    assert_eq!(
        [named("a").is_hit(), named("a").is_hit(), named("b").is_hit()],
        [false, true, false]
    );
}

#[test]
fn conversions_at_the_same_time_make_one_dataset() {
    let table = Table::write(&Layout::default());
    let directory = Destination::new();
    for cache in [directory.url(), "memory://cache/at-the-same-time".to_owned()] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build();
        let converted = runtime.expect("a runtime").block_on(async {
            let rows = rows(&table, "SELECT * FROM source").await;
            let tasks = (0..8).map(|_| tokio::spawn(Converter::new(&cache).cached().convert(rows.clone())));
            futures::future::join_all(tasks).await
        });
        let converted: Vec<_> = converted
            .into_iter()
            .map(|done| done.expect("no panic").expect("a dataset"))
            .collect();
        assert_eq!(converted.iter().filter(|one| !one.is_hit()).count(), 1, "{cache}");
        assert!(converted.iter().all(|one| one.url() == converted[0].url()));
    }
    // The dataset, and no lock or directory beside it.
    let left = std::fs::read_dir(directory.0.path().join("out"))
        .expect("a cache")
        .count();
    assert_eq!(left, 1);
}

#[test]
fn datasets_go_by_age_and_size_and_on_request() {
    let table = Table::write(&Layout::default());
    let directory = Destination::new();
    let cache = Cache::new(directory.url());
    let entries = || run(cache.entries()).expect("entries");
    assert!(entries().is_empty());
    let convert = |sql| cached(&table, &directory.url(), sql).expect("a dataset");
    let first = convert("SELECT id FROM source");
    convert("SELECT id, name FROM source");
    convert("SELECT name FROM source");
    // What is no dataset of a cache is none of its business.
    let others = directory.0.path().join("out").join("others");
    std::fs::create_dir(&others).expect("a directory");
    assert_eq!(entries().len(), 3);
    let evict = |limits| run(cache.evict(&limits)).expect("evicted").len();
    let day = Duration::from_secs(86_400);
    assert_eq!(
        evict(Limits {
            older_than: Some(day),
            ..Limits::default()
        }),
        0
    );
    let bytes: u64 = entries().iter().map(|entry| entry.bytes).sum();
    let at_most = Some(ByteSize::new(bytes - 1));
    assert_eq!(
        evict(Limits {
            at_most,
            ..Limits::default()
        }),
        1
    );
    assert_eq!(entries().len(), 2);
    assert!(!convert("SELECT id FROM source").is_hit(), "the oldest went");
    assert_eq!(
        evict(Limits {
            older_than: Some(Duration::ZERO),
            ..Limits::default()
        }),
        3
    );
    assert!(entries().is_empty() && others.is_dir());

    let temporary = convert("SELECT id FROM source").delete_on_drop();
    assert_eq!(temporary.dataset().url(), first.url());
    assert_eq!(entries().len(), 1);
    drop(temporary);
    assert!(entries().is_empty());
    run(convert("SELECT id FROM source").delete()).expect("deleted");
    assert!(entries().is_empty());
}
