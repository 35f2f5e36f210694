//! Row groups that are read in slices, or streamed: the rows are those of whole row groups, within the memory that was given.

mod table;

use std::collections::BTreeSet;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::FutureExt;
use proptest::prelude::*;
use squall_reader::{
    BatchReader, NGram, Partition, Predicate, ReaderBuilder, Remainder, Sampler, Shuffle, Split, make_batch_reader,
    make_mixed_reader,
};
use squall_schema::{ByteSize, ErrorKind, RowId};
use squall_testkit::{Layout, Table};

use crate::error;
use table::{Cells, Form, ROWS, Stored, forms, place};

/// A batch, with the identities of its rows.
type Batch = (Vec<RowId>, RecordBatch);

fn read(builder: ReaderBuilder<BatchReader>) -> Vec<Batch> {
    let mut reader = builder.build().expect("a reader");
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_samples() {
        let batch = batch.expect("a batch");
        batches.push((batch.ids, batch.columns));
    }
    batches
}

/// Fails where the work does not end, instead of hanging.
fn within<T: Send + 'static>(time: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let working = std::thread::spawn(move || drop(done.send(work())));
    match ended.recv_timeout(time) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("the reader hangs"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(working.join().expect_err("a panic")),
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Which rows are read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Chosen {
    All,
    Range,
    Split,
    Scattered,
    Drawn,
    Windows,
}

impl Chosen {
    fn of(self, reader: ReaderBuilder<BatchReader>) -> ReaderBuilder<BatchReader> {
        match self {
            Self::All => reader,
            Self::Range => reader.rows(37..271),
            Self::Split => reader.split(Split::by_row([0.5, 0.5], 0)),
            Self::Scattered => reader.predicate(Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 29 < 2))),
            Self::Drawn => reader.sampler(Sampler::balanced("label").samples(200)),
            Self::Windows => reader.ngram(NGram::new((0..3).map(|offset| (offset, ["id", "label"])), "id", 1)),
        }
    }
}

/// How rows are ordered and shared.
#[derive(Debug, Clone)]
struct Run {
    chosen: Chosen,
    shuffle: Shuffle,
    lanes: u64,
    window: u64,
    world_size: u64,
    batch_size: u64,
    partition: Partition,
    workers: usize,
}

impl Run {
    fn reader(&self, table: &Stored, rank: u64) -> ReaderBuilder<BatchReader> {
        let reader = self.chosen.of(make_batch_reader(table.url()));
        let reader = reader.shuffle(self.shuffle).lanes(self.lanes).window(self.window);
        let reader = reader.rank(rank, self.world_size).batch_size(self.batch_size);
        reader.partition(self.partition).workers(self.workers).seed(5).epochs(2)
    }
}

fn runs() -> impl Strategy<Value = Run> {
    use Chosen::{All, Drawn, Range, Scattered, Split, Windows};
    let chosen = prop::sample::select(vec![All, Range, Split, Scattered, Drawn, Windows]);
    let shuffle = prop::sample::select(vec![Shuffle::None, Shuffle::Windows, Shuffle::Windows, Shuffle::Full]);
    let lanes = prop::sample::select(vec![1, 2, 7]);
    let window = prop::sample::select(vec![1, 4, 21, 80, 1000]);
    let world_size = prop::sample::select(vec![1, 2, 5]);
    let batch_size = prop::sample::select(vec![1, 6, 20]);
    let by_row_group = prop::bool::weighted(0.2);
    let parts = (
        chosen,
        shuffle,
        lanes,
        window,
        world_size,
        batch_size,
        by_row_group,
        1usize..4,
    );
    parts.prop_map(
        |(chosen, shuffle, lanes, window, world_size, batch_size, by_row_group, workers)| Run {
            chosen,
            shuffle,
            lanes,
            window,
            world_size: if by_row_group { world_size.min(3) } else { world_size },
            batch_size,
            partition: match by_row_group && chosen != Drawn {
                true => Partition::RowGroups,
                false => Partition::Even,
            },
            workers,
        },
    )
}

