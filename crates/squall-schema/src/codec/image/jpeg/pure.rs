//! jpeg in Rust alone: zune-jpeg decodes, jpeg-encoder encodes.
//!
//! Its pixels differ from OpenCV's by some levels: see docs/codecs.md for how many.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::super::Size;
use super::{Frame, MAX_SIDE, entropy};
use crate::{Error, Result};

pub(super) fn decode(cell: &[u8], frame: &Frame, pixels: &mut [u8]) -> Result<()> {
    let damaged = |error: zune_jpeg::errors::DecodeErrors| {
        Error::corrupt("cannot decode the jpeg image").with_source(error.to_string())
    };
    let color = match frame.size.channels {
        1 => ColorSpace::Luma,
        _ => ColorSpace::RGB,
    };
    // Not strict, the decoder would fill in grey for what is damaged.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(color);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(cell), options);
    decoder.decode_headers().map_err(damaged)?;
    let stored = match frame {
        Frame { rgb: true, .. } => ColorSpace::RGB,
        frame if frame.size.channels == 1 => ColorSpace::Luma,
        _ => ColorSpace::YCbCr,
    };
    // It goes by other signs than libjpeg, and would give other colours.
    if decoder.input_colorspace() != Some(stored) {
        return Err(Error::unsupported(format!(
            "a jpeg image in {stored:?} that looks like another colour space: the feature jpeg-turbo decodes it"
        )));
    }
    entropy::check(cell, frame)?;
    decoder.decode_into(pixels).map_err(damaged)
}

/// The scale, in eighths, that an image is decoded at where another one is wanted: there is one.
#[cfg_attr(feature = "jpeg-turbo", expect(dead_code))]
pub(super) fn scale(_: u8) -> u8 {
    8
}

/// [`decode`], in eighths of the size: all of them.
#[cfg_attr(feature = "jpeg-turbo", expect(dead_code))]
pub(super) fn decode_scaled(cell: &[u8], frame: &Frame, _: u8, pixels: &mut [u8]) -> Result<()> {
    decode(cell, frame, pixels)
}

pub(super) fn encode(pixels: &[u8], size: Size, quality: u8) -> Result<Vec<u8>> {
    let side = |pixels: usize| u16::try_from(pixels).map_err(|_| Error::internal("a side is not checked"));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    // What libjpeg does if nothing else is said; the encoder's own choice depends on the quality.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let color = match size.channels {
        1 => ColorType::Luma,
        _ => ColorType::Rgb,
    };
    encoder
        .encode(pixels, side(size.width)?, side(size.height)?, color)
        .map_err(|error| Error::internal("cannot encode the jpeg image").with_source(error.to_string()))?;
    Ok(bytes)
}
