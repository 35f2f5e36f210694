//! Which rows are read: predicates, selectors, splits, ranges, skip and take.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use proptest::prelude::*;
use squall_reader::{
    BatchReader, Partition, Predicate, ReaderBuilder, Reduce, RowGroupSelector, Shuffle, Split, make_batch_reader,
    make_reader,
};
use squall_schema::{ErrorKind, Value};
use squall_testkit::{Layout, Table, write_file};

use crate::{error, ids, sorted};

/// 120 rows in three directories of 50, 30 and 40, row groups of 16.
fn table() -> Table {
    Table::write_partitioned("part", &["1", "2", "3"], &Layout::default())
}

fn reader(table: &Table) -> ReaderBuilder<BatchReader> {
    make_batch_reader(table.url()).shuffle(Shuffle::None).columns(["id"])
}

fn even(row: &squall_schema::Row) -> squall_schema::Result<bool> {
    Ok(row.int("id")? % 2 == 0)
}

#[test]
fn predicates_select_rows() {
    let table = table();
    let check = |predicate: Predicate, expected: &dyn Fn(i32) -> bool| {
        let shown = predicate.to_string();
        let found = ids(reader(&table).predicate(predicate));
        assert_eq!(
            found,
            (0..120).filter(|id| expected(*id)).collect::<Vec<_>>(),
            "{shown}"
        );
    };
    // Columns that are not delivered, numbers of another dtype.
    check(Predicate::in_set(["row 1", "row 50", "row 7"], "name"), &|id| {
        id == 1 || id == 50
    });
    check(Predicate::in_set([3.0, 4.5, 118.0], "id"), &|id| id == 3 || id == 118);
    check(Predicate::in_set([Value::Null, "row 8".into()], "name"), &|id| {
        id % 7 == 0 || id == 8
    });
    check(Predicate::in_intersection([0, 4], "x"), &|id| {
        [0, 4, 3, 2, 98, 99].contains(&(id % 100)) && id % 100 <= 4
    });
    check(Predicate::in_lambda(["id"], even), &|id| id % 2 == 0);
    check(Predicate::in_negate(Predicate::in_lambda(["id"], even)), &|id| {
        id % 2 == 1
    });
    let third = || Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 3 == 0));
    let both = |reduce| Predicate::in_reduce([Predicate::in_lambda(["id"], even), third()], reduce);
    check(both(Reduce::All), &|id| id % 6 == 0);
    check(both(Reduce::Any), &|id| id % 2 == 0 || id % 3 == 0);
    check(both(Reduce::custom(|answers| answers[0] != answers[1])), &|id| {
        (id % 2 == 0) != (id % 3 == 0)
    });
    check(Predicate::in_negate(both(Reduce::Any)), &|id| id % 2 == 1 && id % 3 > 0);
    check(
        Predicate::in_reduce(
            [Predicate::in_set([1], "part"), Predicate::in_set([55], "id")],
            Reduce::Any,
        ),
        &|id| id < 50 || id == 55,
    );
    check(
        Predicate::in_reduce([Predicate::in_set([2], "part"), third()], Reduce::All),
        &|id| (50..80).contains(&id) && id % 3 == 0,
    );
    let twice = reader(&table)
        .predicate(third())
        .predicate(Predicate::in_lambda(["id"], even));
    assert_eq!(ids(twice), (0..120).step_by(6).collect::<Vec<_>>());
    // The row knows its place.
    let first = Predicate::in_lambda(["id"], |row| Ok(row.id().row == 0 && row.id().piece % 2 == 1));
    check(first, &|id| place_of(id).1 == 0 && place_of(id).0 % 2 == 1);
}

/// Row group and row, as the layout cuts them.
fn place_of(id: i32) -> (usize, i32) {
    let groups = [0..16, 16..32, 32..48, 48..50, 50..66, 66..80, 80..96, 96..112, 112..120];
    let group = groups
        .iter()
        .position(|group| group.contains(&id))
        .expect("a row group");
    (group, id - groups[group].start)
}

