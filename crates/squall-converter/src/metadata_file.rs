//! The bytes of the file that makes a directory a dataset.

use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use squall_dataset::{SEAL_KEY, UNSEALED, seal};
use squall_schema::Result;
use squall_schema::metadata::{self, DatasetMetadata};

use crate::error::write_error;

/// A Parquet file without rows, with the description of the dataset in its footer.
///
/// Without the Arrow schema that files of rows have: Petastorm's tools, when they add a key, keep those that pyarrow shows as
/// the schema's metadata, and these are the footer's where no other schema is there.
pub(crate) fn metadata_file(
    columns: SchemaRef,
    dataset: &DatasetMetadata,
    others: Vec<(String, String)>,
) -> Result<Vec<u8>> {
    let own = [(metadata::KEY, dataset.to_json()?), (SEAL_KEY, UNSEALED.to_owned())]
        .map(|(key, value)| (key.to_owned(), value));
    let pairs = others.into_iter().chain(own);
    let pairs = pairs.map(|(key, value)| KeyValue::new(key, value));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(pairs.collect()))
        .build();
    let mut bytes = Vec::new();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(&mut bytes, columns, options);
    writer.and_then(ArrowWriter::close).map_err(write_error)?;
    seal(bytes)
}
