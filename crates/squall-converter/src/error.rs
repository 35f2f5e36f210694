//! DataFusion's errors, by what the caller can do about them.

use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use squall_dataset::storage_error;
use squall_schema::{Error, ErrorKind};

/// The error of a query, as one sentence.
pub(crate) fn query_error(error: DataFusionError) -> Error {
    let kind = match error.find_root() {
        DataFusionError::SQL(..) | DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => {
            ErrorKind::InvalidInput
        }
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Engine,
    };
    let what = match kind {
        ErrorKind::InvalidInput => "the query does not fit the source",
        ErrorKind::Unsupported => "the query needs what DataFusion does not have",
        ErrorKind::Corrupt => "the source cannot be decoded",
        _ => "the query failed",
    };
    // DataFusion lists valid names on lines of their own.
    Error::new(kind, what).with_source(error.strip_backtrace().replace('\n', " "))
}

/// The error of a writer; what the store said comes back whole.
pub(crate) fn write_error(error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(store) => storage_error(*store),
            Err(other) => Error::new(ErrorKind::Storage, "cannot write").with_source(other),
        },
        other => Error::internal("cannot encode Parquet").with_source(other),
    }
}
