//! What was delivered, merged and checked.

use std::fs;
use std::path::Path;

use squall_reader::{
    BatchReader, Ledger, LedgerReport, OnBadRow, ReaderBuilder, ReaderState, Remainder, Sampler, Topology,
    TransformSpec, make_batch_reader, make_mixed_reader, verify_ledger,
};
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::error;

struct Run {
    table: Table,
    directory: TempDir,
}

impl Run {
    fn new() -> Self {
        Self {
            table: Table::write(&Layout::default()),
            directory: TempDir::new().expect("a temporary directory"),
        }
    }

    fn builder(&self) -> ReaderBuilder<BatchReader> {
        make_batch_reader(self.table.url()).lanes(3).window(8)
    }

    fn ranks(&self, world_size: u64) -> impl Iterator<Item = ReaderBuilder<BatchReader>> {
        let ledger = Ledger::new(self.directory.path());
        let builder = move |rank| self.builder().epochs(3).ledger(ledger.clone()).rank(rank, world_size);
        (0..world_size).map(builder)
    }

    fn verify(&self) -> LedgerReport {
        verify_ledger(self.builder(), self.directory.path()).expect("a report")
    }

    fn edit(&self, file: &str, change: impl Fn(&str) -> String) {
        let path = self.directory.path().join(file);
        let text = fs::read_to_string(&path).expect("a ledger");
        fs::write(&path, change(&text)).expect("a new ledger");
    }
}

fn read(builder: ReaderBuilder<BatchReader>, batches: usize) -> ReaderState {
    let mut reader = builder.build().expect("a reader");
    for batch in reader.by_ref().take(batches) {
        batch.expect("a batch");
    }
    reader.state()
}

#[test]
fn a_whole_run_is_exact() {
    for (remainder, every, delivered) in [
        (Remainder::Keep, 1, 360),
        (Remainder::Drop, 3, 3 * 112),
        (Remainder::Pad, 100, 360),
    ] {
        let run = Run::new();
        for builder in run.ranks(4) {
            let ledger = Ledger::new(run.directory.path()).every(every);
            read(builder.batch_size(4).remainder(remainder).ledger(ledger), usize::MAX);
        }
        let report = run.verify();
        assert!(report.is_exact(), "{report:?}");
        assert_eq!((report.files, report.runs, report.delivered), (4, 1, delivered));
        assert_eq!(report.padded, if remainder == Remainder::Pad { 3 * 8 } else { 0 });
        assert_eq!(report.position.0, 2);
    }
}

/// Killed and resumed, on other ranks, from states before what was delivered.
#[test]
fn what_was_rolled_back_does_not_count() {
    let run = Run::new();
    let mut state = None;
    for (world_size, batches, resume_after) in [(4, 8, 5), (2, 4, 4), (2, 2, 0), (3, usize::MAX, 0)] {
        let mut next = None;
        let begin = |builder: ReaderBuilder<BatchReader>| match &state {
            Some(state) => builder.global_batch(24).resume(ReaderState::clone(state)),
            None => builder.global_batch(24).seed(5),
        };
        for (asked, builder) in run.ranks(world_size).zip(run.ranks(world_size)) {
            // The state of an earlier batch than the last one.
            let asked = begin(asked).ledger(Ledger::new(run.directory.path().join("elsewhere")));
            next = Some(read(asked, resume_after));
            read(begin(builder), batches);
        }
        state = next;
    }
    let report = run.verify();
    assert!(report.is_exact(), "{report:?}");
    assert_eq!(
        (report.runs, report.delivered, report.rolled_back),
        (4, 360, 3 * 24 + 2 * 24)
    );
}

#[test]
fn every_missing_and_doubled_row_is_named() {
    // A rank that stops early.
    let run = Run::new();
    for (rank, builder) in run.ranks(3).enumerate() {
        read(builder.batch_size(8), if rank == 1 { 7 } else { usize::MAX });
    }
    let report = run.verify();
    // Two epochs of five steps; it was gone after seven, and its last batch in the third epoch too.
    assert_eq!((report.missing.len(), report.doubled.len()), (8 * 8, 0));
    let asked = run.builder().rank(1, 3).batch_size(8).build().expect("a reader");
    let expected = asked.epoch_plan(1).explain(2, 1).expect("an answer");
    for origin in expected {
        let found = report.missing.iter().any(|row| row.epoch == 1 && row.origin == origin);
        assert!(found, "{origin:?}");
    }

    // Two processes that take themselves for the same rank.
    let run = Run::new();
    let rank = || run.ranks(2).next().expect("a rank").batch_size(10);
    let elsewhere = run.directory.path().join("rank-000000-of-000002.jsonl");
    read(rank(), usize::MAX);
    fs::rename(&elsewhere, run.directory.path().join("other.jsonl")).expect("renamed");
    read(rank().epochs(2), usize::MAX);
    let report = run.verify();
    assert!(!report.is_exact());
    assert_eq!((report.n_doubled, report.n_missing), (60 + 60, 3 * 60));
}

