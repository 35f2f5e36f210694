//! Hidden directories on local disk that belong to one conversion: locked as long as its process lives, and swept away by the
//! next one when a killed process left them.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_128;

/// A directory and the lock on it, which the system gives back when the process dies.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a directory below `parent` whose name begins with `prefix`, after it swept away those that others left.
    pub(crate) fn begin(parent: &Path, prefix: &str) -> std::io::Result<Self> {
        sweep(parent, prefix);
        loop {
            let path = parent.join(format!("{prefix}{}", nonce()));
            std::fs::create_dir(&path)?;
            // Another conversion may find it before it is locked, and sweep it away.
            let lock = match File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            // Where there are no locks nobody sweeps either.
            let _ = lock.lock();
            if path.is_dir() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }
}

impl Scratch {
    /// The directory that a conversion left which was killed, if it has `inside` in it, and no other has taken it.
    pub(crate) fn resume(parent: &Path, prefix: &str, inside: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let found = left.find_map(|entry| {
            let path = entry.path();
            let lock = path.join(inside).is_dir().then(|| File::open(&path).ok()).flatten()?;
            lock.try_lock().ok()?;
            // Another one may have swept it away before it was locked.
            path.join(inside).is_dir().then_some(Self { path, _lock: lock })
        });
        if found.is_some() {
            sweep(parent, prefix);
        }
        found
    }
}

/// What the names of directories begin with that a conversion to `destination` makes beside it.
pub(crate) fn prefix(destination: &Path) -> String {
    let name = destination.file_name().unwrap_or_default();
    format!(".{}.squall-", name.to_string_lossy())
}

/// Takes a directory away: under another name first, which the next conversion to its place takes away if this one is killed.
pub(crate) fn discard(directory: &Path) -> std::io::Result<()> {
    let hidden = directory.with_file_name(format!("{}{}", prefix(directory), nonce()));
    match std::fs::rename(directory, &hidden) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.and_then(|()| std::fs::remove_dir_all(&hidden)),
    }
}

/// A number that nobody else has, as hexadecimal digits.
pub(crate) fn nonce() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (process, place) = (std::process::id(), RandomState::new().hash_one(0));
    let identity = format!("{process} {} {place}", time.as_nanos());
    format!("{:032x}", xxh3_128(identity.as_bytes()))
}

/// Takes away the directories that nobody has locked. What cannot be taken away does not keep a conversion from its work.
fn sweep(parent: &Path, prefix: &str) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    for directory in left.map(|entry| entry.path()) {
        if let Ok(lock) = File::open(&directory)
            && lock.try_lock().is_ok()
        {
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_locked_is_swept_away() {
        let parent = tempfile::tempdir().expect("a directory");
        let left = parent.path().join(".x-1-1");
        let other = parent.path().join(".y-1-1");
        std::fs::create_dir(&left).expect("a directory");
        std::fs::create_dir(&other).expect("a directory");
        let first = Scratch::begin(parent.path(), ".x-").expect("a directory");
        assert!(!left.exists() && other.exists() && first.path.is_dir());
        let second = Scratch::begin(parent.path(), ".x-").expect("a directory");
        assert!(first.path.is_dir() && first.path != second.path);
        // What has been locked is nobody else's.
        std::fs::create_dir(first.path.join("mark")).expect("a directory");
        assert!(Scratch::resume(parent.path(), ".x-", Path::new("mark")).is_none());
        let path = first.path.clone();
        drop((first, second));
        let resumed = Scratch::resume(parent.path(), ".x-", Path::new("mark")).expect("a directory");
        assert_eq!(resumed.path, path);
        let left = std::fs::read_dir(parent.path()).expect("a directory").count();
        assert_eq!(left, 2);
    }
}
