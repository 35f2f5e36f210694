//! Takes away what no record names: the files of attempts that were lost, records, runs.

use std::collections::HashSet;
use std::path::Path as FilePath;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use squall_dataset::{Store, WRITING_MARKER, storage_error};
use squall_schema::{Error, ErrorKind, Result};

/// Leaves nothing but these files and the marker in the place.
pub(crate) async fn sweep(store: &Store, files: &HashSet<String>) -> Result<()> {
    let at = |error: object_store::Error| storage_error(error).at("URL", store.url());
    if let Some(directory) = store.url().to_file_path() {
        let kept: HashSet<_> = files.iter().map(|file| directory.join(file)).collect();
        return clean(&directory, &kept).map(|_| ()).map_err(|error| {
            Error::new(ErrorKind::Storage, "what lost attempts wrote cannot be taken away")
                .at("URL", store.url())
                .with_source(error)
        });
    }
    let listed = store.objects().list(None).map_ok(|file| file.location);
    let listed: Vec<_> = listed.try_collect().await.map_err(at)?;
    let is_orphan = |path: &Path| path.as_ref() != WRITING_MARKER && !files.contains(path.as_ref());
    let orphans: Vec<_> = listed.into_iter().filter(is_orphan).map(Ok).collect();
    let paths = futures::stream::iter(orphans).boxed();
    let mut deleted = store.objects().delete_stream(paths);
    while let Some(done) = deleted.next().await {
        match done {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(at(error)),
        }
    }
    Ok(())
}

/// What another process takes away at the same moment is gone all the same.
fn gone(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether anything is left. A store does not list the parts of a file that a killed process was writing: a disk does.
fn clean(directory: &FilePath, kept: &HashSet<std::path::PathBuf>) -> std::io::Result<bool> {
    let mut left = false;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            match clean(&path, kept)? {
                true => left = true,
                false => gone(std::fs::remove_dir(&path))?,
            }
        } else if kept.contains(&path) {
            left = true;
        } else {
            gone(std::fs::remove_file(&path))?;
        }
    }
    Ok(left)
}
