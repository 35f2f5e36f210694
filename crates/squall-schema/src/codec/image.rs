//! Images: png by the crate png, jpeg by zune-jpeg.
//!
//! Pixels come as OpenCV's `imdecode(IMREAD_UNCHANGED)` with its channels turned to RGB gives them to Petastorm: 2 dimensions
//! for grey, 3 with three channels for colour, 8 or 16 bits. Others are refused, as Petastorm refuses them.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::{DType, Error, Result, Tensor};

/// Most pixels of an image: 16,384 in each direction.
const MAX_PIXELS: usize = 1 << 28;
/// What the decoder of png may allocate beside the pixels.
const PNG_MEMORY: usize = 16 << 20;

/// A png image: `uint8` or `uint16`, `[height, width]` or `[height, width, 3]`.
pub(super) fn png(cell: &[u8]) -> Result<Tensor> {
    let damaged = |error: png::DecodingError| Error::corrupt("cannot decode the png image").with_source(error);
    let mut decoder = Decoder::new_with_limits(Cursor::new(cell), Limits { bytes: PNG_MEMORY });
    // Palettes and fewer than 8 bits become bytes, as in OpenCV.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let shape = |channels| match channels {
        1 => vec![height, width],
        n => vec![height, width, n],
    };
    let (color, depth) = reader.output_color_type();
    let channels = match color {
        ColorType::Grayscale => 1,
        ColorType::Rgb => 3,
        other => {
            return Err(Error::unsupported(format!(
                "a png image of {other:?}: expected grey or RGB without transparency"
            )));
        }
    };
    check_size(width, height)?;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| Error::corrupt("a png image too large to decode"))?;
    // An image of more bytes than its data can hold is a bomb: deflate makes at most about a thousand of one.
    if size / 1100 > cell.len() {
        return Err(Error::corrupt(format!(
            "a png image of {width}x{height} pixels in {} bytes",
            cell.len()
        )));
    }
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    let dtype = match depth {
        BitDepth::Sixteen => {
            // png is big-endian.
            pixels.chunks_exact_mut(2).for_each(<[u8]>::reverse);
            DType::UInt16
        }
        _ => DType::UInt8,
    };
    super::tensor(dtype, shape(channels), pixels)
}

/// A jpeg image: `uint8`, `[height, width]` or `[height, width, 3]`.
pub(super) fn jpeg(cell: &[u8]) -> Result<Tensor> {
    let damaged = |error: zune_jpeg::errors::DecodeErrors| {
        Error::corrupt("cannot decode the jpeg image").with_source(error.to_string())
    };
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(cell), options);
    decoder.decode_headers().map_err(damaged)?;
    let info = decoder
        .info()
        .ok_or_else(|| Error::corrupt("a jpeg image without a header"))?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_size(width, height)?;
    // The smallest scan has some bits for each block of 64 pixels.
    if width * height / 64 / 64 > cell.len() {
        return Err(Error::corrupt(format!(
            "a jpeg image of {width}x{height} pixels in {} bytes",
            cell.len()
        )));
    }
    let (color, shape) = match info.components {
        1 => (ColorSpace::Luma, vec![height, width]),
        3 => (ColorSpace::RGB, vec![height, width, 3]),
        n => {
            return Err(Error::unsupported(format!(
                "a jpeg image of {n} channels: expected grey or colour"
            )));
        }
    };
    decoder.set_options(options.jpeg_set_out_colorspace(color));
    let pixels = decoder.decode().map_err(damaged)?;
    super::tensor(DType::UInt8, shape, pixels)
}

pub(super) fn encode_png(_: &Tensor) -> Result<Vec<u8>> {
    Err(Error::unsupported("images are not written yet"))
}
pub(super) fn encode_jpeg(_: &Tensor, _: u8) -> Result<Vec<u8>> {
    Err(Error::unsupported("images are not written yet"))
}

fn check_size(width: usize, height: usize) -> Result<()> {
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(Error::unsupported(format!(
            "an image of {width}x{height} pixels: expected at most {MAX_PIXELS}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(width: u32, height: u32, color: ColorType, depth: BitDepth, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(pixels))
            .expect("a png image");
        bytes
    }

    #[test]
    fn png_in_grey_and_colour_of_8_and_16_bits() {
        let grey = png(&encode(
            3,
            2,
            ColorType::Grayscale,
            BitDepth::Eight,
            &[1, 2, 3, 4, 5, 6],
        ))
        .expect("an image");
        assert_eq!(
            (grey.shape(), grey.as_slice::<u8>().expect("uint8")),
            (&[2, 3][..], &[1, 2, 3, 4, 5, 6][..])
        );
        let deep = png(&encode(1, 1, ColorType::Rgb, BitDepth::Sixteen, &[1, 2, 3, 4, 5, 6])).expect("an image");
        assert_eq!(
            (deep.shape(), deep.as_slice::<u16>().expect("uint16")),
            (&[1, 1, 3][..], &[0x102, 0x304, 0x506][..])
        );
        let alpha = encode(1, 1, ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 4]);
        assert!(png(&alpha).expect_err("transparency").to_string().contains("Rgba"));
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused() {
        let mut claim = encode(1, 1, ColorType::Grayscale, BitDepth::Eight, &[0]);
        // Width and height in IHDR, and the checksum of IHDR.
        claim[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let error = png(&claim).expect_err("60,000 x 60,000");
        assert!(!error.to_string().is_empty());
        assert!(jpeg(b"\xff\xd8\xff\xc0\x00\x11\x08\xea\x60\xea\x60\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01").is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index) {
            let _ = png(&bytes);
            let _ = jpeg(&bytes);
            let mut image = encode(3, 2, ColorType::Grayscale, BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
            let at = at.index(image.len());
            image[at] = image[at].wrapping_add(1);
            let _ = png(&image);
        }
    }
}
