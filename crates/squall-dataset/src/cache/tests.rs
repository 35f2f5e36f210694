//! The cache from outside: real files, real processes, every byte compared.

use std::fs;
use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

/// Random bytes, which objects repeat; of no length that anything else has.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..65_521u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
});

/// The bytes of an object in this range.
fn bytes(object: u64, range: &Range<u64>) -> Bytes {
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
    let mut at = ((range.start + object * 7919) % PATTERN.len() as u64) as usize;
    while bytes.len() < bytes.capacity() {
        let n = (PATTERN.len() - at).min(bytes.capacity() - bytes.len());
        bytes.extend_from_slice(&PATTERN[at..at + n]);
        at = 0;
    }
    bytes.into()
}

fn key(object: u64, size: u64) -> ObjectKey {
    ObjectKey::new("s3://bucket", "x.parquet", size, Some(&format!("\"{object}\"")), None).expect("a key")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A cache, and a store that counts what it is asked for.
struct Setting {
    directory: tempfile::TempDir,
    cache: Arc<RangeCache>,
    asked: AtomicUsize,
    asked_bytes: AtomicU64,
}

impl Setting {
    fn new(limit: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            cache: open(directory.path(), limit),
            directory,
            asked: AtomicUsize::new(0),
            asked_bytes: AtomicU64::new(0),
        }
    }

    async fn get_part(
        &self,
        key: &ObjectKey,
        object: u64,
        part: Option<u64>,
        ranges: &[Range<u64>],
    ) -> Vec<Range<u64>> {
        let mut asked = Vec::new();
        let got = self.cache.get_ranges(key, part, ranges, |missing| {
            asked = missing.clone();
            self.asked.fetch_add(1, Ordering::Relaxed);
            let of = missing.iter().map(|range| range.end - range.start).sum();
            self.asked_bytes.fetch_add(of, Ordering::Relaxed);
            async move { Ok(missing.iter().map(|range| bytes(object, range)).collect()) }
        });
        for (range, got) in ranges.iter().zip(got.await.expect("bytes")) {
            assert_eq!(got, bytes(object, range), "{range:?}");
        }
        asked
    }

    fn get(&self, object: u64, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        runtime().block_on(self.get_part(&key(object, 1 << 30), object, None, ranges))
    }

    /// The files of all entries.
    fn entries(&self) -> Vec<PathBuf> {
        files(&self.cache.layout.objects())
    }

    fn reopened(&mut self) -> &Self {
        let limit = self.cache.room.limit();
        // Another directory until the old one is closed.
        let elsewhere = tempfile::tempdir().expect("a directory");
        drop(std::mem::replace(
            &mut self.cache,
            open(elsewhere.path(), MIN_CACHE_LIMIT),
        ));
        self.cache = open(self.directory.path(), limit);
        self
    }
}