/// What directory names tell reads nothing, and asks once a directory.
#[test]
fn partition_predicates_prune_without_reading() {
    let table = table();
    let asked = Arc::new(AtomicU64::new(0));
    let counting = |field: &'static str| {
        let asked = asked.clone();
        Predicate::in_lambda([field], move |row| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(row.int(field)? == 2)
        })
    };
    assert_eq!(
        ids(reader(&table).predicate(counting("part"))),
        (50..80).collect::<Vec<_>>()
    );
    assert_eq!(asked.swap(0, Ordering::Relaxed), 9);
    let part = Predicate::in_set([2], "part");
    let all = Predicate::in_reduce([counting("id"), Predicate::in_negate(part)], Reduce::All);
    assert_eq!(ids(reader(&table).predicate(all)), [2]);
    // Rows of a pruned directory are not asked for.
    assert_eq!(asked.swap(0, Ordering::Relaxed), 90);
}

/// Two levels of directories.
#[test]
fn any_number_of_partition_levels_prunes() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    for (i, (year, country)) in [("2023", "ch"), ("2023", "de"), ("2024", "ch")].into_iter().enumerate() {
        let place = directory.path().join(format!("year={year}/country={country}"));
        std::fs::create_dir_all(&place).expect("a new directory");
        let i = i as i32;
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(10 * i..10 * i + 10));
        let batch = RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
        write_file(&place.join("rows.parquet"), &batch, &Layout::default());
    }
    let url = directory.path().display().to_string();
    let both = Predicate::in_lambda(["year", "country"], |row| {
        Ok(row.int("year")? == 2023 && row["country"].as_str() == Some("ch"))
    });
    assert_eq!(
        sorted(ids(make_batch_reader(&url).columns(["id"]).predicate(both))),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn failing_closures_name_the_row() {
    let table = table();
    let failing = |panics: bool| {
        let failing = Predicate::in_lambda(["id"], move |row| match row.int("id")? {
            70 if panics => panic!("seventy"),
            70 => row.int("nope").map(|_| true),
            _ => Ok(true),
        });
        // Rows that are counted are those of the file, whatever was left out before.
        error(reader(&table).rows(60..).predicate(failing).build())
    };
    for (panics, expected) in [(false, "no column \"nope\""), (true, "the predicate panicked: seventy")] {
        let error = failing(panics);
        let text = error.to_string();
        assert_eq!(
            (error.kind(), error.place("row group"), error.place("row")),
            (ErrorKind::Transform, Some("1"), Some("4")),
            "{text}"
        );
        assert!(
            text.contains(expected) && text.contains("part=2/part-00000.parquet") && text.contains("in_lambda(id)"),
            "{text}"
        );
    }
    let custom = Predicate::in_reduce([Predicate::in_set([1], "part")], Reduce::custom(|_| panic!("custom")));
    let error = error(reader(&table).predicate(custom).build());
    assert!(error.to_string().contains("the predicate panicked: custom"), "{error}");
    assert!(error.to_string().contains("part=1/part-00000.parquet"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let table = table();
    let message = |builder: ReaderBuilder<BatchReader>| error(builder.build()).to_string();
    let predicate = |predicate| message(reader(&table).predicate(predicate));
    let none: [&str; 0] = [];
    let list = || Value::List(Vec::new());
    for (found, expected) in [
        (predicate(Predicate::in_set([1], "nope")), "no column \"nope\""),
        (
            predicate(Predicate::in_set([1], "x")),
            "expected a column of scalars, found x: int8",
        ),
        (
            predicate(Predicate::in_set([list()], "id")),
            "expected a scalar to compare, found list of 0",
        ),
        (
            predicate(Predicate::in_lambda(none, |_| Ok(true))),
            "a predicate asks for no field",
        ),
        (
            predicate(Predicate::in_reduce([], Reduce::All)),
            "a predicate asks for no field",
        ),
        (
            predicate(Predicate::in_pseudorandom_split([0.5], 0, "x")),
            "expected a column of scalars, found x",
        ),
        (
            predicate(Predicate::in_pseudorandom_split([0.5], 1, "id")),
            "expected a subset below the number of fractions, 1, found 1",
        ),
        (
            message(reader(&table).split(Split::by_column("x", [1.0], 0))),
            "expected a column of scalars, found x",
        ),
        (
            message(reader(&table).split(Split::by_row([0.5, 0.6], 0))),
            "expected fractions that sum to at most 1",
        ),
        (
            message(reader(&table).rows(100..121)),
            "expected a range of at least one row within 0..120, found 100..121",
        ),
        (
            message(reader(&table).rows(7..7)),
            "expected a range of at least one row within 0..120, found 7..7",
        ),
        (
            message(reader(&table).rows(..=u64::MAX)),
            "expected a range of at least one row",
        ),
        (message(reader(&table).take(0)), "expected to take at least one row"),
        (
            message(reader(&table).row_group_selector(RowGroupSelector::single("by_id", [1]))),
            "the dataset has no row-group indexes",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
        assert!(found.contains("URL") || expected.contains("take"), "{found}");
    }
}

#[test]
fn the_step_that_leaves_nothing_is_named() {
    let table = table();
    let none = |builder: ReaderBuilder<BatchReader>, expected: &str| {
        let error = error(builder.build());
        assert_eq!(error.kind(), ErrorKind::NoData, "{error}");
        assert!(error.to_string().starts_with(expected), "{error}");
    };
    let odd = || Predicate::in_negate(Predicate::in_lambda(["id"], even));
    let base = || reader(&table).predicate(Predicate::in_lambda(["id"], even));
    none(
        base().predicate(odd()).predicate(Predicate::in_set([2], "id")),
        "no row fulfils the predicate in_negate(in_lambda(id))",
    );
    none(
        base().predicate(Predicate::in_set([9], "part")),
        "no row fulfils the predicate in_set(part)",
    );
    none(
        base().skip(60),
        "all 60 rows that are left are skipped: expected to skip fewer, found 60",
    );
    none(
        reader(&table).split(Split::by_row([0.0, 1.0], 0)),
        "no row that is left is in subset 0 of the split of [0.0, 1.0] by row",
    );
    none(
        reader(&table).split(Split::by_column("name", [0.0, 1.0], 0)),
        "no row that is left is in subset 0 of the split of [0.0, 1.0] by column \"name\"",
    );
    none(
        reader(&table).split(Split::by_column("part", [0.0, 1.0], 0)),
        "no row that is left is in subset 0",
    );
    none(
        reader(&table).rows(0..50).partition(Partition::RowGroups).rank(5, 7),
        "no selected row is in the row groups of rank 5 of 7",
    );
    none(
        reader(&table).partition(Partition::RowGroups).rank(0, 10),
        "expected at least as many row groups as ranks",
    );
}

#[test]
fn ranges_skip_and_take_count_rows() {
    let table = table();
    let found = ids(reader(&table).rows(45..52).rows(110..).rows(..=1).rows(50..53));
    let expected: Vec<i32> = [0..2, 45..53, 110..120].into_iter().flatten().collect();
    assert_eq!(found, expected);
    assert_eq!(ids(reader(&table).skip(47).take(5)), (47..52).collect::<Vec<_>>());
    assert_eq!(ids(reader(&table).take(500)), (0..120).collect::<Vec<_>>());
    // Ranges count stored rows, skip and take those that are left.
    let even_rows = reader(&table)
        .predicate(Predicate::in_lambda(["id"], even))
        .rows(10..100)
        .skip(20)
        .take(3);
    assert_eq!(ids(even_rows), [50, 52, 54]);
    // Any rank takes its share of the same rows.
    let mut all = Vec::new();
    for rank in 0..3 {
        all.extend(ids(make_batch_reader(table.url())
            .columns(["id"])
            .rows(7..90)
            .take(70)
            .rank(rank, 3)
            .seed(4)));
    }
    assert_eq!(sorted(all), (7..77).collect::<Vec<_>>());
}

/// The same rows are the same selection, however they were asked for; others are not.
#[test]
fn a_state_tells_other_rows() {
    let table = table();
    let state = |builder: ReaderBuilder<BatchReader>| builder.build().expect("a reader").state();
    let below = |n: i64| Predicate::in_lambda(["id"], move |row| Ok(row.int("id")? < n));
    let saved = state(reader(&table).rows(..60));
    assert_eq!(state(reader(&table).take(60)), saved);
    assert_eq!(state(reader(&table).predicate(below(60))), saved);
    assert_eq!(state(reader(&table).rows(..)), state(reader(&table)));
    let changed = error(reader(&table).predicate(below(61)).resume(saved).build());
    assert!(
        changed.to_string().contains("the selection of rows changed"),
        "{changed}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Ranges, skip and take are what they are of a list; the same rows asked for by a predicate are the same selection.
    #[test]
    fn ranges_are_those_of_a_list(
        ranges in prop::collection::vec((0u64..119, 1u64..40), 1..4),
        skip in 0u64..60,
        take in 1u64..60,
        modulus in 1i64..4,
    ) {
        let table = table();
        let ranges: Vec<_> = ranges.into_iter().map(|(start, rows)| start..(start + rows).min(120)).collect();
        let of_modulus = || Predicate::in_lambda(["id"], move |row| Ok(row.int("id")? % modulus == 0));
        let standing = |id: &i32| ranges.iter().any(|range| range.contains(&(*id as u64))) && i64::from(*id) % modulus == 0;
        let expected: Vec<_> = (0..120).filter(standing).skip(skip as usize).take(take as usize).collect();
        let by_range = ranges.iter().fold(reader(&table).predicate(of_modulus()), |reader, range| reader.rows(range.clone()));
        match by_range.skip(skip).take(take).build() {
            Ok(found) => {
                let known = expected.clone();
                let same = Predicate::in_lambda(["id"], move |row| Ok(known.contains(&(row.int("id")? as i32))));
                let by_predicate = reader(&table).predicate(same).build().expect("a reader");
                prop_assert_eq!(by_predicate.state(), found.state());
                prop_assert_eq!(crate::batches(found).into_iter().flatten().map(|(id, _)| id).collect::<Vec<_>>(), expected);
            }
            Err(error) => prop_assert!(error.kind() == ErrorKind::NoData && expected.is_empty(), "{}", error),
        }
    }

    /// Each row is in one subset; of a column, rows with one value are in the same.
    #[test]
    fn subsets_of_a_split_partition_the_rows(
        cuts in prop::collection::vec(1u32..10, 1..4),
        seed: u64,
        by in prop::sample::select(vec![None, Some("name"), Some("part"), Some("id")]),
    ) {
        let table = table();
        let sum: u32 = cuts.iter().sum();
        let fractions: Vec<_> = cuts.iter().map(|cut| f64::from(*cut) / f64::from(sum)).collect();
        let mut all = Vec::new();
        for subset in 0..fractions.len() {
            let split = match by {
                None => Split::by_row(fractions.clone(), subset),
                Some(column) => Split::by_column(column, fractions.clone(), subset),
            };
            let found = match reader(&table).split(split.seed(seed)).build() {
                Ok(reader) => crate::batches(reader).into_iter().flatten().map(|(id, _)| id).collect(),
                Err(error) if error.kind() == ErrorKind::NoData => Vec::new(),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            if by == Some("part") {
                let files: BTreeSet<_> = found.iter().map(|id| [50, 80, 120].partition_point(|end| end <= id)).collect();
                let rows: usize = files.iter().map(|file| [50, 30, 40][*file]).sum();
                prop_assert_eq!(found.len(), rows);
            }
            if by == Some("name") {
                let nulls = found.iter().filter(|id| **id % 7 == 0).count();
                prop_assert!(nulls == 0 || nulls == 18, "{}", nulls);
            }
            all.extend(found);
        }
        prop_assert_eq!(sorted(all), (0..120).collect::<Vec<_>>());
    }
}

/// The rows of a split are pinned: what was validation data stays so.
#[test]
fn splits_are_pinned() {
    let table = table();
    let found = |split: Split| ids(reader(&table).split(split.seed(7)));
    assert_eq!(found(Split::by_row([0.9, 0.1], 1)), BY_ROW);
    assert_eq!(found(Split::by_column("id", [0.9, 0.1], 1)), BY_ID);
    let petastorm = Predicate::in_pseudorandom_split([0.9, 0.1], 1, "id");
    assert_eq!(ids(reader(&table).predicate(petastorm)), BY_MD5);
}

/// As `xxhash.xxh3_64_intdigest(struct.pack("<QQ", row_group, row), 7) >= 0.9 * 2**64` in Python says.
const BY_ROW: [i32; 13] = [2, 4, 9, 14, 23, 25, 51, 60, 78, 79, 107, 109, 117];
/// As `xxhash.xxh3_64_intdigest(str(id).encode(), 7) >= 0.9 * 2**64` says.
const BY_ID: [i32; 11] = [0, 10, 13, 17, 21, 45, 86, 98, 99, 108, 116];
/// As `int(hashlib.md5(str(id).encode()).hexdigest(), 16) % sys.maxsize >= 0.9 * (sys.maxsize - 1)` says.
const BY_MD5: [i32; 15] = [2, 7, 9, 11, 17, 26, 29, 72, 74, 85, 87, 88, 104, 107, 116];

/// Missing values have a text too.
#[test]
fn petastorms_split_takes_every_row() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None, Some(1e22)]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
    let batch = RecordBatch::try_from_iter([("x", x), ("text", text)]).expect("a batch");
    write_file(&directory.path().join("rows.parquet"), &batch, &Layout::default());
    let url = directory.path().display().to_string();
    let count = |field: &'static str| {
        let subsets = (0..4).map(|subset| {
            let split = Predicate::in_pseudorandom_split([0.25; 4], subset, field);
            match make_reader(&url).predicate(split).build() {
                Ok(reader) => reader.filter(|row| row.is_ok()).count(),
                Err(error) => usize::from(error.kind() != ErrorKind::NoData) * 100,
            }
        });
        subsets.sum::<usize>()
    };
    assert_eq!((count("x"), count("text")), (3, 3));
}

/// What is said of how the rows were found.
#[test]
fn reports_tell_each_step() {
    let table = Table::write(&Layout::default());
    let report = |options: ReaderBuilder<BatchReader>| {
        let reader = options.build().expect("a reader");
        let report = *reader.selection_report();
        let sum = report.pruned_by_selector
            + report.pruned_by_ranges
            + report.pruned_by_split
            + report.pruned_by_stored_selection
            + report.pruned_by_partition
            + report.pruned_by_statistics
            + report.pruned_by_bloom_filters
            + report.pruned_by_page_index
            + report.matched
            + report.scanned;
        assert_eq!((sum, report.row_groups), (9, 9), "{report:?}");
        report
    };
    let all = report(reader(&table));
    assert_eq!((all.matched, all.rows, all.bytes, all.footers), (9, 120, 0, 0));

    // One row, for which all row groups are read.
    let one = report(reader(&table).predicate(Predicate::in_set([1], "id")));
    assert_eq!((one.matched, one.scanned, one.rows, one.footers), (0, 9, 1, 3));
    let half = report(reader(&table).rows(0..50).predicate(Predicate::in_set([1], "id")));
    assert_eq!((half.pruned_by_ranges, half.scanned, half.footers), (5, 4, 1));
    assert!(0 < half.bytes && half.bytes < one.bytes, "{half:?} {one:?}");
    let split = report(reader(&table).split(Split::by_column("name", [0.5, 0.5], 0)));
    assert_eq!((split.matched, split.scanned), (0, 9));
    assert!(split.bytes > one.bytes, "names are larger than ids: {split:?} {one:?}");

    let few = report(reader(&table).split(Split::by_row([0.02, 0.98], 0)));
    assert!(few.pruned_by_split > 0 && few.bytes == 0, "{few:?}");
    assert_eq!(few.pruned_by_split + few.matched, 9);
    let taken = report(reader(&table).skip(16).take(20));
    assert_eq!((taken.matched, taken.skipped, taken.rows), (9, 7, 20));
}

#[test]
fn reports_tell_directories() {
    let table = table();
    let second = || reader(&table).predicate(Predicate::in_set([2], "part"));
    let found = *second().build().expect("a reader").selection_report();
    assert_eq!((found.row_groups, found.pruned_by_partition, found.matched), (9, 7, 2));
    assert_eq!((found.scanned, found.bytes, found.rows), (0, 0, 30));
    let both = second().predicate(Predicate::in_lambda(["id"], even));
    let both = *both.build().expect("a reader").selection_report();
    assert_eq!((both.pruned_by_partition, both.matched, both.scanned), (7, 0, 2));
    assert_eq!((both.rows, both.footers), (15, 1));
}

#[cfg(feature = "filter")]
#[test]
fn reports_tell_where_clauses_among_other_steps() {
    let table = table();
    let cache = tempfile::TempDir::new().expect("a temporary directory");
    let report = |options: ReaderBuilder<BatchReader>| *options.build().expect("a reader").selection_report();
    // Statistics rule out the last row group below 100, and prove all before 90 but the one that holds it.
    let clause = || {
        reader(&table)
            .rows(0..100)
            .filter("id < 90 OR part = 1")
            .selection_cache(cache.path())
    };
    let found = report(clause());
    assert_eq!(
        (found.row_groups, found.pruned_by_ranges, found.pruned_by_statistics),
        (9, 1, 1)
    );
    assert_eq!((found.matched, found.scanned, found.rows), (6, 1, 90));
    assert!(found.bytes > 0);
    // What the predicate reads comes on top of that, of the row groups that are left.
    let both = report(clause().predicate(Predicate::in_lambda(["id"], even)).skip(10).take(5));
    assert_eq!((both.matched, both.rows), (0, 5));
    assert_eq!((both.pruned_by_stored_selection, both.scanned, both.skipped), (1, 7, 6));
    assert!(both.bytes > 0);
}
