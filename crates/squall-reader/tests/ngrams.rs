//! N-grams beside everything else that a reader can do.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field as ArrowField};
use squall_reader::{
    Ending, NGram, OnBadRow, Predicate, Reader, ReaderBuilder, ReaderState, Remainder, Sampler, Shuffle, TransformSpec,
    make_mixed_reader, make_reader,
};
use squall_schema::{Error, ErrorKind, RowId};
use squall_testkit::{Layout, Table, write_file};
use tempfile::TempDir;

use crate::error;

/// Rows that follow one another, `length` of them.
fn clip(length: i64) -> NGram {
    NGram::new((0..length).map(|offset| (offset, ["id"])), "id", 1)
}

fn reader(table: &Table, ngram: NGram) -> ReaderBuilder<Reader> {
    make_reader(table.url()).lanes(3).window(7).ngram(ngram)
}

/// The ids of each window, offset by offset, with what is known of it.
fn windows(reader: ReaderBuilder<Reader>) -> Vec<(RowId, Vec<i64>)> {
    let windows = reader.build().expect("a reader").map(|window| {
        let window = window.expect("a window");
        let id = window.id();
        let rows = NGram::split(window).expect("rows of a window");
        (id, rows.values().map(|row| row.int("id").expect("an id")).collect())
    });
    windows.collect()
}

fn ids(reader: ReaderBuilder<Reader>) -> Vec<Vec<i64>> {
    windows(reader).into_iter().map(|(_, ids)| ids).collect()
}

/// Writes one file with these columns.
fn file(columns: Vec<(&str, ArrayRef)>) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, own)| (name, own, true)));
    write_file(
        &directory.path().join("0.parquet"),
        &batch.expect("a batch"),
        &Layout::default(),
    );
    directory
}

/// Row groups of which nothing is left, too little, and a part.
#[test]
fn windows_of_what_a_predicate_leaves() {
    // Row groups of 16 rows in files of 50, 30 and 40.
    let table = Table::write(&Layout::default());
    let kept = |id: i64| (0..16).contains(&id) || id == 20 || (66..70).contains(&id) || id >= 117;
    let predicate = Predicate::in_lambda(["id"], move |row| Ok(kept(row.int("id")?)));
    let found = ids(reader(&table, clip(3))
        .predicate(predicate.clone())
        .shuffle(Shuffle::None));
    let expected: Vec<_> = (0..14)
        .chain(66..68)
        .chain([117])
        .map(|id| vec![id, id + 1, id + 2])
        .collect();
    assert_eq!(found, expected);
    // Gaps are those of the rows that are left.
    let even = Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 2 == 0));
    let failed = error(reader(&table, clip(2)).predicate(even.clone()).build());
    assert_eq!(failed.kind(), ErrorKind::NoData, "{failed}");
    let wide = NGram::new([(0, ["id"]), (1, ["id"])], "id", 2);
    let found = ids(reader(&table, wide).predicate(even));
    assert!(!found.is_empty() && found.iter().all(|pair| pair[0] % 2 == 0 && pair[1] == pair[0] + 2));
}

/// Every state of a run on one rank goes on on three, with the same windows in each batch.
#[test]
fn windows_resume_on_other_ranks() {
    let table = Table::write(&Layout::default());
    let builder = || {
        reader(&table, clip(4).overlap(false))
            .seed(3)
            .epochs(2)
            .global_batch(6)
            .remainder(Remainder::Pad)
    };
    let whole: BTreeMap<_, _> = windows(builder())
        .into_iter()
        .map(|(id, ids)| ((id.epoch, id.sample, id.padded), ids))
        .collect();
    let mut reader = builder().build().expect("a reader");
    let n_rows = reader.by_ref().count();
    assert_eq!(n_rows, whole.len());
    for done in [0, 6, 12, n_rows - 6, n_rows] {
        let mut begun = builder().build().expect("a reader");
        let first: Vec<_> = begun.by_ref().take(done).collect();
        assert_eq!(first.len(), done);
        let state = ReaderState::from_json(&begun.state().expect("a state").to_json()).expect("own text");
        drop(begun);
        let mut together = BTreeMap::new();
        for row in first {
            let id = row.expect("a window").id();
            together.insert((id.epoch, id.sample, id.padded), ());
        }
        for rank in 0..3 {
            for (id, ids) in windows(builder().resume(state.clone()).rank(rank, 3)) {
                let key = (id.epoch, id.sample, id.padded);
                assert_eq!(whole[&key], ids);
                assert!(together.insert(key, ()).is_none(), "{key:?} came twice after {done}");
            }
        }
        assert!(together.keys().eq(whole.keys()), "after {done}");
    }
    let other = error(
        make_reader(table.url())
            .ngram(clip(3))
            .resume(builder().build().expect("a reader").state().expect("a state"))
            .build(),
    );
    assert!(other.to_string().contains("changed"), "{other}");
}