fn open(directory: &Path, limit: u64) -> Arc<RangeCache> {
    RangeCache::open(&CacheOptions::new(directory, limit)).expect("a cache")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn on_disk(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .map(|file| fs::metadata(file).map_or(0, |file| file.len()))
        .sum()
}

#[test]
fn what_was_fetched_is_not_fetched_again() {
    let mut setting = Setting::new(1 << 26);
    let ranges = [10..20, 20..4000, 100_000..300_000];
    assert_eq!(setting.get(1, &ranges), ranges);
    assert_eq!(setting.get(1, &ranges), []);
    // Parts, in any order, and what reaches beyond.
    assert_eq!(setting.get(1, &[150_000..150_001, 15..25, 3000..4000]), []);
    assert_eq!(setting.get(1, &[5..15, 3990..4010, 0..0]), [5..10, 4000..4010]);
    assert_eq!(setting.get(1, &[0..100_001, 7..9]), [0..5, 4010..100_000]);
    assert_eq!(setting.get(1, &[0..300_000]), []);
    // Across slots: each is an entry of its own.
    let across = SLOT_BYTES - 10..SLOT_BYTES + 10;
    assert_eq!(
        setting.get(1, std::slice::from_ref(&across)),
        std::slice::from_ref(&across)
    );
    let metrics = setting.cache.metrics();
    assert_eq!((metrics.hits, metrics.misses), (3 + 3 + 1 + 1 + 1, 3 + 2 + 1 + 1));
    assert_eq!((metrics.failures, metrics.damaged, metrics.waits), (0, 0, 0));
    // Another process would see the same.
    let setting = setting.reopened();
    assert_eq!(setting.get(1, &[0..300_000, across]), []);
    assert_eq!(setting.cache.metrics().misses, 0);
    assert_eq!(files(&setting.cache.layout.tmp()), [] as [PathBuf; 0]);
    assert_eq!(files(&setting.cache.layout.claims()), [] as [PathBuf; 0]);
}

#[test]
fn another_version_is_another_object() {
    let setting = Setting::new(1 << 26);
    assert_eq!(setting.get(1, &[0..100]).len(), 1);
    assert_eq!(setting.get(2, &[0..100]).len(), 1);
    assert_eq!(setting.get(1, &[0..100]), []);
    assert_eq!(setting.get(2, &[0..100]), []);
}

#[test]
fn ranges_outside_of_the_object_are_the_stores_concern() {
    let setting = Setting::new(1 << 26);
    let got = runtime().block_on(
        setting
            .cache
            .get_ranges(&key(1, 100), None, &[90..110], |missing| async move {
                assert_eq!(missing, [90..110]);
                Err(Error::corrupt("there is no such range"))
            }),
    );
    assert_eq!(got.expect_err("an error").message(), "there is no such range");
    // A store that gives something else is not believed.
    let got = runtime().block_on(setting.cache.get_ranges(&key(1, 100), None, &[0..10], |_| async {
        Ok(vec![Bytes::from_static(b"short")])
    }));
    assert_eq!(got.expect_err("an error").kind(), ErrorKind::Internal);
    assert_eq!(setting.entries(), [] as [PathBuf; 0]);
}

type Damage = fn(&Path);

#[test]
fn damaged_entries_are_removed_and_fetched_again() {
    let mut setting = Setting::new(1 << 26);
    let whole = 0..200_000u64;
    setting.get(1, std::slice::from_ref(&whole));
    // Whether a process notices that has seen the header before, and does not read it again.
    let damages: [(bool, Damage); 6] = [
        (true, |path| flip(path, 100_000)),
        (false, |path| flip(path, 20)),
        (false, |path| flip(path, 0)),
        (true, |path| truncate(path, 100_000)),
        (true, |path| truncate(path, 0)),
        // What a power failure may leave: the length without the bytes.
        (true, |path| {
            let len = fs::metadata(path).expect("an entry").len();
            truncate(path, 0);
            truncate(path, len);
        }),
    ];
    for (at_once, damage) in damages {
        for reopen in [!at_once, true] {
            let entries = setting.entries();
            assert_eq!(entries.len(), 1);
            damage(&entries[0]);
            if reopen {
                setting.reopened();
            }
            let before = setting.cache.metrics().damaged;
            assert_eq!(
                setting.get(1, std::slice::from_ref(&whole)),
                std::slice::from_ref(&whole)
            );
            assert_eq!(setting.cache.metrics().damaged, before + 1);
            assert_eq!(setting.get(1, std::slice::from_ref(&whole)), []);
        }
    }
    // A sound entry in the place of another one's.
    setting.get(2, &[0..100]);
    let moved = setting
        .entries()
        .into_iter()
        .find(|path| on_disk(std::slice::from_ref(path)) < 1000);
    let moved = moved.expect("the small entry");
    let other = setting
        .entries()
        .into_iter()
        .find(|path| path.parent() != moved.parent())
        .expect("the large one");
    fs::rename(&moved, other.parent().expect("a shelf").join("0-x-moved")).expect("moved");
    setting.reopened();
    assert_eq!(setting.get(2, &[0..100]).len(), 1);
    assert_eq!(setting.get(1, &[0..100]), []);
    assert_eq!(setting.cache.metrics().damaged, 1);
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).expect("an entry");
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn truncate(path: &Path, len: u64) {
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(len))
        .expect("cut");
}

