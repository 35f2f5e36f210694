//! Readers that keep their rows in memory: everything is as without it, and nothing is read twice.

use std::fs::File;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Float32Array, Int32Array, RecordBatch, StringArray};
use chacha20::rand_core::Rng;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use squall_reader::{
    BadRow, BatchReader, ImageSpec, NGram, OnBadRow, Partition, ReaderBuilder, Remainder, Sampler, Shuffle,
    TransformSpec, make_batch_reader, make_dataset, make_mixed_reader,
};
use squall_schema::codec::{Codec, encode_value};
use squall_schema::petastorm::{UNISCHEMA_KEY, write::unischema_pickle};
use squall_schema::{ByteSize, DType, ErrorKind, Field, RowId, Schema, Shape, Tensor, Value};
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::error;

type Reader = ReaderBuilder<BatchReader>;

/// Epoch, step, columns, identities and bad rows of a batch.
type Told = (u64, u64, RecordBatch, Vec<RowId>, Vec<BadRow>);

/// All that a reader gives: batches, the error that ends them, and where it stands behind each of them.
#[derive(Debug, PartialEq)]
struct Given {
    batches: Vec<Told>,
    states: Vec<String>,
    error: Option<String>,
}

fn all(reader: Reader) -> Given {
    let mut reader = reader.build().expect("a reader");
    let mut given = Given {
        batches: Vec::new(),
        states: Vec::new(),
        error: None,
    };
    while let Some(batch) = reader.next_samples() {
        match batch {
            Ok(batch) => {
                given
                    .batches
                    .push((batch.epoch, batch.step, batch.columns, batch.ids, batch.bad_rows));
                given.states.push(reader.state().to_json());
            }
            Err(error) => given.error = Some(error.to_string()),
        }
    }
    given
}

/// What the builder gives, with its rows in memory and without; it must be the same.
fn check(what: &str, build: impl Fn(fn(Reader) -> Reader) -> Reader) -> Given {
    let plain = all(build(|reader| reader));
    let kept = all(build(Reader::in_memory));
    assert_eq!(plain.error, kept.error, "{what}");
    assert_eq!(plain.batches.len(), kept.batches.len(), "{what}");
    for (plain, kept) in plain.batches.iter().zip(&kept.batches) {
        assert_eq!(plain, kept, "{what}");
    }
    assert_eq!(plain.states, kept.states, "{what}");
    kept
}

const ROWS: usize = 90;

fn fields() -> Vec<Field> {
    let cell = |name, dtype, shape, codec| Field::new(name, dtype, shape).with_codec(Some(codec));
    vec![
        Field::scalar("id", DType::Int32),
        Field::scalar("a", DType::Float32),
        Field::scalar("b", DType::Float32),
        Field::scalar("name", DType::Str).with_nullable(true),
        cell("small", DType::Float32, Shape::fixed(&[3]), Codec::Ndarray),
        cell("large", DType::UInt16, Shape::fixed(&[20, 15]), Codec::Ndarray).with_nullable(true),
        cell("mask", DType::Bool, Shape::fixed(&[5]), Codec::CompressedNdarray),
        cell("ragged", DType::Float64, Shape(vec![None]), Codec::Ndarray),
        cell("picture", DType::UInt8, Shape(vec![None, None, Some(3)]), Codec::Png),
        cell("square", DType::UInt8, Shape::fixed(&[8, 8]), Codec::Png),
    ]
}

fn tensor(id: usize, name: &str) -> Option<Tensor> {
    let of = |dims: &[usize], values: Vec<u8>| Tensor::from_vec(dims, values);
    let made = match name {
        "small" => Tensor::from_vec(&[3], vec![id as f32, 1.5, -(id as f32)]),
        "large" if id.is_multiple_of(6) => return None,
        "large" => Tensor::from_vec(&[20, 15], (0..300).map(|i| (i + id) as u16).collect()),
        "mask" => Tensor::new(DType::Bool, vec![5], (0..5).map(|i| (id >> i) as u8 & 1).collect()),
        "ragged" => Tensor::from_vec(&[id % 4], (0..id % 4).map(|i| (i * id) as f64).collect()),
        "picture" => of(
            &[9 + id % 3, 8, 3],
            (0..(9 + id % 3) * 24).map(|i| (i + id) as u8).collect(),
        ),
        _ => of(&[8, 8], (0..64).map(|i| (i * 3 + id) as u8).collect()),
    };
    Some(made.expect("a tensor"))
}

