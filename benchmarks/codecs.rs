//! Cells a second of each codec, beside the limits of the same machine in the same run: a copy of the bytes that come out, and the
//! image library in a loop of its own.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --bin codecs
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use squall::codec::{Codec, FreshMemory, ImageView, Region, decode_cells, decode_views, encode_value, view_field};
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
        "{:<8} {:<22} {:>10} {:>10} {:>8} {:>10} {:>10} {:>10}",
        "codec", "value", "cell bytes", "µs a cell", "GB/s", "of a copy", "µs bare", "of bare"
    );
    let floats = |dims: &[usize]| -> Result<Tensor> {
        let n: usize = dims.iter().product();
        Ok(Tensor::from_vec(
            dims,
            (0..n).map(|i| (i as f32 / 7.0).sin()).collect(),
        )?)
    };
    let jpeg = Codec::Jpeg { quality: 80 };
    let sets = [
        Set::encoded(Codec::Ndarray, floats(&[20])?)?,
        Set::encoded(Codec::Ndarray, floats(&[64, 64])?)?,
        Set::encoded(Codec::Ndarray, floats(&[64, 128])?)?,
        Set::encoded(Codec::CompressedNdarray, floats(&[64, 64])?)?,
        Set::encoded(Codec::CompressedNdarray, floats(&[64, 128])?)?,
        Set {
            bare: Some(bare::png),
            ..Set::digits()?
        },
        Set {
            bare: Some(bare::png),
            ..Set::encoded(Codec::Png, picture(224, 224)?)?
        },
        Set {
            bare: Some(bare::jpeg),
            ..Set::encoded(jpeg.clone(), picture(224, 224)?)?
        },
        Set {
            bare: Some(bare::jpeg),
            ..Set::encoded(jpeg, picture(256, 256)?)?
        },
    ];
    sets.iter().try_for_each(|set| set.measure(&options))?;
    views(&options)
}

/// Parts of photographs of 375x500 pixels, each a half of the image in both directions and then all of it, as 224x224 pixels.
fn views(options: &Options) -> Result<()> {
    const SIZE: usize = 224;
    let whole = Region {
        top: 0.0,
        left: 0.0,
        height: 375.0,
        width: 500.0,
    };
    let half = Region {
        top: 90.0,
        left: 120.0,
        height: 187.0,
        width: 250.0,
    };
    for codec in [Codec::Jpeg { quality: 80 }, Codec::Png] {
        let image = picture(375, 500)?;
        let shape = Shape(vec![None, None, Some(3)]);
        let field = Field::new("x", DType::UInt8, shape).with_codec(Some(codec.clone()));
        let fixed = Field::new("x", DType::UInt8, Shape::fixed(image.shape())).with_codec(Some(codec.clone()));
        let cell = encode_value(&Value::Tensor(image), &field)?;
        let target = view_field(&field, SIZE, SIZE)?;
        let cells = vec![Some(&cell[..]); 2];
        let each = |run: &dyn Fn() -> Result<()>| -> Result<f64> {
            let mut best = Duration::MAX;
            for _ in 0..options.repeat {
                let began = Instant::now();
                run()?;
                best = best.min(began.elapsed());
            }
            Ok(best.as_secs_f64() * 1e6 / cells.len() as f64)
        };
        let decoded = each(&|| {
            black_box(decode_cells(&cells, &fixed)?);
            Ok(())
        })?;
        println!("{codec}, {} bytes, 375x500: whole {decoded:.0} µs", cell.len());
        for (name, region) in [("whole", whole), ("half", half)] {
            for full_decode in [true, false] {
                let view = ImageView {
                    bounds: region,
                    region,
                    flip: false,
                    full_decode,
                };
                let shown = each(&|| {
                    black_box(decode_views(
                        &cells,
                        (&field, &target),
                        &mut |_, _| Ok(view),
                        &FreshMemory,
                    )?);
                    Ok(())
                })?;
                let scale = if full_decode {
                    "full size"
                } else {
                    "no larger than needed"
                };
                println!("  {name} to {SIZE}x{SIZE}, decoded {scale}: {shown:.0} µs");
            }
        }
    }
    Ok(())
}

/// A library's decoder: from a cell into the bytes of a value.
type Bare = fn(&[u8], &mut [u8]) -> Result<()>;

/// Cells of one field, taken in turn.
struct Set {
    field: Field,
    /// Bytes of a value.
    size: usize,
    cells: Vec<Vec<u8>>,
    /// Decodes one cell by the library alone.
    bare: Option<Bare>,
}

impl Set {
    /// The one cell of a value.
    fn encoded(codec: Codec, tensor: Tensor) -> Result<Self> {
        let field = Field::new("x", tensor.dtype(), Shape::fixed(tensor.shape())).with_codec(Some(codec));
        Ok(Self {
            size: tensor.data().len(),
            cells: vec![encode_value(&Value::Tensor(tensor), &field)?],
            field,
            bare: None,
        })
    }

