//! Where-clauses.

use std::fs::{self, File};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use datafusion_common::Column;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use squall_reader::expr::{Expr, col, lit};
use squall_reader::{SelectionSource, make_batch_reader, make_reader};
use squall_testkit::{Layout, Table, write_file};

use crate::{batches, error, ids, sorted};

#[test]
fn a_where_clause_selects_rows_before_they_are_shared() {
    let layout = Layout {
        files: vec![50, 30, 40],
        ..Layout::default()
    };
    let table = Table::write_partitioned("part", &["1", "2", "3"], &layout);
    let check = |sql: &str, expected: Vec<i32>| {
        let mut all = Vec::new();
        for rank in 0..2 {
            all.extend(ids(make_batch_reader(table.url())
                .filter(sql)
                .lanes(3)
                .window(5)
                .rank(rank, 2)
                .columns(["id"])));
        }
        assert_eq!(sorted(all), expected, "{sql}");
    };
    check("id % 3 = 0", (0..120).filter(|id| id % 3 == 0).collect());
    check("id BETWEEN 47 AND 52 OR id = 119", vec![47, 48, 49, 50, 51, 52, 119]);
    check("name IS NULL", (0..120).filter(|id| id % 7 == 0).collect());
    // Unknown is not true.
    check(
        "name <> 'row 1'",
        (0..120).filter(|id| id % 7 != 0 && *id != 1).collect(),
    );
    // Lists without a common value: still unknown for those without a name.
    for sql in [
        "name NOT IN ('row 1', 'row 2') OR name NOT IN ('row 3')",
        "NOT (name IN ('row 1', 'row 2') AND name IN ('row 3'))",
        "name <> 'row 1' OR name <> 'row 3'",
    ] {
        check(sql, (0..120).filter(|id| id % 7 != 0).collect());
    }
    check("1 = 1 AND (id < 3 OR 1 = 2)", vec![0, 1, 2]);
    check("part = 2", (50..80).collect());
    check(
        "part = 2 AND UPPER(name) LIKE 'ROW 6_'",
        (60..70).filter(|id| id % 7 != 0).collect(),
    );
    let refused = |sql: &str| error(make_batch_reader(table.url()).filter(sql).build()).to_string();
    for (sql, expected) in [
        ("id > ", "where-clause \"id > \""),
        ("nope = 1", "nope"),
        ("id + 1", "not true or false, but a Int64"),
        ("random() < 0.5", "changes from call to call"),
        ("id < 0", "no row fulfils the where-clause"),
        ("id IN (SELECT 1)", "where-clause"),
    ] {
        let error = refused(sql);
        assert!(error.contains(expected) && !error.contains('\n'), "{sql}: {error}");
    }
}

/// Constants are in nanoseconds, which do not reach the years of a column in microseconds.
#[test]
fn times_far_from_now_are_compared() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    // 2020-01-01, and the last microsecond of 9999.
    let times = TimestampMicrosecondArray::from(vec![1_577_836_800_000_000, 253_402_300_799_999_999]);
    let batch = RecordBatch::try_from_iter([("t", Arc::new(times.with_timezone("UTC")) as ArrayRef)]).expect("a batch");
    write_file(&directory.path().join("times.parquet"), &batch, &Layout::default());
    let count = |sql: &str| {
        let reader = make_reader(directory.path().display().to_string()).filter(sql).build();
        reader.expect("a reader").filter(|row| row.is_ok()).count()
    };
    assert_eq!(count("t > timestamp '2100-01-01'"), 1);
    assert_eq!(count("t < timestamp '2100-01-01' OR t IS NULL"), 1);
}

/// Overwrites all but the footers and indexes of the files of a table: reading a page of them is an error.
fn destroy_pages(table: &Table) {
    for path in table.files() {
        let mut bytes = fs::read(&path).expect("a file");
        let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).expect("a footer");
        let mut pages = Vec::new();
        for row_group in reader.metadata().row_groups() {
            pages.extend(row_group.columns().iter().map(|column| column.byte_range()));
        }
        for (start, length) in pages {
            bytes[start as usize..(start + length) as usize].fill(0xff);
        }
        fs::write(&path, bytes).expect("a file");
    }
}

