//! Wrong requests, damaged files, readers that are dropped.

use squall_reader::{BatchReader, ReaderBuilder, Remainder, make_batch_reader, make_reader};
use squall_schema::{ErrorKind, RowId};
use squall_testkit::{Layout, Table, truncate};

use crate::{batches, error};

#[test]
fn wrong_requests_are_one_clear_sentence() {
    let table = Table::write(&Layout::default());
    let check = |builder: ReaderBuilder<BatchReader>, expected: &str| {
        let error = error(builder.build()).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    let reader = || make_batch_reader(table.url());
    check(
        make_batch_reader("/no/such/place"),
        "no such file or directory (URL /no/such/place)",
    );
    check(
        make_batch_reader("ftp://host/x"),
        "no store for URLs that begin with ftp://",
    );
    check(
        reader().columns(["id", "nope"]),
        "no column \"nope\": the columns are id, name, x",
    );
    check(reader().rank(4, 4), "expected a rank below the world size 4, found 4");
    check(
        reader().rank(0, 3).global_batch(4),
        "multiple of the world size 3, found 4",
    );
    check(reader().batch_size(1).global_batch(1), "not both");
    check(reader().batch_size(0), "found 0");
    check(reader().lanes(0), "found 0");
    check(reader().workers(0), "expected 1 to 4096 workers");
    check(
        reader().endless().batch_size(500).remainder(Remainder::Drop),
        "120 rows are fewer than the global batch 500",
    );
    let empty = tempfile::tempdir().expect("a directory");
    check(
        make_batch_reader(empty.path().to_str().expect("UTF-8")),
        "there is no Parquet file in the directory",
    );
}

#[test]
fn damaged_files_are_named() {
    let table = Table::write(&Layout::default());
    truncate(&table.files()[1]);
    let found = error(make_reader(table.url()).build());
    assert_eq!(found.kind(), ErrorKind::Corrupt);
    assert!(found.to_string().contains("part-00001.parquet"), "{found}");

    // A file that changes after the dataset was opened.
    let table = Table::write(&Layout::default());
    let reader = make_reader(table.url()).build().expect("a reader");
    truncate(&table.files()[2]);
    let found = reader.filter_map(Result::err).next().expect("an error");
    assert!(found.to_string().contains("part-00002.parquet"), "{found}");

    // A flipped byte in a page.
    let table = Table::write(&Layout {
        row_group: 60,
        page: 60,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[4..40].fill(0xff);
    std::fs::write(path, bytes).expect("written");
    let found = make_reader(table.url())
        .build()
        .expect("a reader")
        .filter_map(Result::err)
        .next()
        .expect("an error");
    assert!(
        found.to_string().contains("row group 0") && found.to_string().contains("part-00000.parquet"),
        "{found}"
    );
}

/// A bit of a value is flipped: nothing but the checksum of its page can tell.
#[test]
fn a_flipped_bit_is_found_by_the_checksum_of_its_page() {
    let stored = include_bytes!("checksums/spark.parquet");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("part-0.parquet");
    let url = directory.path().to_str().expect("UTF-8");
    let read = || make_batch_reader(url).batch_size(16).build().expect("a reader");
    std::fs::write(&path, stored).expect("written");
    let rows: usize = read().map(|batch| batch.expect("a batch").num_rows()).sum();
    assert_eq!(rows, 64);
    for (column, value) in [
        ("id", 40u64.to_le_bytes().to_vec()),
        ("x", 20f64.to_le_bytes().to_vec()),
        ("name", b"name-40".to_vec()),
    ] {
        let mut damaged = stored.to_vec();
        let at = stored.windows(value.len()).position(|window| window == value);
        damaged[at.expect("the value in its page")] ^= 1;
        std::fs::write(&path, damaged).expect("written");
        let mut reader = read();
        let found = std::iter::from_fn(|| reader.next_samples())
            .find_map(Result::err)
            .expect("an error");
        assert_eq!(found.kind(), ErrorKind::Corrupt);
        let text = found.to_string();
        let places = [column.to_owned(), "0".to_owned(), "part-0.parquet".to_owned()];
        let named = ["column", "row group", "file"].map(|place| found.place(place).map(str::to_owned));
        assert_eq!(named, places.map(Some), "{text}");
        assert!(text.contains("checksum"), "{text}");
    }
}

/// An error comes in its place: the batches before it are delivered, however far ahead the reader is.
#[test]
fn an_error_takes_its_place_in_the_order() {
    let layout = Layout {
        files: vec![400; 6],
        row_group: 50,
        ..Layout::default()
    };
    let reader = |table: &Table| {
        let reader = make_batch_reader(table.url())
            .lanes(2)
            .window(60)
            .batch_size(10)
            .seed(3)
            .workers(3);
        reader.build().expect("a reader")
    };
    let whole = batches(reader(&Table::write(&layout)));
    let whole: Vec<Vec<_>> = whole
        .into_iter()
        .map(|batch| batch.into_iter().map(|(_, id)| id).collect())
        .collect();
    for file in [0, 3, 5, 0, 3, 5] {
        let table = Table::write(&layout);
        let mut reader = reader(&table);
        std::fs::remove_file(&table.files()[file]).expect("removed");
        let mut delivered = Vec::new();
        let error = loop {
            match reader.next_samples().expect("an error before the end") {
                Ok(batch) => delivered.push(batch.ids),
                Err(error) => break error,
            }
        };
        assert!(
            error.to_string().contains(&format!("part-0000{file}.parquet")),
            "{error}"
        );
        assert_eq!(delivered, whole[..delivered.len()]);
        // A batch fails with its window: with windows of 60 rows on two lanes, up to twelve batches before the first row
        // that is missing.
        let missing = |id: &RowId| id.piece as usize / 8 == file;
        let first = whole
            .iter()
            .position(|batch| batch.iter().any(missing))
            .expect("a row of the file");
        assert!(
            (first.saturating_sub(12)..=first).contains(&delivered.len()),
            "{} of {first}",
            delivered.len()
        );
    }
}

/// No damage to a footer hangs a reader or ends its data early without an error.
#[test]
fn flipped_bits_in_a_footer_end_in_rows_or_an_error() {
    let table = Table::write(&Layout {
        files: vec![20],
        row_group: 10,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let bytes = std::fs::read(path).expect("a file");
    let footer = bytes.len()
        - 8
        - u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes")) as usize;
    // The offset index stands before the footer.
    for at in footer - 300..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(path, damaged).expect("written");
        if let Ok(reader) = make_reader(table.url()).workers(1).build() {
            let expected = reader.rows_per_epoch();
            let mut rows = 0;
            let mut failed = false;
            for row in reader.take(100) {
                rows += u64::from(row.is_ok());
                failed |= row.is_err();
            }
            assert!(
                failed || rows == expected.min(100),
                "byte {at}: {rows} of {expected} rows and no error"
            );
        }
    }
}

/// Runs alone in a process of its own: threads of other tests have the same names.
#[test]
fn dropping_a_reader_ends_its_threads() {
    const ALONE: &str = "SQUALL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("the test's own path");
        let arguments = ["--exact", "damage::dropping_a_reader_ends_its_threads"];
        let output = std::process::Command::new(own)
            .args(arguments)
            .env(ALONE, "1")
            .output()
            .expect("the test starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        return;
    }
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task")
            .expect("Linux")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("squall-")).count()
    };
    let table = Table::write(&Layout::default());
    let mut reader = make_reader(table.url()).endless().workers(3).build().expect("a reader");
    assert!(reader.next().is_some_and(|row| row.is_ok()));
    // Three workers, a driver, and those of the I/O.
    assert!(threads() >= 5, "{} threads", threads());
    drop(reader);
    assert_eq!(threads(), 0);
}

#[test]
fn a_reader_can_be_built_and_dropped_inside_a_runtime() {
    let table = Table::write(&Layout::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rows = runtime.block_on(async { make_reader(table.url()).build().expect("a reader").count() });
    assert_eq!(rows, 120);
}