    /// Strokes as of handwriting, 28x28 pixels, filtered and deflated as OpenCV does it. Many of them: a CPU learns the codes
    /// of a single one by heart.
    fn digits() -> Result<Self> {
        const SIDE: usize = 28;
        const PEN: f32 = 1.5;
        let mut noise = 1u32;
        let mut draw = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            4.0 + (noise >> 16) as f32 / 65_536.0 * (SIDE - 8) as f32
        };
        let mut cells = Vec::new();
        for _ in 0..256 {
            let corners: [(f32, f32); 5] = std::array::from_fn(|_| (draw(), draw()));
            let shade = |i: usize| {
                let (x, y) = ((i % SIDE) as f32, (i / SIDE) as f32);
                let distance = |ends: &[(f32, f32)]| {
                    let (dx, dy) = (ends[1].0 - ends[0].0, ends[1].1 - ends[0].1);
                    let along = ((x - ends[0].0) * dx + (y - ends[0].1) * dy) / (dx * dx + dy * dy).max(1e-3);
                    let along = along.clamp(0.0, 1.0);
                    (x - ends[0].0 - along * dx).hypot(y - ends[0].1 - along * dy)
                };
                let nearest = corners.windows(2).map(distance).fold(f32::MAX, f32::min);
                (255.0 * (PEN + 0.5 - nearest).clamp(0.0, 1.0)) as u8
            };
            let pixels: Vec<_> = (0..SIDE * SIDE).map(shade).collect();
            let mut cell = Vec::new();
            let mut encoder = png::Encoder::new(&mut cell, SIDE as u32, SIDE as u32);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.set_filter(png::Filter::Sub);
            encoder.set_deflate_compression(png::DeflateCompression::Level(1));
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&pixels)?;
            writer.finish()?;
            cells.push(cell);
        }
        Ok(Self {
            field: Field::new("x", DType::UInt8, Shape::fixed(&[SIDE, SIDE])).with_codec(Some(Codec::Png)),
            size: SIDE * SIDE,
            cells,
            bare: None,
        })
    }

    fn measure(&self, options: &Options) -> Result<()> {
        let n_cells = (options.bytes / self.size).max(1);
        let column: Vec<_> = self
            .cells
            .iter()
            .map(|cell| Some(&cell[..]))
            .cycle()
            .take(n_cells)
            .collect();
        let best = |run: &mut dyn FnMut() -> Result<()>| -> Result<Duration> {
            let mut best = Duration::MAX;
            for _ in 0..options.repeat {
                let began = Instant::now();
                run()?;
                best = best.min(began.elapsed());
            }
            Ok(best)
        };
        let decoded = best(&mut || {
            black_box(decode_cells(&column, &self.field)?);
            Ok(())
        })?;
        // A fresh buffer each time, as the decoder's: the pages of both are touched for the first time.
        let bytes = vec![1u8; self.size * n_cells];
        let copied = best(&mut || {
            black_box(black_box(&bytes).clone());
            Ok(())
        })?;
        let mut pixels = vec![0u8; self.size];
        let bare = match self.bare {
            Some(decode) => Some(best(&mut || {
                column
                    .iter()
                    .flatten()
                    .try_for_each(|cell| decode(cell, black_box(&mut pixels)))
            })?),
            None => None,
        };
        let each = |time: Duration| time.as_secs_f64() * 1e6 / n_cells as f64;
        let lengths: usize = self.cells.iter().map(Vec::len).sum();
        println!(
            "{:<8} {:<22} {:>10} {:>10.3} {:>8.2} {:>10.3} {:>10} {:>10}",
            self.field.codec.as_ref().map_or_else(String::new, Codec::to_string),
            format!("{}{}", self.field.dtype, self.field.shape),
            lengths / self.cells.len(),
            each(decoded),
            (self.size * n_cells) as f64 / decoded.as_secs_f64() / 1e9,
            copied.as_secs_f64() / decoded.as_secs_f64(),
            bare.map_or_else(String::new, |time| format!("{:.3}", each(time))),
            bare.map_or_else(String::new, |time| format!(
                "{:.2}",
                time.as_secs_f64() / decoded.as_secs_f64()
            )),
        );
        Ok(())
    }
}

/// What a loop over the same library, and nothing else, costs: into one buffer that stays in the caches.
mod bare {
    use super::Result;

    pub(super) fn png(cell: &[u8], pixels: &mut [u8]) -> Result<()> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(cell)).read_info()?;
        reader.next_frame(pixels)?;
        Ok(())
    }

    #[cfg(feature = "jpeg-turbo")]
    pub(super) fn jpeg(cell: &[u8], pixels: &mut [u8]) -> Result<()> {
        let mut image = mozjpeg::Decompress::new_mem(cell)?.rgb()?;
        image.read_scanlines_into(pixels)?;
        image.finish()?;
        Ok(())
    }

    #[cfg(not(feature = "jpeg-turbo"))]
    pub(super) fn jpeg(cell: &[u8], pixels: &mut [u8]) -> Result<()> {
        let cell = zune_jpeg::zune_core::bytestream::ZCursor::new(cell);
        zune_jpeg::JpegDecoder::new(cell)
            .decode_into(pixels)
            .map_err(|error| error.to_string())?;
        Ok(())
    }
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
