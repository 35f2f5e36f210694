//! Every fuzz target, for a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

const SECONDS: u64 = 600;
const INSTALL: &str =
    "cargo-fuzz is missing: install it with `cargo install cargo-fuzz --locked`; it needs a C++ compiler";

const TARGETS: [&str; 7] = ["pickle", "npy", "npz", "metadata", "footer", "png", "jpeg"];
/// Bytes of the longest input.
const MAX_LENGTH: usize = 16 << 10;
/// Most MiB that a target may allocate at once.
const ALLOCATION_MIB: usize = 64;
/// Most resident MiB of a process. The address sanitizer keeps what was freed.
const RSS_MIB: usize = 1024;
/// Most seconds for one input.
const TIMEOUT: usize = 10;

/// Runs each of the targets for so many seconds: `arguments` are these and names, both of which may be left out. New inputs go to
/// the corpus, and one that breaks a property to `fuzz/artifacts`.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (seconds, names) = match arguments {
        [first, names @ ..] if first.bytes().all(|byte| byte.is_ascii_digit()) => (first.parse()?, names),
        names => (SECONDS, names),
    };
    if let Some(name) = names.iter().find(|name| !TARGETS.contains(name)) {
        let known = TARGETS.join(", ");
        return Err(format!("no fuzz target {name:?}: the targets are {known}").into());
    }
    let chosen = |name: &str| names.is_empty() || names.contains(&name);
    if !Command::new("cargo")
        .args(["fuzz", "--version"])
        .output()?
        .status
        .success()
    {
        return Err(INSTALL.into());
    }
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for name in TARGETS.into_iter().filter(|name| chosen(name)) {
        eprintln!("xtask: {name} for {seconds} s");
        let log = fuzz_folder().join("target").join(format!("{name}.log"));
        fs::create_dir_all(fuzz_folder().join("target"))?;
        let status = cargo_fuzz(name)
            .arg("--")
            .arg(format!(
                "-dict={}",
                fuzz_folder().join("dict").join(name).with_extension("dict").display()
            ))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_LENGTH}"))
            .arg(format!("-malloc_limit_mb={ALLOCATION_MIB}"))
            .arg(format!("-rss_limit_mb={RSS_MIB}"))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg("-print_final_stats=1")
            .stderr(File::create(&log)?)
            .status()?;
        let text = fs::read_to_string(&log)?;
        lines.push(summary(name, &text));
        if !status.success() {
            failed.push(format!("{name}, as {} says", log.display()));
        }
    }
    println!("target          runs   exec/s  coverage  features  inputs");
    lines.iter().for_each(|line| println!("{line}"));
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "failed: {}; inputs that crashed are in fuzz/artifacts",
        failed.join("; ")
    )
    .into())
}

/// The toolchain of the project, which the sanitizer's options are opened to.
fn cargo_fuzz(target: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(fuzz_folder())
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", "--fuzz-dir", ".", target]);
    command
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The figures of libFuzzer's last line, `#740899 DONE cov: 526 ft: 1858 corp: 713/215Kb … exec/s: 12145 rss: 461Mb`; where it
/// crashed, of the last before that.
fn summary(name: &str, log: &str) -> String {
    let last = log
        .lines()
        .rfind(|line| line.starts_with('#') && line.contains(" cov: "))
        .unwrap_or_default();
    let after = |key: &str| {
        last.split_once(key)
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or("?")
    };
    let inputs = after(" corp: ").split('/').next().unwrap_or("?");
    format!(
        "{name:8} {:>11} {:>8} {:>9} {:>9} {inputs:>7}",
        after("#"),
        after(" exec/s: "),
        after(" cov: "),
        after(" ft: "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_told() {
        let log = "#2\tINITED cov: 1 ft: 2 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #740899\tDONE   cov: 526 ft: 1858 corp: 713/215Kb lim: 13074 exec/s: 12145 rss: 461Mb\nDone 740899 runs in 61 second(s)\n";
        let words: Vec<_> = summary("footer", log).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["footer", "740899", "12145", "526", "1858", "713"]);
        assert!(summary("footer", "error: no such target").contains('?'));
    }

    /// A target that is not run here would be fuzzed by nobody.
    #[test]
    fn the_targets_are_all_there() {
        let mut names: Vec<_> = TARGETS.iter().map(|name| format!("{name}.rs")).collect();
        names.sort();
        let files = fs::read_dir(fuzz_folder().join("fuzz_targets")).expect("the targets");
        let mut files: Vec<_> = files
            .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
            .collect();
        files.sort();
        assert_eq!(files, names);
    }
}
