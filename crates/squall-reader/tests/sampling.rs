//! Samplers and n-grams over real files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use squall_reader::{
    BatchReader, NGram, Predicate, ReaderBuilder, ReaderState, Remainder, Sampler, Shuffle, TransformSpec,
    make_batch_reader, make_reader,
};
use squall_schema::{DType, Field};
use squall_testkit::{Layout, Table, write_file};
use tempfile::TempDir;

use crate::{batches, error, ids, sorted};

/// 300 rows in row groups of 16: `id`; `label` "a" for 9 rows of 10, else "b"; `weight` of the last digit; `payload` text of
/// the id.
fn labelled() -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    for (file, ids) in [0..200i32, 200..300].into_iter().enumerate() {
        let label = ids.clone().map(|id| if id % 10 == 7 { "b" } else { "a" });
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int32Array::from_iter_values(ids.clone()))),
            ("label", Arc::new(StringArray::from_iter_values(label))),
            (
                "weight",
                Arc::new(Float64Array::from_iter_values(ids.clone().map(|id| f64::from(id % 10)))),
            ),
            (
                "payload",
                Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("row {id}")))),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        write_file(
            &directory.path().join(format!("{file}.parquet")),
            &batch,
            &Layout::default(),
        );
    }
    directory
}

fn reader(directory: &TempDir) -> ReaderBuilder<BatchReader> {
    make_batch_reader(directory.path().display().to_string())
        .lanes(4)
        .window(20)
}

#[test]
fn a_balanced_epoch_has_each_class_equally_often() {
    let directory = labelled();
    let builder = || reader(&directory).sampler(Sampler::balanced("label").replacement(false));
    let first = ids(builder());
    assert_eq!(first.len(), 60);
    assert_eq!(first.iter().filter(|id| *id % 10 == 7).count(), 30);
    let mut once = first.clone();
    once.dedup();
    assert_eq!(
        sorted(once.clone())
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .count(),
        0
    );
    // Other rows in the next epoch.
    let two = ids(builder().epochs(2));
    assert_eq!(sorted(two[..60].to_vec()), sorted(first.clone()));
    assert_ne!(sorted(two[60..].to_vec()), sorted(first));
    // With replacement there are as many as there are rows, and rare ones come several times, with all of their columns.
    let rows = make_reader(directory.path().display().to_string()).sampler(Sampler::balanced("label"));
    let mut times = HashMap::new();
    for row in rows.build().expect("a reader") {
        let row = row.expect("a row");
        let id = row.int("id").expect("an id");
        assert_eq!(row["payload"].as_str(), Some(format!("row {id}").as_str()));
        *times.entry(id).or_insert(0u32) += 1;
    }
    assert_eq!(times.values().sum::<u32>(), 300);
    let rare: u32 = times
        .iter()
        .filter(|(id, _)| *id % 10 == 7)
        .map(|(_, times)| times)
        .sum();
    assert!((110..=190).contains(&rare), "{rare}");
}

/// Shares, resumes and questions of sampled rows are those of all rows.
#[test]
fn sampled_epochs_are_shared_and_resumed() {
    let directory = labelled();
    for (sampler, weighted) in [
        (Sampler::weighted("weight").samples(170), true),
        (Sampler::weighted("weight").replacement(false).samples(100), true),
        (Sampler::balanced("label").samples(90), false),
    ] {
        let builder = || {
            reader(&directory)
                .epochs(2)
                .seed(9)
                .global_batch(24)
                .remainder(Remainder::Pad)
        };
        let sampled = || builder().sampler(sampler.clone());
        let sets = |ranks: Vec<Vec<Vec<(i32, squall_schema::RowId)>>>| {
            let steps = ranks[0].len();
            let step = |step: usize| {
                let mut rows: Vec<_> = ranks.iter().flat_map(|rank| rank[step].clone()).collect();
                rows.sort_unstable_by_key(|(_, id)| (id.sample, id.padded));
                rows
            };
            (0..steps).map(step).collect::<Vec<_>>()
        };
        let whole = sets(vec![batches(sampled().build().expect("a reader"))]);
        // Rows without weight are never drawn.
        assert!(whole.iter().flatten().all(|(id, _)| !weighted || id % 10 > 0));
        let ranks = (0..3).map(|rank| batches(sampled().rank(rank, 3).build().expect("a reader")));
        assert_eq!(sets(ranks.collect()), whole);
        let mut begun = sampled().build().expect("a reader");
        (0..whole.len() / 2 + 1).for_each(|_| drop(begun.next().expect("a batch")));
        let state = ReaderState::from_json(&begun.state().to_json()).expect("own text");
        let rest = (0..2).map(|rank| batches(sampled().resume(state.clone()).rank(rank, 2).build().expect("a reader")));
        assert_eq!(sets(rest.collect()), whole[whole.len() / 2 + 1..]);
        let refused = error(builder().resume(state.clone()).build()).to_string();
        assert!(refused.contains("the sampler or the n-gram changed"), "{refused}");
        // Each time that a row was drawn is known.
        let asked = sampled().build().expect("a reader");
        let (id, row) = whole[0][0];
        let piece = asked.dataset().pieces()[row.piece as usize];
        let file = asked.dataset().file_of(&piece).path.to_string();
        let found = asked.where_is(&file, piece.row_group, row.row).expect("an answer");
        let times = whole
            .iter()
            .flatten()
            .filter(|(own, place)| *own == id && place.epoch == 0);
        assert_eq!(found.len(), times.count());
    }
}

