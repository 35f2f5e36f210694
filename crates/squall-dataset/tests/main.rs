//! Opening directories as other programs leave them.

#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, of which some have one")]
mod stores;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StructArray, Time64MicrosecondArray};
use arrow_schema::{DataType, Field};
use squall_dataset::{Dataset, DatasetUrl, Origin};
use squall_schema::{ErrorKind, Result, Schema};
use squall_testkit::{Layout, Table, rows, write_file};

fn open(path: &Path) -> Result<Dataset> {
    let url = DatasetUrl::parse(path.to_str().expect("a UTF-8 path"))?;
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(Dataset::open(&url))
}

fn refused(path: &Path) -> String {
    open(path).expect_err("an error").to_string()
}

#[test]
fn files_and_row_groups_are_in_order() {
    let table = Table::write(&Layout::default());
    let dataset = open(table.path()).expect("a dataset");
    let pieces: Vec<_> = dataset
        .pieces()
        .iter()
        .map(|piece| (piece.file, piece.row_group, piece.rows))
        .collect();
    let expected = [
        (0, 0, 16),
        (0, 1, 16),
        (0, 2, 16),
        (0, 3, 2),
        (1, 0, 16),
        (1, 1, 14),
        (2, 0, 16),
        (2, 1, 16),
        (2, 2, 8),
    ];
    assert_eq!(pieces, expected);
    assert_eq!(
        dataset.schema().to_string(),
        "id: int32\nname: str nullable\nx: int8[?]"
    );
    assert!(matches!(dataset.origin(), Origin::Footers(Some(by)) if by.contains("parquet-rs")));
    assert!(
        dataset
            .pieces()
            .iter()
            .all(|piece| piece.compressed_bytes > 0 && piece.uncompressed_bytes > 0)
    );
}

#[test]
fn one_file_is_a_dataset_too() {
    let table = Table::write_partitioned(
        "a",
        &["1", "2"],
        &Layout {
            files: vec![5, 6],
            ..Layout::default()
        },
    );
    let dataset = open(&table.files()[1]).expect("a dataset");
    assert_eq!((dataset.rows(), dataset.partition_fields().len()), (6, 0));
}

#[test]
fn the_fingerprint_follows_the_files() {
    let table = Table::write(&Layout::default());
    let fingerprint = || open(table.path()).expect("a dataset").fingerprint().to_owned();
    let before = fingerprint();
    assert_eq!(before, fingerprint());
    fs::rename(&table.files()[0], table.path().join("z.parquet")).expect("renamed");
    assert_ne!(before, fingerprint());
}

#[test]
fn hidden_files_are_skipped_and_others_are_not() {
    let table = Table::write(&Layout::default());
    fs::create_dir_all(table.path().join("_temporary/0")).expect("a directory");
    for name in [
        "_SUCCESS",
        "_committed_1",
        ".hidden",
        "part-00000.parquet.crc",
        "_temporary/0/part-9.parquet",
    ] {
        fs::write(table.path().join(name), "not Parquet").expect("written");
    }
    assert_eq!(open(table.path()).expect("a dataset").rows(), 120);
    fs::write(table.path().join("notes.txt"), "not Parquet").expect("written");
    let error = refused(table.path());
    assert!(error.contains("notes.txt"), "{error}");
    fs::write(table.path().join("notes.txt"), "").expect("written");
    let error = refused(table.path());
    assert!(
        error.contains("expected at least 12 bytes, found 0 (file notes.txt"),
        "{error}"
    );
}

#[test]
fn files_that_differ_are_merged() {
    let table = Table::write(&Layout::default());
    let write = |name: &str, columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        write_file(&table.path().join(name), &batch, &Layout::default());
    };
    let batch = rows(0..3);
    let columns = ["id", "name", "x"].map(|name| batch.column_by_name(name).expect("a column").clone());
    let [id, name, x] = columns;
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![0; 3]));
    let more: ArrayRef = Arc::new(Float64Array::from(vec![0.0; 3]));
    write(
        "part-8.parquet",
        vec![("more", more), ("x", x), ("id", id), ("name", name.clone())],
    );
    write("part-9.parquet", vec![("name", name.clone()), ("id", wide)]);
    let dataset = open(table.path()).expect("a dataset");
    assert_eq!(
        dataset.schema().to_string(),
        "id: int64\nname: str nullable\nx: int8[?] nullable\nmore: float64 nullable"
    );
    assert_eq!(dataset.rows(), 126);
    let types = dataset.columns().expect("columns of files").iter();
    assert_eq!(
        types.map(|column| column.name().as_str()).collect::<Vec<_>>(),
        ["id", "name", "x", "more"]
    );
    write("part-99.parquet", vec![("id", name)]);
    let error = open(table.path()).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let expected = "column \"id\": expected Int64 as in part-00000.parquet, found Utf8, which no one type holds (file part-99.parquet, URL ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn a_column_that_a_directory_names_too_is_not_merged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |directory_name: &str, columns: Vec<(&str, ArrayRef)>| {
        let path = directory.path().join(directory_name);
        fs::create_dir(&path).expect("a new directory");
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        write_file(&path.join("x.parquet"), &batch, &Layout::default());
    };
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let days: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5]));
    write("day=1", vec![("id", ids.clone()), ("day", days)]);
    write("day=2", vec![("id", ids.clone()), ("day", ids.clone())]);
    write("day=3", vec![("id", ids)]);
    assert_eq!(
        open(directory.path()).expect("a dataset").schema().to_string(),
        "id: int32\nday: int32"
    );
}

