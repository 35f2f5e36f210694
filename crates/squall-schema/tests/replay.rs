//! Every input in `fuzz/corpus` goes through the function of its fuzz target, without libFuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own")]
mod targets;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 7] = [
    ("footer", targets::footer),
    ("jpeg", targets::jpeg),
    ("metadata", targets::metadata),
    ("npy", targets::npy),
    ("npz", targets::npz),
    ("pickle", targets::pickle),
    ("png", targets::png),
];

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn the_targets_are_those_of_the_fuzzer() {
    let own: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz_targets", "corpus", "dict"] {
        let stems = entries(folder)
            .into_iter()
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
        assert_eq!(stems.collect::<BTreeSet<_>>(), own, "{folder}");
    }
}

#[test]
fn inputs_that_were_found_keep_the_properties() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let inputs = entries(&format!("corpus/{name}"));
        assert!(inputs.len() > 10, "{name} has {} inputs", inputs.len());
        for path in inputs {
            let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if catch_unwind(|| target(&data)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