#[test]
fn what_is_known_without_data_reads_none() {
    let table = Table::write_partitioned("part", &["1", "2", "3"], &Layout::default());
    let expected = |sql: &str| sorted(ids(make_batch_reader(table.url()).filter(sql).columns(["id"])));
    let (by_name, by_both) = (expected("part = 2"), expected("part = 2 AND id >= 48"));
    assert_eq!(by_name, (50..80).collect::<Vec<_>>());
    assert_eq!(by_both, by_name);
    destroy_pages(&table);

    let report = |sql: &str| {
        let reader = make_batch_reader(table.url()).filter(sql).columns(["part"]).build();
        *reader.expect("a reader").selection_report()
    };
    // Directory names alone: not even a footer is loaded.
    let names = report("part = 2");
    assert_eq!((names.rows, names.footers, names.bytes), (30, 0, 0));
    assert_eq!((names.row_groups, names.pruned_by_partition, names.matched), (9, 7, 2));
    // One footer, that of the only file that is left; its statistics say that all rows are meant.
    let both = report("part = 2 AND id >= 48");
    assert_eq!((both.rows, both.footers, both.bytes), (30, 1, 0));
    assert_eq!((both.pruned_by_partition, both.matched, both.scanned), (7, 2, 0));
    let mixed = report("(part = 1 AND id < 16) OR (part = 3 AND id BETWEEN 80 AND 500)");
    assert_eq!((mixed.rows, mixed.footers, mixed.bytes), (56, 2, 0));
    assert_eq!(
        (mixed.pruned_by_partition, mixed.pruned_by_statistics, mixed.matched),
        (2, 3, 4)
    );
    // What cannot be told without data needs it.
    let needs = make_batch_reader(table.url()).filter("part = 2 AND id > 66").build();
    assert!(error(needs).to_string().contains("row group"));
}

