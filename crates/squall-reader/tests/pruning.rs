//! Pruning leaves out no row and adds none: random tables and clauses, compared with a look at each row.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use squall_reader::{SelectionReport, make_batch_reader};

use crate::ids;

/// Microseconds.
const DAY: i128 = 86_400_000_000;

/// A row; `a` is a member of a struct, which is null where it is `None` itself.
#[derive(Debug, Clone)]
struct Row {
    part: i32,
    i: Option<i64>,
    u: Option<u32>,
    f: Option<f64>,
    s: Option<String>,
    b: Option<bool>,
    d: Option<i32>,
    m: Option<i128>,
    a: Option<Option<i32>>,
}

#[derive(Debug, Clone)]
enum Value {
    Whole(i128),
    Float(f64),
    Text(String),
    Bool(bool),
}

impl Value {
    /// As a clause compares: one NaN, greater than all numbers, and one zero.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            _ => panic!("{self:?} and {other:?} are not compared"),
        }
    }

    fn sql(&self, column: &str) -> String {
        match (self, column) {
            (Self::Whole(day), "d") => format!("DATE '2024-01-{:02}'", day - 19_722),
            (Self::Whole(time), "t") => format!("TIMESTAMP '2024-01-{:02} 00:00:00'", time / DAY - 19_722),
            (Self::Whole(cents), "m") => format!("CAST({}.{:02} AS DECIMAL(10, 2))", cents / 100, cents % 100),
            (Self::Whole(number), _) => number.to_string(),
            (Self::Float(number), _) if number.is_nan() => "CAST('NaN' AS DOUBLE)".to_owned(),
            (Self::Float(number), _) => format!("{number:?}"),
            (Self::Text(text), _) => format!("'{text}'"),
            (Self::Bool(value), _) => value.to_string(),
        }
    }
}

