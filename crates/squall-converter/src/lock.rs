//! The lock of a place on a file system that conversions to it, and deletions of it, take turns by: one on a file beside it, which the
//! system gives back when a process dies.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use squall_schema::{Error, ErrorKind, Result};

/// How often one who waits looks again: no thread is kept waiting, however many conversions do.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A lock. Its file goes when it does.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Waits for the lock of a place.
///
/// # Cancel safety
///
/// Dropping the future ends the wait.
pub(crate) async fn lock(place: PathBuf) -> Result<Lock> {
    loop {
        let taken = Lock::try_take(&place).map_err(|error| {
            Error::new(ErrorKind::Storage, "cannot lock the destination")
                .at("directory", place.display())
                .with_source(error)
        })?;
        match taken {
            Some(lock) => return Ok(lock),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

impl Lock {
    fn try_take(place: &Path) -> std::io::Result<Option<Self>> {
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = place.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let path = parent.join(format!(".{name}.lock"));
        let file = File::create(&path)?;
        match file.try_lock() {
            // Who had it before took the file away: a lock on a file that nobody finds keeps nobody away.
            Ok(()) => Ok(is_same(&file, &path).then_some(Self { path, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |found: std::io::Result<std::fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    number(file.metadata()) == number(std::fs::metadata(path))
}

#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> bool {
    true
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Elsewhere a file cannot go while it is open, and stays.
        if cfg!(unix) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
