//! The files of a dataset, in the order of their paths.

use object_store::ObjectMeta;
use object_store::path::Path;
use squall_schema::{Error, ErrorKind, Result};

use crate::{ObjectVersion, Store};

/// The data files below the dataset's directory, sorted by path.
///
/// Spark, Hadoop and Petastorm keep their own files beside the data; what they hide is skipped: names that begin with
/// `_` or `.` (directories such as `_temporary` with all that is in them, but not partition directories such as
/// `_part=1`), and checksums.
///
/// From now on the store reads these states of them and no others.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub async fn data_files(store: &Store) -> Result<Vec<ObjectMeta>> {
    let mut files = match store.only() {
        // A web server lists nothing, and a large directory takes long to.
        Some(only) => store
            .head(only)
            .await?
            .map(|found| object(only, found))
            .into_iter()
            .collect(),
        None => store.list().await?,
    };
    files.retain(|file| store.only().is_some() || !is_hidden(&file.location));
    files.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
    if files.is_empty() {
        return Err(
            Error::new(ErrorKind::NotFound, "there is no Parquet file in the directory").at("URL", store.url()),
        );
    }
    for file in &files {
        store.pin(&file.location, ObjectVersion::of(file));
    }
    Ok(files)
}

fn object(path: &Path, found: ObjectVersion) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: found.modified.unwrap_or_default(),
        size: found.size,
        e_tag: found.e_tag,
        version: None,
    }
}

/// Whether a path is none of a data file: what Spark, Hadoop and Petastorm hide.
pub fn is_hidden(path: &Path) -> bool {
    let parts: Vec<_> = path.parts().collect();
    let Some((name, directories)) = parts.split_last() else {
        return true;
    };
    let hidden = |part: &str| part.starts_with(['_', '.']);
    let name = name.as_ref();
    let in_hidden = directories
        .iter()
        .any(|part| hidden(part.as_ref()) && !part.as_ref().contains('='));
    in_hidden || hidden(name) || name.ends_with(".crc") || name.ends_with("_$folder$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spark_hides_is_hidden() {
        for path in [
            "_SUCCESS",
            "_temporary/0/part-0.parquet",
            ".part-0.parquet.crc",
            "a=1/._x",
            "a=1/_committed_7",
            "d_$folder$",
        ] {
            assert!(is_hidden(&Path::from(path)), "{path}");
        }
        for path in ["part-0.parquet", "_a=1/part-0.parquet", "a=1/000000_0"] {
            assert!(!is_hidden(&Path::from(path)), "{path}");
        }
    }
}
