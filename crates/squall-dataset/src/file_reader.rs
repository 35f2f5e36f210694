//! A file of a store as parquet reads it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::Store;

/// A Parquet file of a store, whose footer is here already.
#[derive(Debug, Clone)]
pub struct FileReader {
    /// Where it lies.
    pub store: Store,
    /// Its place there.
    pub path: Path,
    /// Its footer.
    pub footer: Arc<ParquetMetaData>,
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let got = self.store.get_ranges(&self.path, &[range]).await;
            let mut bytes = got.map_err(|error| ParquetError::External(Box::new(error)))?;
            Ok(bytes.pop().unwrap_or_default())
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async { Ok(self.footer.clone()) }.boxed()
    }
}
