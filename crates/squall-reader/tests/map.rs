//! Rows by their index, against a reader of the same rows.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field as ArrowField};
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;
use squall_reader::{
    MapDataset, Partition, ReaderBuilder, ReaderState, Remainder, Shuffle, TransformSpec, make_batch_reader,
    make_dataset, make_mixed_reader, make_reader,
};
use squall_schema::codec::{Codec, encode_column};
use squall_schema::columns::column_from_values;
use squall_schema::petastorm::{UNISCHEMA_KEY, write::unischema_pickle};
use squall_schema::{DType, ErrorKind, Field, Schema, Shape, Tensor, Value};
use squall_testkit::{Layout, Table, rows};
use tempfile::TempDir;

use crate::error;

fn build(url: &str) -> MapDataset {
    make_dataset(url).build().expect("a dataset")
}

#[test]
fn it_is_shared_by_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<MapDataset>();
}

/// Tables whose columns have pages of different lengths.
#[derive(Debug, Clone)]
struct Pages {
    row_group: usize,
    /// Rows of a page at most.
    rows: usize,
    /// Bytes of a page at most, about.
    bytes: usize,
    index: bool,
    /// Whether columns have dictionaries, where they make a file smaller; `word` has one in any case.
    dictionaries: bool,
    /// Whether a column has npy cells, and the table a Unischema.
    cells: bool,
}

/// Four pages in each row group of 32 rows, cells among the columns.
const FOUR_PAGES: Pages = Pages {
    row_group: 32,
    rows: 8,
    bytes: 1 << 20,
    index: true,
    dictionaries: false,
    cells: true,
};

fn cell_schema() -> Schema {
    let array = Field::new("array", DType::Float32, Shape::fixed(&[2, 3])).with_codec(Some(Codec::Ndarray));
    let fields = vec![
        Field::scalar("id", DType::Int32),
        Field {
            nullable: true,
            ..Field::scalar("name", DType::Str)
        },
        Field {
            nullable: true,
            ..array
        },
    ];
    Schema::new(fields).expect("a schema")
}

fn array(id: usize) -> Value {
    if id % 5 == 3 {
        return Value::Null;
    }
    let values: Vec<f32> = (0..6).map(|i| (id * 10 + i) as f32).collect();
    Value::Tensor(Tensor::from_vec(&[2, 3], values).expect("a tensor"))
}

/// The rows of the test kit with a struct and words, or with cells.
fn table_rows(ids: std::ops::Range<usize>, cells: bool) -> RecordBatch {
    let base = rows(ids.clone());
    let mut columns: Vec<(ArrowField, ArrayRef)> = base
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .zip(base.columns().iter().cloned())
        .collect();
    if cells {
        columns.pop();
        let field = cell_schema().get("array").expect("a field").clone();
        let values: Vec<_> = ids.map(array).collect();
        let plain = column_from_values(&field.clone().with_codec(None), &values.iter().collect::<Vec<_>>());
        let cells = encode_column(&plain.expect("a column"), &field).expect("cells");
        columns.push((ArrowField::new("array", cells.data_type().clone(), true), cells));
    } else {
        let a: ArrayRef = Arc::new(Int64Array::from_iter(
            ids.clone().map(|id| (id % 3 != 0).then_some(id as i64)),
        ));
        let b: ArrayRef = Arc::new(StringArray::from_iter_values(
            ids.clone().map(|id| "long".repeat(id % 40)),
        ));
        let s = StructArray::from(vec![
            (Arc::new(ArrowField::new("a", DataType::Int64, true)), a),
            (Arc::new(ArrowField::new("b", DataType::Utf8, false)), b),
        ]);
        let word: ArrayRef = Arc::new(StringArray::from_iter_values(
            ids.map(|id| ["red", "green", "blue"][id % 3]),
        ));
        columns.push((ArrowField::new("s", s.data_type().clone(), false), Arc::new(s)));
        columns.push((ArrowField::new("word", DataType::Utf8, false), word));
    }
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns).expect("a batch")
}

fn write(path: &Path, batch: &RecordBatch, pages: &Pages) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(pages.row_group))
        .set_data_page_row_count_limit(pages.rows)
        .set_data_page_size_limit(pages.bytes)
        .set_write_batch_size(pages.rows.min(4))
        .set_dictionary_enabled(pages.dictionaries)
        .set_column_dictionary_enabled("word".into(), true)
        .set_offset_index_disabled(!pages.index)
        .set_statistics_enabled(if pages.index {
            EnabledStatistics::Page
        } else {
            EnabledStatistics::None
        })
        .build();
    let file = File::create(path).expect("a new file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(batch).expect("rows written");
    writer.close().expect("a footer written");
}

