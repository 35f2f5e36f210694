//! png: `uint8` or `uint16` tensors from cells, and back without loss.
//!
//! [`plain`] decodes the small images of the usual form, the crate png all others. Both give the same pixels and refuse the same.

mod plain;

pub(in crate::codec) use plain::Scratch;

use std::io::Cursor;

use arrow_buffer::MutableBuffer;
use png::{BitDepth, ColorType, Compression, Decoder, DecodingError, Encoder, EncodingError, Limits, Transformations};

use super::{Accept, Size, room_for};
use crate::codec::room::{FreshMemory, Room};
use crate::{DType, Error, Result, Tensor};

/// What the decoder may allocate beside the pixels.
const MEMORY: usize = 16 << 20;

/// Deflate makes at most about a thousand bytes of one: an image of more bytes than its data can hold is a bomb.
const MAX_INFLATION: usize = 1100;

/// What a png image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec) struct Image {
    pub(in crate::codec) size: Size,
    /// `uint8` or `uint16`.
    pub(in crate::codec) dtype: DType,
}

impl Image {
    /// Bytes of a pixel.
    fn pixel(&self) -> usize {
        match self.dtype {
            DType::UInt16 => 2 * self.size.channels,
            _ => self.size.channels,
        }
    }

    /// Bytes of a line.
    fn line(&self) -> Option<usize> {
        self.size.width.checked_mul(self.pixel())
    }

    /// Bytes of all lines, each with some bytes more.
    fn bytes_with(&self, more: usize) -> Option<usize> {
        self.line()?.checked_add(more)?.checked_mul(self.size.height)
    }
}

/// Appends the pixels of a png image that `accept` accepts.
pub(in crate::codec) fn png(cell: &[u8], out: &mut Room, scratch: &mut Scratch, accept: Accept<'_>) -> Result<Image> {
    let Some(lines) = plain::lines(cell, scratch, accept)? else {
        return any_png(cell, out, accept);
    };
    let pixels = room_for(out, lines.image.bytes_with(0).unwrap_or(0))?;
    let line = lines.image.line().unwrap_or(0).max(1);
    let places = pixels.chunks_exact_mut(line);
    places
        .zip(lines.iter())
        .for_each(|(place, line)| place.copy_from_slice(line));
    if lines.image.dtype == DType::UInt16 {
        turn_bytes(pixels);
    }
    Ok(lines.image)
}

/// [`png`] of every form.
fn any_png(cell: &[u8], out: &mut Room, accept: Accept<'_>) -> Result<Image> {
    let damaged = |error: DecodingError| Error::corrupt("cannot decode the png image").with_source(error);
    let mut decoder = Decoder::new_with_limits(Cursor::new(cell), Limits { bytes: MEMORY });
    // Palettes and fewer than 8 bits become bytes, as in OpenCV.
    decoder.set_transformations(Transformations::EXPAND);
    // Nothing reads them, and each costs more than its bytes.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let (color, depth) = reader.output_color_type();
    // OpenCV takes a transparent shade of grey for what it is: a shade of grey.
    let shade = (color, reader.info().color_type) == (ColorType::GrayscaleAlpha, ColorType::Grayscale);
    let channels = match color {
        ColorType::Grayscale => 1,
        ColorType::Rgb => 3,
        _ if shade => 1,
        other => {
            return Err(Error::unsupported(format!(
                "a png image of {other:?}: expected grey or RGB without transparency"
            )));
        }
    };
    let size = Size {
        height,
        width,
        channels,
    };
    size.check_pixels()?;
    let bytes = reader
        .output_buffer_size()
        .ok_or_else(|| Error::corrupt("a png image too large to decode"))?;
    if bytes / MAX_INFLATION > cell.len() {
        return Err(Error::corrupt(format!(
            "a png image of {width}x{height} pixels in {} bytes",
            cell.len()
        )));
    }
    let (dtype, item) = match depth {
        BitDepth::Sixteen => (DType::UInt16, 2),
        _ => (DType::UInt8, 1),
    };
    size.offer(dtype, accept)?;
    let start = out.len();
    let pixels = room_for(out, bytes)?;
    reader.next_frame(pixels).map_err(damaged)?;
    // An image that lost its end may have lost more.
    reader.finish().map_err(damaged)?;
    if item == 2 {
        turn_bytes(pixels);
    }
    if shade {
        let n_pixels = pixels.len() / (2 * item);
        for i in 0..n_pixels {
            pixels.copy_within(2 * item * i..2 * item * i + item, item * i);
        }
        out.truncate(start + n_pixels * item);
    }
    Ok(Image { size, dtype })
}

/// A png image as a tensor of its own.
pub(in crate::codec) fn png_tensor(cell: &[u8], accept: Accept<'_>) -> Result<Tensor> {
    let mut pixels = Room::new(MutableBuffer::new(0));
    let image = png(cell, &mut pixels, &mut Scratch::default(), accept)?;
    Tensor::new(image.dtype, image.size.shape(), pixels.finish(&FreshMemory))
}

/// A `uint8` or `uint16` tensor, `[height, width]` or `[height, width, 3]`, as a png image.
pub(in crate::codec) fn encode_png(tensor: &Tensor) -> Result<Vec<u8>> {
    let size = Size::of(tensor, "png", &[DType::UInt8, DType::UInt16])?;
    let failed = |error: EncodingError| Error::internal("cannot encode the png image").with_source(error);
    let side = |pixels: usize| {
        u32::try_from(pixels).map_err(|_| Error::unsupported(format!("a png image with a side of {pixels} pixels")))
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, side(size.width)?, side(size.height)?);
    encoder.set_color(match size.channels {
        1 => ColorType::Grayscale,
        _ => ColorType::Rgb,
    });
    // OpenCV too writes png to be fast rather than small.
    encoder.set_compression(Compression::Fast);
    if tensor.dtype() == DType::UInt8 {
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(tensor.data()).map_err(failed)?;
        writer.finish().map_err(failed)?;
    } else {
        encoder.set_depth(BitDepth::Sixteen);
        let mut pixels = tensor.data().to_vec();
        turn_bytes(&mut pixels);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
    }
    Ok(bytes)
}

/// png is big-endian, tensors are little-endian.
fn turn_bytes(pixels: &mut [u8]) {
    pixels.chunks_exact_mut(2).for_each(<[u8]>::reverse);
}

#[cfg(test)]
mod tests;