/// Cells of many kinds, with the Unischema of Petastorm. Those of `bad`, column and row, are cut.
fn petastorm(bad: &[(&str, usize)]) -> TempDir {
    let schema = Schema::new(fields()).expect("a schema");
    let ids = || (0..ROWS).map(|id| id as f32);
    let name = |id: usize| (!id.is_multiple_of(7)).then(|| format!("a name that is longer than a view {id}"));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from_iter_values(0..ROWS as i32))),
        ("a", Arc::new(Float32Array::from_iter_values(ids().map(|id| id * 0.5)))),
        ("b", Arc::new(Float32Array::from_iter_values(ids().map(|id| id * -2.0)))),
        ("name", Arc::new(StringArray::from_iter((0..ROWS).map(name)))),
    ];
    for field in &schema.fields()[4..] {
        let cell = |id| {
            let mut cell = encode_value(&Value::Tensor(tensor(id, &field.name)?), field).expect("a cell");
            if bad.contains(&(field.name.as_str(), id)) {
                cell.truncate(cell.len() / 2);
            }
            Some(cell)
        };
        columns.push((&field.name, Arc::new(BinaryArray::from_iter((0..ROWS).map(cell)))));
    }
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let directory = TempDir::new().expect("a temporary directory");
    let pickle = KeyValue::new(
        UNISCHEMA_KEY.to_owned(),
        unischema_pickle("T", &schema).expect("a pickle"),
    );
    for (name, keys, rows) in [
        ("part-0.parquet", None, batch.clone()),
        ("_common_metadata", Some(vec![pickle]), batch.slice(0, 0)),
    ] {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(20))
            .set_key_value_metadata(keys)
            .build();
        let file = File::create(directory.path().join(name)).expect("a new file");
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).expect("a writer");
        writer.write(&rows).expect("rows written");
        writer.close().expect("a footer written");
    }
    directory
}

fn reader(url: impl std::fmt::Display) -> Reader {
    make_batch_reader(url.to_string())
        .seed(5)
        .epochs(2)
        .lanes(4)
        .window(7)
        .workers(2)
}

const MODES: [Shuffle; 3] = [Shuffle::None, Shuffle::Windows, Shuffle::Full];

#[test]
fn every_rank_gets_what_it_gets_without_it() {
    let table = Table::write(&Layout::default());
    for mode in MODES {
        for (world, remainder) in [(1, Remainder::Keep), (3, Remainder::Pad), (2, Remainder::Drop)] {
            for rank in 0..world {
                check(&format!("{mode:?}, {rank} of {world}"), |keep| {
                    let reader = reader(table.url()).rank(rank, world).global_batch(world * 11);
                    keep(reader.shuffle(mode).remainder(remainder))
                });
            }
        }
    }
    for rank in 0..2 {
        check("row groups", |keep| {
            keep(reader(table.url()).rank(rank, 2).partition(Partition::RowGroups))
        });
    }
}

#[test]
fn cells_of_every_kind_are_the_same() {
    let table = petastorm(&[]);
    let url = table.path().display();
    for mode in MODES {
        let given = check(&format!("{mode:?}"), |keep| {
            keep(reader(url.to_string()).shuffle(mode).batch_size(16))
        });
        assert_eq!(given.batches.len(), 12);
        let views = ImageSpec::new().random_crop(6, 6).horizontal_flip(0.5);
        check(&format!("views and packs, {mode:?}"), |keep| {
            let reader = reader(url.to_string()).shuffle(mode).pack("ab", ["b", "a"]);
            let reader = reader
                .image("picture", views.clone())
                .keep_encoded(|field| field.name == "square");
            keep(reader.transform(TransformSpec::per_row_with_rng(|row, rng| {
                let id = row.int("id")?;
                row.set("id", id as i32 + (rng.next_u32() % 1000) as i32);
                Ok(())
            })))
        });
    }
}

#[test]
fn rows_are_chosen_as_without_it() {
    let table = Table::write(&Layout::default());
    check("some rows", |keep| {
        keep(reader(table.url()).rows(3..9).rows(30..77).skip(4).columns(["x", "id"]))
    });
    #[cfg(feature = "filter")]
    check("a clause", |keep| {
        keep(reader(table.url()).filter("id % 3 = 1 AND name IS NOT NULL"))
    });
    let cells = petastorm(&[]);
    for mode in MODES {
        check("draws", |keep| {
            let sampler = Sampler::weighted("a").samples(70);
            keep(
                reader(cells.path().display())
                    .sampler(sampler)
                    .shuffle(mode)
                    .batch_size(9),
            )
        });
    }
}

#[test]
fn it_goes_on_where_another_stood() {
    let table = petastorm(&[]);
    let url = table.path().display().to_string();
    for mode in MODES {
        let mut plain = reader(&url).shuffle(mode).batch_size(12).build().expect("a reader");
        for _ in 0..11 {
            plain.next_samples().expect("a batch").expect("rows");
        }
        let state = plain.state();
        let given = check(&format!("{mode:?}"), |keep| {
            keep(reader(&url).resume(state.clone()).batch_size(5))
        });
        assert_eq!(
            given.batches.iter().map(|batch| batch.3.len()).sum::<usize>(),
            180 - 90 - 3 * 12
        );
    }
}