/// A table with a file for each length; in directories of a partition column where `parted` says so.
fn table(files: &[usize], pages: &Pages, parted: bool) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    let mut next = 0;
    for (i, n) in files.iter().enumerate() {
        let parent = match parted {
            true => directory
                .path()
                .join(format!("key={}", ["one", "__HIVE_DEFAULT_PARTITION__", "three"][i % 3])),
            false => directory.path().to_owned(),
        };
        fs::create_dir_all(&parent).expect("a directory");
        write(
            &parent.join(format!("part-{i:05}.parquet")),
            &table_rows(next..next + n, pages.cells),
            pages,
        );
        next += n;
    }
    if pages.cells {
        let pickle = unischema_pickle("T", &cell_schema()).expect("a pickle");
        let schema = table_rows(0..1, true).schema();
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new(UNISCHEMA_KEY.to_owned(), pickle)]))
            .build();
        let file = File::create(directory.path().join("_common_metadata")).expect("a new file");
        ArrowWriter::try_new(file, schema, Some(properties))
            .expect("a writer")
            .close()
            .expect("written");
    }
    directory
}

fn url(directory: &TempDir) -> String {
    directory.path().display().to_string()
}

/// All rows, in stored order.
fn whole(reader: ReaderBuilder<squall_reader::BatchReader>) -> RecordBatch {
    let reader = reader.shuffle(Shuffle::None).build().expect("a reader");
    let batches: Vec<_> = reader.map(|batch| batch.expect("a batch")).collect();
    concat_batches(&batches[0].schema(), &batches).expect("one batch")
}

fn pick(whole: &RecordBatch, indices: &[u64]) -> RecordBatch {
    let parts: Vec<_> = indices.iter().map(|index| whole.slice(*index as usize, 1)).collect();
    concat_batches(&whole.schema(), &parts).expect("one batch")
}

#[cfg(feature = "filter")]
fn narrowed<R>(reader: ReaderBuilder<R>, filter: bool) -> ReaderBuilder<R> {
    match filter {
        true => reader.filter("id % 7 < 4 AND id <> 5"),
        false => reader,
    }
}

#[cfg(not(feature = "filter"))]
fn narrowed<R>(reader: ReaderBuilder<R>, _: bool) -> ReaderBuilder<R> {
    reader
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// For any layout, filter and cache, rows by index are those of a reader, one by one and in batches.
    #[test]
    fn rows_by_index_are_those_of_a_reader(
        files in prop::collection::vec(8usize..70, 1..4), row_group in 1usize..40, rows in 1usize..30, bytes in 16usize..400,
        index: bool, dictionaries: bool, cells: bool, parted: bool, filter: bool, per_row: bool, workers in 1usize..4,
        cache in prop::sample::select(vec![0u64, 3_000, 1 << 20]),
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let directory = table(&files, &Pages { row_group, rows, bytes, index, dictionaries, cells }, parted);
        let url = url(&directory);
        let noise = || TransformSpec::per_row_with_rng(|row, rng| {
            use chacha20::rand_core::Rng;
            // The reader's samples are the indices, and its seed the same: so are the numbers.
            row.set("noise", rng.next_u64() as i64);
            Ok(())
        }).edit(Field::scalar("noise", DType::Int64));
        let transform = || if per_row { noise() } else { TransformSpec::new() };
        let expected = whole(narrowed(make_batch_reader(&url), filter).transform(transform()).seed(5));
        let dataset = narrowed(make_dataset(&url), filter).transform(transform()).seed(5).cache_bytes(cache).workers(workers);
        let dataset = dataset.build().expect("a dataset");
        prop_assert_eq!(dataset.len(), expected.num_rows() as u64);
        let wanted: Vec<_> = wanted.iter().map(|index| index.index(expected.num_rows()) as u64).collect();
        let batch = dataset.take_samples(&wanted).expect("rows");
        if wanted.is_empty() {
            prop_assert_eq!((batch.columns.num_rows(), batch.columns.schema()), (0, expected.schema()));
        } else {
            prop_assert_eq!(&batch.columns, &pick(&expected, &wanted));
        }
        prop_assert!(batch.ids.iter().map(|id| id.sample).eq(wanted.iter().copied()));
        // One by one, compared in the same columns.
        let reader = narrowed(make_reader(&url), filter).transform(transform()).seed(5).shuffle(Shuffle::None);
        let stored: Vec<_> = reader.build().expect("a reader").map(|row| row.expect("a row")).collect();
        for index in wanted.iter().take(20) {
            prop_assert_eq!(&dataset.get(*index).expect("a row"), &stored[*index as usize]);
        }
        for (index, row) in (0..).zip(&stored) {
            prop_assert_eq!(&dataset.get(index).expect("a row"), row);
        }
        let all: Vec<_> = (0..dataset.len()).collect();
        prop_assert_eq!(dataset.take(&all).expect("all rows"), expected);
        prop_assert!(dataset.stats().cached_bytes <= cache);
    }
}

