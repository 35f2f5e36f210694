//! Files of JSON objects, one a line, to batches.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_json::reader::infer_json_schema_from_iterator;
use arrow_schema::{ArrowError, DataType, Schema as ArrowSchema, SchemaRef};
use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result};

use super::feed::{Failure, Source};
use super::{BATCH_ROWS, TextOptions};

/// Bytes of text after which a batch is decoded, whatever its rows.
const BATCH_BYTES: usize = 8 << 20;
/// The longest line: a file that has none would be taken into memory whole.
const LINE_BYTES: u64 = 256 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The columns of all files together.
pub(super) fn infer(files: &[Source], options: &TextOptions) -> Result<SchemaRef> {
    let mut refused = None;
    let values = files.iter().flat_map(|file| {
        let lines = Lines::open(file);
        let (lines, failed) = match lines {
            Ok(lines) => (Some(lines), None),
            Err(error) => (None, Some(Err(error))),
        };
        let values = lines.into_iter().flatten().map(|line| {
            let (number, text) = line?;
            let value = serde_json::from_slice::<serde_json::Value>(&text);
            match value {
                Ok(value @ serde_json::Value::Object(_)) => Ok(value),
                Ok(_) => Err(file.at(Error::corrupt("expected a JSON object, found another value").at("line", number))),
                Err(error) => Err(not_json(file, number, error)),
            }
        });
        values.chain(failed).take(options.infer_rows.unwrap_or(usize::MAX))
    });
    let values = values.map(|value| {
        value.map_err(|error: Error| {
            let told = ArrowError::JsonError(error.to_string());
            refused = Some(error);
            told
        })
    });
    let inferred = infer_json_schema_from_iterator(values);
    if let Some(error) = refused {
        return Err(error);
    }
    let inferred = inferred.map_err(|error| {
        let error =
            Error::corrupt("the values of a column are of kinds that no type has").with_source(error.to_string());
        match files.first() {
            Some(file) => error.at("URL", file.store.url()),
            None => error,
        }
    })?;
    let fields = inferred.fields().iter().map(|field| match field.data_type() {
        DataType::Null => field.as_ref().clone().with_data_type(DataType::Utf8),
        _ => field.as_ref().clone(),
    });
    Ok(Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>())))
}

/// What becomes of members that are no columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unknown {
    /// The columns were found in the data: one that was not is an error.
    Refused,
    /// The columns were chosen.
    LeftOut,
}

/// Gives the batches of a file to `sink`, until that says that it wants no more.
pub(super) fn read(
    file: &Source,
    columns: (&SchemaRef, Unknown),
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let mut lines = Lines::open(file)?;
    loop {
        let mut text = Vec::new();
        // Of each line its number and its end in the text.
        let mut ends: Vec<(u64, usize)> = Vec::new();
        while ends.len() < BATCH_ROWS && text.len() < BATCH_BYTES {
            let Some(line) = lines.next() else {
                break;
            };
            let (number, line) = line?;
            text.extend_from_slice(&line);
            text.push(b'\n');
            ends.push((number, text.len()));
        }
        if ends.is_empty() {
            return Ok(());
        }
        let batch = decode(columns, &text, ends.len()).map_err(|error| locate(error, file, columns, (&text, &ends)))?;
        if !sink(batch) {
            return Ok(());
        }
    }
}

fn decode((schema, unknown): (&SchemaRef, Unknown), text: &[u8], rows: usize) -> Result<RecordBatch, ArrowError> {
    let mut decoder = ReaderBuilder::new(schema.clone())
        .with_batch_size(rows)
        .with_strict_mode(unknown == Unknown::Refused)
        .build_decoder()?;
    decoder.decode(text)?;
    match decoder.flush()? {
        Some(batch) if batch.num_rows() == rows => Ok(batch),
        _ => Err(ArrowError::JsonError("expected one JSON object a line".to_owned())),
    }
}

/// Decodes line after line, to name the one that does not fit.
fn locate(
    error: ArrowError,
    file: &Source,
    columns: (&SchemaRef, Unknown),
    (text, ends): (&[u8], &[(u64, usize)]),
) -> Error {
    let mut start = 0;
    for (number, end) in ends {
        if let Err(error) = decode(columns, &text[start..*end], 1) {
            return not_json(file, *number, error);
        }
        start = *end;
    }
    file.at(Error::corrupt("the file cannot be read as JSON").with_source(error.to_string()))
}

fn not_json(file: &Source, line: u64, error: impl std::fmt::Display) -> Error {
    file.at(Error::corrupt("the line does not fit")
        .with_source(error.to_string())
        .at("line", line))
}

/// The lines of a file that are not blank, with their numbers from 1.
struct Lines<'a> {
    file: &'a Source,
    bytes: BufReader<Box<dyn Read + Send>>,
    failure: Failure,
    number: u64,
    ended: bool,
}

impl<'a> Lines<'a> {
    fn open(file: &'a Source) -> Result<Self> {
        let opened = file.open()?;
        Ok(Self {
            file,
            bytes: BufReader::with_capacity(1 << 16, opened.bytes),
            failure: opened.failure,
            number: 0,
            ended: false,
        })
    }

    fn line(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.bytes).take(LINE_BYTES + 1).read_until(b'\n', &mut line);
            let read = read.map_err(|error| {
                let fetched = self.failure.take();
                fetched.unwrap_or_else(|| {
                    self.file.at(Error::corrupt("the file cannot be decompressed")
                        .with_source(error)
                        .at("line", self.number + 1))
                })
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 > LINE_BYTES {
                return Err(self.file.at(Error::corrupt(format!(
                    "a line of more than {} MiB: expected a JSON object a line",
                    LINE_BYTES >> 20
                ))
                .at("line", self.number)));
            }
            let text = match line.strip_prefix(BOM) {
                Some(rest) if self.number == 1 => rest,
                _ => &line[..],
            };
            let text = text.trim_ascii();
            if !text.is_empty() {
                return Ok(Some((self.number, text.to_vec())));
            }
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.line().transpose();
        self.ended = !matches!(line, Some(Ok(_)));
        line
    }
}