#[test]
fn bad_cells_fail_or_are_skipped_where_they_were() {
    let bad = [
        ("picture", 71),
        ("small", 40),
        ("square", 41),
        ("square", 12),
        ("ragged", 12),
        ("small", 44),
    ];
    let table = petastorm(&bad);
    let url = table.path().display().to_string();
    for mode in MODES {
        let failed = check(&format!("fail, {mode:?}"), |keep| {
            keep(reader(&url).shuffle(mode).batch_size(10))
        });
        assert!(failed.error.is_some());
        let skipped = check(&format!("skip, {mode:?}"), |keep| {
            keep(reader(&url).shuffle(mode).on_bad_row(OnBadRow::Skip { at_most: 100 }))
        });
        assert_eq!(skipped.batches.iter().map(|batch| batch.4.len()).sum::<usize>(), 2 * 5);
        assert!(skipped.error.is_none());
    }
    // A row group without a good cell.
    let all: Vec<_> = (20..40).map(|id| ("square", id)).collect();
    let table = petastorm(&all);
    check("a bad row group", |keep| {
        let reader = reader(table.path().display()).on_bad_row(OnBadRow::Skip { at_most: 1000 });
        keep(reader.shuffle(Shuffle::Full))
    });
    check("windows of bad rows", |keep| keep(reader(table.path().display())));
}

#[test]
fn each_dataset_of_a_mixture_is_kept_or_not() {
    let (one, other) = (Table::write(&Layout::default()), Table::write(&Layout::default()));
    for both in [false, true] {
        let mix = |keep: fn(Reader) -> Reader| {
            let member = |table: &Table| make_batch_reader(table.url()).lanes(3).window(8);
            let second = match both {
                true => keep(member(&other)),
                false => member(&other),
            };
            let reader = make_mixed_reader([(keep(member(&one)), 0.7), (second, 0.3)]);
            reader.seed(3).epochs(2).batch_size(10)
        };
        assert_eq!(all(mix(|reader| reader)), all(mix(Reader::in_memory)));
    }
    let whole = make_mixed_reader([(make_batch_reader(one.url()), 1.0)]).in_memory();
    let text = error(whole.build()).to_string();
    assert!(text.contains("the rows in memory concerns a dataset"), "{text}");
}

#[test]
fn files_are_read_once() {
    let table = Table::write(&Layout::default());
    let mut reader = reader(table.url()).epochs(3).in_memory().build().expect("a reader");
    let fetched = reader.metrics().bytes_fetched;
    assert!(fetched > 0);
    table
        .files()
        .iter()
        .for_each(|file| std::fs::remove_file(file).expect("a file"));
    let mut rows = 0;
    while let Some(batch) = reader.next_samples() {
        rows += batch.expect("a batch").columns.num_rows();
    }
    assert_eq!(rows, 3 * table.n_rows());
    let metrics = reader.metrics();
    assert_eq!(metrics.bytes_fetched, fetched);
    assert!(metrics.memory.in_use > 120 * 4);
}

#[test]
fn what_does_not_fit_is_said_with_numbers() {
    let cells = petastorm(&[]);
    let url = cells.path().display().to_string();
    let check = |reader: Reader, parts: &[&str]| {
        let error = error(reader.in_memory().build());
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for part in parts {
            assert!(error.to_string().contains(part), "{part:?} is not in {error}");
        }
    };
    let budget = |bytes| {
        reader(&url)
            .memory_budget(ByteSize::new(bytes))
            .batch_size(1)
            .columns(["id", "large"])
    };
    check(
        budget(40_000),
        &[
            "90 selected rows",
            "at least 54720 bytes",
            "budget of 40000 bytes",
            "more memory",
        ],
    );
    check(
        budget(1000),
        &[
            "too small: expected at least 1380, for two batches of 1 rows of 604 bytes take 1208",
            "or smaller batches",
        ],
    );
    // What is ragged is known when it comes.
    let ragged = reader(&url)
        .columns(["name"])
        .memory_budget(ByteSize::new(5000))
        .batch_size(1);
    check(ragged, &["90 selected rows", "more than ", "budget of 5000 bytes"]);
    budget(200_000).in_memory().build().expect("a reader");

    let ngram = NGram::new([(0, ["id"]), (1, ["id"])], "id", 1);
    let error = |reader: Reader| error(reader.build()).to_string();
    assert!(error(reader(&url).ngram(ngram).in_memory()).contains("n-gram"));
    let text = crate::error(make_dataset(&url).in_memory().build()).to_string();
    assert!(text.contains("the rows in memory concerns readers"), "{text}");
}

#[test]
fn row_groups_are_read_in_parts() {
    // Text that does not compress: more than a part of a small budget.
    let directory = TempDir::new().expect("a temporary directory");
    let n = 6000;
    let noise = |id: i32| {
        let byte = move |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(id as u32 * 40_503) >> 13) as u8;
        (0..500).map(byte).collect::<Vec<u8>>()
    };
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int32Array::from_iter_values(0..n))),
        ("cell", Arc::new(BinaryArray::from_iter_values((0..n).map(noise)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    for page_index in [true, false] {
        let layout = Layout {
            row_group: n as usize,
            page: 100,
            page_index,
            ..Layout::default()
        };
        squall_testkit::write_file(&directory.path().join("part.parquet"), &batch, &layout);
        check("one row group", |keep| {
            let reader = reader(directory.path().display()).epochs(1).shuffle(Shuffle::Full);
            keep(reader.batch_size(500).memory_budget(ByteSize::mib(16)))
        });
    }
}