#[test]
fn samplers_that_cannot_draw_are_refused() {
    let directory = labelled();
    let refuse = |sampler, expected: &str| {
        let message = error(reader(&directory).sampler(sampler).build()).to_string();
        assert!(message.contains(expected), "{message}");
    };
    refuse(
        Sampler::weighted("label"),
        "expected a weight of at least 0, found Str(\"a\")",
    );
    refuse(Sampler::weighted("nope"), "no column \"nope\"");
    refuse(
        Sampler::weighted("weight").replacement(false),
        "needs a number of samples",
    );
    refuse(
        Sampler::balanced("label").replacement(false).samples(61),
        "at most 60 samples",
    );
    refuse(Sampler::balanced("label").samples(0), "samples, found 0");
}

/// Nulls are a class, NaN of any bits is one, and the two zeros are the same.
#[test]
fn floats_are_classes_by_value() {
    let directory = TempDir::new().expect("a temporary directory");
    let odd_nan = f64::from_bits(f64::NAN.to_bits() | 5);
    let class = |id: i32| match id % 8 {
        0 | 1 => None,
        2 => Some(f64::NAN),
        3 => Some(-odd_nan),
        4 => Some(0.0),
        5 => Some(-0.0),
        _ => Some(1.5),
    };
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int32Array::from_iter_values(0..80))),
        ("class", Arc::new(Float64Array::from_iter((0..80).map(class)))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, own)| (name, own, true)));
    write_file(
        &directory.path().join("0.parquet"),
        &batch.expect("a batch"),
        &Layout::default(),
    );
    let drawn = ids(reader(&directory).sampler(Sampler::balanced("class").replacement(false)));
    assert_eq!(sorted(drawn), (0..80).collect::<Vec<_>>());
    let drawn = ids(reader(&directory).sampler(Sampler::balanced("class").replacement(false).samples(40)));
    for pair in 0..4 {
        assert_eq!(
            drawn.iter().filter(|id| *id % 8 / 2 == pair).count(),
            10,
            "class {pair}"
        );
    }
    let refused = error(reader(&directory).sampler(Sampler::weighted("class")).build()).to_string();
    assert!(
        refused.contains("found Null") && refused.contains("row 0") && refused.contains("0.parquet"),
        "{refused}"
    );
}

/// What is drawn from is what filters leave, and the number of samples is counted from it.
#[test]
fn samplers_draw_from_what_is_selected() {
    let directory = labelled();
    let some = || {
        let predicate = Predicate::in_lambda(["id"], |row| Ok((90..130).contains(&row.int("id")?)));
        reader(&directory).predicate(predicate)
    };
    for sampler in [Sampler::balanced("label"), Sampler::weighted("weight")] {
        let drawn = ids(some().sampler(sampler));
        assert_eq!(drawn.len(), 40);
        assert!(drawn.iter().all(|id| (90..130).contains(id)));
    }
    let drawn = ids(some().sampler(Sampler::balanced("label").replacement(false)));
    assert_eq!(drawn.len(), 8);
    // Rows of which none has a weight.
    let zeros = Predicate::in_lambda(["weight"], |row| Ok(row["weight"].as_f64() == Some(0.0)));
    let refused = error(
        reader(&directory)
            .predicate(zeros)
            .sampler(Sampler::weighted("weight"))
            .build(),
    );
    assert!(refused.to_string().contains("no row has a weight above 0"), "{refused}");
    let five = Sampler::weighted("weight").replacement(false).samples(37);
    let refused = error(some().sampler(five).build()).to_string();
    assert!(refused.contains("at most 36 samples"), "{refused}");
}

