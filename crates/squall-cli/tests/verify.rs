//! `squall verify` of datasets: sound ones, and ones with damage of every kind.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use squall::{Shuffle, VerifyDepth, VerifyOptions, make_reader, verify_dataset};
use squall_testkit::{Layout, Table, column_bytes, truncate};

use crate::{Converted, converted, fail, squall, succeed};

/// The report, whatever the exit code.
fn report(url: &str, more: &[&str]) -> (bool, Value) {
    let output = squall(&[&["verify", url, "--format", "json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("no report: {errors}")
    });
    let sound = found["sound"].as_bool().expect("whether it is sound");
    assert_eq!(output.status.code(), Some(i32::from(!sound)));
    (sound, found["report"].clone())
}

/// The texts of the problems.
fn problems(url: &str, more: &[&str]) -> String {
    report(url, more).1["problems"].to_string()
}

fn parts(set: &Converted) -> Vec<PathBuf> {
    let files = fs::read_dir(&set.url).expect("a directory");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    files
}

#[test]
fn a_dataset_that_was_written_is_sound() {
    let set = converted();
    for depth in ["files", "pages", "cells"] {
        let (sound, report) = report(&set.url, &["--depth", depth]);
        assert!(sound, "{report}");
        assert_eq!((&report["files"], &report["rows"]), (&3.into(), &set.n_rows.into()));
        let checksums = if depth == "files" { 0 } else { 3 };
        assert_eq!(report["checksums"], checksums);
    }
    let text = succeed(&["verify", &set.url]);
    assert!(
        text.contains("360 cells decoded") && text.ends_with("sound: nothing is wrong\n"),
        "{text}"
    );
    // Any directory of Parquet files, and one file.
    let table = Table::write(&Layout::default());
    assert!(succeed(&["verify", &table.url()]).contains("120 rows in 3 files"));
    let one = table.files()[0].display().to_string();
    assert!(succeed(&["verify", &one, "--depth", "pages"]).contains("50 rows in 1 file"));
}

#[test]
fn everything_that_is_wrong_is_named() {
    let set = converted();
    let files = parts(&set);
    fs::remove_file(&files[0]).expect("removed");
    truncate(&files[1]);
    fs::copy(&files[2], Path::new(&set.url).join("part-99999-0000.parquet")).expect("copied");
    let (sound, found) = report(&set.url, &[]);
    assert!(!sound);
    let text = found["problems"].to_string();
    for expected in [
        "the file is gone",
        "bytes, its metadata say",
        "its checksum is",
        "the footer cannot be read",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(found["orphans"], serde_json::json!(["part-99999-0000.parquet"]));
    let errors = fail(1, &["verify", &set.url, "--at-most", "1"]);
    assert!(
        errors.starts_with("squall: the dataset is damaged: 4 problems"),
        "{errors}"
    );
    assert_eq!(
        report(&set.url, &["--at-most", "1"]).1["problems"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert!(fail(1, &["verify", "/no/such/place"]).contains("no such file or directory"));
    assert!(fail(2, &["verify", &set.url, "--ledger", "/x", "--depth", "files"]).contains("cannot be used with"));
}

#[test]
fn hadoops_checksums_are_compared() {
    let table = Table::write(&Layout::default());
    let file = &table.files()[0];
    let bytes = fs::read(file).expect("a file");
    let mut sums = b"crc\0\0\0\x02\0".to_vec();
    for part in bytes.chunks(512) {
        let mut hash = crc32(part);
        hash = hash.to_be();
        sums.extend(hash.to_ne_bytes());
    }
    fs::write(table.path().join(".part-00000.parquet.crc"), &sums).expect("written");
    let (sound, found) = report(&table.url(), &[]);
    assert!(sound && found["checksums"] == 1, "{found}");
    let mut flipped = bytes.clone();
    flipped[700] ^= 4;
    fs::write(file, &flipped).expect("written");
    let text = problems(&table.url(), &["--depth", "pages"]);
    assert!(
        text.contains("Hadoop's checksum of the bytes 512 to 1024 is another"),
        "{text}"
    );
    // Of more bytes than there are.
    fs::write(file, &bytes).expect("written");
    sums.extend([0; 4]);
    fs::write(table.path().join(".part-00000.parquet.crc"), &sums).expect("written");
    assert!(problems(&table.url(), &[]).contains("bytes of checksums"));
}

/// The CRC of zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (0u32.wrapping_sub(crc & 1)));
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    })
}

/// All files of a directory, and of those below it.
fn all_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all_files(&path, found),
            false => found.push(path),
        }
    }
    found.sort();
}

/// Bits all over a file, another one each time: no two near ones have the same place in their bytes.
fn some_bits(size: usize, n: usize) -> impl Iterator<Item = usize> {
    let step = (size * 8 / n).max(1);
    (0..size * 8).step_by(step | 1)
}