impl Row {
    fn get(&self, column: &str) -> Option<Value> {
        let whole = |number: Option<i128>| number.map(Value::Whole);
        match column {
            "part" => Some(Value::Whole(self.part.into())),
            "i" => whole(self.i.map(Into::into)),
            "u" => whole(self.u.map(Into::into)),
            "f" => self.f.map(Value::Float),
            "s" => self.s.clone().map(Value::Text),
            "b" => self.b.map(Value::Bool),
            "d" => whole(self.d.map(Into::into)),
            // A wall clock time: midnight of the day.
            "t" => whole(self.d.map(|day| i128::from(day) * DAY)),
            "m" => whole(self.m),
            "st.a" => whole(self.a.flatten().map(Into::into)),
            other => panic!("no column {other}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Clause {
    Compare(&'static str, &'static str, Value),
    In(&'static str, Vec<Value>, bool),
    IsNull(&'static str, bool),
    Like(String, bool),
    /// More than a comparison: nothing is pruned by it.
    Odd(i128),
    And(Box<Clause>, Box<Clause>),
    Or(Box<Clause>, Box<Clause>),
    Not(Box<Clause>),
}

impl Clause {
    fn sql(&self) -> String {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self {
            Self::Compare(column, op, value) => format!("\"{column}\" {op} {}", value.sql(column)),
            Self::In(column, values, negated) => {
                let values: Vec<_> = values.iter().map(|value| value.sql(column)).collect();
                format!("\"{column}\" {}IN ({})", not(negated), values.join(", "))
            }
            Self::IsNull(column, negated) => format!("\"{column}\" IS {}NULL", not(negated)),
            Self::Like(prefix, negated) => format!("s {}LIKE '{prefix}%'", not(negated)),
            Self::Odd(rest) => format!("i % 2 = {rest}"),
            Self::And(a, b) => format!("({} AND {})", a.sql(), b.sql()),
            Self::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
            Self::Not(a) => format!("NOT ({})", a.sql()),
        }
    }

    /// True, false or unknown.
    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::Compare(column, op, value) => {
                let order = row.get(column)?.order(value);
                Some(match *op {
                    "=" => order.is_eq(),
                    "<>" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Self::In(column, values, negated) => {
                let own = row.get(column)?;
                Some(values.iter().any(|value| own.order(value).is_eq()) != *negated)
            }
            Self::IsNull(column, negated) => Some(row.get(column).is_none() != *negated),
            Self::Like(prefix, negated) => Some(row.s.as_ref()?.starts_with(prefix) != *negated),
            Self::Odd(rest) => Some(i128::from(row.i?) % 2 == *rest),
            Self::And(a, b) => match (a.holds(row), b.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(a, b) => match (a.holds(row), b.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(a) => a.holds(row).map(|holds| !holds),
        }
    }
}

/// How the files of a table are written.
#[derive(Debug, Clone)]
struct Files {
    statistics: EnabledStatistics,
    offset_index: bool,
    bloom: bool,
    truncate: Option<usize>,
    row_group: usize,
}

fn float(place: i32) -> f64 {
    match place {
        -2 => f64::NAN,
        -3 => -f64::NAN,
        -4 => -0.0,
        place => f64::from(place) * 0.5,
    }
}

fn text(place: i32) -> String {
    // The same first letters, so that a cut bound is like another.
    format!("abc{}{}", place / 5, "x".repeat((place % 5) as usize))
}

/// Rows whose values lie close to their place, so that row groups and pages differ.
fn row(place: i32, part: i32) -> impl Strategy<Value = Row> {
    fn maybe<T: std::fmt::Debug + Clone + 'static>(
        value: impl Strategy<Value = T> + 'static,
    ) -> impl Strategy<Value = Option<T>> {
        prop::option::weighted(0.85, value)
    }
    let near = move || (place / 2)..(place / 2 + 3);
    (
        maybe(near().prop_map(i64::from)),
        maybe(near().prop_map(|n| n as u32)),
        maybe(prop_oneof![8 => near(), 1 => -4..0].prop_map(float)),
        maybe(near().prop_map(text)),
        maybe(prop::bool::weighted(if place % 16 < 8 { 0.02 } else { 0.98 })),
        maybe(near().prop_map(|n| 19_723 + n.min(27))),
        maybe(near().prop_map(|n| i128::from(n) * 25)),
        maybe(maybe(near())),
    )
        .prop_map(move |(i, u, f, s, b, d, m, a)| Row {
            part,
            i,
            u,
            f,
            s,
            b,
            d,
            m,
            a,
        })
}

/// Three files; values of the third begin anew, and it has no `u`.
fn rows() -> impl Strategy<Value = [Vec<Row>; 3]> {
    let rows = [(0..40, 1), (30..60, 2), (0..24, 2)];
    let rows = rows.map(|(places, part)| places.map(|place| row(place, part)).collect::<Vec<_>>());
    rows.prop_map(|mut rows| {
        rows[2].iter_mut().for_each(|row| row.u = None);
        rows
    })
}

fn value(column: &'static str) -> BoxedStrategy<Value> {
    let near = 0..34i32;
    match column {
        "part" => (1..4i128).prop_map(Value::Whole).boxed(),
        "f" => prop_oneof![9 => near, 1 => -4..0]
            .prop_map(|n| Value::Float(float(n)))
            .boxed(),
        "s" => near.prop_map(|n| Value::Text(text(n))).boxed(),
        "b" => any::<bool>().prop_map(Value::Bool).boxed(),
        "d" => near.prop_map(|n| Value::Whole(i128::from(19_723 + n.min(27)))).boxed(),
        "t" => near
            .prop_map(|n| Value::Whole(i128::from(19_723 + n.min(27)) * DAY))
            .boxed(),
        "m" => near.prop_map(|n| Value::Whole(i128::from(n) * 25)).boxed(),
        _ => prop_oneof![9 => near.prop_map(i128::from), 1 => Just(3_000_000_000i128)]
            .prop_map(Value::Whole)
            .boxed(),
    }
}

fn clause() -> impl Strategy<Value = Clause> {
    let column = || prop::sample::select(vec!["part", "i", "u", "f", "s", "b", "d", "t", "m", "st.a"]);
    let op = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        6 => (column(), op).prop_flat_map(|(column, op)| value(column).prop_map(move |value| Clause::Compare(column, op, value))),
        2 => (column(), any::<bool>())
            .prop_flat_map(|(column, negated)| {
                prop::collection::vec(value(column), 1..5).prop_map(move |values| Clause::In(column, values, negated))
            }),
        2 => (column(), any::<bool>()).prop_map(|(column, negated)| Clause::IsNull(column, negated)),
        1 => (0..34, any::<bool>()).prop_map(|(place, negated)| Clause::Like(text(place), negated)),
        1 => (0..2i128).prop_map(Clause::Odd),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            4 => two.clone().prop_map(|(a, b)| Clause::And(Box::new(a), Box::new(b))),
            2 => two.prop_map(|(a, b)| Clause::Or(Box::new(a), Box::new(b))),
            1 => inner.prop_map(|a| Clause::Not(Box::new(a))),
        ]
    })
}

fn files() -> impl Strategy<Value = Files> {
    let statistics = prop::sample::select(vec![
        EnabledStatistics::None,
        EnabledStatistics::Chunk,
        EnabledStatistics::Page,
        EnabledStatistics::Page,
    ]);
    let truncate = prop::sample::select(vec![None, Some(4), Some(64)]);
    (statistics, any::<bool>(), any::<bool>(), truncate, 5..20usize).prop_map(
        |(statistics, offset_index, bloom, truncate, row_group)| Files {
            statistics,
            offset_index,
            bloom,
            truncate,
            row_group,
        },
    )
}

/// The second file has narrower integers, the third one no `u`, and its columns stand the other way round.
fn write(path: &Path, place: usize, first_id: i32, rows: &[Row], files: &Files) {
    let ids = Int32Array::from_iter_values(first_id..first_id + rows.len() as i32);
    let i: ArrayRef = match place {
        1 => Arc::new(rows.iter().map(|row| row.i.map(|i| i as i32)).collect::<Int32Array>()),
        _ => Arc::new(rows.iter().map(|row| row.i).collect::<Int64Array>()),
    };
    let decimals = rows.iter().map(|row| row.m).collect::<Decimal128Array>();
    let members = rows.iter().map(|row| row.a.flatten()).collect::<Int32Array>();
    let present: NullBuffer = rows.iter().map(|row| row.a.is_some()).collect();
    let members = vec![Arc::new(members) as ArrayRef];
    let member = Field::new("a", DataType::Int32, true);
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids)),
        ("i", i),
        ("u", Arc::new(rows.iter().map(|row| row.u).collect::<UInt32Array>())),
        ("f", Arc::new(rows.iter().map(|row| row.f).collect::<Float64Array>())),
        (
            "s",
            Arc::new(rows.iter().map(|row| row.s.clone()).collect::<StringArray>()),
        ),
        ("b", Arc::new(rows.iter().map(|row| row.b).collect::<BooleanArray>())),
        ("d", Arc::new(rows.iter().map(|row| row.d).collect::<Date32Array>())),
        (
            "t",
            Arc::new(
                rows.iter()
                    .map(|row| row.d.map(|day| i64::from(day) * DAY as i64))
                    .collect::<TimestampMicrosecondArray>(),
            ),
        ),
        (
            "m",
            Arc::new(decimals.with_precision_and_scale(10, 2).expect("decimals")),
        ),
        (
            "st",
            Arc::new(StructArray::new(vec![member].into(), members, Some(present))),
        ),
    ];
    if place == 2 {
        columns.retain(|(name, _)| *name != "u");
        columns.reverse();
    }
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.expect("a batch");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(files.row_group))
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(3)
        .set_statistics_enabled(files.statistics)
        .set_offset_index_disabled(!files.offset_index && files.statistics != EnabledStatistics::Page)
        .set_statistics_truncate_length(files.truncate)
        .set_column_index_truncate_length(files.truncate)
        .set_bloom_filter_enabled(files.bloom)
        .set_bloom_filter_max_ndv(1)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), Some(properties));
    let writer = writer.as_mut().expect("a writer");
    writer.write(&batch).expect("rows written");
    writer.finish().expect("a footer written");
}

