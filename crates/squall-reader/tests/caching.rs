//! Readers with a local cache: what they fetch of a store in memory, and that they read what is there.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::{DatasetUrl, Store};
use squall_reader::{
    BatchReader, CacheMetrics, CacheOptions, ReaderBuilder, Remainder, make_batch_reader, make_dataset,
};
use squall_schema::ByteSize;
use squall_testkit::{Layout, write_file};
use tempfile::TempDir;

const FILES: usize = 4;
const ROWS: usize = 640;
/// Bytes of a row.
const BYTES: usize = 1000;

/// A data set in memory.
struct Setting {
    url: String,
    row_group: usize,
    directory: TempDir,
}

fn rows(file: usize, from: u8) -> RecordBatch {
    let ids = (file * ROWS..(file + 1) * ROWS).map(|id| id as i32);
    let noise = |id: i32| (0..BYTES as u32).map(move |i| (i.wrapping_mul(id as u32 * 2 + 1) >> 3) as u8 ^ from);
    let cells: BinaryArray = ids.clone().map(|id| Some(noise(id).collect::<Vec<u8>>())).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int32Array::from_iter_values(ids))),
        ("cell", Arc::new(cells)),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

impl Setting {
    fn new(name: &str) -> Self {
        Self::of(name, 20)
    }

    /// With so many rows a row group.
    fn of(name: &str, row_group: usize) -> Self {
        let setting = Self {
            row_group,
            url: format!("memory://{name}/train"),
            directory: tempfile::tempdir().expect("a directory"),
        };
        (0..FILES).for_each(|file| setting.put(file, 0));
        setting
    }

    fn put(&self, file: usize, from: u8) {
        let layout = Layout {
            row_group: self.row_group,
            page: 20,
            ..Layout::default()
        };
        let path = self.directory.path().join("part.parquet");
        write_file(&path, &rows(file, from), &layout);
        let bytes = std::fs::read(path).expect("a file");
        let store = Store::create(&DatasetUrl::parse(&self.url).expect("a URL")).expect("a store");
        let name = Path::from(format!("part-{file}.parquet"));
        let put = store.objects().put(&name, bytes.into());
        tokio::runtime::Runtime::new()
            .expect("a runtime")
            .block_on(put)
            .expect("put");
    }

    fn options(&self, limit: u64) -> CacheOptions {
        CacheOptions::new(self.directory.path().join("cache"), limit).with_local_stores()
    }

    fn reader(&self, limit: u64) -> ReaderBuilder<BatchReader> {
        let reader = make_batch_reader(&self.url).local_cache_with(self.options(limit));
        reader.seed(3).lanes(8).window(32).batch_size(32)
    }
}

fn metrics(reader: &BatchReader) -> CacheMetrics {
    reader.dataset().store().cache().expect("a cache").metrics()
}

/// The ids of the batches, in order, after a look at every cell.
fn read(reader: &mut BatchReader, batches: usize, from: u8) -> Vec<i32> {
    let mut ids = Vec::new();
    for _ in 0..batches {
        let Some(batch) = reader.next_samples() else {
            break;
        };
        let columns = batch.expect("a batch").columns;
        let own = columns.column_by_name("id").expect("ids").as_primitive::<Int32Type>();
        let cells = columns.column_by_name("cell").expect("cells").as_binary::<i32>();
        for (id, cell) in own.values().iter().zip(cells) {
            let first = cell.expect("a cell")[8];
            assert_eq!(first, ((8 * (*id as u32 * 2 + 1)) >> 3) as u8 ^ from);
        }
        ids.extend(own.values());
    }
    ids
}

const ALL: usize = usize::MAX;

#[test]
fn the_second_epoch_needs_no_store() {
    let setting = Setting::new("second-epoch");
    let mut plain = make_batch_reader(&setting.url)
        .seed(3)
        .lanes(8)
        .window(32)
        .batch_size(32)
        .epochs(2)
        .build()
        .expect("a reader");
    let mut reader = setting.reader(1 << 24).epochs(2).build().expect("a reader");
    let steps = FILES * ROWS / 32;
    assert_eq!(read(&mut reader, steps, 0), read(&mut plain, steps, 0));
    let first = metrics(&reader);
    assert!(first.miss_bytes > (FILES * ROWS * BYTES) as u64, "{first:?}");
    assert_eq!(read(&mut reader, ALL, 0), read(&mut plain, ALL, 0));
    let second = metrics(&reader);
    // The windows behind the first epoch's end were fetched before it ended, perhaps.
    assert_eq!(second.misses, first.misses, "{second:?}");
    assert_eq!((second.failures, second.damaged, second.evictions), (0, 0, 0));
    // Another run, and rows by their index.
    let dataset = make_dataset(&setting.url)
        .local_cache_with(setting.options(1 << 24))
        .build()
        .expect("a dataset");
    drop((reader, plain));
    assert_eq!(dataset.take(&[700, 5, 2000]).expect("rows").num_rows(), 3);
    let mut again = setting.reader(1 << 24).seed(4).build().expect("a reader");
    assert_eq!(read(&mut again, ALL, 0).len(), FILES * ROWS);
    assert_eq!(metrics(&again).misses, first.misses);
}