/// A rank that died before the others began; a rank that was killed within a line; a node whose clock is wrong.
#[test]
fn crashes_leave_ledgers_that_can_be_verified() {
    let run = Run::new();
    let rank = |rank: usize, batches| {
        let builder = run.ranks(2).nth(rank).expect("a rank");
        read(builder.batch_size(10).seed(1), batches)
    };
    rank(0, 1);
    let first = run.directory.path().join("rank-000000-of-000002.jsonl");
    let text = fs::read_to_string(&first).expect("a ledger");
    fs::write(&first, text + "{\"epoch\":0,\"samp").expect("a torn ledger");
    rank(0, usize::MAX);
    rank(1, usize::MAX);
    let report = run.verify();
    assert!(report.is_exact(), "{report:?}");
    assert_eq!((report.delivered, report.rolled_back, report.torn.len()), (360, 10, 1));

    let run = Run::new();
    for builder in run.ranks(2) {
        read(builder.batch_size(10).seed(1), 10);
    }
    let state = read(run.builder().epochs(3).batch_size(20).seed(1), 8);
    for builder in run.ranks(4) {
        read(builder.batch_size(5).resume(state.clone()), usize::MAX);
    }
    for rank in 0..4 {
        let file = format!("rank-{rank:06}-of-000004.jsonl");
        let started = |text: &str| {
            let header: serde_json::Value = serde_json::from_str(text.lines().next().expect("a header")).expect("JSON");
            header["started"].to_string()
        };
        run.edit(&file, |text| text.replacen(&started(text), "1000", 1));
    }
    let report = run.verify();
    assert!(report.is_exact(), "{report:?}");
    assert_eq!((report.runs, report.delivered, report.rolled_back), (2, 360, 40));
}

#[test]
fn groups_of_ranks_have_ledgers_of_their_own() {
    let run = Run::new();
    for topology in [Topology::consecutive(2), Topology::strided(2)] {
        let directory = TempDir::new().expect("a temporary directory");
        for rank in 0..4 {
            let ledger = Ledger::new(directory.path());
            let builder = run.builder().rank(rank, 4).topology(topology.clone()).batch_size(10);
            read(builder.ledger(ledger), if rank == 3 { 5 } else { usize::MAX });
        }
        let report = verify_ledger(run.builder(), directory.path()).expect("a report");
        // The last rank is the second one of its group: what it lost is missing there.
        assert_eq!(
            (report.files, report.delivered, report.n_missing),
            (4, 230, 10),
            "{report:?}"
        );
    }
    let unequal = Topology::groups([vec![0, 1], vec![2]]);
    let refused = run.ranks(3).next().expect("a rank").topology(unequal).build();
    assert!(error(refused).to_string().contains("differ in size"));
}

#[test]
fn numbers_in_a_ledger_are_not_trusted() {
    let run = Run::new();
    run.ranks(1).for_each(|builder| {
        read(builder.batch_size(20), usize::MAX);
    });
    let file = "rank-000000-of-000001.jsonl";
    let whole = fs::read_to_string(run.directory.path().join(file)).expect("a ledger");
    let edited = |from: &str, to: &str| {
        run.edit(file, |_| whole.replacen(from, to, 1));
        verify_ledger(run.builder(), run.directory.path())
    };
    for epoch in ["3000", "18446744073709551615"] {
        let report = edited("{\"epoch\":2,", &format!("{{\"epoch\":{epoch},")).expect("a report");
        assert_eq!((report.mismatches.len(), report.n_missing), (2, 20), "{report:?}");
    }
    let report = edited("\"end\":40", "\"end\":18446744073709551615").expect("a report");
    assert!(!report.is_exact());
    let refused = error(edited("\"next\":0", "\"next\":18446744073709551615")).to_string();
    assert!(
        refused.contains("stands at sample 18446744073709551615 of an epoch of 120"),
        "{refused}"
    );
    let header = whole.lines().next().expect("a header").to_owned() + "\n";
    run.edit(file, |_| header.clone());
    assert!(
        error(verify_ledger(run.builder(), run.directory.path()))
            .to_string()
            .contains("has no batch")
    );
}

