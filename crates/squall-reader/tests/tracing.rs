//! The spans of a run, as a subscriber sees them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use squall_reader::make_batch_reader;
use squall_testkit::{Layout, Table};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The spans that were opened, as their target and fields.
static SPANS: Mutex<Vec<(&str, BTreeMap<&str, String>)>> = Mutex::new(Vec::new());

struct Collector(AtomicU64);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("squall::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(*span.metadata().level(), Level::DEBUG);
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        SPANS
            .lock()
            .expect("no panic")
            .push((span.metadata().target(), fields.0));
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The subscriber sees the spans of the other tests too: it is the process's. A file of this name is in no other table.
#[test]
fn each_job_has_a_span() {
    let collector = Collector(AtomicU64::new(1));
    tracing::subscriber::set_global_default(collector).expect("no other subscriber");
    let table = Table::write(&Layout {
        files: vec![8; 24],
        row_group: 4,
        page: 4,
        ..Layout::default()
    });
    let reader = make_batch_reader(table.url())
        .lanes(2)
        .window(4)
        .batch_size(17)
        .epochs(2)
        .build();
    assert_eq!(
        reader
            .expect("a reader")
            .map(|batch| batch.expect("a batch").num_rows())
            .sum::<usize>(),
        384
    );
    let spans = SPANS.lock().expect("no panic");
    let of = |target: &str, name: &str, value: &str| {
        let spans = spans.iter().filter(|(own, _)| *own == target);
        let spans = spans.filter(|(_, fields)| fields.get(name).is_some_and(|own| own == value));
        spans.map(|(_, fields)| fields.clone()).collect::<Vec<_>>()
    };
    let fetches = of("squall::fetch", "file", "part-00023.parquet");
    for epoch in ["0", "1"] {
        let row_groups = fetches.iter().filter(|fields| fields["epoch"] == epoch);
        let mut row_groups: Vec<_> = row_groups.map(|fields| fields["row_group"].as_str()).collect();
        row_groups.sort_unstable();
        row_groups.dedup();
        assert_eq!(row_groups, ["0", "1"], "{fetches:?}");
    }
    assert!(
        fetches
            .iter()
            .all(|fields| fields["lane"] == "0" || fields["lane"] == "1")
    );
    let windows = of("squall::decode", "file", "part-00023.parquet");
    assert!(!windows.is_empty() && windows.iter().all(|fields| fields.contains_key("rows")));
    let batches = of("squall::build", "rows", "17");
    let mut steps: Vec<_> = batches
        .iter()
        .map(|fields| (&fields["epoch"], &fields["step"]))
        .collect();
    steps.sort_unstable();
    steps.dedup();
    // 192 rows are eleven batches of 17, and one of 5.
    assert_eq!(steps.len(), 22);
}
