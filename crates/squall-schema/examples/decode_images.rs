//! How long image files take to be decoded: the figures of docs/codecs.md.
//!
//! ```text
//! cargo run --release -p squall-schema --example decode_images -- a.jpeg b.png
//! cargo run --release -p squall-schema --features jpeg-turbo --example decode_images -- a.jpeg
//! ```
//!
//! Both builds, with nasm on the `PATH` and without, are to be run one after the other on an idle machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BinaryArray};
use squall_schema::codec::{Codec, decode_column};
use squall_schema::{DType, Field, Shape};

/// Cells in a column, and columns of which the fastest counts: the machine may be shared.
const CELLS: usize = 8;
const REPEAT: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let library = if cfg!(feature = "jpeg-turbo") {
        "libjpeg-turbo"
    } else {
        "zune-jpeg"
    };
    for path in std::env::args().skip(1) {
        let cell = std::fs::read(&path)?;
        let (codec, name) = match path.ends_with(".png") {
            true => (Codec::Png, "png"),
            false => (Codec::Jpeg { quality: 80 }, library),
        };
        // Any shape: the column is made of whatever size the image has.
        let field = Field::new("image", DType::UInt8, Shape(vec![None, None, Some(3)])).with_codec(Some(codec));
        let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&cell; CELLS]));
        let mut best = Duration::MAX;
        for _ in 0..REPEAT {
            let began = Instant::now();
            std::hint::black_box(decode_column(&column, &field)?);
            best = best.min(began.elapsed());
        }
        let each = best.as_secs_f64() * 1e3 / CELLS as f64;
        println!("{path}: {} bytes, {name}, {each:.3} ms", cell.len());
    }
    Ok(())
}
