//! Flags that say which rows are read.

use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::{converted, fail, ids, read, squall, succeed};

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
fn columns_are_packed_within_a_budget() {
    let source = converted();
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("floats").display().to_string();
    let sql = "SELECT id, CAST(id AS DOUBLE) AS a, CAST(id * 2 AS DOUBLE) AS b FROM source";
    succeed(&["convert", &source.url, &url, "--sql", sql]);
    let flags = [
        &url[..],
        "--pack",
        "features=b, a",
        "--memory-budget",
        "16MiB",
        "--workers",
        "1",
    ];
    let rows = read(&[&flags[..], &["--no-shuffle", "--arrays", "values", "--prefetch", "1"]].concat());
    assert_eq!(rows[7]["row"], serde_json::json!({"id": 7, "features": [14.0, 7.0]}));
    assert_eq!(rows.len(), 120);
    let plan = |budget: &str| -> serde_json::Value {
        let flags = [
            "plan",
            &url,
            "--pack",
            "features=a,b",
            "--memory-budget",
            budget,
            "--format",
            "json",
        ];
        serde_json::from_str(&succeed(&flags)).expect("JSON")
    };
    assert_eq!(plan("16MiB")["rows"], 120);
    succeed(&[&["bench"], &flags[..], &["--batches", "4"]].concat());

    let small = fail(2, &["read", &url, "--memory-budget", "1KiB"]);
    assert!(small.contains("budget"), "{small}");
    for wrong in ["features", "=a,b", "features=a,,b", "features="] {
        let message = fail(2, &["read", &url, "--pack", wrong]);
        assert!(message.contains("such as features=f0,f1,f2"), "{message}");
    }
    let unknown = fail(2, &["read", &url, "--pack", "features=a,c"]);
    assert!(unknown.contains("no column \"c\""), "{unknown}");
}

#[test]
fn bad_rows_are_skipped_and_named() {
    let table = Table::write(&Layout::default());
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("cells").display().to_string();
    succeed(&["convert", &table.url(), &url, "--petastorm", "--compression", "none"]);
    // The magic number of one npy cell.
    let file = std::fs::read_dir(&url)
        .expect("the dataset")
        .map(|entry| entry.expect("a file").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .expect("a file of rows");
    let mut bytes = std::fs::read(&file).expect("rows");
    let cell = bytes.windows(6).position(|window| window == b"\x93NUMPY");
    bytes[cell.expect("a cell") + 1] = b'n';
    std::fs::write(&file, bytes).expect("written");

    let flags = ["read", &url, "--format", "none", "--arrays", "values"];
    fail(1, &flags);
    fail(1, &[&flags[..], &["--on-bad-row", "skip:0"]].concat());
    let output = squall(&[&flags[..], &["--on-bad-row", "skip:1"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"rows\":120,\"batches\":2}\n"
    );
    assert!(
        errors.starts_with("squall: skipped: ") && errors.contains("row ") && errors.lines().count() == 1,
        "{errors}"
    );
    let wrong = fail(2, &["read", &url, "--on-bad-row", "skip"]);
    assert!(wrong.contains("skip:100"), "{wrong}");
}