/// One row group of numbers and text, in pages of 1,000 rows.
fn large(index: bool) -> (TempDir, u64) {
    let pages = Pages {
        row_group: 40_000,
        rows: 1_000,
        bytes: 1 << 20,
        index,
        dictionaries: false,
        cells: false,
    };
    let directory = table(&[40_000], &pages, false);
    let size = directory
        .path()
        .join("part-00000.parquet")
        .metadata()
        .expect("a file")
        .len();
    (directory, size)
}

#[test]
fn one_row_of_a_large_row_group_costs_its_pages() {
    let (directory, size) = large(true);
    let dataset = build(&url(&directory));
    let row = dataset.get(23_456).expect("a row");
    assert_eq!(row.int("id").expect("an id"), 23_456);
    let fetched = dataset.stats().fetched_bytes;
    assert!(fetched * 20 < size, "{fetched} bytes of {size}");
    // Its neighbours are there already.
    for index in 23_000..24_000 {
        assert_eq!(
            dataset.get(index).expect("a row").int("id").expect("an id"),
            index as i64
        );
    }
    let stats = dataset.stats();
    assert_eq!((stats.fetched_bytes, stats.requests), (fetched, 1));
    assert!(stats.cache_hits >= 1000 && stats.cache_misses > 0, "{stats:?}");
    assert!(!stats.fetching.is_zero() && !stats.decoding.is_zero(), "{stats:?}");
    // A batch of rows of two pages costs two pages.
    let ids = dataset.take(&[1, 30_001, 2, 30_000]).expect("rows");
    assert_eq!(
        ids.column(0).as_primitive::<Int32Type>().values(),
        &[1, 30_001, 2, 30_000]
    );
    assert!(dataset.stats().fetched_bytes < 4 * fetched);
    // One column costs its own pages only.
    let narrow = make_dataset(url(&directory))
        .columns(["id"])
        .build()
        .expect("a dataset");
    narrow.get(0).expect("a row");
    assert!(
        narrow.stats().fetched_bytes * 3 < fetched,
        "{} of {fetched}",
        narrow.stats().fetched_bytes
    );
}

#[test]
fn rows_one_after_the_other_cost_each_page_once() {
    for (index, cache) in [(true, 1 << 20), (true, 64 << 20), (false, 64 << 20)] {
        let (directory, size) = large(index);
        let dataset = make_dataset(url(&directory))
            .cache_bytes(cache)
            .build()
            .expect("a dataset");
        for index in 0..dataset.len() {
            dataset.get(index).expect("a row");
        }
        let stats = dataset.stats();
        assert!(stats.fetched_bytes <= size, "{} bytes of {size}", stats.fetched_bytes);
        assert_eq!(stats.decoded_cells, 40_000 * 5, "a row is decoded once in each column");
        assert!(stats.cached_bytes <= cache);
    }
    // Without a cache a batch costs each page once, too.
    let (directory, size) = large(true);
    let dataset = make_dataset(url(&directory)).cache_bytes(0).build().expect("a dataset");
    dataset
        .take(&(0..dataset.len()).rev().collect::<Vec<_>>())
        .expect("all rows");
    assert!(dataset.stats().fetched_bytes <= size);
    assert_eq!(dataset.stats().cached_bytes, 0);
}