#[test]
fn columns_that_cannot_be_read_are_listed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![1, 2]));
    let inner = StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int32, false)), ids.clone())]);
    let columns = [("id", ids), ("s", times), ("t", Arc::new(inner) as ArrayRef)];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    write_file(&directory.path().join("x.parquet"), &batch, &Layout::default());
    let dataset = open(directory.path()).expect("a dataset");
    assert_eq!(
        dataset.schema().to_string(),
        "id: int32\nt: nested (Struct(\"a\": non-null Int32))"
    );
    assert_eq!(dataset.unsupported()[0].name, "s");
}

#[test]
fn metadata_of_petastorm_does_not_get_in_the_way() {
    // Petastorm keeps pickles in the footer of _common_metadata, which are not UTF-8.
    let table = Table::write(&Layout::default());
    let footer = [
        // {5: [{1: "dataset-toolkit.rowgroups_index.v1", 2: 0x80 0x04}]}
        &[0x59, 0x1c, 0x18, 34][..],
        b"dataset-toolkit.rowgroups_index.v1",
        &[0x18, 2, 0x80, 0x04, 0, 0],
    ]
    .concat();
    let length = (footer.len() as u32).to_le_bytes();
    let file = [b"PAR1", &footer[..], &length, b"PAR1"].concat();
    fs::write(table.path().join("_common_metadata"), file).expect("written");
    assert_eq!(open(table.path()).expect("a dataset").rows(), 120);
}

/// `_common_metadata` of a Unischema of int32 fields, of these names and nullability.
fn unischema(fields: &[(&str, bool)]) -> Vec<u8> {
    let field = |(name, nullable): &(&str, bool)| {
        let null = u8::from(*nullable);
        format!("cpetastorm.unischema\nUnischemaField\n(V{name}\ncnumpy\nint32\n(tNI0{null}\ntRa")
    };
    let fields: String = fields.iter().map(field).collect();
    let pickle = format!("cpetastorm.unischema\nUnischema\n(VT\n(l{fields}tR.");
    let text = |text: &str| {
        let length = [0x80 | (text.len() & 0x7f) as u8, (text.len() >> 7) as u8];
        [&[0x18][..], &length, text.as_bytes()].concat()
    };
    let pair = [text("dataset-toolkit.unischema.v1"), text(&pickle)].concat();
    let footer = [&[0x59, 0x1c][..], &pair, &[0, 0]].concat();
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &footer[..], &length, b"PAR1"].concat()
}

#[test]
fn a_file_may_lack_what_a_unischema_declares_nullable() {
    let table = Table::write(&Layout::default());
    let other = rows(0..3).project(&[1, 2]).expect("two columns");
    write_file(&table.path().join("part-9.parquet"), &other, &Layout::default());
    let declare = |fields| fs::write(table.path().join("_common_metadata"), unischema(fields)).expect("written");
    declare(&[("id", true)]);
    let dataset = open(table.path()).expect("a dataset");
    assert_eq!(dataset.schema().to_string(), "id: int32 nullable");
    assert_eq!(dataset.origin(), &Origin::Petastorm("T".to_owned()));
    declare(&[("id", false)]);
    let expected =
        "the file has no column \"id\", which the Unischema declares without nulls (file part-9.parquet, URL ";
    assert!(refused(table.path()).starts_with(expected), "{}", refused(table.path()));
    declare(&[("none", true)]);
    let dataset = open(table.path()).expect("a dataset");
    assert_eq!(dataset.schema().to_string(), "none: int32 nullable");
    declare(&[("none", false), ("id", true)]);
    let dataset = open(table.path()).expect("a dataset");
    assert_eq!(dataset.schema().to_string(), "id: int32 nullable");
    assert_eq!(
        dataset.unsupported()[0].reason,
        "no file has it, and it is declared without nulls"
    );
}

#[test]
fn files_with_dates_of_an_old_calendar_are_known() {
    let legacy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../squall-reader/tests/legacy");
    for (name, expected) in [
        ("utc-int96-legacy", Some("d")),
        ("utc-timestamp-micros-legacy", Some("d")),
        ("america-los-angeles-int96-corrected", None),
    ] {
        let dataset = open(&legacy.join(format!("{name}.parquet"))).expect("a dataset");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let old = runtime.block_on(dataset.old_column()).expect("readable files");
        assert_eq!(old.map(|(_, column)| column).as_deref(), expected, "{name}");
    }
}

/// The fields that Spark's own schema declares are those that its Parquet files have.
#[test]
fn spark_and_parquet_agree() {
    let declared = include_str!("../../squall-schema/src/spark/types.json");
    let declared = Schema::from_spark_json(declared).expect("a schema of Spark");
    for name in ["spark-3.5-types", "spark-4.0-types"] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures");
        let dataset = open(&fixtures.join(name)).expect("a dataset");
        let in_files = &dataset.schema().fields()[..declared.fields().len()];
        assert_eq!(in_files, declared.fields(), "{name}");
    }
}

#[test]
fn damaged_metadata_is_named() {
    let table = Table::write(&Layout::default());
    fs::write(table.path().join("_common_metadata"), "PAR1....PAR1").expect("written");
    let error = refused(table.path());
    assert!(error.contains("file _common_metadata"), "{error}");
}
