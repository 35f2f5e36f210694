//! The command from outside: what it prints, its exit codes, and what it leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use squall_testkit::{Layout, Table, truncate};
use tempfile::TempDir;

fn squall(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.args(arguments).output().expect("the command starts")
}

/// The standard output of a command that must succeed, in silence on standard error.
fn succeed(arguments: &[&str]) -> String {
    let output = squall(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The sentence of a command that must fail with this exit code.
fn fail(code: i32, arguments: &[&str]) -> String {
    let output = squall(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// The objects that `squall read` prints.
fn read(arguments: &[&str]) -> Vec<Value> {
    let out = succeed(&[&["read"], arguments].concat());
    out.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect()
}

fn ids(lines: &[Value]) -> Vec<i64> {
    let mut ids: Vec<_> = lines
        .iter()
        .map(|line| line["row"]["id"].as_i64().expect("an id"))
        .collect();
    ids.sort_unstable();
    ids
}

/// A table, and the dataset that it was converted to.
struct Converted {
    _directory: TempDir,
    url: String,
    n_rows: i64,
}

fn converted() -> Converted {
    let table = Table::write(&Layout::default());
    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("out").display().to_string();
    succeed(&["convert", &table.url(), &url]);
    Converted {
        _directory: directory,
        url,
        n_rows: table.n_rows() as i64,
    }
}

#[test]
fn help_has_examples() {
    for command in ["convert", "inspect", "plan", "read"] {
        let help = succeed(&[command, "--help"]);
        assert!(help.contains(&format!("Example:\n  squall {command} ")), "{help}");
    }
}

#[test]
fn rows_are_printed_as_json() {
    let table = converted();
    let rows = read(&[&table.url, "--no-shuffle", "--arrays", "values", "--batch-size", "50"]);
    assert_eq!(
        rows[1],
        json!({"epoch": 0, "batch": 0, "row": {"id": 1, "name": "row 1", "x": [1, 2, 3]}})
    );
    assert_eq!(
        rows[119],
        json!({"epoch": 0, "batch": 2, "row": {"id": 119, "name": null, "x": [19, 20, 21]}})
    );
    let text = succeed(&[
        "read",
        &table.url,
        "--no-shuffle",
        "--columns",
        "x, id",
        "--arrays",
        "values",
        "--max-batches",
        "1",
    ]);
    assert!(
        text.starts_with("{\"epoch\":0,\"batch\":0,\"row\":{\"x\":[0,1,2],\"id\":0}}\n"),
        "{text}"
    );
    let digest = &read(&[&table.url, "--no-shuffle", "--columns", "x"])[0]["row"];
    // printf '\x00\x01\x02' | sha256sum
    let sha256 = "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc";
    assert_eq!(digest, &json!({"x": {"dtype": "|i1", "shape": [3], "sha256": sha256}}));
}

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

#[test]
fn columns_rows_and_shards_are_selected() {
    let table = converted();
    let rows = read(&[
        &table.url,
        "--columns",
        "name,id",
        "--where",
        "id >= 100 AND name IS NOT NULL",
    ]);
    assert_eq!(ids(&rows), (100..120).filter(|id| id % 7 != 0).collect::<Vec<_>>());
    assert_eq!(rows[0]["row"].as_object().map(|row| row.len()), Some(2));
    let kept = TempDir::new().expect("a temporary directory");
    let cache = kept.path().join("selections").display().to_string();
    for _ in 0..2 {
        let rows = read(&[&table.url, "--where", "id < 5", "--selection-cache", &cache]);
        assert_eq!(ids(&rows), (0..5).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(&cache).expect("the cache").count(), 1);
    }
    fail(2, &["read", &table.url, "--selection-cache", &cache]);
    // A file in the place of the directory.
    let file = kept.path().join("file").display().to_string();
    std::fs::write(&file, b"").expect("a file");
    let message = fail(
        2,
        &["read", &table.url, "--where", "id < 5", "--selection-cache", &file],
    );
    assert!(message.contains(&file), "{message}");
    // As programs write them.
    let terms: Vec<_> = (5..2000).map(|id| format!("id <> {id}")).collect();
    let rows = read(&[&table.url, "--where", &terms.join(" AND ")]);
    assert_eq!(ids(&rows), (0..5).collect::<Vec<_>>());
    // Three files of one row group each.
    let shard = |rank| {
        read(&[
            &table.url,
            "--partition",
            "row-groups",
            "--rank",
            rank,
            "--world-size",
            "2",
        ])
    };
    assert_eq!(ids(&shard("1")), (50..80).collect::<Vec<_>>());
    assert_eq!(shard("0").len(), 90);
    let counted = succeed(&["read", &table.url, "--format", "none", "--batch-size", "50"]);
    assert_eq!(counted, "{\"rows\":120,\"batches\":3}\n");
}

#[test]
fn ranges_splits_and_row_groups_are_selected() {
    let table = Table::write(&Layout::default());
    let url = table.url();
    let found = |flags: &[&str]| ids(&read(&[&[url.as_str(), "--columns", "id"], flags].concat()));
    let range = |range: std::ops::Range<i64>| range.collect::<Vec<_>>();
    assert_eq!(
        found(&["--rows", "7..9", "--rows", "110..", "--rows=..2"]),
        [0, 1, 7, 8].into_iter().chain(110..120).collect::<Vec<_>>()
    );
    assert_eq!(found(&["--skip", "20", "--take", "30"]), range(20..50));
    assert_eq!(
        found(&[
            "--rows",
            "20..60",
            "--where",
            "id % 2 = 0",
            "--skip",
            "3",
            "--take",
            "2"
        ]),
        [26, 28]
    );

    let part = |subset: &str, more: &[&str]| found(&[&["--split", "0.5,0.25,0.25", "--subset", subset], more].concat());
    for more in [
        &[][..],
        &["--split-seed", "9"],
        &["--split-by", "id"],
        &["--split-by", "name", "--split-seed", "1"],
        &["--split-by", "id", "--split-rule", "petastorm"],
    ] {
        let parts: Vec<_> = ["0", "1", "2"].map(|subset| part(subset, more)).into();
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, range(0..120), "{more:?}");
        assert!(
            parts[0].len() > 30 && !parts[1].is_empty() && !parts[2].is_empty(),
            "{parts:?}"
        );
    }
    assert_ne!(part("0", &[]), part("0", &["--split-seed", "1"]));

    // Row groups of the index that convert writes.
    let directory = TempDir::new().expect("a temporary directory");
    let indexed = directory.path().join("out").display().to_string();
    succeed(&[
        "convert",
        &url,
        &indexed,
        "--petastorm=Rows",
        "--row-group-index",
        "id",
        "--row-group-index",
        "by_name=name",
    ]);
    let found = |flags: &[&str]| ids(&read(&[&[indexed.as_str(), "--columns", "id"], flags].concat()));
    let groups = [0..50, 50..80, 80..120];
    let with = |ids: &[i64]| {
        groups
            .iter()
            .filter(|group| ids.iter().any(|id| group.contains(id)))
            .cloned()
            .flatten()
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&["--select", "id=3,90"]), with(&[3, 90]));
    let selector = squall::RowGroupSelector::single("id", [3, 90]);
    let reader = squall::make_batch_reader(&indexed).row_group_selector(selector).build();
    let report = *reader.expect("a reader").selection_report();
    assert_eq!(
        (report.row_groups, report.pruned_by_selector, report.matched),
        (3, 1, 2)
    );
    assert_eq!(
        found(&["--select", "id=3,90", "--select", "by_name=row 95,row 60"]),
        with(&[90])
    );

    let refused = |flags: &[&str], expected: &str| {
        let error = fail(2, &[&["read", indexed.as_str()], flags].concat());
        assert!(error.contains(expected), "{flags:?}: {error}");
    };
    refused(
        &["--select", "id=500"],
        "the row-group selector single(id) selects no row group that has rows",
    );
    refused(
        &["--select", "nope=1"],
        "no row-group index \"nope\": the indexes are id, by_name",
    );
    refused(&["--select", "id"], "expected an index and values such as by_label=3,5");
    refused(&["--rows", "5"], "expected two row numbers such as 0..100");
    refused(
        &["--rows", "5..200"],
        "expected a range of at least one row within 0..120, found 5..200",
    );
    refused(&["--skip", "120"], "all 120 rows that are left are skipped");
    refused(&["--split", "0.5,0.6", "--subset", "0"], "sum to at most 1");
    refused(&["--split", "0.5"], "--subset");
    refused(
        &["--split", "0.5", "--subset", "0", "--split-rule", "petastorm"],
        "give one with --split-by",
    );
    let seeded = [
        "--split",
        "0.5",
        "--subset",
        "0",
        "--split-rule",
        "petastorm",
        "--split-by",
        "id",
        "--split-seed",
        "1",
    ];
    refused(&seeded, "Petastorm's split has no seed");
    let plain = fail(2, &["read", &url, "--select", "id=3"]);
    assert!(plain.contains("the dataset has no row-group indexes"), "{plain}");
    let help = succeed(&["read", "--help"]);
    for flag in [
        "--rows <A..B>",
        "--skip <N>",
        "--take <N>",
        "--select <INDEX=VALUE[,VALUE]>",
        "--split <FRACTIONS>",
        "--split-rule <SPLIT_RULE>",
    ] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

#[test]
fn inspect_and_convert_print_facts() {
    let table = Table::write_partitioned(
        "day",
        &["2024-01-01", "2024-01-02"],
        &Layout {
            files: vec![20, 30],
            ..Layout::default()
        },
    );
    let facts: Value = serde_json::from_str(&succeed(&["inspect", &table.url(), "--format", "json"])).expect("JSON");
    assert_eq!(facts["rows"], 50);
    assert_eq!(facts["rows_per_row_group"], json!([16, 4, 16, 14]));
    assert_eq!(facts["partition_by"], json!(["day"]));
    assert_eq!(facts["squall_metadata"], false);
    assert_eq!(
        facts["schema"][3],
        json!({"name": "day", "dtype": "datetime64[D]", "shape": [], "nullable": false})
    );

    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("out").display().to_string();
    let sql = "SELECT id, CAST(id AS DOUBLE) AS x FROM source WHERE day = DATE '2024-01-02'";
    let converted = succeed(&[
        "convert",
        &table.url(),
        &url,
        "--sql",
        sql,
        "--compression",
        "snappy",
        "--format",
        "json",
    ]);
    let converted: Value = serde_json::from_str(&converted).expect("JSON");
    assert_eq!((&converted["rows"], &converted["row_groups"]), (&json!(30), &json!(1)));
    let facts: Value = serde_json::from_str(&succeed(&["inspect", &url, "--format", "json"])).expect("JSON");
    assert_eq!(
        (&facts["fingerprint"], &facts["schema"]),
        (&converted["fingerprint"], &converted["schema"])
    );
    assert_eq!(facts["squall_metadata"], true);
    let text = succeed(&["inspect", &url]);
    assert!(
        text.contains("rows         30\n") && text.contains("    x: float64"),
        "{text}"
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let table = converted();
    let line = format!(
        "'{}' read '{}' --epochs 200 | head -n 1",
        env!("CARGO_BIN_EXE_squall"),
        table.url
    );
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &line])
        .output()
        .expect("bash");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn failures_are_one_clear_sentence() {
    let table = Table::write(&Layout::default());
    let damaged = Table::write(&Layout::default());
    truncate(&damaged.files()[1]);
    let empty = TempDir::new().expect("a temporary directory");
    let empty = empty.path().display().to_string();
    let parent = TempDir::new().expect("a temporary directory");
    let destination = parent.path().join("out").display().to_string();
    let (url, damaged) = (table.url(), damaged.url());
    let check = |code, arguments: &[&str], expected: &str| {
        let error = fail(code, arguments);
        assert!(
            error.starts_with("squall: ") && error.contains(expected),
            "{arguments:?}: {error}"
        );
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(
            Path::new(&parent.path())
                .read_dir()
                .expect("a directory")
                .next()
                .is_none(),
            "left behind by {arguments:?}"
        );
    };
    for (command, rest) in [
        ("inspect", None),
        ("read", None),
        ("convert", Some(destination.as_str())),
    ] {
        let on = |url| {
            [Some(command), Some(url), rest]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        check(
            1,
            &on("/no/such/place"),
            "no such file or directory (URL /no/such/place)",
        );
        check(
            1,
            &on(&empty),
            &format!("there is no Parquet file in the directory (URL {empty})"),
        );
        check(1, &on(&damaged), "part-00001.parquet");
        check(1, &on("gopher://x/y"), "no store for URLs that begin with gopher://");
    }
    check(
        2,
        &["read", &url, "--columns", "id,nope"],
        "no column \"nope\": the columns are id, name, x",
    );
    check(
        2,
        &["read", &url, "--rank", "2", "--world-size", "2"],
        "expected a rank below the world size 2, found 2",
    );
    check(2, &["read", &url, "--where", "id >"], "where-clause");
    check(
        2,
        &["convert", &url, &destination, "--sql", "SELECT nope FROM source"],
        "nope",
    );
    check(
        1,
        &[
            "convert",
            &url,
            &destination,
            "--sql",
            "SELECT 1 / (id - 119) AS x FROM source",
        ],
        "Divide by zero",
    );
    let other = Table::write(&Layout::default());
    check(1, &["convert", &url, &other.url()], "exists already and is not empty");
    check(
        2,
        &["convert", &url, &format!("{url}/out")],
        "the destination lies inside the source",
    );
    check(
        1,
        &["read", &url, "--state-in", &format!("{empty}/none")],
        "cannot read the state",
    );
    // Wrong flags are told by clap, over more than a line.
    assert!(fail(2, &["read", &url, "--batch-size", "4", "--global-batch", "4"]).contains("cannot be used with"));
    assert!(fail(2, &["read"]).contains("<URL>"));
    assert!(fail(2, &["read", &url, "--rank", "-1"]).contains("'-1'"));
}

/// Every array that real Petastorm reads from a data set of its own, by dtype, shape and SHA-256.
#[test]
fn digests_are_those_of_petastorm() {
    for name in [
        "petastorm-0.4.3",
        "petastorm-0.7.0",
        "petastorm-0.7.6",
        "petastorm-0.13.1-all",
    ] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures");
        let expected =
            std::fs::read_to_string(fixtures.join(format!("{name}.expected.jsonl"))).expect("expected values");
        let expected = expected
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let expected: BTreeMap<_, _> = expected.map(|row| (row["id"]["value"].as_i64(), row)).collect();
        let rows = read(&[&fixtures.join(name).display().to_string()]);
        assert_eq!(rows.len(), expected.len());
        let mut arrays = 0;
        for row in rows {
            let own = &expected[&row["row"]["id"].as_i64()];
            let columns = row["row"].as_object().expect("an object");
            let names = |row: &serde_json::Map<String, Value>| row.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(columns), names(own.as_object().expect("an object")), "{name}");
            let columns = columns.iter();
            // Without libjpeg-turbo the last bits of jpeg are others.
            for (column, value) in columns.filter(|(column, _)| cfg!(feature = "jpeg-turbo") || *column != "jpeg") {
                let own = &own[column.as_str()];
                match own.get("sha256") {
                    Some(_) => {
                        for key in ["dtype", "shape", "sha256"] {
                            assert_eq!(value[key], own[key], "{column} of {name}");
                        }
                        arrays += 1;
                    }
                    None => assert!(
                        same_scalar(value, &own["value"]),
                        "{column} of {name}: {value}, not {own}"
                    ),
                }
            }
        }
        assert!(arrays > 20, "{arrays} arrays in {name}");
    }
}

/// Decimals and times have a text of Python's in what is expected: `0E-9`, and no zone.
fn same_scalar(found: &Value, expected: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let time = |value: &Value| {
        let text = value.as_str()?.trim_end_matches('Z').replace(' ', "T");
        Some(text.strip_suffix(".000000").map(str::to_owned).unwrap_or(text))
    };
    match (number(found), number(expected)) {
        // An f32 is printed in the fewest digits that are it again.
        (Some(found), Some(expected)) => found == expected || found as f32 == expected as f32,
        (None, None) => found == expected || (found.is_string() && time(found) == time(expected)),
        _ => false,
    }
}

/// Every value that real Spark reads from tables of its own, of every type that it has.
#[test]
fn values_are_those_of_spark() {
    for name in ["spark-3.5-types", "spark-4.0-types"] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures");
        let expected =
            std::fs::read_to_string(fixtures.join(format!("{name}.expected.jsonl"))).expect("expected values");
        let expected = expected
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let expected: BTreeMap<_, _> = expected.map(|row| (row["id"].as_i64(), row)).collect();
        let rows = read(&[&fixtures.join(name).display().to_string(), "--arrays", "values"]);
        assert_eq!(rows.len(), expected.len());
        for row in rows {
            let own = &expected[&row["row"]["id"].as_i64()];
            let columns = row["row"].as_object().expect("an object");
            assert_eq!(columns.len(), own.as_object().expect("an object").len(), "{name}");
            for (column, value) in columns {
                assert!(
                    same(value, &own[column.as_str()]),
                    "{column} of {name}: {value}, not {}",
                    own[column.as_str()]
                );
            }
        }
    }
}

/// Structs and lists member by member; a map is a list of its entries.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| same(found, expected))
        }
        (Value::Array(entries), Value::Object(map)) => {
            let member = |entry: &Value| {
                let key = entry["key"].as_str().unwrap_or_default();
                map.get(key).is_some_and(|expected| same(&entry["value"], expected))
            };
            entries.len() == map.len() && entries.iter().all(member)
        }
        (Value::Object(found), Value::Object(expected)) => {
            let member = |(name, value)| expected.get(name).is_some_and(|expected| same(value, expected));
            found.len() == expected.len() && found.iter().all(member)
        }
        (Value::Bool(_) | Value::Null, _) => found == expected,
        _ => same_scalar(found, expected),
    }
}

