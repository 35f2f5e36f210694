//! Brings files to the disk: what is renamed must not survive a power loss that they do not.

use std::fs::File;
use std::path::{Path, PathBuf};

use squall_schema::{Error, ErrorKind, Result};

/// Waits for work on the disk on a thread that may.
pub(crate) async fn synced(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("writing to the disk was given up").with_source(error))?
        .map_err(|error| Error::new(ErrorKind::Storage, "cannot bring files to the disk").with_source(error))
}

/// Files and the directories in which they lie.
pub(crate) fn sync_files(paths: &[PathBuf]) -> std::io::Result<()> {
    paths.iter().try_for_each(|path| {
        File::open(path)?.sync_all()?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    })
}

/// All that lies below a directory.
pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_directory(&path)?,
            false => File::open(path)?.sync_all()?,
        }
    }
    File::open(directory)?.sync_all()
}