/// Flips some bits of a file, one at a time.
fn flip_each(file: &Path, n: usize, mut then: impl FnMut(u64)) {
    let bytes = fs::read(file).expect("a file");
    for bit in some_bits(bytes.len(), n) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(file, flipped).expect("written");
        then(bit as u64);
    }
    fs::write(file, bytes).expect("written");
}

#[test]
fn any_flipped_bit_of_a_dataset_of_squalls_is_found() {
    let set = converted();
    let mut files = Vec::new();
    all_files(Path::new(&set.url), &mut files);
    assert_eq!(files.len(), 4);
    let mut options = VerifyOptions::default();
    options.depth = VerifyDepth::Pages;
    for file in &files {
        flip_each(file, 25, |bit| {
            let report = verify_dataset(&set.url, &options).expect("a report");
            assert!(!report.is_sound(), "bit {bit} of {}", file.display());
        });
    }
    assert!(verify_dataset(&set.url, &options).expect("a report").is_sound());
}

/// What a reader gives of a dataset, or that it fails.
fn rows_of(url: &str) -> Option<Vec<String>> {
    let reader = make_reader(url).shuffle(Shuffle::None).build().ok()?;
    reader.map(|row| row.ok().map(|row| format!("{row:?}"))).collect()
}

/// Petastorm's files have no checksums of their own. Where a flipped bit is not found, it is one of a value as it is stored, which
/// may be any; or else the rows are what they were.
#[test]
fn a_flipped_bit_of_petastorms_is_found_or_is_of_a_value_or_harmless() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures/petastorm-0.13.1-all");
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Vec::new();
    all_files(&fixture, &mut files);
    let copies: Vec<_> = files
        .iter()
        .map(|file| {
            let copy = directory.path().join(file.strip_prefix(&fixture).expect("below it"));
            fs::create_dir_all(copy.parent().expect("a parent")).expect("a directory");
            fs::copy(file, &copy).expect("copied");
            copy
        })
        .collect();
    let url = directory.path().to_str().expect("UTF-8");
    let options = VerifyOptions::default();
    let whole = verify_dataset(url, &options).expect("a report");
    assert!(whole.is_sound(), "{:?}", whole.problems);
    let expected = rows_of(url).expect("rows");
    let (mut found, mut of_values, mut harmless) = (0, 0, 0);
    for file in copies
        .iter()
        .filter(|file| fs::metadata(file).expect("a file").len() > 0)
    {
        let is_data = file.extension().is_some();
        let values = if is_data { column_bytes(file) } else { Vec::new() };
        flip_each(file, if is_data { 4 } else { 20 }, |bit| {
            let report = verify_dataset(url, &options).expect("a report");
            if !report.is_sound() || report.notes != whole.notes {
                found += 1;
            } else if values.iter().any(|range| range.contains(&(bit / 8))) {
                of_values += 1;
            } else {
                harmless += 1;
                assert!(
                    rows_of(url).as_ref() == Some(&expected),
                    "bit {bit} of {}",
                    file.display()
                );
            }
        });
    }
    assert!(found > 10, "{found} found, {of_values} of values, {harmless} harmless");
}

#[test]
fn each_bad_cell_is_named() {
    let table = Table::write(&Layout::default());
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let sql = "SELECT id, arrow_cast(name, 'Binary') AS cell FROM source";
    succeed(&["convert", &table.url(), &place("out"), "--sql", sql]);
    let fields = r#"[{"name":"id","dtype":"int32"},{"name":"cell","dtype":"uint8","shape":[2,2],"codec":"png","nullable":true}]"#;
    fs::write(place("schema"), fields).expect("written");
    succeed(&[
        "metadata",
        "generate",
        &place("out"),
        "--overwrite",
        "--schema",
        &place("schema"),
    ]);
    let (_, found) = report(&place("out"), &["--at-most", "200"]);
    // Every seventh is null; the files have 50, 30 and 40 rows.
    assert_eq!(found["n_problems"], 102);
    let problems = found["problems"].as_array().expect("problems");
    let rows = problems
        .iter()
        .filter(|problem| problem["file"] == "part-00000-0000.parquet");
    let rows: Vec<_> = rows.map(|problem| problem["row"].as_u64().expect("a row")).collect();
    assert_eq!(rows, (0..50).filter(|id| id % 7 != 0).collect::<Vec<_>>());
    assert!(
        problems
            .iter()
            .all(|problem| problem["column"] == "cell" && problem["row_group"] == 0)
    );
    // The cells are bytes: their pages are whole.
    assert!(report(&place("out"), &["--depth", "pages"]).0);
}