/// A window with a bad row is bad as a whole; another window takes its place.
#[test]
fn windows_with_bad_rows_are_replaced() {
    let table = Table::write(&Layout::default());
    let is_bad = |id: i64| id % 40 == 9;
    let run = |world_size| {
        let mut found = BTreeMap::new();
        let mut bad = Vec::new();
        for rank in 0..world_size {
            let spec = TransformSpec::per_row(move |row| match row.int("id")? {
                id if is_bad(id) => Err(Error::invalid(format!("row {id} is bad"))),
                _ => Ok(()),
            });
            let builder = reader(&table, clip(3))
                .transform(spec)
                .rank(rank, world_size)
                .global_batch(8);
            let mut reader = builder
                .on_bad_row(OnBadRow::Skip { at_most: 50 })
                .build()
                .expect("a reader");
            for window in reader.by_ref() {
                let window = window.expect("a window");
                let sample = window.id().sample;
                let rows = NGram::split(window).expect("rows of a window");
                let ids: Vec<_> = rows.values().map(|row| row.int("id").expect("an id")).collect();
                assert!(ids.iter().all(|id| !is_bad(*id)), "{ids:?}");
                assert_eq!(ids, (ids[0]..ids[0] + 3).collect::<Vec<_>>());
                assert!(found.insert(sample, ids).is_none());
            }
            for own in reader.bad_rows() {
                assert!(
                    own.error.contains("is bad") && own.error.contains("offset"),
                    "{}",
                    own.error
                );
                bad.push((own.row.sample, own.row.piece, own.row.row, own.substitute.row));
            }
        }
        bad.sort_unstable();
        (found, bad)
    };
    let (found, bad) = run(1);
    // Rows 9 and 89 are in three windows each, row 49 in none.
    assert_eq!(bad.len(), 6);
    // Files of 50, 30 and 40 rows in row groups of 16: the last one of the first file is shorter than a window.
    assert_eq!(found.len(), 3 * 14 + 14 + 12 + 2 * 14 + 6);
    assert_eq!(run(2), (found, bad));
}

#[test]
fn windows_mix() {
    let tables = [60, 30].map(|rows| {
        Table::write(&Layout {
            files: vec![rows],
            ..Layout::default()
        })
    });
    let mixed = |lengths: [i64; 2]| {
        let members = tables
            .iter()
            .zip(lengths)
            .map(|(table, length)| (reader(table, clip(length)), 1.0));
        make_mixed_reader(members.collect::<Vec<_>>()).ending(Ending::Longest)
    };
    let found = windows(mixed([3, 3]));
    for (dataset, expected) in [(0, 3 * 14 + 10), (1, 14 + 12)] {
        let mut own: Vec<_> = found
            .iter()
            .filter(|(id, _)| id.dataset == dataset)
            .map(|(_, ids)| ids.clone())
            .collect();
        assert!(own.iter().all(|ids| *ids == (ids[0]..ids[0] + 3).collect::<Vec<_>>()));
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), expected);
    }
    // Windows of other lengths have other columns.
    let failed = error(mixed([3, 2]).build()).to_string();
    assert!(
        failed.contains("must have the same fields") && failed.contains("id/2"),
        "{failed}"
    );
}

