//! jpeg: `uint8` tensors from cells, and back with a quality.
//!
//! [`frame`] reads the structure of a cell and decides what is refused, before one of two decoders is asked for the pixels:
//! [`turbo`], whose pixels are OpenCV's bit by bit, with the feature `jpeg-turbo`; [`pure`], which is Rust alone, without.
//! Both refuse entropy-coded data that breaks its format, where OpenCV prints a warning and fills in grey; [`entropy`] says
//! what is broken.

mod frame;

mod bits;
mod entropy;

// With the other one at hand, it is what the tests compare that with.
#[cfg(any(test, not(feature = "jpeg-turbo")))]
mod pure;
#[cfg(feature = "jpeg-turbo")]
mod turbo;

use frame::Frame;
#[cfg(not(feature = "jpeg-turbo"))]
use pure as library;
#[cfg(feature = "jpeg-turbo")]
use turbo as library;

use arrow_buffer::MutableBuffer;

use super::{Accept, Size, room_for};
use crate::codec::room::{FreshMemory, Room};
use crate::{DType, Error, Result, Tensor};

/// The longest side of a jpeg image: libjpeg's own limit, a little below that of the format.
const MAX_SIDE: usize = 65_500;

/// Appends the pixels of a jpeg image that `accept` accepts, which are `uint8`.
pub(in crate::codec) fn jpeg(cell: &[u8], out: &mut Room, accept: Accept<'_>) -> Result<Size> {
    decode(cell, out, accept, library::decode)
}

/// Appends the pixels of a jpeg image that `accept` accepts, decoded to so many eighths of its size as `scale` says, 1 to 8, or
/// more. Gives the size of what was decoded, and how many eighths it was.
pub(in crate::codec) fn jpeg_scaled(
    cell: &[u8],
    out: &mut Room,
    accept: Accept<'_>,
    scale: &mut dyn FnMut(Size) -> Result<u8>,
) -> Result<(Size, u8)> {
    let frame = Frame::read(cell)?;
    frame.size.offer(DType::UInt8, accept)?;
    let eighths = library::scale(scale(frame.size)?);
    let side = |side: usize| (side * usize::from(eighths)).div_ceil(8);
    let size = Size {
        height: side(frame.size.height),
        width: side(frame.size.width),
        ..frame.size
    };
    // The frame's walk has bounded the product.
    let pixels = room_for(out, size.height * size.width * size.channels)?;
    library::decode_scaled(cell, &frame, eighths, pixels)?;
    Ok((size, eighths))
}

/// A `uint8` tensor, `[height, width]` or `[height, width, 3]`, as a baseline jpeg image with halved chroma in both
/// directions. The quality is libjpeg's, 1 to 100.
pub(in crate::codec) fn encode_jpeg(tensor: &Tensor, quality: u8) -> Result<Vec<u8>> {
    encode(tensor, quality, library::encode)
}

/// A jpeg image as a tensor of its own.
pub(in crate::codec) fn jpeg_tensor(cell: &[u8], accept: Accept<'_>) -> Result<Tensor> {
    tensor(cell, accept, library::decode)
}

fn tensor(cell: &[u8], accept: Accept<'_>, library: Decode) -> Result<Tensor> {
    let mut pixels = Room::new(MutableBuffer::new(0));
    let size = decode(cell, &mut pixels, accept, library)?;
    Tensor::new(DType::UInt8, size.shape(), pixels.finish(&FreshMemory))
}

/// A decoder: a cell, its frame, and where its pixels go.
type Decode = fn(&[u8], &Frame, &mut [u8]) -> Result<()>;

fn decode(cell: &[u8], out: &mut Room, accept: Accept<'_>, library: Decode) -> Result<Size> {
    let frame = Frame::read(cell)?;
    let size = frame.size;
    size.offer(DType::UInt8, accept)?;
    // The frame's walk has bounded the product.
    let pixels = room_for(out, size.height * size.width * size.channels)?;
    library(cell, &frame, pixels)?;
    Ok(size)
}

fn encode(tensor: &Tensor, quality: u8, library: impl Fn(&[u8], Size, u8) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let size = Size::of(tensor, "jpeg", &[DType::UInt8])?;
    if !(1..=100).contains(&quality) {
        return Err(Error::invalid(format!(
            "the quality of a jpeg image: expected 1 to 100, found {quality}"
        )));
    }
    if size.width > MAX_SIDE || size.height > MAX_SIDE {
        let (width, height) = (size.width, size.height);
        return Err(Error::unsupported(format!(
            "a jpeg image of {width}x{height} pixels: expected at most {MAX_SIDE} in each direction"
        )));
    }
    library(tensor.data(), size, quality)
}

#[cfg(test)]
mod tests;