/// A cache of half the data gives nearly half of each later epoch, to a reader alone and to ranks that share it.
#[test]
fn half_a_cache_serves_half_of_an_epoch() {
    for world_size in [1, 2, 4] {
        let setting = Setting::new(&format!("half-{world_size}"));
        let data = (FILES * ROWS * BYTES) as u64;
        let epochs = 4;
        let reader = |rank| {
            // What is read ahead is a small part of the data, as it is of a real data set.
            let reader = setting
                .reader(data / 2)
                .lanes(4)
                .window(8)
                .prefetch(1)
                .batch_size(32 / world_size);
            let reader = reader.rank(rank, world_size).remainder(Remainder::Drop);
            reader.epochs(epochs).build().expect("a reader")
        };
        let mut readers: Vec<_> = (0..world_size).map(reader).collect();
        let mut n = 0;
        // In lock-step, as ranks are.
        loop {
            let ids: Vec<_> = readers.iter_mut().map(|reader| read(reader, 1, 0).len()).collect();
            n += ids.iter().sum::<usize>();
            if ids[0] == 0 {
                break;
            }
        }
        assert_eq!(n, FILES * ROWS * epochs as usize);
        let metrics = metrics(&readers[0]);
        let served = metrics.hit_bytes as f64 / (metrics.hit_bytes + metrics.miss_bytes) as f64;
        println!(
            "{world_size} ranks: {:.3} of the bytes from the cache in {epochs} epochs, {metrics:?}",
            served
        );
        // Three of four epochs have half of their data there; the entries' headers and whole blocks take some room.
        assert!(
            served > 0.31,
            "{served} of the bytes for {world_size} ranks: {metrics:?}"
        );
        assert_eq!((metrics.failures, metrics.damaged), (0, 0));
    }
}

/// Row groups that are read in slices, or as streams where their files have no page index.
#[test]
fn row_groups_larger_than_the_budget_are_kept_in_slices() {
    let setting = Setting::of("slices", 320);
    let reader = |limit: u64| {
        let reader = setting.reader(limit).lanes(2).window(8).prefetch(1).workers(1);
        reader
            .slice_size(ByteSize::kib(96))
            .epochs(3)
            .build()
            .expect("a reader")
    };
    let mut whole = reader(1 << 24);
    let ids = read(&mut whole, ALL, 0);
    assert_eq!(ids.len(), 3 * FILES * ROWS);
    let counted = metrics(&whole);
    let data = (FILES * ROWS * BYTES) as u64;
    println!("all: {counted:?}");
    assert!(counted.miss_bytes < data + data / 10, "{counted:?}");
    // More entries than row groups.
    assert!(counted.entries > 2 * (FILES * ROWS / 320) as u64, "{counted:?}");
    drop(whole);
    std::fs::remove_dir_all(setting.directory.path().join("cache")).expect("removed");
    let mut half = reader(data / 2);
    assert_eq!(read(&mut half, ALL, 0), ids);
    let counted = metrics(&half);
    let served = counted.hit_bytes as f64 / (counted.hit_bytes + counted.miss_bytes) as f64;
    println!("half: {served:.3} of the bytes from the cache in 3 epochs, {counted:?}");
    // Two of three epochs could have half; what two lanes read ahead is a third of the cache here.
    assert!(served > 0.15, "{served}, {counted:?}");
}

#[test]
fn a_file_that_is_replaced_is_never_served_from_the_cache() {
    let setting = Setting::new("replaced");
    let mut before = setting.reader(1 << 24).build().expect("a reader");
    assert_eq!(read(&mut before, ALL, 0).len(), FILES * ROWS);
    let missed = metrics(&before).misses;
    (0..FILES).for_each(|file| setting.put(file, 0xff));
    // A new run reads the new files, cell by cell.
    let mut after = setting.reader(1 << 24).build().expect("a reader");
    assert_eq!(read(&mut after, ALL, 0xff).len(), FILES * ROWS);
    assert!(metrics(&after).misses >= 2 * missed);
    // One that goes on gets none of the new bytes under the old name.
    let mut reader = setting
        .reader(1 << 20)
        .shuffle(squall_reader::Shuffle::None)
        .epochs(2)
        .build()
        .expect("a reader");
    assert_eq!(read(&mut reader, 10, 0xff).len(), 320);
    (0..FILES).for_each(|file| setting.put(file, 0));
    let error = loop {
        match reader.next_samples() {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("expected an error"),
        }
    };
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[test]
fn local_stores_are_not_cached_unless_asked() {
    let setting = Setting::new("not-cached");
    let directory = setting.directory.path().join("cache");
    let mut reader = make_batch_reader(&setting.url)
        .local_cache(&directory, ByteSize::mib(16))
        .build()
        .expect("a reader");
    assert!(reader.dataset().store().cache().is_none());
    assert_eq!(read(&mut reader, ALL, 0).len(), FILES * ROWS);
    let error = crate::error(
        make_batch_reader(&setting.url)
            .local_cache(&directory, ByteSize::new(1))
            .build(),
    );
    assert!(
        error
            .to_string()
            .starts_with("expected a limit of the local cache of at least"),
        "{error}"
    );
}
