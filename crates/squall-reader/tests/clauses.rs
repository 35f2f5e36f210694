//! What a where-clause may be: its size, its functions, its floats, and what messages say.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, Float64Array, Int32Array, RecordBatch, StructArray};
use arrow_schema::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::{ColumnarValue, Volatility, create_udf};
use squall_reader::expr::{Expr, col, in_list, lit, not};
use squall_reader::{ReaderBuilder, make_batch_reader, make_reader};
use squall_schema::ErrorKind;
use squall_testkit::{Layout, Table, write_file};

use crate::{error, ids, sorted};

fn table() -> Table {
    Table::write(&Layout {
        files: vec![60, 60],
        row_group: 30,
        ..Layout::default()
    })
}

/// On a thread with the stack that threads of tests and of tokio have.
fn on_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn_scoped(scope, work);
        thread.expect("a thread").join().expect("no panic")
    })
}

fn joined(n: usize, word: &str, term: impl Fn(usize) -> String) -> String {
    (0..n).map(term).collect::<Vec<_>>().join(word)
}

#[test]
fn clauses_of_thousands_of_terms_are_evaluated() {
    let table = table();
    let n = 5000;
    for (sql, expected) in [
        (joined(120, " AND ", |i| format!("id <> {}", i + 50)), (0..50).collect()),
        (joined(n, " AND ", |i| format!("id <> {}", i + 50)), (0..50).collect()),
        (
            joined(n, " OR ", |i| format!("id = {}", i * 3)),
            (0..120).step_by(3).collect(),
        ),
        // Parts that no simplification joins, and that are asked one by one.
        (
            format!(
                "CASE WHEN {} THEN id < 9 ELSE false END",
                joined(500, " OR ", |i| format!("id % {} = 1", i + 4))
            ),
            vec![1, 5, 6, 7, 8],
        ),
        (joined(1500, " AND ", |i| format!("id % {} <> 1", i + 200)), {
            (0..120).filter(|id| *id != 1).collect::<Vec<i32>>()
        }),
        (
            joined(n, " OR ", |i| format!("(id >= {} AND id < {})", i * 4, i * 4 + 1)),
            (0..120).step_by(4).collect(),
        ),
        (
            format!(
                "NOT ({})",
                joined(1000, " OR ", |i| format!("id = {i} AND name <> 'x{i}'"))
            ),
            Vec::new(),
        ),
    ] {
        let reader = on_small_stack(|| make_batch_reader(table.url()).filter(&sql).columns(["id"]).build());
        if expected.is_empty() {
            // A name is null in each seventh row: unknown is not true.
            assert!(error(reader).to_string().contains("no row fulfils"));
            continue;
        }
        let batches = reader.expect("a reader").map(|batch| batch.expect("rows"));
        let found = batches.flat_map(|batch| {
            let ids = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int32Type>(
                batch.column_by_name("id").expect("ids"),
            );
            ids.values().to_vec()
        });
        assert_eq!(sorted(found.collect()), expected, "{}", &sql[..40]);
    }
}