#[test]
fn a_plan_is_text_json_and_a_picture() {
    let table = converted();
    let flags = ["plan", &table.url, "--batch-size", "5", "--lanes", "3", "--window", "8"];
    let plan = |more: &[&str]| succeed(&[&flags[..], more].concat());
    let found: Value =
        serde_json::from_str(&plan(&["--world-size", "2", "--epochs", "3", "--format", "json"])).expect("JSON");
    assert_eq!(
        (&found["steps"], &found["steps_of_all_epochs"]),
        (&json!(12), &json!(36))
    );
    assert_eq!(
        (&found["rows"], &found["delivered"]),
        (&json!(table.n_rows), &json!(table.n_rows))
    );
    let ranks = found["ranks"].as_array().expect("ranks");
    for (rank, expected) in ranks.iter().enumerate() {
        let rank = rank.to_string();
        let same = &[
            "--rank",
            &rank,
            "--world-size",
            "2",
            "--batch-size",
            "5",
            "--lanes",
            "3",
            "--window",
            "8",
        ];
        let read: Value = serde_json::from_str(&succeed(
            &[&["read", &table.url, "--format", "none"], &same[..]].concat(),
        ))
        .expect("JSON");
        assert_eq!(
            (&read["rows"], &read["batches"]),
            (&expected["rows"], &expected["steps"])
        );
    }
    let quality = |shuffle: &str| {
        let found: Value = serde_json::from_str(&plan(&["--shuffle", shuffle, "--format", "json"])).expect("JSON");
        found["quality"]["quality"].as_f64().expect("a number")
    };
    assert!(quality("none") < quality("windows") && quality("full") > 0.7);
    // Few ranks have a line each, of many there are three lines.
    let lines = |more: &[&str]| plan(more).lines().count();
    let one = lines(&["--world-size", "1"]);
    assert_eq!(lines(&["--world-size", "8"]), one + 7);
    assert_eq!(lines(&["--world-size", "1024"]), one + 2);
    assert_eq!(lines(&["--world-size", "1024", "--all-ranks"]), one + 1023);

    let file = table._directory.path().join("epoch.svg");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(plan(&["--world-size", "4", "--format", "svg", "--output", file]), "");
    let picture = std::fs::read_to_string(file).expect("the picture");
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("rank 3"));
    assert!(fail(2, &["plan", &table.url, "--batch-size", "0"]).contains("found 0"));
    assert!(
        fail(
            2,
            &["plan", &table.url, "--partition", "row-groups", "--world-size", "99"]
        )
        .contains("row groups")
    );
    fail(1, &["plan", "/nonexistent"]);
    assert!(fail(2, &["plan", &table.url, "--world-size", "65537"]).contains("expected at most 65536 ranks"));
    assert!(fail(2, &["plan", &table.url, "--epochs", "0"]).contains("0 is not in 1.."));
    plan(&["--prefetch", "1048576", "--workers", "1"]);
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

