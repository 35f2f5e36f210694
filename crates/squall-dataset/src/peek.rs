//! A look into the values of a column, where the metadata does not tell what they are.
//!
//! A Unischema says `datetime64` of an array of times, and only the cells know the unit. Timestamps of 96 bits have no
//! statistics, and only they know whether they are old.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_schema::DataType;
use futures::{FutureExt, StreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use squall_schema::codec::{Codec, cell_dtype};
use squall_schema::{DType, Error, Field, Result, panic_text};

use crate::footer::{Footer, arrow_schema};
use crate::{FileReader, Store, spark};

/// Rows that are decoded at a time to find a cell.
const ROWS: usize = 16;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Gives arrays of times the unit that their first cell has. Those without a cell keep theirs.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub(crate) async fn resolve_times(
    store: &Store,
    listed: &[ObjectMeta],
    footers: &[Footer],
    fields: &mut [Field],
) -> Result<()> {
    for field in fields {
        let (Some(codec @ (Codec::Ndarray | Codec::CompressedNdarray)), DType::Datetime { .. }) =
            (&field.codec, field.dtype)
        else {
            continue;
        };
        for (file, footer) in listed.iter().zip(footers) {
            let at = |error: Error| {
                error
                    .at("column", &field.name)
                    .at("file", &file.location)
                    .at("URL", store.url())
            };
            // The parquet crate panics on some damaged pages.
            let cell = AssertUnwindSafe(first_cell(store, &file.location, &footer.metadata, &field.name));
            let damaged = || Error::corrupt("cannot decode a cell");
            let cell = match cell.catch_unwind().await {
                Ok(cell) => cell.map_err(|error| at(damaged().with_source(error)))?,
                Err(panic) => return Err(at(damaged().with_source(panic_text(&*panic).to_owned()))),
            };
            if let Some(cell) = cell {
                field.dtype = cell_dtype(&cell, codec).map_err(at)?;
                break;
            }
        }
    }
    Ok(())
}

/// The first cell of a binary column that is not null.
async fn first_cell(
    store: &Store,
    path: &Path,
    footer: &Arc<ParquetMetaData>,
    column: &str,
) -> parquet::errors::Result<Option<Vec<u8>>> {
    let file = FileReader {
        store: store.clone(),
        path: path.clone(),
        footer: footer.clone(),
    };
    let mask = ProjectionMask::columns(footer.file_metadata().schema_descr(), [column]);
    let mut rows = ParquetRecordBatchStreamBuilder::new(file)
        .await?
        .with_projection(mask)
        .with_batch_size(ROWS)
        .build()?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let cells = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let cell = cells.and_then(|cells| {
            (0..cells.len())
                .find(|row| cells.is_valid(*row))
                .map(|row| cells.value(row))
        });
        if let Some(cell) = cell {
            return Ok(Some(cell.to_vec()));
        }
    }
    Ok(None)
}

/// The column of a file of an old Spark with a timestamp of 96 bits that another calendar changes, if there is one.
///
/// # Cancel safety
///
/// Dropping the future stops the requests; nothing is kept.
pub(crate) async fn old_int96(store: &Store, path: &Path, footer: &Footer) -> Result<Option<String>> {
    let at = |error: Error| error.at("file", path).at("URL", store.url());
    let old = AssertUnwindSafe(first_old_int96(store, path, &footer.metadata));
    let damaged = || Error::corrupt("cannot decode the timestamps of 96 bits");
    match old.catch_unwind().await {
        Ok(old) => old.map_err(|error| at(damaged().with_source(error))),
        Err(panic) => Err(at(damaged().with_source(panic_text(&*panic).to_owned()))),
    }
}

async fn first_old_int96(
    store: &Store,
    path: &Path,
    footer: &Arc<ParquetMetaData>,
) -> parquet::errors::Result<Option<String>> {
    let file = FileReader {
        store: store.clone(),
        path: path.clone(),
        footer: footer.clone(),
    };
    let calendar = spark::calendar(footer);
    let descr = footer.file_metadata().schema_descr();
    let leaves = (0..descr.num_columns()).filter(|leaf| descr.column(*leaf).physical_type() == Type::INT96);
    let schema = arrow_schema(footer).map_err(|error| ParquetError::External(Box::new(error)))?;
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let mut rows = ParquetRecordBatchStreamBuilder::new_with_options(file, options)
        .await?
        .with_projection(ProjectionMask::leaves(descr, leaves))
        .build()?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let oldest = oldest(column);
            if oldest.is_some_and(|time| calendar.is_old_time(time.div_euclid(MICROS_PER_DAY))) {
                return Ok(Some(field.name().clone()));
            }
        }
    }
    Ok(None)
}

/// The oldest instant in microseconds of a column, at any depth.
fn oldest(column: &dyn Array) -> Option<i64> {
    match column.data_type() {
        DataType::Timestamp(..) => {
            let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
            times.iter().flatten().min()
        }
        DataType::List(_) => oldest(column.as_list::<i32>().values()),
        DataType::Map(..) => oldest(column.as_map().entries()),
        DataType::Struct(_) => column
            .as_struct()
            .columns()
            .iter()
            .filter_map(|member| oldest(member))
            .min(),
        _ => None,
    }
}