/// Knows parts by number: part `p` is needed after `p` samples; those from 1,000 on never.
struct ByNumber;

impl Foresight for ByNumber {
    fn next_use(&self, _: &ObjectKey, part: Option<u64>) -> Option<NextUse> {
        match part? {
            part @ ..1000 => Some(NextUse::After(part)),
            _ => Some(NextUse::Never),
        }
    }
}

const ENTRY: u64 = 100_000;

/// Reads the entry of a part, and says whether it was fetched.
async fn read_part(setting: &Setting, part: Option<u64>, place: u64) -> bool {
    let range = place * ENTRY..(place + 1) * ENTRY - 2_000;
    let asked = setting
        .get_part(&key(1, 1 << 40), 1, part, std::slice::from_ref(&range))
        .await;
    assert!(asked.is_empty() || asked == [range]);
    !asked.is_empty()
}

#[test]
fn what_is_needed_last_is_evicted() {
    let setting = Setting::new(MIN_CACHE_LIMIT);
    let _registered = setting.cache.register(Arc::new(ByNumber));
    runtime().block_on(async {
        // Ten entries fill it.
        for part in [50, 10, 90, 30, 70, 20, 80, 40, 60, 2000] {
            assert!(read_part(&setting, Some(part), part).await);
        }
        assert_eq!(setting.entries().len(), 10);
        // What is never needed goes first, then what is needed last.
        assert!(read_part(&setting, Some(65), 65).await);
        assert!(!read_part(&setting, Some(90), 90).await);
        assert!(read_part(&setting, Some(5), 5).await);
        for (part, gone) in [(65, false), (5, false), (80, false), (50, false), (2000, true)] {
            assert_eq!(read_part(&setting, Some(part), part).await, gone, "{part}");
        }
        assert_eq!(setting.cache.metrics().refused, 1);
        // Needed later than all that is there, or never: not kept.
        assert!(read_part(&setting, Some(95), 95).await);
        assert!(read_part(&setting, Some(95), 95).await);
        assert!(read_part(&setting, Some(90), 90).await);
    });
    let metrics = setting.cache.metrics();
    assert_eq!((metrics.evictions, metrics.refused), (2, 4));
    assert_eq!(setting.entries().len(), 10);
    assert!(on_disk(&setting.entries()) <= MIN_CACHE_LIMIT);
}

#[test]
fn without_foresight_the_least_recently_used_is_evicted() {
    let mut setting = Setting::new(MIN_CACHE_LIMIT);
    let runtime = runtime();
    runtime.block_on(async {
        for place in 0..10 {
            assert!(read_part(&setting, None, place).await);
        }
        assert!(!read_part(&setting, None, 0).await);
        assert!(read_part(&setting, None, 10).await);
        assert!(!read_part(&setting, None, 0).await);
        assert!(read_part(&setting, None, 1).await);
    });
    // What is left of an earlier run goes before all that this one knows.
    setting.reopened();
    let _registered = setting.cache.register(Arc::new(ByNumber));
    runtime.block_on(async {
        for part in (100..110).chain([2000]) {
            assert!(read_part(&setting, Some(part), part).await);
        }
        for part in 100..110 {
            assert!(!read_part(&setting, Some(part), part).await, "{part}");
        }
    });
}

#[test]
fn a_replaced_version_goes_first() {
    let setting = Setting::new(MIN_CACHE_LIMIT);
    let _registered = setting.cache.register(Arc::new(ByNumber));
    runtime().block_on(async {
        for part in 0..10 {
            assert!(read_part(&setting, Some(part), part).await);
        }
        // Version 2 is needed later than all of version 1 would be, by its parts.
        let ranges = [0..ENTRY - 2_000];
        setting.get_part(&key(2, 1 << 40), 2, Some(999), &ranges).await;
        assert_eq!(setting.get_part(&key(2, 1 << 40), 2, Some(999), &ranges).await, []);
    });
    assert_eq!(setting.cache.metrics().evictions, 1);
}