#[test]
fn clauses_that_are_too_large_or_too_deep_are_refused() {
    let table = table();
    let refused = |sql: String| {
        let reader = on_small_stack(|| make_reader(table.url()).filter(sql).build());
        let error = error(reader);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = error.to_string();
        assert!(error.len() < 2000, "{} bytes", error.len());
        error
    };
    let (large, deep) = ("more than 40000 columns", "more than 100 levels");
    let chain = |n: usize| format!("{} > 5", joined(n, " + ", |_| "id".into()));
    for (sql, expected) in [
        (joined(200_000, " AND ", |i| format!("id <> {i}")), large),
        (chain(1_000_000), large),
        (chain(19_000), deep),
        (chain(150), deep),
        (format!("id{}", " IS NULL".repeat(15_000)), deep),
        (format!("id{} = 5", "::int".repeat(15_000)), deep),
        (format!("id{} = 5", " IN (true)".repeat(9_000)), deep),
        (format!("id{} = 5", " BETWEEN 1 AND 2".repeat(9_000)), deep),
        (format!("abs(id{}) = 5", "::int".repeat(15_000)), deep),
        (format!("abs({}) > 5", chain(15_000).replace(" > 5", "")), deep),
        (format!("{}id > 5", "NOT ".repeat(30_000)), "no SQL expression"),
        (
            format!("{}id{} > 5", "(".repeat(10_000), ")".repeat(10_000)),
            "parentheses",
        ),
        (joined(10_000, " || ", |_| "name".into()) + " = 'a'", deep),
    ] {
        let found = refused(sql.clone());
        assert!(found.contains(expected), "{}: {found}", &sql[..40]);
    }
    // What is as deep as it may be is evaluated, on threads of tokio's.
    for sql in [chain(95), format!("abs({}) > 5", chain(90).replace(" > 5", ""))] {
        let rows = on_small_stack(|| make_batch_reader(table.url()).filter(sql).build());
        assert_eq!(rows.expect("a reader").rows_per_epoch(), 119);
    }
    // The way out has no limit.
    let list = format!("id IN ({})", joined(100_000, ", ", |i| format!("{}", i * 2)));
    let rows = on_small_stack(|| make_batch_reader(table.url()).filter(list).build());
    assert_eq!(rows.expect("a reader").rows_per_epoch(), 60);
}

#[test]
fn deep_expressions_are_balanced_or_refused() {
    let table = table();
    let chain = |n: i32| {
        (0..n)
            .map(|i| col("id").not_eq(lit(i + 50)))
            .reduce(Expr::and)
            .expect("terms")
    };
    let rows = |expression: Expr| {
        on_small_stack(|| {
            let builder = make_batch_reader(table.url()).filter_expr(expression);
            let copy = builder.clone();
            drop(builder);
            copy.build().map(|reader| reader.rows_per_epoch())
        })
    };
    assert_eq!(rows(chain(2000)).expect("rows"), 50);
    assert_eq!(rows(not(chain(2000))).expect("rows"), 70);
    let large = error(rows(chain(200_000))).to_string();
    assert!(large.contains("more than 40000 columns"), "{large}");
    let sum = (0..200_000).map(|_| col("id")).reduce(|a, b| a + b).expect("terms");
    let deep = error(rows(sum.gt(lit(5)))).to_string();
    assert!(deep.contains("more than 100 levels"), "{deep}");
    let sum = (0..200_000).map(|_| col("id")).reduce(|a, b| b + a).expect("terms");
    let deep = error(rows(sum.gt(lit(5)))).to_string();
    assert!(deep.contains("more than 100 levels"), "{deep}");
    // Pruning has a level for each value of a short list, and is asked on threads of tokio's.
    let short = |i: i32| in_list(col("id"), (0..60).map(|n| lit(n * 97 + i * 13 + 500)).collect(), false);
    let nested = (0..40).fold(col("id").lt(lit(7)), |inner, i| {
        short(i).or(col("id").gt(lit(-1 - i)).and(inner))
    });
    assert_eq!(rows(nested).expect("rows"), 7);
    let many: Vec<_> = (0..100_000).map(|i| lit(i * 2)).collect();
    assert_eq!(rows(in_list(col("id"), many, false)).expect("rows"), 60);
}

/// A function of the program's own that panics for each value that is not null.
fn boom(argument: Expr) -> Expr {
    let function = create_udf(
        "boom",
        vec![DataType::Int64],
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(|_: &[ColumnarValue]| panic!("boom")),
    );
    function.call(vec![argument])
}

#[test]
fn a_panic_in_a_function_is_an_error_that_says_where() {
    let table = Table::write_partitioned("part", &["1", "2", "3"], &Layout::default());
    let failed = |expression: Expr| {
        let error = error(make_reader(table.url()).filter_expr(expression).build());
        assert_eq!(error.kind(), ErrorKind::Transform, "{error}");
        let text = error.to_string();
        assert!(text.contains("boom(") && text.contains("panicked: boom"), "{text}");
        text
    };
    let cast = |name: &str| Expr::Cast(datafusion_expr::Cast::new(Box::new(col(name)), DataType::Int64));
    failed(boom(lit(1i64)));
    for column in ["part", "id"] {
        let text = failed(boom(cast(column)));
        assert!(
            text.contains("row group 0") && text.contains("file part=1") && text.contains("URL"),
            "{text}"
        );
    }
}

