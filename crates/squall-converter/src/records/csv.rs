//! CSV files to batches.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use regex::Regex;
use squall_schema::{Error, Result};

use super::feed::{Failure, Source};
use super::{BATCH_ROWS, TextOptions};

/// Characters of a value that a message shows.
const SHOWN: usize = 60;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The columns of all files together: the narrowest types that all of their values have.
pub(super) fn infer(files: &[Source], options: &TextOptions) -> Result<SchemaRef> {
    let mut merged: Option<Vec<ArrowField>> = None;
    for file in files {
        let opened = file.open()?;
        let failed = |error: ArrowError| refused(error, file, &opened.failure);
        let bytes = without_bom(opened.bytes).map_err(|error| failed(error.into()))?;
        let (own, _) = format(file, options)?
            .infer_schema(bytes, options.infer_rows)
            .map_err(failed)?;
        let fields = || own.fields().iter().map(|field| field.as_ref().clone());
        let Some(merged) = &mut merged else {
            merged = Some(fields().collect());
            continue;
        };
        if !merged
            .iter()
            .map(ArrowField::name)
            .eq(own.fields().iter().map(|field| field.name()))
        {
            let names = |fields: &mut dyn Iterator<Item = String>| fields.collect::<Vec<_>>().join(", ");
            return Err(file.at(Error::corrupt(format!(
                "expected the columns of the first file, {}, found {}",
                names(&mut merged.iter().map(|field| field.name().clone())),
                names(&mut fields().map(|field| field.name().clone()))
            ))));
        }
        for (merged, own) in merged.iter_mut().zip(fields()) {
            let wider = wider(merged.data_type(), own.data_type());
            *merged = merged.clone().with_data_type(wider);
        }
    }
    let fields = merged
        .unwrap_or_default()
        .into_iter()
        .map(|field| match field.data_type() {
            // Nothing but nulls.
            DataType::Null => field.with_data_type(DataType::Utf8),
            DataType::Timestamp(_, zone) => {
                let unit = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, zone.clone());
                field.with_data_type(unit)
            }
            _ => field,
        });
    Ok(Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>())))
}

/// The type that holds the values of two columns, as within one file.
fn wider(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        (a, b) if a == b => a.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        (DataType::Timestamp(..) | DataType::Date32, DataType::Timestamp(_, zone))
        | (DataType::Timestamp(_, zone), DataType::Date32) => {
            DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, zone.clone())
        }
        _ => DataType::Utf8,
    }
}

/// Gives the batches of a file to `sink`, until that says that it wants no more.
pub(super) fn read(
    file: &Source,
    schema: &SchemaRef,
    options: &TextOptions,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let opened = file.open()?;
    let failed = |error: ArrowError| refused(error, file, &opened.failure);
    let bytes = without_bom(opened.bytes).map_err(|error| failed(error.into()))?;
    let reader = ReaderBuilder::new(schema.clone())
        .with_format(format(file, options)?)
        .with_header(options.header)
        .with_header_validation(options.header)
        .with_batch_size(BATCH_ROWS)
        .build_buffered(bytes)
        .map_err(failed)?;
    let mut rows = 0;
    for batch in reader {
        match batch {
            Ok(batch) => {
                rows += batch.num_rows();
                if !sink(batch) {
                    break;
                }
            }
            Err(error) => {
                return Err(match opened.failure.take() {
                    Some(error) => error,
                    None => locate(error, file, schema, (options, rows)),
                });
            }
        }
    }
    Ok(())
}

fn delimiter(file: &Source, options: &TextOptions) -> u8 {
    let name = file.path.filename().unwrap_or_default().to_ascii_lowercase();
    let (_, name) = super::Compressed::of_name(&name);
    let own = if name.ends_with(".tsv") { b'\t' } else { b',' };
    options.delimiter.unwrap_or(own)
}

fn format(file: &Source, options: &TextOptions) -> Result<Format> {
    let null = match &options.null {
        Some(null) => format!("^(?:{})?$", regex::escape(null)),
        None => "^$".to_owned(),
    };
    let null = Regex::new(&null).map_err(|error| Error::invalid("the text of nulls is too long").with_source(error))?;
    let format = Format::default()
        .with_header(options.header)
        .with_delimiter(delimiter(file, options))
        .with_quote(options.quote)
        .with_null_regex(null);
    Ok(match options.escape {
        Some(escape) => format.with_escape(escape),
        None => format,
    })
}

fn without_bom(bytes: Box<dyn Read + Send>) -> std::io::Result<BufReader<Box<dyn Read + Send>>> {
    let mut bytes = BufReader::with_capacity(1 << 16, bytes);
    if bytes.fill_buf()?.starts_with(BOM) {
        bytes.consume(BOM.len());
    }
    Ok(bytes)
}

/// What arrow says, where no record is to blame.
fn refused(error: ArrowError, file: &Source, failure: &Failure) -> Error {
    let fetched = failure.take();
    fetched.unwrap_or_else(|| file.at(Error::corrupt("the file cannot be read as CSV").with_source(error.to_string())))
}

/// Reads the file once more, up to the record that was refused behind `rows` good ones, to name its line and its value. Lines are
/// not records: a quoted value may hold line ends.
fn locate(error: ArrowError, file: &Source, schema: &SchemaRef, (options, rows): (&TextOptions, usize)) -> Error {
    let told = || file.at(Error::corrupt("the file cannot be read as CSV").with_source(error.to_string()));
    let found = || -> Result<Option<Error>> {
        let format = format(file, options)?;
        let failed = |error: ArrowError| refused(error, file, &Failure::default());
        // First the record: one a batch.
        let bytes = without_bom(file.open()?.bytes).map_err(|error| failed(error.into()))?;
        let one = ReaderBuilder::new(schema.clone())
            .with_format(format)
            .with_header(options.header)
            .with_batch_size(1)
            .with_bounds(rows, rows + BATCH_ROWS + 1)
            .build_buffered(bytes)
            .map_err(failed)?;
        let mut good = 0;
        let mut why = None;
        for batch in one {
            match batch {
                Ok(_) => good += 1,
                Err(error) => {
                    why = Some(error.to_string());
                    break;
                }
            }
        }
        let Some(why) = why else {
            return Ok(None);
        };
        // Then its line.
        let bytes = without_bom(file.open()?.bytes).map_err(|error| failed(error.into()))?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(options.header)
            .delimiter(delimiter(file, options))
            .quote(options.quote)
            .escape(options.escape)
            .double_quote(true)
            .flexible(true)
            .from_reader(bytes);
        let Some(Ok(record)) = reader.byte_records().nth(rows + good) else {
            return Ok(None);
        };
        let line = record.position().map_or(0, csv::Position::line);
        let column = Regex::new(r"(?:for|parsing) column (\d+)").ok();
        let column = column.and_then(|regex| regex.captures(&why)?.get(1)?.as_str().parse::<usize>().ok());
        let error = match column.and_then(|column| Some((schema.fields().get(column)?, record.get(column)?))) {
            _ if record.len() != schema.fields().len() => Error::corrupt(format!(
                "expected a record of {} values, found one of {}",
                schema.fields().len(),
                record.len()
            )),
            Some((field, value)) => {
                let shown: String = String::from_utf8_lossy(value).chars().take(SHOWN).collect();
                Error::corrupt(format!("the value {shown:?} is not of type {}", field.data_type()))
                    .at("column", field.name())
            }
            None => Error::corrupt("the record cannot be read").with_source(why),
        };
        Ok(Some(file.at(error.at("line", line))))
    };
    found().unwrap_or_else(Some).unwrap_or_else(told)
}
