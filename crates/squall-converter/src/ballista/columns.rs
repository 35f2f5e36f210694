//! Columns as text: an Arrow IPC stream without batches, in hexadecimal digits.

use arrow_schema::{Schema as ArrowSchema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use squall_schema::{Error, Result};

use super::hex;

pub(crate) fn to_text(columns: &ArrowSchema) -> Result<String> {
    let mut bytes = Vec::new();
    let written = StreamWriter::try_new(&mut bytes, columns).and_then(|mut writer| writer.finish());
    written.map_err(|error| Error::internal("columns cannot be written").with_source(error))?;
    Ok(hex::encode(&bytes))
}

pub(crate) fn from_text(text: &str) -> Result<SchemaRef> {
    let damaged = || Error::corrupt("columns cannot be read");
    let bytes = hex::decode(text).ok_or_else(damaged)?;
    let reader = StreamReader::try_new(&bytes[..], None).map_err(|error| damaged().with_source(error))?;
    Ok(reader.schema())
}