#[test]
fn members_of_structs_are_timestamps_and_fields() {
    let time: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2, 9, 10]));
    let speed: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5, 3.5, 4.5]));
    let pose = StructArray::from(vec![
        (Arc::new(ArrowField::new("t", DataType::Int64, true)), time.clone()),
        (Arc::new(ArrowField::new("speed", DataType::Float64, true)), speed),
    ]);
    let directory = file(vec![("id", time), ("pose", Arc::new(pose))]);
    let flat = || {
        make_reader(directory.path().display().to_string())
            .flatten_structs()
            .shuffle(Shuffle::None)
    };
    let names = flat()
        .build()
        .expect("a reader")
        .schema()
        .names()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let (t, speed) = (&names[1], &names[2]);
    let ngram = NGram::new([(-1, vec![speed.as_str()]), (0, vec![speed.as_str(), "id"])], t, 1);
    let found: Vec<_> = flat()
        .ngram(ngram)
        .build()
        .expect("a reader")
        .map(|window| {
            let rows = NGram::split(window.expect("a window")).expect("rows");
            (
                rows[&-1][speed.as_str()].as_f64(),
                rows[&0][speed.as_str()].as_f64(),
                rows[&0].int("id").expect("an id"),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (Some(0.5), Some(1.5), 1),
            (Some(1.5), Some(2.5), 2),
            (Some(3.5), Some(4.5), 10)
        ]
    );
}

/// All rows of a directory have the same time, so that no window has a gap.
#[test]
fn a_partition_column_is_a_timestamp() {
    let layout = Layout {
        files: vec![20, 4],
        ..Layout::default()
    };
    let table = Table::write_partitioned("day", &["7", "8"], &layout);
    let ngram = |overlap| NGram::new([(0, ["id", "day"]), (2, ["id", "day"])], "day", 0).overlap(overlap);
    let found = ids(reader(&table, ngram(true)).shuffle(Shuffle::None));
    let expected = (0..14)
        .chain(16..18)
        .chain(20..22)
        .map(|id| vec![id, id + 2])
        .collect::<Vec<_>>();
    assert_eq!(found, expected);
    // Without overlap a time is in one window: one for each row group.
    let found = ids(reader(&table, ngram(false)).shuffle(Shuffle::None));
    assert_eq!(found, [[0, 2], [16, 18], [20, 22]]);
}

#[test]
fn what_is_no_time_is_refused() {
    let table = Table::write(&Layout::default());
    let refuse = |builder: ReaderBuilder<Reader>, expected: &str| {
        let message = error(builder.build()).to_string();
        assert!(message.contains(expected), "{message}");
    };
    let timed = |timestamp: &str, threshold: f64| reader(&table, NGram::new([(0, ["id"])], timestamp, threshold));
    refuse(timed("id", f64::NAN), "found NaN");
    refuse(timed("name", 1.0), "expected a number or a time");
    refuse(timed("x", 1.0), "is a scalar");
    refuse(timed(".*", 1.0), "found 3 fields whose names match \".*\"");
    refuse(timed("nope", 1.0), "\"nope\" matches no column");
    refuse(
        reader(&table, clip(2)).sampler(Sampler::weighted("id")),
        "it cannot be given with an n-gram",
    );
    assert_eq!(
        ids(reader(&table, NGram::new([(0, ["id"])], "i.", f64::INFINITY))).len(),
        120
    );

    let id: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2]));
    let t: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), None, Some(f64::NAN)]));
    let directory = file(vec![("id", id), ("t", t)]);
    let url = directory.path().display().to_string();
    let ngram = || NGram::new([(0, ["id"])], "t", 1);
    refuse(
        make_reader(&url).ngram(ngram()),
        "found Null (row 1, row group 0, file 0.parquet",
    );
    refuse(make_reader(&url).ngram(ngram()).rows(2..), "NaN");
    assert_eq!(ids(make_reader(&url).ngram(ngram()).rows(..1)), [[0]]);
}
