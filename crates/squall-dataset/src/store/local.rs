//! Reads of local files: each range with one call into a buffer of its own, which is not zeroed first.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use super::version::ObjectVersion;

/// Why a file was not read.
pub(super) enum Failed {
    Io(io::Error),
    /// It is another than was expected.
    Replaced(ObjectVersion),
    /// It ends within a range; so many bytes of it are there.
    Short(Range<u64>, usize),
}

/// The bytes of these ranges, and what the file is. Blocks.
pub(super) fn read(
    path: &Path,
    ranges: &[Range<u64>],
    known: Option<&ObjectVersion>,
) -> Result<(ObjectVersion, Vec<Bytes>), Failed> {
    let file = File::open(path).map_err(Failed::Io)?;
    let metadata = file.metadata().map_err(Failed::Io)?;
    if metadata.is_dir() {
        return Err(Failed::Io(io::ErrorKind::NotFound.into()));
    }
    let found = version(&metadata);
    if known.is_some_and(|known| !known.agrees_with(&found)) {
        return Err(Failed::Replaced(found));
    }
    let read = |range: &Range<u64>| {
        let length = range.end.min(found.size).saturating_sub(range.start) as usize;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let offset = range.start + bytes.len() as u64;
            match pread(&file, spare_capacity(&mut bytes), offset) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Failed::Io(error.into())),
            }
        }
        // The buffer may have room for more than was asked for.
        bytes.truncate(length);
        match bytes.len() as u64 == range.end - range.start {
            true => Ok(Bytes::from(bytes)),
            false => Err(Failed::Short(range.clone(), bytes.len())),
        }
    };
    let bytes = ranges.iter().map(read).collect::<Result<_, _>>()?;
    Ok((found, bytes))
}

/// What object_store's listing says of a file: its ETag is of inode, time in microseconds and size.
fn version(metadata: &Metadata) -> ObjectVersion {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    let micros = since.unwrap_or_default().as_micros();
    ObjectVersion {
        size: metadata.len(),
        e_tag: Some(format!("{:x}-{micros:x}-{:x}", metadata.ino(), metadata.len())),
        modified: modified.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;

    use super::*;

    #[test]
    fn the_version_is_that_of_a_listing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        std::fs::write(&path, "content").expect("a file");
        let files = LocalFileSystem::new_with_prefix(directory.path()).expect("a store");
        let listed = futures::executor::block_on(files.head(&"a".into())).expect("a file");
        let (found, bytes) = read(&path, &[2..4, 0..0, 0..7], None).ok().expect("bytes");
        assert_eq!(found, ObjectVersion::of(&listed));
        assert_eq!(bytes, [&b"nt"[..], b"", b"content"]);
        assert!(matches!(read(&path, &[5..9], None), Err(Failed::Short(_, 2))));
    }
}
