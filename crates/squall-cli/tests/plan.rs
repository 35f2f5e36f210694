//! `squall plan`.

use serde_json::{Value, json};
use squall_testkit::{Layout, Table};
use tempfile::TempDir;

use crate::{converted, fail, succeed};

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