/// The classes are the directories, the weights their names.
#[test]
fn partition_columns_are_classes_and_weights() {
    let layout = Layout {
        files: vec![90, 10, 20],
        ..Layout::default()
    };
    let table = Table::write_partitioned("part", &["0", "1", "2"], &layout);
    let part = |id: &i32| match id {
        0..90 => 0,
        90..100 => 1,
        _ => 2,
    };
    let count = |drawn: &[i32], own| drawn.iter().filter(|id| part(id) == own).count();
    let builder = || make_batch_reader(table.url());
    let drawn = ids(builder().sampler(Sampler::balanced("part").replacement(false)));
    assert_eq!([0, 1, 2].map(|own| count(&drawn, own)), [10, 10, 10]);
    let drawn = ids(builder().sampler(Sampler::weighted("part").samples(500)));
    // 10 rows of weight 1 and 20 of weight 2.
    let counts = [0, 1, 2].map(|own| count(&drawn, own));
    assert!(counts[0] == 0 && (60..=140).contains(&counts[1]), "{counts:?}");
}

#[test]
fn draws_that_do_not_fit_memory_are_errors() {
    let directory = labelled();
    let refuse = |samples| {
        error(
            reader(&directory)
                .sampler(Sampler::balanced("label").samples(samples))
                .build(),
        )
        .to_string()
    };
    assert!(refuse(1 << 58).contains("expected a sampler of 1 to"));
    assert!(refuse(u64::MAX).contains("expected a sampler of 1 to"));
}

/// A row is delivered in each of its windows.
#[test]
fn windows_say_where_their_rows_are() {
    let directory = timed(16);
    let pairs = NGram::new([(0, ["id"]), (1, ["id"])], "id", 4);
    let reader = reader(&directory).ngram(pairs).build().expect("a reader");
    let times = |row| reader.where_is("0.parquet", 0, row).expect("an answer").len();
    // The ids are 0, 3, 8, 10, 11, 20, 23.
    assert_eq!((0..7).map(times).collect::<Vec<_>>(), [1, 1, 1, 2, 1, 1, 1]);
}

/// The timestamps of Petastorm's own test: 0, 3, 8, 10, 11, 20, 23, and a column of the same in microseconds.
fn timed(row_group: usize) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    let id = vec![0i64, 3, 8, 10, 11, 20, 23];
    let x: Vec<_> = id.iter().map(|id| *id as i32).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from(id.clone()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(id).with_timezone("UTC"))),
        ("x", Arc::new(Int32Array::from(x))),
    ];
    let layout = Layout {
        row_group,
        ..Layout::default()
    };
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    write_file(&directory.path().join("0.parquet"), &batch, &layout);
    directory
}

fn windows(directory: &TempDir, ngram: NGram) -> Vec<Vec<i64>> {
    let reader = make_reader(directory.path().display().to_string())
        .shuffle(Shuffle::None)
        .ngram(ngram);
    let windows = reader.build().expect("a reader").map(|row| {
        let rows = NGram::split(row.expect("a window")).expect("names of n-grams");
        rows.values().map(|row| row.int("id").expect("an id")).collect()
    });
    windows.collect()
}

#[test]
fn windows_are_those_of_petastorm() {
    let directory = timed(16);
    let ngram = |length: i64| NGram::new((0..length).map(|offset| (offset, ["id"])), "id", 4);
    assert_eq!(windows(&directory, ngram(2)), [[0, 3], [8, 10], [10, 11], [20, 23]]);
    assert_eq!(
        windows(&directory, ngram(2).overlap(false)),
        [[0, 3], [8, 10], [20, 23]]
    );
    assert_eq!(windows(&directory, ngram(3)), [[8, 10, 11]]);
    assert_eq!(windows(&directory, ngram(1)).len(), 7);
    let far = NGram::new([(-1, ["id"]), (1, ["id"])], "at", Duration::from_micros(5));
    assert_eq!(windows(&directory, far), [[0, 8], [3, 10], [8, 11]]);
    // Row groups of four rows: no window reaches over their border.
    assert_eq!(windows(&timed(4), ngram(2)), [[0, 3], [8, 10], [20, 23]]);
    let refuse = |ngram: NGram, expected: &str| {
        let message = error(reader(&directory).ngram(ngram).build()).to_string();
        assert!(message.contains(expected), "{message}");
    };
    refuse(
        NGram::new([(0, ["id"]), (1, ["id"])], "id", 0.5),
        "no 2 rows of a row group are an n-gram",
    );
    refuse(
        NGram::new([(0, ["id"])], "at", 4),
        "expected a threshold that is a duration",
    );
    refuse(
        NGram::new([(0, ["id"])], "id", Duration::from_secs(1)),
        "expected a threshold that is a number",
    );
    refuse(NGram::new([(0, ["nope"])], "id", 4), "\"nope\" matches no column");
    refuse(
        NGram::new([(0, ["id"]), (i64::MAX, ["id"])], "id", 4),
        "at most 10000 rows",
    );
    refuse(NGram::new(Vec::<(i64, [&str; 0])>::new(), "id", 4), "no offset");
}