#[test]
fn calls_for_the_same_bytes_fetch_them_once() {
    let setting = Setting::new(1 << 26);
    runtime().block_on(async {
        let ranges = [0..50_000, SLOT_BYTES..SLOT_BYTES + 50_000];
        let (started, begin) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let (starts, begins) = (&started, &begin);
        let first = setting.cache.get_ranges(&KEY, None, &ranges, |missing| async move {
            starts.notify_one();
            begins.notified().await;
            Ok(missing.iter().map(|range| bytes(1, range)).collect())
        });
        let second = async {
            started.notified().await;
            let second = setting.get_part(&KEY, 1, None, &ranges);
            let release = async {
                until_waiting(&setting).await;
                begin.notify_one();
            };
            futures::future::join(second, release).await.0
        };
        let (first, second) = futures::future::join(first, second).await;
        first.expect("bytes");
        assert_eq!(second, []);
        let metrics = setting.cache.metrics();
        assert_eq!((metrics.waits, metrics.misses, metrics.hits), (1, 2, 2));
    });
}

/// Until a call waits for another one.
async fn until_waiting(setting: &Setting) {
    while setting.cache.metrics().waits == 0 {
        tokio::task::yield_now().await;
    }
}

static KEY: LazyLock<ObjectKey> = LazyLock::new(|| key(1, 1 << 30));

#[test]
fn who_waited_long_enough_fetches_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = CacheOptions::new(directory.path(), 1 << 26).with_patience(Duration::from_millis(5));
    let cache = RangeCache::open(&options).expect("a cache");
    runtime().block_on(async {
        let name = EntryName { slot: 0, part: None };
        let claims = Claims::take(&cache.layout, &KEY, &[name], Duration::ZERO, &AtomicU64::new(0)).await;
        let fetch = |missing: Vec<Range<u64>>| async move { Ok(missing.iter().map(|range| bytes(1, range)).collect()) };
        let got = cache.get_ranges(&KEY, None, &[0..10], fetch).await.expect("bytes");
        assert_eq!(got, [bytes(1, &(0..10))]);
        assert_eq!(cache.metrics().waits, 1);
        drop(claims);
    });
}

/// Row groups beside each other do not wait for each other.
#[test]
fn parts_of_one_slot_are_fetched_side_by_side() {
    let setting = Setting::new(1 << 26);
    runtime().block_on(async {
        let started = tokio::sync::Notify::new();
        let first = setting.cache.get_ranges(&KEY, Some(1), &[0..100], |_| {
            started.notify_one();
            std::future::pending()
        });
        let second = async {
            started.notified().await;
            setting.get_part(&KEY, 1, Some(2), &[100..200]).await
        };
        tokio::select! {
            _ = first => unreachable!("it fetches for ever"),
            asked = second => assert_eq!(asked, [100..200]),
        }
        assert_eq!(setting.cache.metrics().waits, 0);
    });
}

/// A call that is dropped while it fetches holds up nobody.
#[test]
fn a_call_that_is_dropped_gives_back_its_claims() {
    let setting = Setting::new(1 << 26);
    runtime().block_on(async {
        let asked = [0..100];
        let started = tokio::sync::Notify::new();
        let never = setting.cache.get_ranges(&KEY, None, &asked, |_| {
            started.notify_one();
            std::future::pending()
        });
        tokio::select! {
            _ = never => unreachable!("it fetches for ever"),
            () = started.notified() => {}
        }
        assert_eq!(setting.get_part(&KEY, 1, None, &asked).await, asked);
        assert_eq!(setting.cache.metrics().waits, 0);
    });
}

