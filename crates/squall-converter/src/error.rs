//! DataFusion's errors, by what the caller can do about them.

use std::error::Error as StdError;
use std::io;

use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use squall_dataset::storage_error;
use squall_schema::{ByteSize, Error, ErrorKind};

/// The error of a query, as one sentence.
pub(crate) fn query_error(error: DataFusionError) -> Error {
    let error = match own(error) {
        Ok(error) => return error,
        Err(error) => error,
    };
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

/// The error that a source of ours gave the engine, as it was.
fn own(error: DataFusionError) -> Result<Error, DataFusionError> {
    match error {
        DataFusionError::External(source) => source
            .downcast::<Error>()
            .map(|error| *error)
            .map_err(DataFusionError::External),
        DataFusionError::Context(context, inner) => {
            own(*inner).map_err(|inner| DataFusionError::Context(context, Box::new(inner)))
        }
        other => Err(other),
    }
}

/// The error of a writer; what the store said comes back whole.
pub(crate) fn write_error(error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(store) => store_error(*store),
            Err(other) => {
                disk_error(&*other).unwrap_or_else(|| Error::new(ErrorKind::Storage, "cannot write").with_source(other))
            }
        },
        other => Error::internal("cannot encode Parquet").with_source(other),
    }
}

/// The error of a store that is written to: where a disk is behind it, what the disk lacks.
pub(crate) fn store_error(error: object_store::Error) -> Error {
    disk_error(&error).unwrap_or_else(|| storage_error(error))
}

/// What the innermost error of the system says, if it tells what the disk lacks.
fn disk_error(error: &(dyn StdError + 'static)) -> Option<Error> {
    let (mut found, mut next) = (None, Some(error));
    while let Some(cause) = next {
        found = cause.downcast_ref::<io::Error>().or(found);
        next = cause.source();
    }
    let found = found?;
    let problem = file_problem(found)?;
    Some(Error::new(ErrorKind::Storage, problem).with_source(found.to_string()))
}

/// What the file system lacks for a file to be written, in a sentence, where that can be told.
pub(crate) fn file_problem(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::StorageFull => "no space is left on the disk",
        io::ErrorKind::QuotaExceeded => "the quota of the disk is used up",
        io::ErrorKind::FileTooLarge => "the file system, or a limit of the process, does not take a file so large",
        io::ErrorKind::PermissionDenied => "writing is not permitted there",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        io::ErrorKind::InvalidFilename => "a name of the path is too long for the file system",
        io::ErrorKind::NotADirectory => "a part of the path is a file: expected a directory",
        _ => return None,
    })
}

/// The error of the engine under a limit of memory, which is named where it is the reason.
pub(crate) fn limited(error: DataFusionError, limit: Option<ByteSize>) -> Error {
    match (error.find_root(), limit) {
        (DataFusionError::ResourcesExhausted(why), Some(limit)) => Error::new(
            ErrorKind::Engine,
            format!("the memory limit of {limit} does not suffice for the query: raise it"),
        )
        .with_source(why.replace('\n', " ")),
        _ => query_error(error),
    }
}