/// Threads that want the same pages at the same time fetch and decode them once.
#[test]
fn eight_threads_read_at_once() {
    for cache in [0, 64 << 20] {
        let (directory, size) = large(true);
        let dataset = make_dataset(url(&directory))
            .cache_bytes(cache)
            .build()
            .expect("a dataset");
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (dataset, next) = (dataset.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let start = next.fetch_add(100, Ordering::Relaxed);
                        if start >= dataset.len() {
                            return;
                        }
                        let wanted: Vec<_> = (start..start + 100).map(|i| i * 7919 % dataset.len()).collect();
                        let batch = dataset.take(&wanted).expect("rows");
                        let ids = batch.column(0).as_primitive::<Int32Type>();
                        assert!(ids.values().iter().map(|id| *id as u64).eq(wanted.iter().copied()));
                        let index = (start + thread * 4999) % dataset.len();
                        assert_eq!(
                            dataset.get(index).expect("a row").int("id").expect("an id"),
                            index as i64
                        );
                    }
                });
            }
        });
        if cache > 0 {
            assert!(dataset.stats().fetched_bytes <= size);
            assert_eq!(dataset.stats().decoded_cells, 40_000 * 5);
        }
    }
}

#[test]
fn a_million_indices_in_one_batch() {
    let (directory, _) = large(true);
    for columns in [&["id"][..], &["word", "id"]] {
        let dataset = make_dataset(url(&directory))
            .columns(columns.iter().copied())
            .build()
            .expect("a dataset");
        let wanted: Vec<_> = (0..1_000_000u64).map(|i| i * 7919 % dataset.len()).collect();
        let batch = dataset.take(&wanted).expect("rows");
        let ids = batch.column_by_name("id").expect("ids").as_primitive::<Int32Type>();
        assert!(ids.values().iter().map(|id| *id as u64).eq(wanted));
    }
}

#[test]
fn a_damaged_page_fails_its_rows_and_no_others() {
    let table = Table::write(&Layout {
        files: vec![60, 60],
        row_group: 30,
        page: 10,
        page_index: true,
    });
    let dataset = build(&table.url());
    let path = &table.files()[1];
    let mut bytes = fs::read(path).expect("a file");
    bytes[4..40].fill(0xff);
    fs::write(path, bytes).expect("written");
    for _ in 0..2 {
        let found = error(dataset.get(61));
        assert_eq!(found.kind(), ErrorKind::Corrupt);
        assert!(
            found.to_string().contains("row group 0") && found.to_string().contains("part-00001.parquet"),
            "{found}"
        );
        assert!(dataset.take(&[0, 119, 60]).is_err());
        assert_eq!(dataset.get(3).expect("a row").int("id").expect("an id"), 3);
        assert_eq!(dataset.take(&[0, 100, 119]).expect("rows").num_rows(), 3);
    }
    // A file that is gone.
    let dataset = make_dataset(table.url()).cache_bytes(0).build().expect("a dataset");
    fs::remove_file(&table.files()[0]).expect("removed");
    let found = error(dataset.get(0));
    assert_eq!(found.kind(), ErrorKind::NotFound);
    assert!(found.to_string().contains("part-00000.parquet"), "{found}");
    assert_eq!(dataset.get(119).expect("a row").int("id").expect("an id"), 119);
}

/// No damage to a footer makes a call hang, or gives a row that is not there.
#[test]
fn flipped_bits_in_a_footer_end_in_rows_or_an_error() {
    let table = Table::write(&Layout {
        files: vec![20],
        row_group: 10,
        ..Layout::default()
    });
    let path = &table.files()[0];
    let bytes = fs::read(path).expect("a file");
    let length = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes"));
    let footer = bytes.len() - 8 - length as usize;
    // The offset index stands before the footer.
    for at in footer - 300..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(path, damaged).expect("written");
        if let Ok(dataset) = make_dataset(table.url()).workers(1).build() {
            let all: Vec<_> = (0..dataset.len().min(1000)).collect();
            if let Ok(batch) = dataset.take(&all) {
                assert_eq!(batch.num_rows(), all.len());
            }
            let _ = dataset.get(0);
        }
    }
}

#[test]
fn the_row_at_fault_is_named() {
    let directory = table(&[40, 100], &FOUR_PAGES, false);
    let failing = TransformSpec::per_row(|row| match row.int("id")? {
        113 => panic!("no 113"),
        _ => Ok(()),
    });
    let dataset = make_dataset(url(&directory))
        .transform(failing)
        .workers(2)
        .build()
        .expect("a dataset");
    let place = "row 9, row group 2, file part-00001.parquet";
    let all: Vec<_> = (0..140).collect();
    for found in [error(dataset.get(113)), error(dataset.take(&all))] {
        assert_eq!(found.kind(), ErrorKind::Transform);
        let found = found.to_string();
        assert!(
            found.contains("no 113") && found.contains("sample 113") && found.contains(place),
            "{found}"
        );
    }
    let found = error(dataset.take(&all)).to_string();
    assert!(found.contains("batch row 113"), "{found}");
    assert_eq!(dataset.take(&all[..113]).expect("rows").num_rows(), 113);
}

