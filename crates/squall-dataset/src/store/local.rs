//! Reads of local files: each range with one call, into a buffer that was used before.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::pool::Pool;
use super::version::ObjectVersion;

/// Why a file was not read.
pub(super) enum Failed {
    Io(io::Error),
    /// It is another than was expected.
    Replaced(ObjectVersion),
    /// It ends within a range; so many bytes of it are there.
    Short(Range<u64>, u64),
}

/// The bytes of these ranges, and what the file is. Blocks.
pub(super) fn read(
    path: &Path,
    ranges: &[Range<u64>],
    known: Option<&ObjectVersion>,
    pool: &Arc<Pool>,
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
        let short = || Failed::Short(range.clone(), found.size.saturating_sub(range.start));
        if range.end > found.size {
            return Err(short());
        }
        let mut buffer = pool.take((range.end - range.start) as usize);
        match file.read_exact_at(buffer.as_mut(), range.start) {
            Ok(()) => Ok(buffer.freeze()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(short()),
            Err(error) => Err(Failed::Io(error)),
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
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, of which some have one")]
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
        let pool = Arc::default();
        let (found, bytes) = read(&path, &[2..4, 0..0, 0..7], None, &pool).ok().expect("bytes");
        assert_eq!(found, ObjectVersion::of(&listed));
        assert_eq!(bytes, [&b"nt"[..], b"", b"content"]);
        assert!(matches!(read(&path, &[5..9], None, &pool), Err(Failed::Short(_, 2))));
    }
}
