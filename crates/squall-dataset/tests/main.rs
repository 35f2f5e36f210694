//! Opening directories as other programs leave them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StructArray, Time64MicrosecondArray};
use arrow_schema::{DataType, Field};
use squall_dataset::{Dataset, DatasetUrl, Origin};
use squall_schema::{ErrorKind, Result};
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
fn files_that_disagree_are_refused_by_name() {
    let check = |other: RecordBatch, expected: &str| {
        let table = Table::write(&Layout::default());
        write_file(&table.path().join("part-99999.parquet"), &other, &Layout::default());
        let error = open(table.path()).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains(expected) && error.to_string().contains("part-99999.parquet"),
            "{error}"
        );
    };
    let batch = rows(0..3);
    check(
        batch.project(&[0, 1]).expect("two columns"),
        "the file lacks the column \"x\"",
    );
    let wider: ArrayRef = Arc::new(Float64Array::from(vec![0.0; 3]));
    let columns = [
        ("id", wider.clone()),
        ("name", batch.column(1).clone()),
        ("x", batch.column(2).clone()),
    ];
    let wide = RecordBatch::try_from_iter(columns.clone()).expect("a batch");
    check(wide, "column \"id\": expected Int32, found Float64");
    let more = RecordBatch::try_from_iter(
        [("id", batch.column(0).clone())]
            .into_iter()
            .chain(columns.into_iter().skip(1))
            .chain([("more", wider)]),
    );
    check(more.expect("a batch"), "the file has a column \"more\"");
}

#[test]
fn columns_may_stand_in_another_order() {
    let table = Table::write(&Layout::default());
    let other = rows(0..3).project(&[2, 0, 1]).expect("three columns");
    write_file(&table.path().join("part-99999.parquet"), &other, &Layout::default());
    assert_eq!(open(table.path()).expect("a dataset").rows(), 123);
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

#[test]
fn damaged_metadata_is_named() {
    let table = Table::write(&Layout::default());
    fs::write(table.path().join("_common_metadata"), "PAR1....PAR1").expect("written");
    let error = refused(table.path());
    assert!(error.contains("file _common_metadata"), "{error}");
}
