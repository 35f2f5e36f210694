//! Reading from a store behind a network: the same rows in the same order as from local files, whatever harm is done.

use std::fs;
use std::path::Path;
use std::time::Duration;

use squall_dataset::StoreOptions;
use squall_reader::{BatchReader, ReaderBuilder, make_batch_reader, make_reader};
use squall_schema::{ErrorKind, RowId};
use squall_testkit::{Fault, FaultOptions, FaultProxy, Layout, S3Server, Table, rows, s3_options, write_file};

use crate::{batches, error};

const EPOCHS: u64 = 2;

fn layout() -> Layout {
    Layout {
        files: vec![40, 30, 50],
        row_group: 10,
        ..Layout::default()
    }
}

/// A table as a bucket: its directory has the bucket `train` in it.
struct Bucket {
    table: Table,
    server: S3Server,
}

impl Bucket {
    fn new() -> Self {
        let table = Table::write(&layout());
        let bucket = table.path().join("train");
        fs::create_dir(&bucket).expect("a bucket");
        for file in table.files() {
            fs::rename(&file, bucket.join(file.file_name().expect("a name"))).expect("moved");
        }
        Self {
            server: S3Server::start(table.path()),
            table,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.table.path().join("train").join(name)
    }
}

fn options(address: std::net::SocketAddr) -> StoreOptions {
    StoreOptions::default()
        .with_options(s3_options(address))
        .with_backoff(Duration::from_millis(1), Duration::from_millis(4))
        .with_read_timeout(Duration::from_millis(250))
        .with_max_request(1_000)
        .with_coalesce_gap(50)
}

fn reader(url: impl Into<String>) -> ReaderBuilder<BatchReader> {
    make_batch_reader(url)
        .seed(7)
        .epochs(EPOCHS)
        .lanes(5)
        .window(8)
        .batch_size(9)
        .workers(2)
}

fn read(reader: ReaderBuilder<BatchReader>) -> Vec<Vec<(i32, RowId)>> {
    batches(reader.build().expect("a reader"))
}

fn local(directory: &Path) -> Vec<Vec<(i32, RowId)>> {
    read(reader(directory.to_str().expect("a UTF-8 path")))
}

#[test]
fn every_fault_leaves_rows_and_order_as_they_are() {
    let bucket = Bucket::new();
    let expected = local(&bucket.table.path().join("train"));
    let counts = expected
        .iter()
        .flatten()
        .fold(vec![0u64; bucket.table.n_rows()], |mut counts, (id, _)| {
            counts[*id as usize] += 1;
            counts
        });
    assert!(counts.iter().all(|count| *count == EPOCHS));
    let alone = Fault::ALL.map(|fault| vec![(fault, if fault == Fault::Expired { 0.05 } else { 0.15 })]);
    let together = Fault::ALL.map(|fault| (fault, 0.03)).to_vec();
    for (seed, rates) in alone.into_iter().chain([Vec::new(), together]).enumerate() {
        let faults = FaultOptions {
            seed: seed as u64,
            rates,
            retry_after: 0,
        };
        let named = format!("{faults:?}");
        let harms = !faults.rates.is_empty();
        let proxy = FaultProxy::start(bucket.server.address(), faults);
        let found = read(reader("s3://train").store(options(proxy.address())));
        assert_eq!(found, expected, "{named}");
        let harmed: u64 = proxy.faults().iter().map(|(_, n)| n).sum();
        assert_eq!(harmed > 0, harms, "{named}: {harmed} of {} requests", proxy.requests());
    }
}

#[test]
fn a_resumed_run_over_harm_goes_on_where_it_stood() {
    let bucket = Bucket::new();
    let expected: Vec<_> = local(&bucket.table.path().join("train"))
        .into_iter()
        .flatten()
        .collect();
    let proxy = FaultProxy::start(
        bucket.server.address(),
        FaultOptions {
            seed: 11,
            rates: Fault::ALL.map(|fault| (fault, 0.02)).to_vec(),
            retry_after: 0,
        },
    );
    let start = || reader("s3a://train").store(options(proxy.address()));
    let mut first = start().build().expect("a reader");
    let mut found = Vec::new();
    for _ in 0..4 {
        let batch = first.next_samples().expect("a batch").expect("rows");
        found.extend(batch.ids);
    }
    let state = first.state();
    drop(first);
    let rest = batches(start().resume(state).build().expect("a reader"));
    found.extend(rest.into_iter().flatten().map(|(_, row)| row));
    assert_eq!(found, expected.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
}

#[test]
fn a_file_that_changes_during_training_ends_it() {
    for delete in [true, false] {
        let bucket = Bucket::new();
        let store = options(bucket.server.address()).with_retries(0);
        // Rows are read when the first is asked for.
        let mut reader = make_reader("s3://train").store(store).build().expect("a reader");
        for n in 0..3 {
            let file = bucket.file(&format!("part-{n:05}.parquet"));
            match delete {
                true => fs::remove_file(file).expect("no file"),
                false => write_file(&file, &rows(0..9), &layout()),
            }
        }
        let failure = reader.find_map(|row| row.err()).expect("an error");
        let text = failure.to_string();
        assert!(
            text.contains("(") && text.contains("part-0000") && text.contains("s3://train"),
            "{text}"
        );
        if delete {
            assert_eq!(failure.kind(), ErrorKind::NotFound);
            assert!(
                text.starts_with("the file was deleted since the dataset was opened"),
                "{text}"
            );
        } else {
            assert_eq!(text.matches("ETag \"").count(), 2, "{text}");
        }
    }
}

#[test]
fn what_the_store_says_reaches_the_caller() {
    let bucket = Bucket::new();
    let open = |store: StoreOptions| error(make_batch_reader("s3://train").store(store).build()).to_string();
    let denied = open(options(bucket.server.address()).with_option("skip_signature", "true"));
    assert!(
        denied.starts_with("access is denied (file _common_metadata, URL s3://train/): HTTP 403"),
        "{denied}"
    );
    let typo = make_batch_reader("s3://train").storage_option("endpiont", "http://hunter2");
    let typo = error(typo.build()).to_string();
    assert!(
        typo.contains("did you mean endpoint") && !typo.contains("hunter2"),
        "{typo}"
    );
    let map = squall_reader::make_dataset("s3://train")
        .storage_options(bucket.server.options())
        .build();
    assert_eq!(map.expect("a dataset").len(), bucket.table.n_rows() as u64);
}