/// A table of two files of 4,000 rows in one row group each: `id`, a hash of it with a bloom filter, and text of 400 bytes a row.
fn wide() -> tempfile::TempDir {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    for file in 0..2i64 {
        let ids = file * 4000..(file + 1) * 4000;
        let hash = |id: i64| {
            format!(
                "{:032x}",
                (id as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            )
        };
        let text = |id: i64| (0..12).map(|n| hash(id * 100 + n)).collect::<String>();
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
            ("hash", Arc::new(StringArray::from_iter_values(ids.clone().map(hash)))),
            ("text", Arc::new(StringArray::from_iter_values(ids.map(text)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(100)
            .set_write_batch_size(100)
            .set_column_bloom_filter_enabled("hash".into(), true)
            .set_column_bloom_filter_max_ndv("hash".into(), 4000)
            .set_dictionary_enabled(false)
            .build();
        let path = directory.path().join(format!("{file}.parquet"));
        let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), Some(properties))
            .expect("a writer");
        writer.write(&batch).expect("rows written");
        writer.close().expect("a footer written");
    }
    directory
}

#[test]
fn each_step_reads_only_what_is_left() {
    let directory = wide();
    let report = |sql: &str| {
        let reader = make_batch_reader(directory.path().display().to_string())
            .filter(sql)
            .build();
        *reader.expect("a reader").selection_report()
    };
    let all = report("text LIKE '%zz%' OR id >= 0 OR hash = ''");
    assert_eq!((all.rows, all.matched, all.bytes), (8000, 2, 0));
    let text = report("text NOT LIKE '%zz%'");
    assert!(text.bytes > 2_000_000, "{text:?}");

    // The bloom filters rule out one file, and the hash of the other is read.
    let reader = make_batch_reader(directory.path().display().to_string())
        .filter("id = 17")
        .build();
    let batch = reader.expect("a reader").next().expect("a batch").expect("rows");
    let hash = batch
        .column_by_name("hash")
        .expect("hash")
        .as_string::<i32>()
        .value(0)
        .to_owned();
    let one = report(&format!("hash = '{hash}'"));
    assert_eq!((one.rows, one.pruned_by_bloom_filters, one.scanned), (1, 1, 1));
    assert!(one.bytes < 300_000, "{one:?}");

    // One page of the ids, and one of the text: that of the row that still stands.
    let late = report("text NOT LIKE '%zz%' AND id = 4321");
    assert_eq!(
        (late.rows, late.pruned_by_statistics, late.rows_pruned_by_page_index),
        (1, 1, 3900)
    );
    assert!(late.bytes < 100_000, "{late:?}");

    // A part that fails for some rows is not asked about those that its guard rules out, though it is of fewer bytes.
    let guarded = report(&format!("hash <> '{hash}' AND 100 / (id - 17) > 99"));
    assert_eq!(guarded.rows, 1);
}

#[test]
fn expressions_are_checked_like_sql() {
    let table = Table::write(&Layout::default());
    let found = |expression: Expr| ids(make_batch_reader(table.url()).filter_expr(expression).columns(["id"]));
    assert_eq!(
        sorted(found(col("id").lt(lit(3)).or(col("id").eq(lit(70i64))))),
        [0, 1, 2, 70]
    );
    let both = make_batch_reader(table.url())
        .filter("id < 10")
        .filter_expr(col("id").gt(lit(7)));
    assert_eq!(sorted(ids(both.columns(["id"]))), [8, 9]);
    let refused = |expression: Expr| error(make_batch_reader(table.url()).filter_expr(expression).build()).to_string();
    for (expression, expected) in [
        (col("id") + lit(1), "not true or false"),
        (col("ID").eq(lit(1)), "there is no column \"ID\", only id, name, x"),
        (
            Expr::Column(Column::new(Some("t"), "id")).eq(lit(1)),
            "no column \"t.id\"",
        ),
        (
            datafusion_expr::placeholder("$1").eq(lit(1)),
            "variable without a value",
        ),
        (
            datafusion_functions::math::random().call(vec![]).lt(lit(0.5)),
            "changes from call to call",
        ),
    ] {
        let error = refused(expression);
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn readers_of_a_process_share_a_selection() {
    let table = Table::write(&Layout::default());
    let build = |rank| {
        make_batch_reader(table.url())
            .filter("name LIKE '%3'")
            .rank(rank, 4)
            .build()
            .expect("a reader")
    };
    let readers: Vec<_> = std::thread::scope(|scope| {
        let build = &build;
        let ranks: Vec<_> = (0..4).map(|rank| scope.spawn(move || build(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let of = |source| {
        readers
            .iter()
            .filter(|reader| reader.selection_report().source == source)
            .count()
    };
    assert_eq!((of(SelectionSource::Evaluated), of(SelectionSource::Shared)), (1, 3));
    let mut rows: Vec<i32> = Vec::new();
    for reader in readers {
        rows.extend(batches(reader).into_iter().flatten().map(|(id, _)| id));
    }
    assert_eq!(
        sorted(rows),
        (0..120).filter(|id| id % 10 == 3 && id % 7 != 0).collect::<Vec<_>>()
    );
    // Nobody holds it any more.
    assert_eq!(build(0).selection_report().source, SelectionSource::Evaluated);
}

#[test]
fn selections_are_stored_and_damaged_ones_made_anew() {
    let table = Table::write(&Layout::default());
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let cache = directory.path().join("selections");
    let select = |sql: &str| {
        let reader = make_batch_reader(table.url())
            .filter(sql)
            .selection_cache(&cache)
            .columns(["id"]);
        let reader = reader.build().expect("a reader");
        let source = reader.selection_report().source;
        let rows = batches(reader).into_iter().flatten().map(|(id, _)| id).collect();
        (source, sorted(rows))
    };
    let expected: Vec<i32> = (0..120).filter(|id| id % 5 == 0 || (20..60).contains(id)).collect();
    let sql = "id % 5 = 0 OR id BETWEEN 20 AND 59";
    assert_eq!(select(sql), (SelectionSource::Evaluated, expected.clone()));
    let files = || -> Vec<_> {
        let entries = fs::read_dir(&cache).expect("the cache");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let [file] = &files()[..] else {
        panic!("expected one file, found {:?}", files())
    };
    assert_eq!(select(sql), (SelectionSource::Stored, expected.clone()));
    // The same clause in other words is the same selection; another one is not.
    assert_eq!(
        select("id % 5 = 0 OR (id >= 20 AND id <= 59)"),
        (SelectionSource::Stored, expected.clone())
    );
    assert_eq!(select("id % 5 = 1").0, SelectionSource::Evaluated);
    let whole = fs::read(file).expect("the file");
    for damage in [
        &whole[..whole.len() - 1],
        &[whole.as_slice(), b"x"].concat(),
        b"",
        &[0xff; 60],
    ] {
        fs::write(file, damage).expect("the file");
        assert_eq!(select(sql), (SelectionSource::Evaluated, expected.clone()));
        assert_eq!(fs::read(file).expect("the file"), whole);
    }
    // Another state of the dataset.
    let ids = squall_testkit::rows(120..130);
    write_file(&table.path().join("part-00009.parquet"), &ids, &Layout::default());
    assert_eq!(select("id % 5 = 1").0, SelectionSource::Evaluated);
    // A selection that cannot be written is no reason not to train.
    let place = table.path().join("other");
    let cached = || make_batch_reader(table.url()).filter("id < 5").selection_cache(&place);
    drop(cached().build().expect("a reader"));
    let stored = fs::read_dir(&place).expect("a directory").next().expect("a file");
    let stored = stored.expect("a file").path();
    fs::remove_file(&stored).expect("the file");
    fs::create_dir(&stored).expect("a directory in the place of the file");
    let reader = cached().build();
    assert_eq!(reader.expect("a reader").rows_per_epoch(), 5);
}

/// Indexes save work: without them the same rows are found.
#[test]
fn damaged_indexes_are_passed_over() {
    let directory = wide();
    let report = |sql: &str| {
        let reader = make_batch_reader(directory.path().display().to_string())
            .filter(sql)
            .build();
        *reader.expect("a reader").selection_report()
    };
    let sql = "id IN (17, 4321) AND hash <> '' AND hash IN ('a', '1fe68f0af33cb98b210586c688b813ba')";
    let sound = report(sql);
    assert_eq!((sound.rows, sound.pruned_by_bloom_filters, sound.scanned), (1, 1, 1));
    for file in ["0.parquet", "1.parquet"] {
        let path = directory.path().join(file);
        let mut bytes = fs::read(&path).expect("a file");
        let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).expect("a footer");
        for column in reader.metadata().row_group(0).columns() {
            let index = column.column_index_offset().zip(column.column_index_length());
            let bloom = column.bloom_filter_offset().zip(column.bloom_filter_length());
            for (start, length) in index.into_iter().chain(bloom) {
                bytes[start as usize..start as usize + length as usize].fill(0xff);
            }
        }
        fs::write(&path, bytes).expect("a file");
    }
    let damaged = report(sql);
    assert_eq!(
        (damaged.rows, damaged.pruned_by_bloom_filters, damaged.scanned),
        (1, 0, 2)
    );
    assert_eq!(damaged.rows_pruned_by_page_index, 0);
}

/// Flipped bits anywhere in a file end in rows or an error, not in a panic or a wait.
#[test]
fn clauses_on_damaged_files_end() {
    let table = Table::write(&Layout {
        files: vec![20],
        row_group: 10,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let bytes = fs::read(path).expect("a file");
    for at in (0..bytes.len()).rev().step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(path, damaged).expect("written");
        let sql = "id BETWEEN 3 AND 16 AND name <> 'row 12' AND (name = 'row 4' OR id % 2 = 0)";
        if let Ok(reader) = make_batch_reader(table.url())
            .filter(sql)
            .columns(["id"])
            .workers(1)
            .build()
        {
            assert!(reader.rows_per_epoch() <= 20, "byte {at}");
        }
    }
}
