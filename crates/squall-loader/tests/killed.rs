//! A run that is killed with SIGKILL again and again, and resumed from what it wrote down last.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use squall_loader::{HostBatch, IntoLoader, Loader};
use squall_reader::{ReaderState, Remainder, make_batch_reader};
use squall_testkit::{Layout, Table};

use crate::child;

const KILLS: usize = 20;
const EPOCHS: u64 = 2;
const ROWS: usize = 4000;
const BATCH_SIZE: u64 = 8;
const STEPS: usize = EPOCHS as usize * ROWS / BATCH_SIZE as usize;

#[test]
fn twenty_kills_lose_and_double_no_row() {
    let table = Table::write(&Layout {
        files: vec![ROWS / 2, ROWS / 2],
        row_group: 300,
        page: 50,
        page_index: true,
    });
    let run = tempfile::tempdir().expect("a directory");
    fs::write(run.path().join("url"), table.url()).expect("a new file");
    let mut random = 7u64;
    for kill in 0..KILLS {
        let mut child = child::command("killed::a_child_goes_on", run.path())
            .spawn()
            .expect("a child");
        // The child runs on while its lines are read: the kill hits it somewhere in what follows.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        lines.take((random >> 33) as usize % 24).for_each(drop);
        child.kill().expect("a kill");
        let status = child.wait().expect("a status");
        assert!(!status.success(), "kill {kill} came too late");
    }
    let written = steps(run.path()).len();
    assert!(
        (1..STEPS).contains(&written),
        "{written} steps of {STEPS} behind the kills"
    );
    let last = child::command("killed::a_child_goes_on", run.path())
        .output()
        .expect("a child");
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stdout));

    let resumed: Vec<_> = steps(run.path()).iter().map(|path| content(path).1).collect();
    let undisturbed: Vec<_> = loader(&table.url(), None)
        .map(|batch| ids(&batch.expect("a batch")))
        .collect();
    assert_eq!(resumed, undisturbed);
    let mut times = vec![0; ROWS];
    resumed.iter().flatten().for_each(|id| times[*id as usize] += 1);
    assert_eq!(times, [EPOCHS; ROWS]);
}

/// What the test above starts and kills: writes each batch and the state behind it as one file, which appears at once.
#[test]
fn a_child_goes_on() {
    let Some(run) = child::folder() else {
        return;
    };
    let done = steps(&run);
    let state = done.last().map(|path| content(path).0);
    let url = fs::read_to_string(run.join("url")).expect("a file");
    let mut loader = loader(&url, state);
    let mut step = done.len();
    while let Some(batch) = loader.next() {
        let ids = ids(&batch.expect("a batch"));
        let ids: Vec<_> = ids.iter().map(i32::to_string).collect();
        let unseen = run.join("unseen");
        fs::write(&unseen, format!("{}\n{}", loader.state().to_json(), ids.join(" "))).expect("a new file");
        fs::rename(&unseen, run.join(format!("step-{step:06}"))).expect("a new name");
        step += 1;
        // The parent may be about to kill, and no longer read.
        let _ = writeln!(std::io::stdout(), "{step}");
    }
}

fn loader(url: &str, state: Option<ReaderState>) -> Loader<squall_loader::Host> {
    let reader = make_batch_reader(url)
        .columns(["id"])
        .epochs(EPOCHS)
        .lanes(4)
        .window(64);
    let reader = match state {
        Some(state) => reader.resume(state),
        None => reader.seed(3),
    };
    let loader = reader.workers(2).build().expect("a reader").into_loader(BATCH_SIZE);
    loader.remainder(Remainder::Keep).prefetch(3).build().expect("a loader")
}

fn ids(batch: &HostBatch) -> Vec<i32> {
    batch.slice::<i32>("id").expect("ids").to_vec()
}

/// The files of a run's steps, in order.
fn steps(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut steps: Vec<_> = paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("step-"))
        })
        .collect();
    steps.sort();
    steps
}

fn content(path: &Path) -> (ReaderState, Vec<i32>) {
    let text = fs::read_to_string(path).expect("a file");
    let (state, ids) = text.split_once('\n').expect("two lines");
    let ids = ids.split_whitespace().map(|id| id.parse().expect("an id"));
    (ReaderState::from_json(state).expect("a state"), ids.collect())
}
