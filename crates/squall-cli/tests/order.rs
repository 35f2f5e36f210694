//! Ranks, batches, states: the order from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use serde_json::Value;
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::{converted, fail, ids, read, succeed};

#[test]
fn ranks_share_the_table() {
    let table = converted();
    for world_size in [1, 2, 4] {
        let ranks = |remainder: &str| -> Vec<_> {
            let world_size = world_size.to_string();
            let rank = |rank: u32| {
                let rank = rank.to_string();
                let flags = ["--rank", &rank, "--world-size", &world_size, "--remainder", remainder];
                read(
                    &[
                        &[&table.url, "--epochs", "2", "--seed", "5", "--batch-size", "7"][..],
                        &flags,
                    ]
                    .concat(),
                )
            };
            (0..world_size.parse().expect("a number")).map(rank).collect()
        };
        let keep: Vec<_> = ranks("keep").concat();
        for epoch in 0..2 {
            let lines: Vec<_> = keep.iter().filter(|line| line["epoch"] == epoch).cloned().collect();
            assert_eq!(
                ids(&lines),
                (0..table.n_rows).collect::<Vec<_>>(),
                "epoch {epoch} of {world_size} ranks"
            );
        }
        for rank in ranks("drop") {
            let mut batches = BTreeMap::new();
            for line in &rank {
                *batches
                    .entry((line["epoch"].as_u64(), line["batch"].as_u64()))
                    .or_insert(0) += 1;
            }
            assert_eq!(
                batches.len() as i64,
                2 * (table.n_rows / (7 * world_size)),
                "steps of {world_size} ranks"
            );
            assert!(batches.values().all(|rows| *rows == 7));
        }
        let padded = ranks("pad")
            .concat()
            .iter()
            .filter(|line| line["padded"] == true)
            .count() as i64;
        let global = 7 * world_size;
        assert_eq!(
            padded,
            2 * ((table.n_rows + global - 1) / global * global - table.n_rows)
        );
    }
}

#[test]
fn the_order_repeats_with_the_seed() {
    let table = converted();
    let run = |seed| read(&[&table.url, "--seed", seed, "--lanes", "4", "--window", "9"]);
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn a_saved_state_is_resumed_by_another_world_size() {
    let table = converted();
    let directory = TempDir::new().expect("a temporary directory");
    let state = directory.path().join("state.json").display().to_string();
    let first = read(&[
        &table.url,
        "--global-batch",
        "12",
        "--seed",
        "9",
        "--max-batches",
        "4",
        "--state-out",
        &state,
    ]);
    assert_eq!(first.len(), 48);
    assert!(std::fs::read_to_string(&state).expect("a state").trim().len() <= 200);
    let rest = |rank| {
        read(&[
            &table.url,
            "--global-batch",
            "12",
            "--state-in",
            &state,
            "--rank",
            rank,
            "--world-size",
            "2",
        ])
    };
    let all = [first, rest("0"), rest("1")].concat();
    assert_eq!(ids(&all), (0..table.n_rows).collect::<Vec<_>>());
    let refused = fail(2, &["read", &table.url, "--state-in", &state, "--seed", "1"]);
    assert!(
        refused.contains("the seed changed since the state was saved, from 9 to 1"),
        "{refused}"
    );
}

/// A step of all ranks: its epoch, and the ids of its rows in ascending order.
type GlobalBatch = (u64, Vec<i64>);

/// The global batches of a run, in order: what every rank prints, put together step by step.
fn global_batches(world_size: usize, flags: &[&str]) -> Vec<GlobalBatch> {
    let world = world_size.to_string();
    let mut steps = BTreeMap::new();
    for rank in 0..world_size {
        let rank = rank.to_string();
        let lines = read(&[flags, &["--columns", "id", "--rank", &rank, "--world-size", &world]].concat());
        for line in lines {
            let step = (line["epoch"].as_u64(), line["batch"].as_u64());
            steps.entry(step).or_insert_with(Vec::new).push(line);
        }
    }
    let steps = steps.into_iter();
    steps
        .map(|((epoch, _), lines)| (epoch.expect("an epoch"), ids(&lines)))
        .collect()
}

/// 601 rows in 39 row groups: with 96 rows at a step seven steps an epoch, the last one of 25 rows.
fn many_row_groups() -> Table {
    Table::write(&Layout {
        files: vec![300, 170, 131],
        ..Layout::default()
    })
}

const STEPS: usize = 7;

#[test]
fn global_batches_do_not_depend_on_the_world_size() {
    let table = many_row_groups();
    let url = table.url();
    let flags = [
        &url,
        "--global-batch",
        "96",
        "--epochs",
        "3",
        "--seed",
        "7",
        "--window",
        "11",
    ];
    let alone = global_batches(1, &flags);
    assert_eq!(alone.len(), 3 * STEPS);
    for (epoch, batches) in (0..3).zip(alone.chunks(STEPS)) {
        assert!(batches.iter().all(|(own, _)| *own == epoch));
        assert!(batches[..STEPS - 1].iter().all(|(_, ids)| ids.len() == 96));
        let mut ids: Vec<_> = batches.iter().flat_map(|(_, ids)| ids).copied().collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..601).collect::<Vec<_>>(), "epoch {epoch}");
    }
    for world_size in [2, 3, 4, 8] {
        assert_eq!(global_batches(world_size, &flags), alone, "{world_size} ranks");
    }
}