/// Slices of this size give what whole row groups do, and every row once an epoch.
fn check(form: &Form, run: &Run, slice: u64) {
    let table = Stored::write(form);
    let mut seen = BTreeSet::new();
    let mut n_seen = 0;
    for rank in 0..run.world_size {
        let reader = run.reader(&table, rank);
        let whole = read(reader.clone());
        let sliced = within(LONG, move || read(reader.slice_size(ByteSize::new(slice))));
        assert_eq!(sliced.len(), whole.len());
        for (step, (sliced, whole)) in sliced.iter().zip(&whole).enumerate() {
            assert!(
                sliced == whole,
                "rank {rank}, step {step}: {sliced:?}, expected {whole:?}"
            );
        }
        for row in sliced.iter().flat_map(|(ids, _)| ids) {
            n_seen += 1;
            seen.insert((row.epoch, place(row.piece, row.row)));
        }
    }
    let expected: Vec<_> = match run.chosen {
        Chosen::All => (0..ROWS).collect(),
        Chosen::Range => (37..271).collect(),
        Chosen::Scattered => (0..ROWS).filter(|id| id % 29 < 2).collect(),
        Chosen::Split | Chosen::Drawn | Chosen::Windows => return,
    };
    assert_eq!((seen.len(), n_seen), (2 * expected.len(), 2 * expected.len()));
    assert!(
        expected
            .iter()
            .all(|row| seen.contains(&(0, *row)) && seen.contains(&(1, *row)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn slices_give_the_rows_of_whole_row_groups(
        form in forms(), run in runs(), slice in prop::sample::select(vec![1, 1, 1024, 8192]),
    ) {
        check(&form, &run, slice);
    }
}

fn run() -> Run {
    Run {
        chosen: Chosen::All,
        shuffle: Shuffle::Windows,
        lanes: 2,
        window: 10,
        world_size: 1,
        batch_size: 8,
        partition: Partition::Even,
        workers: 2,
    }
}

/// More ranks than lanes: of each lane a rank takes some windows and passes over others.
#[test]
fn ranks_that_pass_over_windows() {
    for page_index in [true, false] {
        for (lanes, window) in [(1, 3), (2, 7), (2, 1)] {
            let form = Form {
                page_index,
                ..Form::default()
            };
            let run = Run {
                lanes,
                window,
                world_size: 9,
                ..run()
            };
            check(&form, &run, 1);
        }
    }
}

/// Pages of one row and of a whole row group, in both versions of data pages, of nested columns too.
#[test]
fn pages_of_every_kind() {
    for bits in 0..16 {
        let form = Form {
            page_index: bits & 1 > 0,
            version_2: bits & 2 > 0,
            dictionary: bits & 4 > 0,
            snappy: bits & 4 > 0,
            page_rows: if bits & 8 > 0 { 1 } else { 100 },
            ..Form::default()
        };
        check(&form, &run(), 1);
        if bits >= 8 {
            continue;
        }
        // Rows that are so large that fewer are decoded at a time than a window has.
        let large = Form {
            cells: Cells::Bytes(9000),
            page_rows: 7,
            ..form
        };
        check(
            &large,
            &Run {
                lanes: 1,
                window: 1000,
                ..run()
            },
            1 << (2 * bits),
        );
    }
}

#[test]
fn a_state_within_slices_resumes() {
    for page_index in [true, false] {
        let table = Stored::write(&Form {
            page_index,
            ..Form::default()
        });
        let rows = |batches: &[Batch]| batches.iter().flat_map(|(ids, _)| ids.clone()).collect::<Vec<_>>();
        let builder = || {
            make_batch_reader(table.url())
                .lanes(2)
                .window(10)
                .seed(5)
                .epochs(2)
                .global_batch(36)
        };
        let sliced = || builder().slice_size(ByteSize::new(1)).workers(2);
        let whole = read(builder());
        let mut begun = sliced().build().expect("a reader");
        for step in 0..whole.len() {
            let state = begun.state();
            let rest = read(sliced().resume(state.clone()));
            assert_eq!(rest, whole[step..], "from step {step}");
            if step % 4 == 1 {
                let ranks = (0..4).map(|rank| read(sliced().resume(state.clone()).rank(rank, 4)));
                let mut ranks: Vec<_> = ranks.flat_map(|batches| rows(&batches)).collect();
                let mut expected = rows(&whole[step..]);
                ranks.sort_unstable_by_key(|row| (row.epoch, row.sample));
                expected.sort_unstable_by_key(|row| (row.epoch, row.sample));
                assert_eq!(ranks, expected);
            }
            begun.next().expect("a batch").expect("rows");
        }
    }
}

#[test]
fn mixtures_of_slices() {
    let indexed = Stored::write(&Form::default());
    let streamed = Stored::write(&Form {
        page_index: false,
        dictionary: true,
        ..Form::default()
    });
    let mixture = || {
        let member = |table: &Stored| make_batch_reader(table.url()).lanes(3).window(9);
        make_mixed_reader([(member(&indexed), 0.7), (member(&streamed), 0.3)])
            .seed(2)
            .global_batch(30)
            .epochs(2)
    };
    for (rank, world_size) in [(0, 1), (0, 6), (4, 6)] {
        let sliced = mixture().rank(rank, world_size).slice_size(ByteSize::new(1));
        assert!(read(sliced) == read(mixture().rank(rank, world_size)));
    }
}

/// The least budget that a reader takes, as the refusal of a smaller one tells it.
fn least_budget(reader: &ReaderBuilder<BatchReader>) -> u64 {
    let refused = error(reader.clone().memory_budget(ByteSize::new(1)).build());
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let text = refused.to_string();
    let (_, number) = text.split_once("expected at least ").expect("a number");
    let (number, _) = number.split_once(',').expect("a number");
    number.parse().expect("a number")
}

#[test]
fn a_reader_ends_within_the_least_budget() {
    for (i, page_index) in [true, false].into_iter().cycle().take(12).enumerate() {
        let form = Form {
            page_index,
            // Larger pages than slices are not known before a footer is here.
            page_rows: [1, 6, 20][i % 3],
            cells: [Cells::Bytes(20), Cells::Bytes(1000), Cells::Npy][i / 2 % 3],
            snappy: i > 6,
            ..Form::default()
        };
        let run = Run {
            lanes: [1, 3, 16][i / 3 % 3],
            window: [1, 13, 150][i / 4 % 3],
            world_size: [1, 5][i / 2 % 2],
            batch_size: [1, 16][i / 5 % 2],
            ..run()
        };
        let table = Stored::write(&form);
        let expected = read(run.reader(&table, run.world_size - 1));
        for slice in [None, Some(1)] {
            let reader = run.reader(&table, run.world_size - 1).prefetch(1 + i % 4);
            let reader = match slice {
                Some(bytes) => reader.slice_size(ByteSize::new(bytes)),
                None => reader,
            };
            let least = least_budget(&reader);
            assert!(reader.clone().memory_budget(ByteSize::new(least - 1)).build().is_err());
            let mut small = reader.memory_budget(ByteSize::new(least)).build().expect("a reader");
            let (found, memory) = within(LONG, move || {
                let batches: Vec<_> = small.by_ref().map(|batch| batch.expect("a batch")).collect();
                (batches, small.metrics().memory)
            });
            assert!(found.iter().eq(expected.iter().map(|(_, columns)| columns)));
            assert_eq!(memory.budget, Some(least));
            // A rank that passes over windows has fetched pages of which it needs few rows, and a page more than it thought.
            let slack = if run.world_size > 1 { least / 8 } else { 0 };
            if page_index {
                assert!(
                    memory.high_water <= least + slack,
                    "{memory:?}: {form:?}, {run:?}, {slice:?}"
                );
            }
        }
    }
}

/// Most ranks have no row of the last batch, and callers take batches as soon as they are there.
#[test]
fn empty_shares_do_not_hang() {
    let table = Table::write(&Layout {
        files: vec![15],
        row_group: 4,
        page: 1,
        page_index: true,
    });
    for i in 0..24 {
        let (prefetch, workers, rank) = (1 + i % 4, 1 + i / 4 % 3, i as u64 * 5 % 14);
        let reader = make_batch_reader(table.url())
            .rank(rank, 14)
            .batch_size(1)
            .lanes(2)
            .window(3)
            .remainder(Remainder::Keep)
            .epochs(30)
            .prefetch(prefetch)
            .workers(workers)
            .slice_size(ByteSize::new(1));
        let budget = least_budget(&reader);
        let reader = reader.memory_budget(ByteSize::new(budget)).build().expect("a reader");
        let (batches, rows) = within(LONG, move || {
            let (mut batches, mut rows) = (0, 0);
            if i % 2 == 0 {
                for batch in reader {
                    batches += 1;
                    rows += batch.expect("a batch").num_rows();
                }
            } else {
                let mut stream = reader.into_stream();
                loop {
                    match stream.next_samples().now_or_never() {
                        Some(Some(batch)) => {
                            batches += 1;
                            rows += batch.expect("a batch").ids.len();
                        }
                        Some(None) => break,
                        None => std::hint::spin_loop(),
                    }
                }
            }
            (batches, rows)
        });
        assert_eq!(batches, 60);
        assert!((30..=60).contains(&rows), "{rows}");
    }
}

#[test]
fn a_page_is_fetched_once() {
    // Every lane that has rows of a row group needs its dictionary, and the page where two lanes meet is of both.
    for (lanes, form) in [
        (
            1,
            Form {
                dictionary: true,
                snappy: true,
                ..Form::default()
            },
        ),
        (
            1,
            Form {
                version_2: true,
                page_rows: 3,
                ..Form::default()
            },
        ),
        (
            5,
            Form {
                page_rows: 1,
                ..Form::default()
            },
        ),
        (
            1,
            Form {
                cells: Cells::Npy,
                ..Form::default()
            },
        ),
    ] {
        let table = Stored::write(&form);
        for slice in [1, 900, 1 << 20] {
            let run = Run { lanes, ..run() };
            let mut reader = run
                .reader(&table, 0)
                .slice_size(ByteSize::new(slice))
                .build()
                .expect("a reader");
            assert!(reader.by_ref().all(|batch| batch.is_ok()));
            assert_eq!(
                reader.bytes_fetched(),
                2 * table.bytes(),
                "{lanes} lanes, slices of {slice}"
            );
        }
    }
}

#[test]
fn a_rank_fetches_the_pages_of_its_windows() {
    let table = Stored::write(&Form {
        page_rows: 1,
        cells: Cells::Bytes(500),
        ..Form::default()
    });
    let run = Run {
        window: 3,
        lanes: 2,
        world_size: 8,
        ..run()
    };
    let fetched = |slice| {
        let bytes = (0..8).map(|rank| {
            let reader = run.reader(&table, rank).slice_size(ByteSize::new(slice));
            let mut reader = reader.build().expect("a reader");
            assert!(reader.by_ref().all(|batch| batch.is_ok()));
            reader.bytes_fetched()
        });
        bytes.collect::<Vec<_>>()
    };
    let (sliced, whole) = (fetched(1), fetched(1 << 20));
    let all = 2 * table.bytes();
    for (rank, (sliced, whole)) in sliced.iter().zip(&whole).enumerate() {
        assert!(
            *sliced < all / 3 && sliced < whole,
            "rank {rank}: {sliced} and {whole} of {all}"
        );
    }
    // A window on the border of two ranks is read by both.
    let together = sliced.iter().sum::<u64>();
    assert!((all..2 * all).contains(&together), "{together} of {all}");
}

#[test]
fn what_stands_before_a_damaged_slice_is_delivered() {
    for page_index in [true, false] {
        let form = Form {
            page_index,
            page_rows: 4,
            cells: Cells::Bytes(3000),
            ..Form::default()
        };
        let table = Stored::write(&form);
        let reader = || {
            let reader = make_batch_reader(table.url())
                .lanes(1)
                .window(6)
                .batch_size(2)
                .seed(9)
                .workers(2);
            reader.slice_size(ByteSize::new(20_000))
        };
        let whole = read(reader());
        // A page in the middle of the second row group of the first file. Of files without an index, one with it tells where.
        let indexed = Stored::write(&Form {
            page_index: true,
            ..form
        });
        let footers = indexed.footers();
        let pages = footers[0].offset_index().expect("an index")[1]
            .last()
            .expect("a column")
            .page_locations();
        let (page, end) = (&pages[7], pages[8].first_row_index as u64);
        let mut bytes = std::fs::read(table.file(0)).expect("a file");
        bytes[page.offset as usize..page.offset as usize + 12].fill(0xff);
        std::fs::write(table.file(0), bytes).expect("written");

        let is_damaged = |row: &RowId| row.piece == 1 && (page.first_row_index as u64..end).contains(&row.row);
        let first = whole
            .iter()
            .position(|(ids, _)| ids.iter().any(is_damaged))
            .expect("a damaged row");
        let mut damaged = reader().build().expect("a reader");
        let mut n = 0;
        let error = loop {
            match damaged.next_samples().expect("an error before the end") {
                Ok(batch) => {
                    assert!((batch.ids, batch.columns) == whole[n]);
                    n += 1;
                }
                Err(error) => break error.to_string(),
            }
        };
        // A batch fails with its window.
        assert!((first.saturating_sub(4)..=first).contains(&n), "{n} of {first}");
        assert!(
            n > 0 && error.contains("row group 1, file part-00000.parquet"),
            "{error}"
        );
        assert!(damaged.next_samples().is_none());
    }
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_the_numbers() {
    let table = Stored::write(&Form::default());
    let reader = || {
        make_batch_reader(table.url())
            .columns(["id", "label"])
            .lanes(4)
            .window(10)
            .batch_size(16)
    };
    let refused = error(reader().memory_budget(ByteSize::kib(4)).build());
    assert_eq!(
        refused.to_string(),
        "a memory budget of 4096 bytes is too small: expected at least 79222, for 4 lanes with 17106 bytes of pages and windows \
         of 10 rows of about 8 bytes and two batches of 16 rows of 8 take 69320 bytes; give more memory, fewer lanes or \
         columns, or a smaller window"
    );
    let least = least_budget(&reader());
    assert!(least_budget(&reader().lanes(1)) < least && least_budget(&reader().window(5)) < least);
    let zero = error(reader().slice_size(ByteSize::new(0)).build());
    assert_eq!(zero.to_string(), "expected slices of at least one byte, found 0");
}

/// Bytes that do not come are no damage: nothing is wrong with a column whose store fails while it is streamed.
#[test]
fn a_store_that_fails_in_the_middle_of_a_stream_is_to_blame() {
    let table = Stored::write(&Form {
        page_index: false,
        cells: Cells::Bytes(9000),
        ..Form::default()
    });
    // The table is small: only later epochs are not read ahead.
    let reader = make_batch_reader(table.url()).shuffle(Shuffle::None).epochs(50);
    let mut reader = reader
        .batch_size(2)
        .slice_size(ByteSize::kib(64))
        .build()
        .expect("a reader");
    reader.next_samples().expect("a batch").expect("of the first epoch");
    table.remove_files();
    let error = within(LONG, move || {
        let mut rest = std::iter::from_fn(|| reader.next_samples());
        rest.find_map(Result::err).expect("an error before the end")
    });
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(
        error.place("file").is_some() && error.place("row group").is_some(),
        "{error}"
    );
    assert!(!error.to_string().contains("decode"), "{error}");
}
