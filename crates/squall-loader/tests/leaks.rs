//! Readers and loaders that are dropped in the middle of an epoch, and what they leave behind: nothing.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use squall_loader::IntoLoader;
use squall_reader::{BatchReader, Reader, ReaderBuilder, TransformSpec, make_batch_reader, make_reader};
use squall_testkit::{Layout, Table};

use crate::child;

/// How often each way of dropping is taken; there are ten ways.
const ROUNDS: usize = 5;
/// What resident memory may differ by: freed memory that the allocator keeps. What the readers of one way hold together is as much.
const SLACK: u64 = 8 << 20;

/// The panic of a closure that panics.
const EXPECTED: &str = "as it should";

#[test]
fn dropped_readers_leave_nothing_behind() {
    let sound = Table::write(&layout());
    let damaged = Table::write(&layout());
    damage(&damaged.files()[1]);
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("urls"), [sound.url(), damaged.url()].join("\n")).expect("a new file");
    // Alone in a process: other tests have threads and files of their own.
    let child = child::command("leaks::a_child_counts", folder.path())
        .output()
        .expect("a child");
    let (out, error) = (
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr),
    );
    assert!(child.status.success(), "{out}{error}");
}

/// What the test above starts.
#[test]
fn a_child_counts() {
    let Some(folder) = child::folder() else {
        return;
    };
    let urls = fs::read_to_string(folder.join("urls")).expect("a file");
    let (sound, damaged) = urls.split_once('\n').expect("two lines");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(EXPECTED) {
            hook(panic);
        }
    }));
    let ways = ways();
    // What is made once and kept: tables, the allocator's arenas.
    for _ in 0..2 {
        ways.iter().for_each(|(_, way)| way(sound, damaged));
    }
    let before = settled(usize::MAX);
    for (name, way) in &ways {
        (0..ROUNDS).for_each(|_| way(sound, damaged));
        let after = settled(before.threads);
        assert_eq!(
            (after.threads, after.files),
            (before.threads, before.files),
            "threads and files behind {name}"
        );
        assert!(
            after.bytes <= before.bytes + SLACK,
            "{} bytes, then {} behind {name}",
            before.bytes,
            after.bytes
        );
    }
}

fn layout() -> Layout {
    Layout {
        files: vec![2000, 2000, 2000],
        row_group: 500,
        page: 100,
        page_index: true,
    }
}

type Way = (&'static str, fn(&str, &str));

fn ways() -> Vec<Way> {
    vec![
        ("rows", |url, _| drop(begun(rows(url)))),
        ("batches", |url, _| drop(begun(batches(url)))),
        ("a reader that gave nothing", |url, _| {
            drop(batches(url).build().expect("a reader"))
        }),
        ("a loader", |url, _| drop(begun_loader(url))),
        ("a loader that gave nothing", |url, _| {
            let reader = batches(url).build().expect("a reader");
            drop(reader.into_loader(16).prefetch(4).build().expect("a loader"));
        }),
        ("a closure that panics", |url, _| {
            let panics = TransformSpec::per_row(|row| match row.int("id")? {
                4321 => panic!("{EXPECTED}"),
                _ => Ok(()),
            });
            assert!(
                rows(url)
                    .transform(panics)
                    .build()
                    .expect("a reader")
                    .any(|row| row.is_err())
            );
        }),
        ("a batch that cannot be decoded", |_, url| {
            assert!(batches(url).build().expect("a reader").any(|batch| batch.is_err()));
        }),
        ("a loader's batch that cannot be decoded", |_, url| {
            let reader = batches(url).build().expect("a reader");
            assert!(
                reader
                    .into_loader(16)
                    .build()
                    .expect("a loader")
                    .any(|batch| batch.is_err())
            );
        }),
        ("inside a runtime of one thread", |url, _| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            runtime.block_on(async { drop((begun(batches(url)), begun_loader(url))) });
        }),
        ("inside a runtime of two threads", |url, _| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .expect("a runtime");
            let url = url.to_owned();
            let inside = runtime.spawn(async move { drop((begun(batches(&url)), begun_loader(&url))) });
            runtime.block_on(inside).expect("a task that ends");
        }),
    ]
}

fn rows(url: &str) -> ReaderBuilder<Reader> {
    make_reader(url).epochs(2).workers(2)
}

fn batches(url: &str) -> ReaderBuilder<BatchReader> {
    make_batch_reader(url).epochs(2).workers(2).batch_size(32)
}

/// A reader behind its third item.
fn begun<R>(reader: ReaderBuilder<R>) -> R
where
    ReaderBuilder<R>: Build<R>,
{
    reader.begin()
}

fn begun_loader(url: &str) -> impl Sized {
    let reader = batches(url).build().expect("a reader");
    let mut loader = reader.into_loader(16).prefetch(4).build().expect("a loader");
    for _ in 0..3 {
        loader.next().expect("a batch").expect("no error");
    }
    loader
}

trait Build<R> {
    fn begin(self) -> R;
}

impl Build<Reader> for ReaderBuilder<Reader> {
    fn begin(self) -> Reader {
        let mut reader = self.build().expect("a reader");
        assert!(reader.by_ref().take(3).all(|row| row.is_ok()));
        reader
    }
}

impl Build<BatchReader> for ReaderBuilder<BatchReader> {
    fn begin(self) -> BatchReader {
        let mut reader = self.build().expect("a reader");
        assert!(reader.by_ref().take(3).all(|batch| batch.is_ok()));
        reader
    }
}

/// Writes over the header of the first page.
fn damage(path: &Path) {
    let mut file = File::options().write(true).open(path).expect("a file");
    file.seek(SeekFrom::Start(4)).expect("a place");
    file.write_all(&[0xff; 40]).expect("bytes written");
}

#[derive(Debug)]
struct Held {
    threads: usize,
    files: usize,
    bytes: u64,
}

/// What this process holds, once no more than so many threads run: inside a tokio runtime nobody may wait for them, and they end by
/// themselves. After some seconds it is what it is.
fn settled(threads: usize) -> Held {
    let began = Instant::now();
    loop {
        let held = Held {
            threads: entries("/proc/self/task"),
            files: entries("/proc/self/fd"),
            bytes: resident(),
        };
        if held.threads <= threads && threads != usize::MAX || began.elapsed() > patience(threads) {
            return held;
        }
        std::thread::yield_now();
    }
}

/// Where it is not known how many threads there should be, those that are ending get a moment.
fn patience(threads: usize) -> Duration {
    match threads {
        usize::MAX => Duration::from_millis(300),
        _ => Duration::from_secs(10),
    }
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).expect("the kernel's directory").count()
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel's file");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    let kib: u64 = line
        .split_whitespace()
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    kib * 1024
}