#[test]
fn clauses_that_are_given_again_must_all_hold() {
    let table = table();
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let read = |make: &dyn Fn(ReaderBuilder<_>) -> ReaderBuilder<squall_reader::BatchReader>| {
        let reader = make(make_batch_reader(table.url())).selection_cache(directory.path());
        sorted(ids(reader.columns(["id"])))
    };
    let low = || col("id").gt_eq(lit(20));
    // Held while the others are read: what is shared or stored is found by all of the clauses.
    let held = make_batch_reader(table.url())
        .filter("id >= 20")
        .build()
        .expect("a reader");
    assert_eq!(
        read(&|reader| reader.filter("id >= 20").filter("id < 40")),
        (20..40).collect::<Vec<_>>()
    );
    assert_eq!(
        read(&|reader| reader.filter("id < 40").filter("id >= 20")),
        (20..40).collect::<Vec<_>>()
    );
    assert_eq!(
        read(&|reader| reader.filter_expr(low()).filter_expr(col("id").lt(lit(25)))),
        (20..25).collect::<Vec<_>>()
    );
    let three = |reader: ReaderBuilder<_>| {
        reader
            .filter("id < 40 OR id = 70")
            .filter_expr(low())
            .filter("id <> 30")
    };
    assert_eq!(
        read(&three),
        (20..40).filter(|id| *id != 30).chain([70]).collect::<Vec<_>>()
    );
    assert_eq!(read(&|reader| reader.filter("id < 22")), (0..22).collect::<Vec<_>>());
    assert_eq!(held.rows_per_epoch(), 100);
    let many = |reader: ReaderBuilder<_>| (0..3000).fold(reader, |reader, i| reader.filter(format!("id <> {}", i + 3)));
    assert_eq!(read(&many), vec![0, 1, 2]);
}

/// The sign of a NaN is another on each kind of CPU, and -0 is 0.
#[test]
fn floats_of_expressions_have_one_nan_and_one_zero() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let nans = [
        f64::NAN,
        -f64::NAN,
        f64::from_bits(0x7ff0_0000_0000_0001),
        f64::from_bits(0xfff8_0000_0000_0007),
    ];
    let values: Vec<f64> = nans.into_iter().chain([0.0, -0.0, 1.0, -1.0, 9.0]).collect();
    let singles: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let f: ArrayRef = Arc::new(Float64Array::from(values.clone()));
    let g: ArrayRef = Arc::new(Float32Array::from(singles));
    let id: ArrayRef = Arc::new(Int32Array::from_iter_values(0..9));
    let st = StructArray::try_from(vec![("f", f.clone())]).expect("a struct");
    let batch = RecordBatch::try_from_iter([("id", id), ("f", f), ("g", g), ("st", Arc::new(st) as ArrayRef)]);
    write_file(
        &directory.path().join("floats.parquet"),
        &batch.expect("a batch"),
        &Layout::default(),
    );
    let url = directory.path().display().to_string();
    let read = |reader: ReaderBuilder<squall_reader::BatchReader>| sorted(ids(reader.columns(["id"])));
    let check = |sql: &str, expected: &[i32]| {
        assert_eq!(read(make_batch_reader(&url).filter(sql)), expected, "{sql}");
    };
    let (nan, zero) = ([0, 1, 2, 3], [4, 5]);
    for x in ["f", "g", "get_field(st, 'f')"] {
        check(&format!("{x} > 10.0"), &nan);
        check(&format!("-({x}) > 10.0"), &nan);
        check(&format!("{x} * 1.5 > 20.0"), &nan);
        check(&format!("10.0 < {x} - 1.5"), &nan);
        check(&format!("{x} / {x} > 5.0"), &[0, 1, 2, 3, 4, 5]);
        check(&format!("{x} * -1.0 = 0.0"), &zero);
        check(&format!("-({x}) IN (0.0, 77.0, 78.0, 79.0, 80.0)"), &zero);
        check(&format!("{x} BETWEEN 0.0 AND 0.5"), &zero);
        check(&format!("NOT (-({x}) < 0.0) AND {x} < 5.0"), &[4, 5, 7]);
        check(&format!("-({x}) = 'NaN'::double"), &nan);
        check(&format!("-({x}) IS NOT DISTINCT FROM ('NaN'::double)"), &nan);
        check(&format!("abs({x}) < 100.0"), &[4, 5, 6, 7, 8]);
        check(&format!("CASE -({x}) WHEN 0.0 THEN true ELSE false END"), &zero);
        check(&format!("CASE WHEN id < 4 THEN -({x}) ELSE {x} END > 10.0"), &nan);
        check(&format!("nullif({x} * -1.0, 0.0) IS NULL"), &zero);
        check(&format!("greatest(-({x}), 2.0) > 10.0"), &nan);
    }
    // Constants are folded, and given with a sign.
    check("id < 2 AND 0.0 / 0.0 > 5.0", &[0, 1]);
    let negative = lit(ScalarValue::Float64(Some(-f64::NAN)));
    let all: Vec<_> = (0..9).collect();
    assert_eq!(
        read(make_batch_reader(&url).filter_expr(negative.clone().gt(lit(5.0)))),
        all
    );
    assert_eq!(
        read(make_batch_reader(&url).filter_expr((col("f") * lit(-1.0)).eq(negative))),
        nan
    );
}