#[test]
fn outside_of_a_runtime_it_works_too() {
    let setting = Setting::new(1 << 26);
    let asked = [0..100];
    for _ in 0..2 {
        setting
            .get_part(&KEY, 1, None, &asked)
            .now_or_never()
            .expect("nothing to wait for");
    }
    assert_eq!(setting.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_directory_that_cannot_be_written_costs_no_data() {
    let setting = Setting::new(1 << 26);
    setting.get(1, &[0..100]);
    fs::remove_dir_all(setting.cache.layout.tmp()).expect("removed");
    fs::write(setting.cache.layout.tmp(), "in the way").expect("written");
    assert_eq!(setting.get(1, &[100..200]), [100..200]);
    assert_eq!(setting.get(1, &[100..200]), [100..200]);
    assert_eq!(setting.cache.metrics().failures, 2);
    // After a failure some are not tried.
    setting.get(1, &[100..200]);
    assert_eq!(setting.cache.metrics().failures, 2);
    // What is there is served still.
    assert_eq!(setting.get(1, &[0..100]), []);
    // It comes back, and so do new entries; the directory of drafts is made anew.
    fs::remove_file(setting.cache.layout.tmp()).expect("removed");
    setting.get(1, &[100..200]);
    assert_eq!(setting.get(1, &[100..200]), []);
}

#[test]
fn a_cache_that_is_deleted_begins_anew() {
    let setting = Setting::new(1 << 26);
    setting.get(1, &[0..100]);
    fs::remove_dir_all(setting.cache.layout.root()).expect("removed");
    assert_eq!(setting.get(1, &[0..100]), [0..100]);
    assert_eq!(setting.get(1, &[0..100]), []);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let error = RangeCache::open(&CacheOptions::new(file.join("cache"), 1 << 26)).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(
        error
            .to_string()
            .starts_with("cannot open the local cache (directory /"),
        "{error}"
    );
    let error = RangeCache::open(&CacheOptions::new(directory.path(), 1000)).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn readers_of_one_process_share_a_cache() {
    let setting = Setting::new(1 << 26);
    let same = open(&setting.directory.path().join("."), 1 << 26);
    assert!(Arc::ptr_eq(&same, &setting.cache));
    let other = open(setting.directory.path(), 1 << 27);
    assert!(!Arc::ptr_eq(&other, &setting.cache));
}

/// What is asked of a cache, at random.
#[derive(Debug, Clone)]
enum Op {
    Get { object: u64, ranges: Vec<Range<u64>> },
    Damage { entry: usize, place: usize },
    Remove { entry: usize },
    Reopen,
    LoseCount,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = (0u64..3 << 20, 1u64..400_000).prop_map(|(start, len)| start..start + len);
    let op = prop_oneof![
        12 => (0u64..3, prop::collection::vec(range, 1..6)).prop_map(|(object, ranges)| Op::Get { object, ranges }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(entry, place)| Op::Damage { entry, place }),
        1 => any::<usize>().prop_map(|entry| Op::Remove { entry }),
        1 => Just(Op::Reopen),
        1 => Just(Op::LoseCount),
    ];
    prop::collection::vec(op, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens to the files, the bytes are right, the limit holds, and what is counted is there.
    #[test]
    fn random_operations_give_the_bytes_of_the_store(ops in ops()) {
        let limit = 2 * MIN_CACHE_LIMIT;
        let mut setting = Setting::new(limit);
        let runtime = runtime();
        for op in ops {
            let entries = setting.entries();
            match op {
                Op::Get { object, ranges } => {
                    runtime.block_on(setting.get_part(&key(object, 1 << 30), object, None, &ranges));
                }
                Op::Damage { entry, place } if !entries.is_empty() => {
                    let path = &entries[entry % entries.len()];
                    flip(path, place % fs::metadata(path).expect("an entry").len() as usize);
                }
                Op::Remove { entry } if !entries.is_empty() => {
                    fs::remove_file(&entries[entry % entries.len()]).expect("removed");
                }
                Op::Reopen => {
                    setting.reopened();
                }
                Op::LoseCount => fs::write(setting.cache.layout.usage(), "x").expect("written"),
                _ => {}
            }
            prop_assert!(on_disk(&setting.entries()) <= limit);
        }
        prop_assert_eq!(files(&setting.cache.layout.tmp()).len(), 0);
        prop_assert_eq!(setting.cache.metrics().failures, 0);
    }
}

mod processes;
