//! This test binary, started once more: for what concerns a process as a whole, its end or all that it holds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FOLDER: &str = "SQUALL_TEST_FOLDER";

/// The command that runs the test `name` alone in a process of its own, which finds `folder` by [`folder`]. Its standard output is
/// piped.
pub(crate) fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    command
}

/// Where the parent of this process keeps what is shared; `None` where the test was not started by [`command`], and has nothing to
/// do.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}