#[test]
fn lines_that_are_not_what_was_planned_are_found() {
    let write = || {
        let run = Run::new();
        run.ranks(2).for_each(|builder| {
            read(builder.batch_size(10), usize::MAX);
        });
        run
    };
    let file = "rank-000001-of-000002.jsonl";
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    // A lost line.
    let run = write();
    run.edit(file, |text| {
        let mut lines = lines(text);
        lines.remove(4);
        lines.join("\n") + "\n"
    });
    let report = run.verify();
    assert_eq!((report.missing.len(), report.mismatches.len()), (10, 1));
    assert!(
        report.mismatches[0].what.contains("expected to go on at sample 60"),
        "{report:?}"
    );
    // A line that is there twice.
    let run = write();
    run.edit(file, |text| {
        let mut lines = lines(text);
        lines.insert(4, lines[4].clone());
        lines.join("\n") + "\n"
    });
    let report = run.verify();
    assert_eq!(
        (report.doubled.len(), report.mismatches.len(), report.missing.len()),
        (10, 1, 0)
    );
    // Other rows than those that were planned.
    let run = write();
    run.edit(file, |text| text.replacen("\"digest\":\"", "\"digest\":\"0", 1));
    let report = run.verify();
    assert_eq!((report.mismatches.len(), report.missing.len()), (1, 10));
    // A process that was killed while it wrote.
    let run = write();
    run.edit(file, |text| text[..text.len() - 20].to_owned());
    let report = run.verify();
    assert_eq!((report.torn.len(), report.missing.len()), (1, 10));
    assert!(report.mismatches.is_empty());
}

#[test]
fn sampled_and_mixed_runs_have_ledgers_too() {
    let run = Run::new();
    let sampled = || {
        run.builder()
            .sampler(Sampler::balanced("name").samples(100))
            .seed(3)
            .epochs(2)
    };
    for rank in 0..2 {
        let ledger = Ledger::new(run.directory.path());
        read(sampled().rank(rank, 2).ledger(ledger), usize::MAX);
    }
    let report = verify_ledger(sampled(), run.directory.path()).expect("a report");
    assert!(report.is_exact() && report.delivered == 200, "{report:?}");
    let other = error(verify_ledger(run.builder(), run.directory.path())).to_string();
    assert!(other.contains("the sampler or the n-gram changed"), "{other}");

    let run = Run::new();
    let mixed = || make_mixed_reader([(run.builder(), 1.0), (run.builder(), 2.0)]).epochs(2);
    for rank in 0..2 {
        let ledger = Ledger::new(run.directory.path());
        read(mixed().seed(3).rank(rank, 2).ledger(ledger), usize::MAX);
    }
    let report = verify_ledger(mixed(), run.directory.path()).expect("a report");
    assert!(report.is_exact(), "{report:?}");
}

#[test]
fn substitutes_are_written_down() {
    let run = Run::new();
    let spec = TransformSpec::per_row(|row| match row.int("id")? % 10 {
        0 => Err(squall_schema::Error::invalid("bad")),
        _ => Ok(()),
    });
    for builder in run.ranks(2) {
        read(
            builder
                .transform(spec.clone())
                .on_bad_row(OnBadRow::Skip { at_most: 100 }),
            usize::MAX,
        );
    }
    let report = run.verify();
    assert!(report.is_exact() && report.substituted == 36, "{report:?}");
}

#[test]
fn what_is_no_ledger_is_refused() {
    let run = Run::new();
    let verify = |path: &Path| error(verify_ledger(run.builder(), path)).to_string();
    assert!(verify(run.directory.path()).contains("the ledger has no line"));
    let file = run.directory.path().join("rank.jsonl");
    assert!(verify(&file).contains("cannot read the ledger"));
    fs::write(&file, "{}\n").expect("a file");
    let message = verify(&file);
    assert!(
        message.contains("not a line of a ledger") && message.contains("line 1"),
        "{message}"
    );
    let other = Run::new();
    other.ranks(1).for_each(|builder| {
        read(builder.seed(1), 2);
    });
    let message = error(verify_ledger(
        make_batch_reader(
            Table::write(&Layout {
                files: vec![7],
                ..Layout::default()
            })
            .url(),
        ),
        other.directory.path(),
    ));
    assert!(
        message.to_string().contains("the dataset's fingerprint changed"),
        "{message}"
    );
    let refused = run.builder().ledger(Ledger::new(run.directory.path()).every(0)).build();
    assert!(error(refused).to_string().contains("every 1 step or more"));
}