#[test]
fn pruning_changes_no_selection() {
    let totals = RefCell::new(SelectionReport::default());
    let input = (rows(), files(), prop::collection::vec(clause(), 8));
    let config = Config {
        // Enough for each step to rule something out; more on request.
        cases: std::env::var_os("PROPTEST_CASES").map_or(40, |_| Config::default().cases),
        failure_persistence: None,
        ..Config::default()
    };
    // From a fixed seed: by chance a run could miss a step of those that are counted below.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let tested = TestRunner::new_with_rng(config, rng).run(&input, |(rows, files, clauses)| {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let mut first_id = 0;
        for (place, rows) in rows.iter().enumerate() {
            let part = directory.path().join(format!("part={}", rows[0].part));
            fs::create_dir_all(&part).expect("a directory");
            write(&part.join(format!("{place}.parquet")), place, first_id, rows, &files);
            first_id += rows.len() as i32;
        }
        for clause in clauses {
            let sql = clause.sql();
            let reader = || {
                let url = directory.path().display().to_string();
                make_batch_reader(url).filter(&sql).flatten_structs().columns(["id"])
            };
            let holds = |(_, row): &(i32, &Row)| clause.holds(row) == Some(true);
            let expected: Vec<i32> = (0..)
                .zip(rows.iter().flatten())
                .filter(holds)
                .map(|(id, _)| id)
                .collect();
            match reader().build() {
                Ok(built) => {
                    let report = *built.selection_report();
                    let found = crate::sorted(ids(reader()));
                    prop_assert_eq!(&found, &expected, "{}: {:?}", sql, report);
                    prop_assert_eq!(report.rows, expected.len() as u64, "{}: {:?}", sql, report);
                    let parts = report.pruned_by_partition
                        + report.pruned_by_statistics
                        + report.pruned_by_bloom_filters
                        + report.pruned_by_page_index
                        + report.matched
                        + report.scanned;
                    prop_assert_eq!(parts, report.row_groups, "{}: {:?}", sql, report);
                    *totals.borrow_mut() += report;
                }
                Err(error) => prop_assert!(
                    expected.is_empty() && error.to_string().contains("no row fulfils"),
                    "{}: {}, expected {:?}",
                    sql,
                    error,
                    expected
                ),
            }
        }
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
    let totals = totals.into_inner();
    for (step, n) in [
        ("partition", totals.pruned_by_partition),
        ("statistics", totals.pruned_by_statistics),
        ("bloom filters", totals.pruned_by_bloom_filters),
        ("page index", totals.pruned_by_page_index),
        ("pages", totals.rows_pruned_by_page_index),
        ("matched", totals.matched),
        ("scanned", totals.scanned),
    ] {
        assert!(n > 0, "nothing is counted under {step}: {totals:?}");
    }
}
