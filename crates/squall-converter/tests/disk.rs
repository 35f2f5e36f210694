//! What a disk lacks is said, and nothing is left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use squall_converter::{Converter, session};
use squall_schema::{Error, ErrorKind};
use tempfile::TempDir;

use crate::run;

fn failure(converter: Converter) -> Error {
    let sql = "SELECT value AS id, random() AS x FROM generate_series(1, 400000)";
    let failed =
        run(async { converter.convert(session().sql(sql).await.expect("a query")).await }).expect_err("a failure");
    assert_eq!(failed.kind(), ErrorKind::Storage, "{failed}");
    assert!(!failed.to_string().contains('\n'), "{failed}");
    failed
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("a directory").next().is_none()
}

/// A small file system of its own, where the machine lets one be mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(directory: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory)
            .output();
        let is_mounted = mounted.is_ok_and(|done| done.status.success());
        is_mounted.then(|| Self(directory.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named() {
    let directory = TempDir::new().expect("a directory");
    let Some(disk) = Mounted::new(directory.path(), "size=1m") else {
        eprintln!("no file system can be mounted here: a full disk is not tested");
        return;
    };
    for shuffle in [false, true] {
        let converter = Converter::new(disk.0.join("out").display().to_string());
        let converter = if shuffle { converter.shuffle(1) } else { converter };
        let error = failure(converter).to_string();
        assert!(error.contains("no space is left on the disk"), "{error}");
        assert!(is_empty(&disk.0), "something is left behind");
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let directory = TempDir::new().expect("a directory");
    let Some(disk) = Mounted::new(directory.path(), "size=1m,ro") else {
        eprintln!("no file system can be mounted here: a read-only disk is not tested");
        return;
    };
    let error = failure(Converter::new(disk.0.join("out").display().to_string())).to_string();
    assert!(error.contains("the file system is read-only"), "{error}");
}

#[test]
fn a_name_too_long_is_named() {
    let directory = TempDir::new().expect("a directory");
    let destination = directory.path().join("x".repeat(300)).display().to_string();
    let error = failure(Converter::new(destination)).to_string();
    assert!(error.contains("too long for the file system"), "{error}");
    assert!(is_empty(directory.path()), "something is left behind");
}