#[test]
fn a_closure_over_batches_sees_all_rows_at_once() {
    let directory = table(&[40, 100], &FOUR_PAGES, false);
    let count = TransformSpec::per_batch(|batch| {
        let count: ArrayRef = Arc::new(Int64Array::from(vec![batch.num_rows() as i64; batch.num_rows()]));
        Ok(RecordBatch::try_from_iter([("n", count)]).expect("a batch"))
    })
    .edit(Field::scalar("n", DType::Int64))
    .select(["n"]);
    let dataset = make_dataset(url(&directory))
        .transform(count)
        .workers(3)
        .build()
        .expect("a dataset");
    let all: Vec<_> = (0..140).collect();
    let counts = dataset.take(&all).expect("rows");
    assert_eq!(
        counts
            .column(0)
            .as_primitive::<arrow_array::types::Int64Type>()
            .values(),
        &[140; 140]
    );
    assert_eq!(dataset.get(7).expect("a row").int("n").expect("n"), 1);
}

#[test]
fn random_numbers_are_those_of_epoch_and_index() {
    let table = Table::write(&Layout::default());
    let noise = TransformSpec::per_row_with_rng(|row, rng| {
        use chacha20::rand_core::Rng;
        row.set("id", rng.next_u32() as i32);
        Ok(())
    });
    let first = make_dataset(table.url())
        .transform(noise)
        .seed(1)
        .build()
        .expect("a dataset");
    let (again, second) = (first.clone(), first.at_epoch(1));
    let draw = |dataset: &MapDataset, index| dataset.get(index).expect("a row").int("id").expect("a number");
    assert_eq!(draw(&first, 8), draw(&again, 8));
    assert_ne!(draw(&first, 8), draw(&first, 9));
    assert_ne!(draw(&first, 8), draw(&second, 8));
    assert_eq!(second.get(8).expect("a row").id().epoch, 1);
    let twice = second.take(&[8, 8, 9]).expect("rows");
    let twice = twice.column_by_name("id").expect("ids").as_primitive::<Int32Type>();
    assert_eq!(
        (twice.value(0), i64::from(twice.value(1))),
        (twice.value(1), draw(&second, 8))
    );
}

#[test]
fn wrong_requests_are_named() {
    let table = Table::write(&Layout::default());
    let dataset = build(&table.url());
    assert_eq!((dataset.len(), dataset.is_empty()), (120, false));
    let expected = "expected an index below 120, the number of rows, found 120";
    assert!(error(dataset.get(120)).to_string().contains(expected));
    assert!(error(dataset.take(&[3, 120, 4])).to_string().contains(expected));
    assert!(
        error(dataset.get(u64::MAX))
            .to_string()
            .contains("found 18446744073709551615")
    );
    let check = |builder: ReaderBuilder<MapDataset>, expected: &str| {
        let found = error(builder.build()).to_string();
        assert!(found.contains(expected), "{found}");
    };
    let new = || make_dataset(table.url());
    let state = make_batch_reader(table.url()).build().expect("a reader").state();
    let state: ReaderState = state;
    check(new().rank(0, 2), "the rank concerns readers");
    check(new().rank_from_env(), "the rank");
    check(new().epochs(2), "the number of epochs");
    check(new().endless(), "the number of epochs");
    check(new().shuffle(Shuffle::Full), "the shuffle mode");
    check(new().lanes(2), "the number of lanes");
    check(new().window(2), "the window");
    check(new().batch_size(2), "the batch size");
    check(new().global_batch(2), "the batch size");
    check(new().remainder(Remainder::Drop), "the remainder");
    check(new().partition(Partition::RowGroups), "the partition");
    check(new().prefetch(2), "the prefetch");
    check(new().resume(state), "the state");
    check(make_mixed_reader([(new(), 1.0)]), "a mixture");
    check(new().workers(0), "expected 1 to 4096 workers");
    check(new().columns(["nope"]), "no column \"nope\"");
}

#[test]
fn it_works_inside_a_runtime() {
    let table = Table::write(&Layout::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let dataset = build(&table.url());
        assert_eq!(dataset.get(100).expect("a row").int("id").expect("an id"), 100);
        assert_eq!(dataset.take(&[5, 4]).expect("rows").num_rows(), 2);
    });
}
