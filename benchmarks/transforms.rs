//! What a transform costs a row, on one worker: a reader without one, beside the same reader with closures that do nothing, and
//! that scale an image of 28x28 bytes to floats.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin transforms
//! ```

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::types::UInt8Type;
use arrow_array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch};
use clap::Parser;
use parquet::arrow::ArrowWriter;
use squall::{DType, Field, Shape, Shuffle, TransformSpec, make_batch_reader};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PIXELS: usize = 28 * 28;

/// Measures closures over rows.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 50_000)]
    rows: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 7)]
    repeat: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let directory = tempfile::tempdir()?;
    write(directory.path(), options.rows)?;
    let image = Field::new("image", DType::Float32, Shape::fixed(&[PIXELS]));
    let scale = TransformSpec::per_row(|row| {
        let scaled = row.tensor("image")?.map(|pixel: u8| f32::from(pixel) / 255.0)?;
        row.set("image", scaled);
        Ok(())
    });
    let ways = [
        ("no transform", TransformSpec::new()),
        ("a closure that does nothing", TransformSpec::per_row(|_| Ok(()))),
        ("a closure that scales an image", scale.edit(image)),
    ];
    let mut none = None;
    for (name, transform) in ways {
        let mut best = f64::MAX;
        for _ in 0..options.repeat {
            let began = Instant::now();
            let reader = make_batch_reader(directory.path().display().to_string());
            let reader = reader
                .shuffle(Shuffle::None)
                .batch_size(256)
                .workers(1)
                .transform(transform.clone());
            let mut rows = 0;
            for batch in reader.build()? {
                rows += batch?.num_rows();
            }
            assert_eq!(rows, options.rows);
            best = best.min(began.elapsed().as_secs_f64() * 1e6 / rows as f64);
        }
        let none = *none.get_or_insert(best);
        println!("{name:<32} {best:>8.3} µs a row {:>8.3} more", best - none);
    }
    Ok(())
}

fn write(directory: &Path, rows: usize) -> Result<()> {
    let images = (0..rows).map(|row| Some((0..PIXELS).map(move |i| Some((row * 7 + i * 3) as u8))));
    let images = FixedSizeListArray::from_iter_primitive::<UInt8Type, _, _>(images, PIXELS as i32);
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_from_iter([("id", ids.clone()), ("label", ids), ("image", Arc::new(images))])?;
    let mut writer = ArrowWriter::try_new(File::create(directory.join("part-0.parquet"))?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