#[test]
fn a_run_goes_on_with_other_ranks_behind_any_batch() {
    let table = many_row_groups();
    let url = table.url();
    let directory = TempDir::new().expect("a temporary directory");
    let place = |rank: usize| {
        directory
            .path()
            .join(format!("state-{rank}.json"))
            .display()
            .to_string()
    };
    let order = ["--seed", "7", "--lanes", "5", "--window", "11"];
    let run = [&[url.as_str(), "--global-batch", "96", "--epochs", "3"], &order[..]].concat();
    let whole = global_batches(1, &run);
    // Behind the first batch, around the end of an epoch, in the last batch but one, and at the end of the run.
    for (done, before, after) in [
        (1, 2, 3),
        (STEPS - 1, 1, 8),
        (STEPS, 4, 2),
        (STEPS + 1, 3, 4),
        (2 * STEPS, 2, 1),
        (3 * STEPS - 1, 3, 2),
        (3 * STEPS, 1, 2),
    ] {
        let steps = done.to_string();
        let mut lines = Vec::new();
        let mut states = BTreeSet::new();
        for rank in 0..before {
            let (own, world, path) = (rank.to_string(), before.to_string(), place(rank));
            let flags = [
                "--columns",
                "id",
                "--rank",
                &own,
                "--world-size",
                &world,
                "--max-batches",
                &steps,
                "--state-out",
                &path,
            ];
            lines.extend(read(&[&run[..], &flags].concat()));
            states.insert(std::fs::read(path).expect("a state"));
        }
        assert_eq!(
            states.len(),
            1,
            "the states of {before} ranks differ behind batch {done}"
        );
        let size = states.first().map_or(0, Vec::len);
        assert!(size <= 200, "a state of {size} bytes");
        let mut expected: Vec<_> = whole[..done].iter().flat_map(|(_, ids)| ids).copied().collect();
        expected.sort_unstable();
        assert_eq!(ids(&lines), expected, "the first {done} batches of {before} ranks");

        // The order comes from the state.
        let state = place(before - 1);
        let go_on = [&url, "--epochs", "3", "--state-in", &state];
        let rest = global_batches(after, &[&go_on[..], &["--global-batch", "96"]].concat());
        assert_eq!(rest, whole[done..], "{after} ranks behind batch {done} of {before}");

        // With another global batch other steps, but the same rows: an epoch's, and none twice.
        let rest = global_batches(after, &[&go_on[..], &["--batch-size", "35"]].concat());
        let by_epoch = |batches: &[GlobalBatch]| {
            let mut rows: Vec<_> = batches
                .iter()
                .flat_map(|(epoch, ids)| ids.iter().map(|id| (*epoch, *id)))
                .collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(
            by_epoch(&rest),
            by_epoch(&whole[done..]),
            "other batches behind batch {done}"
        );
    }
}

/// `read` and `plan` have the same flags for the order.
#[test]
fn shuffling_has_the_same_flags_everywhere() {
    let table = converted();
    for command in ["read", "plan"] {
        let run = |flags: &[&str]| succeed(&[&[command, &table.url, "--seed", "3"], flags].concat());
        let [none, windows, full] = ["none", "windows", "full"].map(|mode| run(&["--shuffle", mode]));
        assert_eq!(run(&["--no-shuffle"]), none);
        assert_eq!(run(&[]), windows);
        assert!(none != windows && windows != full && full != none);
        fail(2, &[command, &table.url, "--no-shuffle", "--shuffle", "full"]);
    }
}

#[test]
fn the_rank_of_the_environment_counts() {
    let dataset = converted();
    let run = |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
        command
            .args(["read", &dataset.url, "--columns", "id", "--rank-from-env"])
            .args(flags);
        for name in [
            "RANK",
            "WORLD_SIZE",
            "HOROVOD_RANK",
            "HOROVOD_SIZE",
            "PMI_RANK",
            "PMI_SIZE",
            "SLURM_PROCID",
        ] {
            command.env_remove(name);
        }
        command
            .envs(variables.iter().copied())
            .output()
            .expect("the command starts")
    };
    let lines = |output: Output| -> Vec<Value> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object"))
            .collect()
    };
    let given = read(&[&dataset.url, "--columns", "id", "--rank", "1", "--world-size", "3"]);
    for variables in [
        [("RANK", "1"), ("WORLD_SIZE", "3")],
        [("HOROVOD_RANK", "1"), ("HOROVOD_SIZE", "3")],
        [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "3")],
        [("PMI_RANK", "1"), ("PMI_SIZE", "3")],
        [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "3")],
    ] {
        assert_eq!(lines(run(&variables, &[])), given, "{variables:?}");
        assert_eq!(lines(run(&variables, &["--rank", "1", "--world-size", "3"])), given);
        let refused = run(&variables, &["--rank", "0", "--world-size", "3"]);
        assert_eq!(refused.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            errors.contains("the rank given is 0 of 3, but the environment says 1 of 3"),
            "{errors}"
        );
    }
    assert_eq!(lines(run(&[], &[])).len() as i64, dataset.n_rows);
}
