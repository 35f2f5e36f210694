//! A store that is written to only as long as a driver wants the work.
//!
//! A driver may end between a look at its lease and the put of a file. So an attempt looks before a file is put and again after it, and
//! takes the file away if the work was not wanted any more. The driver marks its lease before it sweeps: a file is there when the
//! driver sweeps, or whoever put it sees the mark. Only what no record names is taken away so, or the record itself when it is no
//! longer read: the files of a record may be part of a dataset by now.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use squall_dataset::Store;

use super::lease::Watch;

/// The store `files`, which is written to as long as the driver of `pass` wants it; its lease is in `place`.
pub(crate) fn guarded(files: &Store, place: &Store, pass: &str) -> Store {
    let (place, pass) = (place.clone(), pass.to_owned());
    files.clone().with_objects(|objects| {
        Arc::new(Guarded(Arc::new(Guard {
            files: objects,
            place,
            pass,
        })))
    })
}

fn failed(error: squall_schema::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "cluster",
        source: Box::new(error),
    }
}

struct Guard {
    files: Arc<dyn ObjectStore>,
    place: Store,
    pass: String,
}

impl Guard {
    async fn look(&self) -> Result<()> {
        let looked = Watch::of(&self.pass).look(&self.place).await;
        looked.map_err(|unwanted| failed(unwanted.error))
    }

    /// Takes away what was put too late, or perhaps too late: what nobody can tell of has no record.
    async fn look_back(&self, path: &Path) -> Result<()> {
        let looked = Watch::of(&self.pass).make_sure(&self.place).await;
        if looked.is_err() {
            // It is the error of the look that counts.
            let _ = self.files.delete(path).await;
        }
        looked.map_err(failed)
    }
}

/// The guard of a store.
#[derive(Clone)]
struct Guarded(Arc<Guard>);

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({:?})", self.0.files)
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.files.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Guarded {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.look().await?;
        let put = self.0.files.put_opts(path, payload, options).await;
        // It may be there after an error, too. What was there before is not its own.
        if !matches!(
            put,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
        ) {
            self.0.look_back(path).await?;
        }
        put
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.look().await?;
        Ok(Box::new(GuardedUpload {
            upload: self.0.files.put_multipart_opts(path, options).await?,
            guard: self.clone(),
            path: path.clone(),
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.files.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.files.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.files.rename_opts(from, to, options).await
    }
}

/// A file that comes in parts, and is there once it is complete.
#[derive(Debug)]
struct GuardedUpload {
    upload: Box<dyn MultipartUpload>,
    guard: Guarded,
    path: Path,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for GuardedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if let Err(unwanted) = self.guard.0.look().await {
            let _ = self.upload.abort().await;
            return Err(unwanted);
        }
        let put = self.upload.complete().await;
        // It may be there after an error, too.
        self.guard.0.look_back(&self.path).await?;
        put
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use squall_dataset::DatasetUrl;

    use super::super::lease::Lease;
    use super::*;

    #[tokio::test]
    async fn what_is_put_too_late_is_not_there() {
        let url = DatasetUrl::parse("memory://guard/late").expect("a URL");
        let place = Store::create(&url).expect("a store");
        let mut lease = Lease::begin(&place, "one").await.expect("a lease");
        let store = guarded(&place, &place, "one-0-write");
        let is_there = async |name: &str| place.head(&Path::from(name)).await.expect("a look").is_some();
        store
            .objects()
            .put(&Path::from("early"), "x".into())
            .await
            .expect("a put");
        let mut open = store
            .objects()
            .put_multipart(&Path::from("open"))
            .await
            .expect("an upload");
        open.put_part("x".into()).await.expect("a part");
        lease.over().await;
        let error = open.complete().await.expect_err("nobody wants it");
        assert!(error.to_string().contains("the conversion is over"), "{error}");
        store
            .objects()
            .put(&Path::from("late"), "x".into())
            .await
            .expect_err("nobody wants it");
        // As if the driver had ended in between.
        place
            .objects()
            .put(&Path::from("between"), "x".into())
            .await
            .expect("a put");
        let guard = Guard {
            files: place.objects().clone(),
            place: place.clone(),
            pass: "one-0-write".to_owned(),
        };
        guard
            .look_back(&Path::from("between"))
            .await
            .expect_err("nobody wants it");
        assert!(is_there("early").await && !is_there("open").await);
        assert!(!is_there("late").await && !is_there("between").await);
        lease.end().await;
        store
            .objects()
            .put(&Path::from("late"), "x".into())
            .await
            .expect_err("nobody waits");
    }
}