/// The plan of docs/plan.md is that of the README's dataset.
#[test]
fn the_page_has_the_plan_that_is_printed() {
    const PAGE: &str = include_str!("../../../docs/plan.md");
    const README: &str = include_str!("../../../README.md");
    const SHOWN: &str = "/tmp/digits/train";
    let query = "SELECT * FROM source WHERE id % 5 <> 0";
    let line = format!("squall convert examples/data/digits {SHOWN} --sql \"{query}\"");
    assert!(README.contains(&line), "the README makes another dataset");

    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("train").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits");
    succeed(&["convert", source, &url, "--sql", query]);
    // Memory depends on the number of cores where hands are not given.
    let flags = "--world-size 4 --batch-size 32 --seed 7 --workers 4";
    let flags: Vec<_> = ["plan", &url].into_iter().chain(flags.split(' ')).collect();
    let printed = format!("$ squall {}\n{}", flags.join(" "), succeed(&flags)).replace(&url, SHOWN);
    assert!(
        PAGE.contains(&format!("```text\n{printed}```\n")),
        "docs/plan.md does not have this plan:\n{printed}"
    );
}

#[test]
fn a_plan_names_ranks_without_rows() {
    let table = Table::write(&Layout::default());
    let url = table.url();
    let flags = [
        "plan",
        &url,
        "--partition",
        "row-groups",
        "--world-size",
        "4",
        "--where",
        "id < 40",
    ];
    let text = succeed(&flags);
    let expected = "without rows     rank 3: no selected row is in their row groups, such a rank cannot read";
    assert!(text.contains(expected), "{text}");
    let last: Vec<_> = text.lines().last().expect("a line").split_whitespace().collect();
    assert_eq!(last, ["3", "0", "0", "0", "0", "0", "0.000", "0", "B", "0", "B"]);
    let json: Value = serde_json::from_str(&succeed(&[&flags[..], &["--format", "json"]].concat())).expect("JSON");
    assert_eq!((&json["ranks_without_rows"], &json["groups"]), (&json!([3]), &json!(4)));
}