#[test]
fn rows_that_are_not_sorted_are_no_ngrams() {
    let directory = TempDir::new().expect("a temporary directory");
    let columns: [(&str, ArrayRef); 1] = [("id", Arc::new(Int64Array::from(vec![1, 2, 5, 4])))];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    write_file(&directory.path().join("0.parquet"), &batch, &Layout::default());
    let message = error(reader(&directory).ngram(NGram::new([(0, ["id"])], "id", 9)).build()).to_string();
    assert!(
        message.contains("sorted by it") && message.contains("row 3") && message.contains("0.parquet"),
        "{message}"
    );
}

/// Fields by pattern, offset by offset; filters before, transforms row by row; batches, ranks, states as ever.
#[test]
fn windows_are_rows_to_the_rest() {
    let directory = labelled();
    let ngram = NGram::new(
        [(-1, vec!["id", "pay.*"]), (0, vec!["id"]), (2, vec!["twice"])],
        "id",
        3,
    );
    let spec = TransformSpec::per_row(|row| {
        let id = row.int("id")?;
        assert_eq!(row["payload"].as_str(), Some(format!("row {id}").as_str()));
        row.set("twice", 2 * id);
        Ok(())
    });
    let builder = || {
        let reader = reader(&directory).transform(spec.clone().edit(Field::scalar("twice", DType::Int64)));
        reader.ngram(ngram.clone()).global_batch(12).seed(1).epochs(2)
    };
    let read = |world_size| {
        let mut found = BTreeMap::new();
        for rank in 0..world_size {
            let mut reader = builder().rank(rank, world_size).build().expect("a reader");
            let names: Vec<_> = reader.schema().names().map(str::to_owned).collect();
            assert_eq!(names, ["id/-1", "payload/-1", "id/0", "twice/2"]);
            while let Some(batch) = reader.next_samples() {
                let batch = batch.expect("a batch");
                let ids = |name: &str| {
                    let column = batch.columns.column_by_name(name).expect("ids");
                    column.as_primitive::<Int32Type>().values().to_vec()
                };
                let twice = batch.columns.column_by_name("twice/2").expect("twice");
                let twice = twice.as_primitive::<arrow_array::types::Int64Type>();
                for (i, (first, next)) in ids("id/-1").into_iter().zip(ids("id/0")).enumerate() {
                    assert_eq!((next, twice.value(i)), (first + 1, 2 * i64::from(first + 3)));
                    assert!(found.insert((batch.ids[i].epoch, batch.ids[i].sample), first).is_none());
                }
            }
        }
        found
    };
    let alone = read(1);
    // Row groups of 16 rows have 13 windows of 4 rows: 12 of them in the first file and 8 rows more, 6 and 4 in the second.
    assert_eq!(alone.len(), 2 * (12 * 13 + 5 + 6 * 13 + 1));
    assert_eq!(read(3), alone);
    let plain = NGram::new([(0, ["id"]), (1, ["id"])], "id", 2);
    let filtered = reader(&directory).ngram(plain).shuffle(Shuffle::None);
    #[cfg(feature = "filter")]
    {
        let filtered = batches_of(filtered.filter("id % 2 = 0"));
        assert!(
            filtered
                .iter()
                .all(|(first, next)| first % 2 == 0 && *next == first + 2)
        );
        assert_eq!(filtered.len(), 12 * 7 + 3 + 6 * 7 + 1);
    }
    #[cfg(not(feature = "filter"))]
    drop(filtered);
}

#[cfg(feature = "filter")]
fn batches_of(builder: ReaderBuilder<BatchReader>) -> Vec<(i32, i32)> {
    let reader = builder.build().expect("a reader");
    let mut pairs = Vec::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        let ids = |i: usize| batch.column(i).as_primitive::<Int32Type>().values().to_vec();
        pairs.extend(ids(0).into_iter().zip(ids(1)));
    }
    pairs
}
