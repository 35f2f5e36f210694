//! Avro object container files to batches.

use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_avro::reader::{Reader, ReaderBuilder};
use arrow_avro::schema::AvroSchema;
use arrow_schema::{ArrowError, SchemaRef};
use squall_schema::{Error, Result};

use super::BATCH_ROWS;
use super::feed::{Failure, Source};

/// The key of the schema in a file's header.
const SCHEMA_KEY: &[u8] = b"avro.schema";
/// Bytes of the marker that each block ends with.
const SYNC: usize = 16;

/// The schema of the first file: the others are read as that, by Avro's rules of schema resolution.
#[derive(Debug, Clone)]
pub(super) struct Avro {
    /// As JSON.
    text: Arc<str>,
    pub(super) columns: SchemaRef,
}

#[cfg(feature = "ballista")]
impl Avro {
    pub(super) fn new(text: &str, columns: SchemaRef) -> Self {
        Self {
            text: text.into(),
            columns,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

type Rows = Reader<BufReader<Noting>>;

/// The columns of the first file.
pub(super) fn infer(files: &[Source]) -> Result<Avro> {
    let Some(file) = files.first() else {
        return Err(Error::invalid("there is no file"));
    };
    let (reader, ..) = open(file, None)?;
    let text = reader
        .avro_header()
        .get(SCHEMA_KEY)
        .and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or_else(|| file.at(Error::corrupt("the header has no schema")))?;
    Ok(Avro {
        text: text.into(),
        columns: reader.schema(),
    })
}

/// Gives the batches of a file to `sink`, until that says that it wants no more.
pub(super) fn read(file: &Source, avro: &Avro, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
    let (mut reader, failure, tail) = open(file, Some(avro))?;
    let mut rows = 0;
    for batch in &mut reader {
        let batch = batch.map_err(|error| refused(error, file, &failure).at("rows before it", rows))?;
        rows += batch.num_rows();
        if !sink(batch) {
            return Ok(());
        }
    }
    // Arrow's reader takes a block that is cut short for the end.
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    if *tail != reader.avro_header().sync() {
        return Err(file.at(Error::corrupt(
            "the file is cut short: it does not end with its sync marker",
        )));
    }
    Ok(())
}

/// The last bytes that were read.
type Tail = Arc<Mutex<[u8; SYNC]>>;

/// Notes the last bytes that go through it.
struct Noting {
    bytes: Box<dyn Read + Send>,
    tail: Tail,
}

impl Read for Noting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let new = n.min(SYNC);
        tail.rotate_left(new);
        tail[SYNC - new..].copy_from_slice(&buffer[n - new..n]);
        Ok(n)
    }
}

fn open(file: &Source, avro: Option<&Avro>) -> Result<(Rows, Failure, Tail)> {
    let opened = file.open()?;
    let tail = Tail::default();
    let bytes = Noting {
        bytes: opened.bytes,
        tail: tail.clone(),
    };
    let mut builder = ReaderBuilder::new().with_batch_size(BATCH_ROWS);
    if let Some(avro) = avro {
        builder = builder.with_reader_schema(AvroSchema::new(avro.text.to_string()));
    }
    let reader = builder.build(BufReader::with_capacity(1 << 16, bytes));
    let reader = reader.map_err(|error| refused(error, file, &opened.failure))?;
    Ok((reader, opened.failure, tail))
}

fn refused(error: ArrowError, file: &Source, failure: &Failure) -> Error {
    let fetched = failure.take();
    fetched.unwrap_or_else(|| file.at(Error::corrupt("the file cannot be read as Avro").with_source(error.to_string())))
}