#[test]
fn a_ledger_proves_that_every_row_came_once() {
    let dataset = converted();
    let directory = TempDir::new().expect("a temporary directory");
    let ledger = directory.path().join("ledger").display().to_string();
    let state = directory.path().join("state.json").display().to_string();
    let rank = |rank: &str, of: &str, more: &[&str]| {
        let flags = [
            "read",
            &dataset.url,
            "--rank",
            rank,
            "--world-size",
            of,
            "--ledger",
            &ledger,
            "--format",
            "none",
        ];
        let flags = [
            &flags[..],
            &["--global-batch", "24", "--epochs", "2", "--where", "id <> 7"],
            more,
        ]
        .concat();
        succeed(&flags);
    };
    let verify = ["verify", &dataset.url, "--ledger", &ledger];
    let same_rows = [&verify[..], &["--where", "id <> 7"]].concat();
    // Four batches on two ranks, the state behind the third one; the rest on three.
    for own in ["0", "1"] {
        rank(own, "2", &["--seed", "3", "--max-batches", "4"]);
    }
    let flags = [
        "read",
        &dataset.url,
        "--global-batch",
        "24",
        "--epochs",
        "2",
        "--where",
        "id <> 7",
        "--seed",
        "3",
    ];
    succeed(
        &[
            &flags[..],
            &["--max-batches", "3", "--state-out", &state, "--format", "none"],
        ]
        .concat(),
    );
    for own in ["0", "1", "2"] {
        rank(own, "3", &["--state-in", &state]);
    }
    let out = succeed(&same_rows);
    let delivered = 2 * (dataset.n_rows - 1);
    assert!(
        out.contains(&format!("{delivered} rows delivered by 2 runs in 5 files")),
        "{out}"
    );
    assert!(
        out.contains("24 rows rolled back") && out.contains("exact: every row once an epoch"),
        "{out}"
    );
    // Other rows than those of the run.
    let message = fail(2, &verify);
    assert!(message.contains("the selection of rows changed"), "{message}");
    // A rank's file is lost.
    std::fs::remove_file(Path::new(&ledger).join("rank-000001-of-000003.jsonl")).expect("removed");
    let output = squall(&[&same_rows[..], &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    assert_eq!(report["exact"], json!(false));
    let missing = report["report"]["missing"].as_array().expect("rows");
    assert!(
        missing.len() > 40 && missing.iter().all(|row| row["file"].is_string()),
        "{report}"
    );
}

#[test]
fn a_plan_answers_questions() {
    let dataset = converted();
    let flags = [
        "plan",
        &dataset.url,
        "--world-size",
        "2",
        "--batch-size",
        "8",
        "--seed",
        "3",
    ];
    let said = succeed(&[&flags[..], &["--explain", "1", "--rank", "1", "--format", "json"]].concat());
    let said: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect();
    assert_eq!(said.len(), 8);
    for (place, origin) in said.iter().enumerate() {
        let row = format!(
            "{}:{}:{}",
            origin["file"].as_str().expect("a path"),
            origin["row_group"],
            origin["row"]
        );
        let found = succeed(&[&flags[..], &["--where-is", &row]].concat());
        assert_eq!(
            found,
            format!(
                "step 1, rank 1, place {place} of its batch (sample {})\n",
                origin["sample"]
            )
        );
    }
    let message = fail(2, &[&flags[..], &["--explain", "99"]].concat());
    assert!(message.contains("expected a step below the"), "{message}");
    let message = fail(2, &[&flags[..], &["--where-is", "nope"]].concat());
    assert!(message.contains("part-0.parquet:0:17"), "{message}");
}

#[test]
fn rows_are_drawn_by_a_column() {
    let dataset = converted();
    let flags = [&dataset.url, "--columns", "id,name", "--seed", "5"];
    // Every seventh row has no name; each name is a class of one row, and null is the largest one.
    let drawn = read(&[&flags[..], &["--balance", "name", "--no-replacement"]].concat());
    let nulls = drawn.iter().filter(|line| line["row"]["name"].is_null()).count();
    assert_eq!(
        (drawn.len() as i64, nulls),
        (dataset.n_rows - (dataset.n_rows + 6) / 7 + 1, 1)
    );
    let drawn = read(&[&flags[..], &["--weight", "id", "--samples", "50"]].concat());
    assert!(drawn.len() == 50 && ids(&drawn)[0] > 0);
    let half = |rank: &str| {
        read(
            &[
                &flags[..],
                &["--weight", "id", "--samples", "50", "--rank", rank, "--world-size", "2"],
            ]
            .concat(),
        )
    };
    assert_eq!(ids(&[half("0"), half("1")].concat()), ids(&drawn));
    let message = fail(2, &["read", &dataset.url, "--samples", "5"]);
    assert!(message.contains("give --balance or --weight"), "{message}");
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
