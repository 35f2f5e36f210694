//! The converter over real files, and what it leaves behind when it fails.

#[cfg(feature = "ballista")]
mod ballista;
mod cache;
mod disk;
mod layout;
mod order;
mod processes;
mod revision;
mod rules;
mod sources;
mod steady;

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field};
use squall_converter::{Compression, Converted, Converter, Petastorm, convert_directory, session};
use squall_dataset::{Checksum, Dataset, DatasetUrl, Origin, Seal, check_seal};
use squall_schema::footer::key_values_of_file;
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::{DType, Error, ErrorKind, Result};
use squall_testkit::{Layout, Table, truncate, write_file};
use tempfile::TempDir;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

fn open(url: &str) -> Result<Dataset> {
    run(async { Dataset::open(&DatasetUrl::parse(url)?).await })
}

/// A directory to convert into.
struct Destination(TempDir);

impl Destination {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    fn url(&self) -> String {
        self.0.path().join("out").to_str().expect("a UTF-8 path").to_owned()
    }

    /// What is there, hidden things included.
    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("a directory");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn convert(table: &Table, destination: &str, sql: Option<&str>) -> Result<Converted> {
    run(convert_directory(&table.url(), Converter::new(destination), sql))
}

#[test]
fn a_directory_becomes_a_dataset_with_metadata() {
    let table = Table::write(&Layout::default());
    let destination = Destination::new();
    let converted = convert(&table, &destination.url(), None).expect("a conversion");
    assert_eq!((converted.rows(), converted.files().len()), (120, 3));
    assert_eq!(destination.entries(), ["out"]);

    let dataset = open(&destination.url()).expect("a dataset");
    assert!(matches!(dataset.origin(), Origin::Squall(by) if by.starts_with("squall ")));
    assert_eq!(
        dataset.schema().to_string(),
        "id: int32\nname: str nullable\nx: int8[3]"
    );
    assert_eq!((dataset.rows(), dataset.fingerprint()), (120, converted.fingerprint()));
    for file in dataset.files() {
        let path = Path::new(&destination.url()).join(file.path.as_ref());
        assert_eq!(path.metadata().expect("a file").len(), file.size);
    }
}

#[test]
fn every_file_has_a_checksum() {
    let table = Table::write(&Layout::default());
    let destination = Destination::new();
    let converted = convert(&table, &destination.url(), None).expect("a conversion");
    let read = |path: &str| std::fs::read(Path::new(&destination.url()).join(path)).expect("a file");
    for file in converted.files() {
        let mut checksum = Checksum::new();
        checksum.update(&read(&file.path));
        assert_eq!(file.checksum, Some(checksum.text()));
    }
    let metadata = read("_common_metadata");
    assert_eq!(check_seal(&metadata), Seal::Whole);
    let pairs = key_values_of_file(&metadata).expect("key-values");
    let stored = DatasetMetadata::from_json(&pairs[metadata::KEY.as_bytes()]).expect("the description");
    assert_eq!(stored.files, converted.files());
    // What is older has none, what is newer more.
    let text = stored.to_json().expect("JSON").replace("\"checksum\"", "\"later\"");
    let other = DatasetMetadata::from_json(text.as_bytes()).expect("the description");
    assert!(other.files.iter().all(|file| file.checksum.is_none()));
}

#[test]
fn the_same_conversion_gives_the_same_fingerprint_and_other_values_another() {
    let table = Table::write(&Layout::default());
    let fingerprint = |sql| {
        let converted = convert(&table, &Destination::new().url(), Some(sql)).expect("a conversion");
        converted.fingerprint().to_owned()
    };
    let plain = fingerprint("SELECT id FROM source");
    assert_eq!(plain, fingerprint("SELECT id FROM source"));
    // As many bytes, other values.
    assert_ne!(plain, fingerprint("SELECT CAST(119 - id AS INT) AS id FROM source"));
}

#[test]
fn sql_sees_hive_partitions_as_a_reader_does() {
    let layout = Layout {
        files: vec![50, 30, 40],
        ..Layout::default()
    };
    let table = Table::write_partitioned("Key", &["1", "__HIVE_DEFAULT_PARTITION__", "30"], &layout);
    let destination = Destination::new();
    let sql = "SELECT id, Key + 1 AS next, UPPER(name) AS name FROM source WHERE Key IS NOT NULL AND id % 2 = 0";
    let converted = convert(&table, &destination.url(), Some(sql)).expect("a conversion");
    assert_eq!(converted.rows(), 25 + 20);
    assert_eq!(
        converted.schema().get("next").map(|field| field.dtype),
        Some(DType::Int64)
    );

    let text = Table::write_partitioned(
        "city",
        &["Z%C3%BCrich", "a%2Fb"],
        &Layout {
            files: vec![5, 6],
            ..Layout::default()
        },
    );
    let sql = "SELECT * FROM source WHERE city = 'Zürich'";
    assert_eq!(
        convert(&text, &Destination::new().url(), Some(sql))
            .expect("a conversion")
            .rows(),
        5
    );
}

#[test]
fn lists_of_different_lengths_stay_ragged() {
    let table = Table::write(&Layout::default());
    let sql = "SELECT id, CASE WHEN id < 60 THEN x ELSE array_append(x, x[1]) END AS x FROM source";
    let converted = convert(&table, &Destination::new().url(), Some(sql)).expect("a conversion");
    assert_eq!(
        converted.schema().get("x").map(|field| field.shape.to_string()),
        Some("[?]".into())
    );
}

#[test]
fn row_groups_and_files_are_cut_by_bytes() {
    let sql = "SELECT value AS id, random() AS x FROM generate_series(1, 100000)";
    let destination = Destination::new();
    let converted = run(async {
        let rows = session().sql(sql).await.expect("a query");
        let converter = Converter::new(destination.url())
            .row_group_bytes(100_000)
            .file_bytes(400_000);
        converter.compression(Compression::Snappy).convert(rows).await
    });
    let converted = converted.expect("a conversion");
    assert_eq!(converted.rows(), 100_000);
    assert!(converted.files().len() >= 2, "{} files", converted.files().len());
    let sizes: Vec<_> = converted
        .files()
        .iter()
        .flat_map(|file| &file.row_groups)
        .map(|row_group| row_group.compressed_bytes)
        .collect();
    assert!(
        sizes.len() >= 8 && sizes.iter().all(|size| *size < 150_000),
        "{sizes:?}"
    );
}

/// The sentence of a conversion that must fail, after a look at what it left.
fn failure(source: &str, sql: Option<&str>) -> Error {
    let destination = Destination::new();
    let error = run(convert_directory(source, Converter::new(destination.url()), sql)).expect_err("a failure");
    assert_eq!(destination.entries(), [""; 0], "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[test]
fn a_failed_conversion_leaves_nothing_behind() {
    let table = Table::write(&Layout::default());
    let check = |source: &str, sql, kind, part: &str| {
        let error = failure(source, sql);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let url = table.url();
    check("/no/such/place", None, ErrorKind::NotFound, "no such file or directory");
    check(&url, Some("SELECT nope FROM source"), ErrorKind::InvalidInput, "nope");
    check(&url, Some("SELEKT"), ErrorKind::InvalidInput, "SELEKT");
    check(
        &url,
        Some("SELECT id FROM elsewhere"),
        ErrorKind::InvalidInput,
        "elsewhere",
    );
    check(
        &url,
        Some("SELECT id FROM source WHERE id < 0"),
        ErrorKind::InvalidInput,
        "there is no row",
    );
    check(
        &url,
        Some("SELECT id, named_struct('a', id) AS s FROM source"),
        ErrorKind::Unsupported,
        "column \"s\"",
    );
    check(
        &url,
        Some("COPY source TO '/tmp/squall-must-not-write.csv'"),
        ErrorKind::InvalidInput,
        "DML not supported",
    );
    check(
        &url,
        Some("CREATE TABLE t AS SELECT * FROM source"),
        ErrorKind::InvalidInput,
        "DDL not supported",
    );
    check(
        &url,
        Some("EXPLAIN SELECT * FROM source"),
        ErrorKind::InvalidInput,
        "found one that explains",
    );
    // Fails while rows are being written.
    check(
        &url,
        Some("SELECT 1 / (id - 119) AS x FROM source"),
        ErrorKind::Engine,
        "Divide by zero",
    );
    truncate(&table.files()[1]);
    check(&url, None, ErrorKind::Corrupt, "part-00001.parquet");
    let empty = TempDir::new().expect("a temporary directory");
    check(
        empty.path().to_str().expect("UTF-8"),
        None,
        ErrorKind::NotFound,
        "there is no Parquet file",
    );
}

#[test]
fn a_destination_in_use_is_refused_and_left_alone() {
    let table = Table::write(&Layout::default());
    let destination = Destination::new();
    convert(&table, &destination.url(), None).expect("a conversion");
    let before = open(&destination.url()).expect("a dataset").fingerprint().to_owned();
    let error = convert(&table, &destination.url(), Some("SELECT id FROM source")).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(open(&destination.url()).expect("a dataset").fingerprint(), before);
    let file = destination.0.path().join("file");
    std::fs::write(&file, "mine").expect("written");
    for place in ["file", "file/below"] {
        let place = destination.0.path().join(place).display().to_string();
        assert!(convert(&table, &place, None).is_err());
    }
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "mine");
    let deep = destination.0.path().join("a/b/c").display().to_string();
    for _ in 0..50 {
        assert!(convert(&table, &deep, Some("SELECT 1 / (id - 119) AS x FROM source")).is_err());
        assert!(!destination.0.path().join("a").exists(), "directories are left behind");
    }
    convert(&table, &deep, None).expect("a conversion");
    let dotted = format!("{}/x/../out", table.url());
    let inside = convert(&table, &dotted, None).expect_err("inside");
    assert!(inside.to_string().contains("lies inside the source"), "{inside}");
    let inside = convert(&table, &format!("{}/out", table.url()), None).expect_err("inside");
    assert!(inside.to_string().contains("lies inside the source"), "{inside}");
}

#[test]
fn a_store_without_renames_shows_nothing_until_the_end() {
    let table = Table::write(&Layout::default());
    let url = "memory://in-place/train";
    let error = convert(&table, url, Some("SELECT 1 / (id - 119) AS x FROM source")).expect_err("divides by zero");
    assert!(error.to_string().contains(url), "{error}");
    assert_eq!(open(url).expect_err("nothing there").kind(), ErrorKind::NotFound);
    convert(&table, url, None).expect("a conversion");
    assert_eq!(open(url).expect("a dataset").rows(), 120);
    assert_eq!(
        convert(&table, url, None).expect_err("in use").kind(),
        ErrorKind::AlreadyExists
    );
}

#[test]
fn a_half_written_dataset_is_refused() {
    let table = Table::write(&Layout::default());
    std::fs::write(table.path().join(squall_dataset::WRITING_MARKER), "").expect("a marker");
    let error = open(&table.url()).expect_err("half-written");
    assert!(error.to_string().contains("half-written"), "{error}");
}

#[test]
fn a_query_takes_structs_apart() {
    let directory = TempDir::new().expect("a temporary directory");
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let inner = StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int32, false)), ids.clone())]);
    let batch = RecordBatch::try_from_iter([("id", ids), ("s", Arc::new(inner) as ArrayRef)]).expect("a batch");
    write_file(&directory.path().join("x.parquet"), &batch, &Layout::default());
    let source = directory.path().to_str().expect("UTF-8");
    assert!(failure(source, None).to_string().contains("take it apart in SQL"));
    let sql = Some("SELECT id, s['a'] AS a FROM source");
    let converted =
        run(convert_directory(source, Converter::new(Destination::new().url()), sql)).expect("a conversion");
    assert_eq!(converted.schema().names().collect::<Vec<_>>(), ["id", "a"]);
}