#[test]
fn a_selection_cache_that_cannot_be_made_is_an_error() {
    let table = table();
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"rows").expect("a file");
    for place in [file.clone(), file.join("below")] {
        let built = make_reader(table.url())
            .filter("id < 5")
            .selection_cache(&place)
            .build();
        let error = error(built);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&place.display().to_string()), "{error}");
    }
    let place = directory.path().join("a/b");
    make_reader(table.url())
        .filter("id < 5")
        .selection_cache(&place)
        .build()
        .expect("a reader");
    assert_eq!(std::fs::read_dir(place).expect("a directory").count(), 1);
}

#[test]
fn messages_are_for_users_of_readers() {
    let table = table();
    let message = |sql: &str| error(make_reader(table.url()).filter(sql).build()).to_string();
    for sql in [
        "ID = 1",
        "Name = 'a'",
        "rond(id) = 1",
        "co(id) = 1",
        "id >",
        "id = 'a",
        "id IS",
        "id = 1 1",
        "abs(id, 1, 2) = 1",
    ] {
        let first = message(sql);
        for bad in [
            "enable_ident",
            "ParserError",
            "TokenizerError",
            "bug in DataFusion",
            "\n",
        ] {
            assert!(!first.contains(bad), "{sql}: {first}");
        }
        for _ in 0..8 {
            assert_eq!(message(sql), first);
        }
    }
    let syntax = message("id > ");
    assert!(
        syntax.contains("is no SQL expression: Expected: an expression"),
        "{syntax}"
    );
    assert!(message("nope = 1").contains("does not fit the columns"));
}

/// What the documentation says of guards and of nested columns.
#[test]
fn guards_hold_as_documented() {
    let table = table();
    let count = |sql: &str| {
        let reader = make_batch_reader(table.url()).filter(sql).build();
        reader
            .map(|reader| reader.rows_per_epoch())
            .map_err(|error| error.to_string())
    };
    assert_eq!(count("id <> 0 AND 100 / id > 7"), Ok(12));
    assert_eq!(count("id = 0 OR 100 / nullif(id, 0) > 7"), Ok(13));
    assert_eq!(count("CASE WHEN id = 0 THEN 8 ELSE 100 / id END > 7"), Ok(13));
    let divided = count("id = 0 OR 100 / id > 7").expect_err("an error");
    assert!(
        divided.contains("ivide by zero") && divided.contains("row group 0"),
        "{divided}"
    );
}
