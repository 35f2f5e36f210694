//! Small png images in the form in which they are mostly written: IHDR, IDAT, IEND and no other chunk; grey or RGB of 8 or 16
//! bits; not interlaced (<https://www.w3.org/TR/png-3/>).
//!
//! The crate png makes a decoder and a decompressor for each image. Here those of a column serve all of its cells, and lines are
//! unfiltered where they were inflated. What is not of this form, and what is damaged, is left to the crate: so it decides what
//! is refused, and how that is said.

use crc32fast::hash;

use super::super::{Accept, Size};
use super::{Image, MAX_INFLATION};
use crate::codec::inflate::Inflater;
use crate::{DType, Result};

/// Larger cells are not worth it: the crate inflates long data faster.
const MAX_CELL: usize = 16 << 10;
/// Bytes of an image's filter type, before each line.
const FILTER: usize = 1;

const START: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
/// The chunk IEND with its length and checksum.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// What is kept from one image to the next.
#[derive(Default)]
pub(in crate::codec) struct Scratch {
    inflater: Option<Box<Inflater>>,
    /// The data of several chunks.
    data: Vec<u8>,
    lines: Vec<u8>,
}

/// The lines of an image, unfiltered, each behind the byte of its filter; `None` where the image is not of this form.
pub(super) fn lines<'a>(cell: &[u8], scratch: &'a mut Scratch, accept: Accept<'_>) -> Result<Option<Lines<'a>>> {
    let Some(header) = (cell.len() <= MAX_CELL).then(|| Header::read(cell)).flatten() else {
        return Ok(None);
    };
    let Header { image, data } = header;
    let Some((line, size)) = image.line().zip(image.bytes_with(FILTER)) else {
        return Ok(None);
    };
    if line == 0 || size == 0 || size / MAX_INFLATION > cell.len() || image.size.check_pixels().is_err() {
        return Ok(None);
    }
    image.size.offer(image.dtype, accept)?;
    if scratch.lines.len() < size {
        scratch.lines.resize(size, 0);
    }
    let lines = &mut scratch.lines[..size];
    let inflater = scratch.inflater.get_or_insert_default();
    let inflated = joined(data, &mut scratch.data).and_then(|data| inflater.zlib(data, lines));
    if inflated.is_none() {
        return Ok(None);
    }
    let is_sound = match image.pixel() {
        1 => unfilter::<1>(lines, line),
        2 => unfilter::<2>(lines, line),
        3 => unfilter::<3>(lines, line),
        _ => unfilter::<6>(lines, line),
    };
    Ok(is_sound.then_some(Lines { image, bytes: lines }))
}

/// Decoded lines.
pub(super) struct Lines<'a> {
    pub(super) image: Image,
    bytes: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The bytes of each line.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let with_filter = self.image.line().unwrap_or(0) + FILTER;
        self.bytes.chunks_exact(with_filter).map(|line| &line[FILTER..])
    }
}

struct Header<'a> {
    image: Image,
    /// The IDAT chunks.
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(cell: &'a [u8]) -> Option<Self> {
        let rest = cell.strip_prefix(START)?;
        let (header, rest) = rest.split_first_chunk::<13>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let [w3, w2, w1, w0, h3, h2, h1, h0, depth, color, 0, 0, 0] = *header else {
            return None;
        };
        let dtype = match depth {
            8 => DType::UInt8,
            16 => DType::UInt16,
            _ => return None,
        };
        let channels = match color {
            0 => 1,
            2 => 3,
            _ => return None,
        };
        // The type of the chunk is part of what is checked.
        if hash(&cell[START.len() - 4..START.len() + header.len()]) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let size = Size {
            height: u32::from_be_bytes([h3, h2, h1, h0]).try_into().ok()?,
            width: u32::from_be_bytes([w3, w2, w1, w0]).try_into().ok()?,
            channels,
        };
        Some(Self {
            image: Image { size, dtype },
            data: rest.strip_suffix(END)?,
        })
    }
}

/// The data of all IDAT chunks, in one piece.
fn joined<'a>(chunks: &'a [u8], buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (data, mut rest) = split_chunk(chunks)?;
    if rest.is_empty() {
        return Some(data);
    }
    buffer.clear();
    buffer.extend_from_slice(data);
    while !rest.is_empty() {
        let data;
        (data, rest) = split_chunk(rest)?;
        buffer.extend_from_slice(data);
    }
    Some(buffer)
}

/// The data of an IDAT chunk, and what follows it.
fn split_chunk(chunks: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = chunks.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (chunk, rest) = rest.split_at_checked(length.checked_add(4)?)?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let data = chunk.strip_prefix(b"IDAT")?;
    (hash(chunk) == u32::from_be_bytes(*checksum)).then_some((data, rest))
}

/// Takes the filters off, in place. `N`: bytes of a pixel.
fn unfilter<const N: usize>(lines: &mut [u8], line: usize) -> bool {
    let with_filter = line + FILTER;
    for at in (0..lines.len()).step_by(with_filter) {
        let (before, rest) = lines.split_at_mut(at);
        let (filter, current) = (rest[0], &mut rest[FILTER..with_filter]);
        // Above the first line are zeros.
        let above = before.len().checked_sub(line).map(|start| &before[start..]);
        match (filter, above) {
            (0, _) | (2, None) => {}
            (1, _) | (4, None) => sub::<N>(current),
            (2, Some(above)) => up(current, above),
            (3, Some(above)) => average::<N>(current, above),
            (3, None) => average_of_first::<N>(current),
            (4, Some(above)) => paeth::<N>(current, above),
            _ => return false,
        }
    }
    true
}

fn sub<const N: usize>(line: &mut [u8]) {
    let mut left = [0u8; N];
    for pixel in line.as_chunks_mut::<N>().0 {
        for i in 0..N {
            left[i] = left[i].wrapping_add(pixel[i]);
        }
        *pixel = left;
    }
}

fn up(line: &mut [u8], above: &[u8]) {
    for (own, above) in line.iter_mut().zip(above) {
        *own = own.wrapping_add(*above);
    }
}

fn average<const N: usize>(line: &mut [u8], above: &[u8]) {
    let mut left = [0u8; N];
    for (pixel, above) in line.as_chunks_mut::<N>().0.iter_mut().zip(above.as_chunks::<N>().0) {
        for i in 0..N {
            let mean = (u16::from(left[i]) + u16::from(above[i])) / 2;
            left[i] = pixel[i].wrapping_add(mean as u8);
        }
        *pixel = left;
    }
}

/// Of the first line, above which there is nothing.
fn average_of_first<const N: usize>(line: &mut [u8]) {
    let mut left = [0u8; N];
    for pixel in line.as_chunks_mut::<N>().0 {
        for i in 0..N {
            left[i] = pixel[i].wrapping_add(left[i] / 2);
        }
        *pixel = left;
    }
}

fn paeth<const N: usize>(line: &mut [u8], above: &[u8]) {
    let (mut left, mut corner) = ([0u8; N], [0u8; N]);
    for (pixel, above) in line.as_chunks_mut::<N>().0.iter_mut().zip(above.as_chunks::<N>().0) {
        for i in 0..N {
            let [a, b, c] = [left[i], above[i], corner[i]].map(i16::from);
            let (to_left, to_above) = ((b - c).abs(), (a - c).abs());
            let to_corner = (a + b - 2 * c).abs();
            let nearest = if to_left <= to_above && to_left <= to_corner {
                left[i]
            } else if to_above <= to_corner {
                above[i]
            } else {
                corner[i]
            };
            left[i] = pixel[i].wrapping_add(nearest);
        }
        *pixel = left;
        corner = *above;
    }
}
