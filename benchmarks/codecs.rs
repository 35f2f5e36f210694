//! Cells a second of each codec, beside the limit of the same machine in the same run: a copy of the bytes that come out.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin codecs
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BinaryArray};
use clap::Parser;
use squall::codec::{Codec, decode_column, encode_value};
use squall::{DType, Field, Shape, Tensor, Value};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures what it takes to decode columns of cells of fixed shape.
#[derive(Parser)]
struct Options {
    /// Bytes of a decoded column, about
    #[arg(long, default_value_t = 8 << 20)]
    bytes: usize,
    /// The best of so many runs counts: the machine may be shared
    #[arg(long, default_value_t = 20)]
    repeat: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    println!(
        "{:<10} {:<22} {:>10} {:>12} {:>8} {:>10}",
        "codec", "value", "cell bytes", "µs a cell", "GB/s", "of a copy"
    );
    let floats = |dims: &[usize]| -> Result<Tensor> {
        let n: usize = dims.iter().product();
        Ok(Tensor::from_vec(
            dims,
            (0..n).map(|i| (i as f32 / 7.0).sin()).collect(),
        )?)
    };
    for (codec, tensor) in [
        (Codec::Ndarray, floats(&[20])?),
        (Codec::Ndarray, floats(&[64, 128])?),
        (Codec::CompressedNdarray, floats(&[64, 128])?),
        (Codec::Png, picture(224, 224)?),
        (Codec::Jpeg { quality: 80 }, picture(224, 224)?),
    ] {
        measure(&options, codec, tensor)?;
    }
    Ok(())
}

/// Gradients with some noise: neither flat nor random, as photographs are.
fn picture(height: usize, width: usize) -> Result<Tensor> {
    let mut noise = 1u32;
    let mut pixels = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let wave = ((x * (channel + 1)) as f32 / 40.0).sin() * 60.0 + (y as f32 / 25.0).cos() * 50.0;
                pixels.push((128.0 + wave + (noise >> 28) as f32) as u8);
            }
        }
    }
    Ok(Tensor::from_vec(&[height, width, 3], pixels)?)
}

fn measure(options: &Options, codec: Codec, tensor: Tensor) -> Result<()> {
    let field = Field::new("x", tensor.dtype(), Shape::fixed(tensor.shape())).with_codec(Some(codec.clone()));
    let size = tensor.data().len();
    let cells = (options.bytes / size).max(1);
    let value = Value::Tensor(tensor);
    let cell = encode_value(&value, &field)?;
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&cell; cells]));
    let best = |run: &dyn Fn() -> Result<()>| -> Result<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..options.repeat {
            let began = Instant::now();
            run()?;
            best = best.min(began.elapsed());
        }
        Ok(best)
    };
    let decoded = best(&|| {
        black_box(decode_column(&column, &field)?);
        Ok(())
    })?;
    // A fresh buffer each time, as the decoder's: the pages of both are touched for the first time.
    let bytes = vec![1u8; size * cells];
    let copied = best(&|| {
        black_box(black_box(&bytes).clone());
        Ok(())
    })?;
    let dtype: DType = field.dtype;
    println!(
        "{:<10} {:<22} {:>10} {:>12.3} {:>8.2} {:>10.3}",
        codec.to_string(),
        format!("{dtype}{}", field.shape),
        cell.len(),
        decoded.as_secs_f64() * 1e6 / cells as f64,
        (size * cells) as f64 / decoded.as_secs_f64() / 1e9,
        copied.as_secs_f64() / decoded.as_secs_f64(),
    );
    Ok(())
}
