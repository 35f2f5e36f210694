//! What Squall copies and describes, real Petastorm reads.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value as Json;
use squall::convert::{Converter, CopyOptions, GenerateOptions, copy_dataset, generate_metadata};
use squall::{Dataset, DatasetUrl, ErrorKind, VerifyOptions, verify_dataset};

use super::{indexes_in, run, run_python, squall_indexes};
use crate::digest::rows_in;

type Rows = BTreeMap<i64, Json>;

fn sound(url: &str) {
    let report = verify_dataset(url, &VerifyOptions::default()).expect("a report");
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(report.rows * report.cells.min(1), report.rows);
}

/// These columns of the rows.
fn narrowed(rows: &Rows, columns: &[&str], keep: impl Fn(&Json) -> bool) -> Rows {
    let kept = rows.iter().filter(|(_, row)| keep(row));
    kept.map(|(id, row)| {
        let members = columns.iter().map(|name| ((*name).to_owned(), row[*name].clone()));
        (*id, Json::Object(members.collect()))
    })
    .collect()
}

#[test]
fn petastorm_reads_a_copy_and_metadata_that_were_generated() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| directory.path().join(name);
    run_python("write.py", &[&place("written")], None);
    let written = place("written").display().to_string();
    run_python("read.py", &[&place("written"), &place("rows"), &place("indexes")], None);
    let expected: Rows = rows_in(&place("rows")).into_iter().collect();
    // Spark's checksums of its files are there too.
    sound(&written);

    let copied = place("copied").display().to_string();
    let columns = ["id", "text", "names", "part"];
    let copy = CopyOptions::new()
        .columns_matching(["id|text", "names", "part"])
        .not_null(["text"])
        .filter("i8 > -1000 AND id < 40");
    let converter = Converter::new(&copied).row_group_bytes(1 << 12);
    run(copy_dataset(&written, converter, &copy)).expect("a copy");
    sound(&copied);
    run_python(
        "read.py",
        &[&place("copied"), &place("copied_rows"), &place("copied_indexes")],
        None,
    );
    let of_copy = narrowed(&expected, &columns, |row| {
        !row["text"].is_null()
            && !row["text"]["value"].is_null()
            && row["id"]["value"].as_i64().is_some_and(|id| id < 40)
    });
    assert!(!of_copy.is_empty());
    let found: Rows = rows_in(&place("copied_rows")).into_iter().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), of_copy.keys().collect::<Vec<_>>());
    for (id, row) in &of_copy {
        for column in columns {
            assert_eq!(found[id][column], row[column], "{column} of {id}");
        }
    }
    let own = indexes_in(&place("copied_indexes"));
    assert_eq!(own, squall_indexes(&copied));
    assert_eq!(
        own.contains_key("by_id"),
        indexes_in(&place("indexes")).contains_key("by_id")
    );

    run_python("shown.py", &[&place("copied"), &place("shown")], None);
    let shown = fs::read_to_string(place("shown")).expect("what the tool printed");
    assert!(shown.contains("Unischema(Everything_view, ["), "{shown}");
    for (name, values) in own.iter().filter(|(name, _)| *name != "has_text") {
        assert!(shown.contains(&format!("Index: {name}\n")), "{shown}");
        for (value, row_groups) in values {
            let line = format!("  -- {}({})\n", value.as_deref().unwrap_or_default(), row_groups.len());
            assert!(shown.contains(&line), "{line}: {shown}");
        }
    }

    // With metadata of Squall's beside Petastorm's, and then with none but those that are given.
    let refused = run(generate_metadata(&written, &GenerateOptions::new())).expect_err("metadata are there");
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    let made = run(generate_metadata(
        &written,
        &GenerateOptions::new().overwrite().checksums(),
    ))
    .expect("metadata");
    assert_eq!(
        (made.petastorm.as_deref().is_some(), made.notes.len()),
        (true, 0),
        "{:?}",
        made.notes
    );
    sound(&written);
    let schema = run(Dataset::open(&DatasetUrl::parse(&written).expect("a URL")))
        .expect("a dataset")
        .schema()
        .clone();
    run_python(
        "read.py",
        &[&place("written"), &place("again"), &place("again_indexes")],
        None,
    );
    assert_eq!(rows_in(&place("again")).into_iter().collect::<Rows>(), expected);
    assert_eq!(indexes_in(&place("again_indexes")), indexes_in(&place("indexes")));
    fs::remove_file(place("written").join("_common_metadata")).expect("removed");
    let given = GenerateOptions::new().schema(schema).petastorm("Given");
    run(generate_metadata(&written, &given)).expect("metadata");
    sound(&written);
    run_python(
        "read.py",
        &[&place("written"), &place("third"), &place("third_indexes")],
        None,
    );
    assert_eq!(rows_in(&place("third")).into_iter().collect::<Rows>(), expected);
}