/// Petastorm's readers and Spark have rules for names; they are looked at before a query runs.
#[test]
fn names_that_petastorm_cannot_read_are_refused() {
    let table = Table::write(&Layout::default());
    let refused = |sql: &str| {
        let converter = Converter::new(Destination::new().url()).petastorm(Petastorm::new("T"));
        run(convert_directory(&table.url(), converter, Some(sql)))
            .expect_err("refused")
            .to_string()
    };
    assert!(refused("SELECT id AS \"class\" FROM source").contains("Python identifier"));
    assert!(refused("SELECT id, id AS \"ID\" FROM source").contains("upper and lower case"));
    let converter = Converter::new(Destination::new().url()).petastorm(Petastorm::new("T").index("i", "nope"));
    let error = run(convert_directory(&table.url(), converter, None))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("no column \"nope\""), "{error}");
}

/// What a query only renames keeps its codec, shape and dtype.
#[test]
fn renamed_columns_keep_what_they_mean() {
    let table = Table::write(&Layout::default());
    let first = Destination::new();
    let converter = Converter::new(first.url()).petastorm(Petastorm::new("T"));
    run(convert_directory(&table.url(), converter, None)).expect("a conversion");
    let second = Destination::new();
    let sql = "SELECT x AS y, id FROM source ORDER BY id LIMIT 7";
    let renamed = run(convert_directory(&first.url(), Converter::new(second.url()), Some(sql))).expect("a conversion");
    assert_eq!(renamed.schema().to_string(), "y: int8[3] as npy\nid: int32");
    assert_eq!(renamed.rows(), 7);
}
