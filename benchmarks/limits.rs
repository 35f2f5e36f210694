//! What the machine can do at best: Parquet that is decoded and thrown away, images that are decoded where they lie, copies.

use std::fs::File;
use std::hint::black_box;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::Result;
use crate::sets::Set;

/// Bytes of the batch that a copy is made to.
const COPY_BYTES: usize = 4 << 20;

/// As what a scan reads binary columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// With a copy into one buffer.
    Copied,
    /// As views of the pages.
    Viewed,
}

/// A file, its footer, and a row group of it.
type RowGroup = (PathBuf, ArrowReaderMetadata, usize);

/// Decodes all row groups on all threads, throws the rows away and counts them. Opening the files is part of it.
pub fn raw_scan(set: &Set, threads: usize, binary: Binary) -> Result<usize> {
    let row_groups = row_groups(set, binary)?;
    on_threads(threads, row_groups.len(), |i, rows: &mut usize| {
        let (path, metadata, row_group) = &row_groups[i];
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(path)?, metadata.clone());
        for batch in builder
            .with_row_groups(vec![*row_group])
            .with_batch_size(8192)
            .build()?
        {
            *rows += black_box(batch?).num_rows();
        }
        Ok(())
    })
    .map(|rows| rows.into_iter().sum())
}

/// Rows of the largest row group.
pub fn largest_row_group(set: &Set) -> Result<u64> {
    let row_groups = row_groups(set, Binary::Copied)?;
    let rows = row_groups
        .iter()
        .map(|(_, metadata, i)| metadata.metadata().row_group(*i).num_rows() as u64);
    Ok(rows.max().unwrap_or_default())
}

/// The cells of a binary column.
pub fn cells(set: &Set, column: &str) -> Result<Vec<Vec<u8>>> {
    let mut cells = Vec::new();
    for path in &set.files {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
        for batch in builder.with_projection(mask).build()? {
            let batch = batch?;
            let column = batch.column(0).as_binary::<i32>();
            cells.extend(column.iter().flatten().map(<[u8]>::to_vec));
        }
    }
    Ok(cells)
}

/// Decodes images in memory, one after the other on each thread, each into the same buffer: no pipeline, no batch. By the
/// libraries that Squall uses itself.
pub fn bare_decode(cells: &[Vec<u8>], threads: usize) -> Result<usize> {
    let decoded = on_threads(threads, cells.len(), |i, (n, pixels): &mut (usize, Vec<u8>)| {
        let cell = &cells[i];
        match cell.starts_with(b"\x89PNG") {
            true => decode_png(cell, pixels)?,
            false => decode_jpeg(cell, pixels)?,
        }
        black_box(&pixels);
        *n += 1;
        Ok(())
    })?;
    Ok(decoded.into_iter().map(|(n, _)| n).sum())
}

/// The library that decodes jpeg.
pub const JPEG_LIBRARY: &str = if cfg!(feature = "jpeg-turbo") {
    "libjpeg-turbo"
} else {
    "zune-jpeg"
};

/// Copies `rows` rows of so many bytes, on all threads, into a batch that is used again and again.
pub fn copy(rows: usize, row_bytes: usize, threads: usize) -> Result<usize> {
    // Large enough not to stay in a cache.
    let source = vec![1u8; 64 * COPY_BYTES];
    let batches = (rows * row_bytes).div_ceil(COPY_BYTES);
    let copied = on_threads(threads, batches, |i, (n, batch): &mut (usize, Vec<u8>)| {
        batch.clear();
        batch.extend_from_slice(&source[(i % 64) * COPY_BYTES..][..COPY_BYTES]);
        black_box(&batch);
        *n += COPY_BYTES;
        Ok(())
    })?;
    Ok(copied.into_iter().map(|(n, _)| n).sum::<usize>() / row_bytes)
}

/// Does `work` for `0..n` on some threads, each of which takes the next number when it is done with one, and has a result of
/// its own.
fn on_threads<T: Default + Send>(
    threads: usize,
    n: usize,
    work: impl Fn(usize, &mut T) -> Result<()> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let run = || {
            let mut result = T::default();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return Ok(result);
                }
                work(i, &mut result)?;
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .collect()
    })
}

fn row_groups(set: &Set, binary: Binary) -> Result<Vec<RowGroup>> {
    let mut row_groups = Vec::new();
    for path in &set.files {
        let file = File::open(path)?;
        let mut metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        if binary == Binary::Viewed {
            let viewed = |field: &Arc<Field>| match field.data_type() {
                DataType::Binary => field.as_ref().clone().with_data_type(DataType::BinaryView),
                _ => field.as_ref().clone(),
            };
            let schema = Schema::new(metadata.schema().fields().iter().map(viewed).collect::<Vec<_>>());
            let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
            metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)?;
        }
        let n = metadata.metadata().num_row_groups();
        row_groups.extend((0..n).map(|i| (path.clone(), metadata.clone(), i)));
    }
    Ok(row_groups)
}

fn decode_png(cell: &[u8], pixels: &mut Vec<u8>) -> Result<()> {
    let mut reader = png::Decoder::new(Cursor::new(cell)).read_info()?;
    pixels.resize(reader.output_buffer_size().ok_or("a png image too large")?, 0);
    reader.next_frame(pixels)?;
    Ok(())
}

#[cfg(not(feature = "jpeg-turbo"))]
fn decode_jpeg(cell: &[u8], pixels: &mut Vec<u8>) -> Result<()> {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;

    let failed = |error: zune_jpeg::errors::DecodeErrors| error.to_string();
    let mut decoder = JpegDecoder::new(ZCursor::new(cell));
    decoder.decode_headers().map_err(failed)?;
    pixels.resize(decoder.output_buffer_size().ok_or("a jpeg image without a size")?, 0);
    decoder.decode_into(pixels).map_err(failed)?;
    Ok(())
}

#[cfg(feature = "jpeg-turbo")]
fn decode_jpeg(cell: &[u8], pixels: &mut Vec<u8>) -> Result<()> {
    let mut image = mozjpeg::Decompress::new_mem(cell)?.rgb()?;
    pixels.resize(image.width() * image.height() * 3, 0);
    image.read_scanlines_into::<u8>(pixels)?;
    image.finish()?;
    Ok(())
}
