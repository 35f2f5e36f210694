//! A store that answers late is named as what limits.

use std::sync::Arc;
use std::time::Duration;

use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStoreExt, PutPayload};
use squall_dataset::{Dataset, DatasetUrl, Store};
use squall_testkit::{Layout, Table};

use crate::builder::make_batch_reader;
use crate::metrics::Stage;
use crate::order::Shuffle;
use crate::plan::ReadPlan;
use crate::reader::{BatchReader, Opened};

/// The table in memory: files are not throttled.
fn in_memory(table: &Table, url: &str) {
    let store = Store::create(&DatasetUrl::parse(url).expect("a URL")).expect("a store");
    for file in table.files() {
        let bytes = std::fs::read(&file).expect("a file");
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let put = async { store.objects().put(&name.into(), PutPayload::from(bytes)).await };
        futures_executor::block_on(put).expect("an object");
    }
}

/// A reader of one lane whose store takes its time for each request.
fn slow_reader(url: &str, wait: Duration, memory_budget: Option<u64>) -> BatchReader {
    let builder = make_batch_reader(url)
        .columns(["id"])
        .shuffle(Shuffle::None)
        .window(8)
        .batch_size(8)
        .workers(2);
    let Opened {
        plan,
        io,
        ledger,
        neighbours,
        loaded,
    } = builder.into_options().open().expect("a plan");
    let mut sources = plan.sources.to_vec();
    let config = ThrottleConfig {
        wait_get_per_call: wait,
        ..ThrottleConfig::default()
    };
    let dataset = Dataset::clone(&sources[0].dataset);
    let dataset = dataset.with_objects(|objects| Arc::new(ThrottledStore::new(objects, config)));
    sources[0].dataset = Arc::new(dataset);
    let plan = ReadPlan {
        sources: sources.into(),
        memory_budget: memory_budget.unwrap_or(plan.memory_budget),
        ..plan
    };
    BatchReader::new(Opened {
        plan,
        io,
        ledger,
        neighbours,
        loaded,
    })
}

#[test]
fn a_slow_store_limits() {
    let table = Table::write(&Layout {
        files: vec![120],
        row_group: 4,
        page: 4,
        ..Layout::default()
    });
    let url = "memory://a-slow-store/table";
    in_memory(&table, url);
    let mut reader = slow_reader(url, Duration::from_millis(30), None);
    let rows: usize = reader.by_ref().map(|batch| batch.expect("a batch").num_rows()).sum();
    let metrics = reader.metrics();
    assert_eq!(rows, 120);
    assert_eq!(metrics.limiting_stage(), Some(Stage::Fetch), "{metrics}");
    assert!(
        metrics.fetch.jobs >= 30 && metrics.storage.requests >= metrics.fetch.jobs,
        "{metrics:?}"
    );
    assert!(
        metrics.fetch.busy > metrics.decode.busy + metrics.build.busy,
        "{metrics}"
    );
    assert!(metrics.decode.starved > metrics.decode.blocked, "{metrics}");
    assert!(metrics.memory.high_water > 0 && Some(metrics.memory.high_water) <= metrics.memory.budget);
    assert_eq!((metrics.queues.fetching, metrics.queues.fetches_waiting), (0, 0));
}

/// A budget that `build` would refuse: every window waits for the one before it.
#[test]
fn a_small_budget_limits() {
    let table = Table::write(&Layout {
        files: vec![120],
        row_group: 4,
        page: 4,
        ..Layout::default()
    });
    let url = "memory://a-small-budget/table";
    in_memory(&table, url);
    let mut reader = slow_reader(url, Duration::from_millis(10), Some(1));
    let rows: usize = reader.by_ref().map(|batch| batch.expect("a batch").num_rows()).sum();
    let metrics = reader.metrics();
    assert_eq!(rows, 120);
    assert_eq!(metrics.limiting_stage(), Some(Stage::Memory), "{metrics}");
}
