//! Images: png by the crate png; jpeg by zune-jpeg and jpeg-encoder, or with the feature `jpeg-turbo` by libjpeg-turbo.
//!
//! Pixels come as OpenCV's `imdecode(IMREAD_UNCHANGED)` with its channels turned to RGB gives them to Petastorm: 2 dimensions
//! for grey, 3 with three channels for colour, 8 or 16 bits; and go the same way. Others are refused. A cell is untrusted:
//! what its header claims is compared with the number of its bytes before anything is allocated by it.

mod jpeg;
mod png;

mod view;

use jpeg::jpeg_scaled;
pub(super) use jpeg::{encode_jpeg, jpeg, jpeg_tensor};
pub(super) use png::{Scratch, encode_png, png, png_tensor};
pub use view::{ImageView, Region, decode_views, view_field};

use super::room::Room;
use crate::{DType, Error, Result, Tensor};

/// Most pixels of an image: 16,384 in each direction.
const MAX_PIXELS: usize = 1 << 28;

/// Whether pixels of this dtype and shape are wanted: asked before they are decoded.
pub(super) type Accept<'a> = &'a dyn Fn(DType, &[usize]) -> Result<()>;

/// Accepts every image.
#[cfg(test)]
fn accept_any(_: DType, _: &[usize]) -> Result<()> {
    Ok(())
}

/// Room for so many bytes of pixels behind what is there, for a decoder to write to.
fn room_for(out: &mut Room, size: usize) -> Result<&mut [u8]> {
    let none = || Error::unsupported(format!("an image of {size} bytes: more than there is memory"));
    out.next(size).ok_or_else(none)
}

/// Height, width, and 1 or 3 channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    height: usize,
    width: usize,
    channels: usize,
}

impl Size {
    /// The size of an image that is to be encoded.
    fn of(tensor: &Tensor, format: &str, dtypes: &[DType]) -> Result<Self> {
        let dtype = tensor.dtype();
        if !dtypes.contains(&dtype) {
            let names: Vec<_> = dtypes.iter().map(DType::to_string).collect();
            let names = names.join(" or ");
            return Err(Error::invalid(format!(
                "a {format} image: expected {names}, found {dtype}"
            )));
        }
        let (height, width, channels) = match *tensor.shape() {
            [height, width] => (height, width, 1),
            [height, width, 3] => (height, width, 3),
            ref other => {
                return Err(Error::invalid(format!(
                    "a {format} image: expected the shape [height, width] or [height, width, 3], found {other:?}"
                )));
            }
        };
        if height == 0 || width == 0 {
            return Err(Error::invalid(format!(
                "a {format} image of {width}x{height} pixels: expected at least one"
            )));
        }
        let size = Self {
            height,
            width,
            channels,
        };
        size.check_pixels()?;
        Ok(size)
    }

    fn check_pixels(self) -> Result<()> {
        check_pixels(self.width, self.height)
    }

    /// Asks whether pixels of this size are wanted.
    fn offer(self, dtype: DType, accept: Accept<'_>) -> Result<()> {
        match self.channels {
            1 => accept(dtype, &[self.height, self.width]),
            n => accept(dtype, &[self.height, self.width, n]),
        }
    }

    fn shape(self) -> Vec<usize> {
        match self.channels {
            1 => vec![self.height, self.width],
            n => vec![self.height, self.width, n],
        }
    }
}

fn check_pixels(width: usize, height: usize) -> Result<()> {
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(Error::unsupported(format!(
            "an image of {width}x{height} pixels: expected at most {MAX_PIXELS}"
        ))),
    }
}

#[cfg(test)]
mod tests;
