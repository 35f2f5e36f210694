//! The structure of a jpeg file (ITU-T T.81, annex B): markers, the frame header, the scan headers; no pixels.
//!
//! Input is a cell, output a [`Frame`], or the reason why it is refused. What is refused here is refused alike whichever
//! library decodes: what is no image of 8 bits with 1 or 3 components, what is cut short, and what claims more pixels than
//! its bytes can hold.

use super::super::{Size, check_pixels};
use super::MAX_SIDE;
use crate::{Error, Result};

/// Most scans of an image. A progressive one of libjpeg has 10; each further one costs time, and next to no bytes.
const MAX_SCANS: usize = 100;
/// Samples in a block of coefficients, in each direction.
const BLOCK: usize = 8;

/// What a jpeg image says of itself.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) size: Size,
    pub(super) progressive: bool,
    pub(super) components: Vec<Component>,
    pub(super) grid: Grid,
    /// Whether its three components are red, green and blue, and not luma and chroma.
    // libjpeg finds this out itself.
    #[cfg_attr(all(feature = "jpeg-turbo", not(test)), expect(dead_code))]
    pub(super) rgb: bool,
}

/// How the blocks of the components lie over the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    width: usize,
    height: usize,
    horizontal: usize,
    vertical: usize,
}

impl Grid {
    fn new(width: usize, height: usize, components: &[Component]) -> Self {
        let most = |factor: fn(&Component) -> usize| components.iter().map(factor).max().unwrap_or(1);
        Self {
            width,
            height,
            horizontal: most(|own| own.horizontal),
            vertical: most(|own| own.vertical),
        }
    }

    /// Blocks of a component, across and down.
    pub(super) fn blocks(self, own: &Component) -> (usize, usize) {
        let across = (self.width * own.horizontal).div_ceil(self.horizontal * BLOCK);
        (across, (self.height * own.vertical).div_ceil(self.vertical * BLOCK))
    }

    /// Units in which the blocks of several components alternate (the MCUs of the standard), across and down.
    pub(super) fn units(self) -> (usize, usize) {
        let across = self.width.div_ceil(self.horizontal * BLOCK);
        (across, self.height.div_ceil(self.vertical * BLOCK))
    }
}

impl Frame {
    /// Walks over all markers of an image, to its end.
    pub(super) fn read(cell: &[u8]) -> Result<Self> {
        let mut walk = Walk::default();
        let mut input = Input { cell, at: 0 };
        if input.take(2).ok() != Some(&[0xff, 0xd8]) {
            let found = &cell[..cell.len().min(2)];
            return Err(Error::corrupt(format!(
                "no jpeg image: expected the bytes ff d8 at its beginning, found {found:02x?}"
            )));
        }
        loop {
            let begin = input.at;
            match input.marker()? {
                0xd9 => break,
                marker @ 0xc0..=0xc2 => {
                    walk.progressive = marker == 0xc2;
                    walk.frame_header(input.segment()?, cell.len())?;
                }
                0xda => {
                    walk.scan_header(input.segment()?)?;
                    input.skip_entropy_coded();
                }
                0xe0 => walk.jfif(input.segment()?)?,
                0xee => walk.adobe(input.segment()?),
                0xc9..=0xcf => return Err(unsupported("arithmetic coding")),
                0xc3 | 0xc5..=0xc7 => return Err(unsupported("lossless or differential coding")),
                0xdc => return Err(unsupported("a height that comes after the pixels")),
                marker @ (0x00..=0xbf | 0xd0..=0xd8) => {
                    return Err(Error::corrupt(format!(
                        "a jpeg image with the marker {marker:02x} at byte {begin}, where it has no meaning"
                    )));
                }
                _ => {
                    input.segment()?;
                }
            }
        }
        walk.finish()
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!(
        "a jpeg image with {what}: expected baseline or progressive Huffman coding"
    ))
}

fn cut_short(at: usize) -> Error {
    Error::corrupt(format!("a jpeg image is cut short: expected more after {at} bytes"))
}

/// The bytes that are left.
pub(super) struct Input<'a> {
    pub(super) cell: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.cell.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or_else(|| cut_short(self.cell.len()))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn marker(&mut self) -> Result<u8> {
        let (at, mut byte) = (self.at, self.byte()?);
        if byte != 0xff {
            return Err(Error::corrupt(format!(
                "a jpeg image: expected a marker at byte {at}, found {byte:02x}"
            )));
        }
        // Any number of fill bytes may precede a marker.
        while byte == 0xff {
            byte = self.byte()?;
        }
        Ok(byte)
    }

    pub(super) fn segment(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let length = length
            .checked_sub(2)
            .ok_or_else(|| Error::corrupt("a jpeg image with a segment shorter than its length"))?;
        self.take(length)
    }

    /// To the next marker that ends a scan, or to the end.
    fn skip_entropy_coded(&mut self) {
        loop {
            let rest = self.cell.get(self.at..).unwrap_or_default();
            let Some(found) = rest.iter().position(|byte| *byte == 0xff) else {
                self.at = self.cell.len();
                return;
            };
            self.at += found;
            match rest.get(found + 1) {
                // A byte ff of data is followed by 0; restart markers belong to the data.
                Some(0x00 | 0xd0..=0xd7) => self.at += 2,
                Some(0xff) => self.at += 1,
                _ => return,
            }
        }
    }
}

/// A component of the frame, as its header has it.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    /// By coefficient: the lowest bit that the scans so far have, or nothing.
    known: [Option<u8>; 64],
}

#[derive(Default)]
struct Walk {
    components: Vec<Component>,
    height: usize,
    width: usize,
    progressive: bool,
    scans: usize,
    jfif: bool,
    adobe_transform: Option<u8>,
}

impl Walk {
    fn frame_header(&mut self, segment: &[u8], bytes: usize) -> Result<()> {
        if !self.components.is_empty() {
            return Err(Error::corrupt("a jpeg image with two frame headers"));
        }
        let [precision, h1, h0, w1, w0, count, ref components @ ..] = *segment else {
            return Err(Error::corrupt("a jpeg image whose frame header is cut short"));
        };
        if precision != 8 {
            return Err(Error::unsupported(format!(
                "a jpeg image of {precision} bits: expected 8"
            )));
        }
        (self.height, self.width) = (u16::from_be_bytes([h1, h0]).into(), u16::from_be_bytes([w1, w0]).into());
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 {
            return Err(Error::corrupt(format!("a jpeg image of {width}x{height} pixels")));
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(Error::unsupported(format!(
                "a jpeg image of {width}x{height} pixels: expected at most {MAX_SIDE} in each direction"
            )));
        }
        check_pixels(width, height)?;
        if count != 1 && count != 3 {
            return Err(Error::unsupported(format!(
                "a jpeg image of {count} channels: expected grey or colour"
            )));
        }
        if components.len() != 3 * usize::from(count) {
            return Err(Error::corrupt("a jpeg image whose frame header has a wrong length"));
        }
        for component in components.chunks_exact(3) {
            let (horizontal, vertical) = (usize::from(component[1] >> 4), usize::from(component[1] & 15));
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
                return Err(Error::corrupt(format!(
                    "a jpeg image with the sampling factors {horizontal}x{vertical}: expected 1 to 4"
                )));
            }
            self.components.push(Component {
                id: component[0],
                horizontal,
                vertical,
                known: [None; 64],
            });
        }
        // Each block takes one bit at least, for its first coefficient.
        let grid = Grid::new(width, height, &self.components);
        let blocks: usize = self
            .components
            .iter()
            .map(|own| grid.blocks(own))
            .map(|(across, down)| across * down)
            .sum();
        if blocks / 8 > bytes {
            return Err(Error::corrupt(format!(
                "a jpeg image of {width}x{height} pixels in {bytes} bytes"
            )));
        }
        Ok(())
    }

    fn scan_header(&mut self, segment: &[u8]) -> Result<()> {
        let damaged = || Error::corrupt("a jpeg image with a damaged scan header");
        if self.components.is_empty() {
            return Err(Error::corrupt("a jpeg image with a scan before its frame header"));
        }
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(Error::unsupported(format!(
                "a jpeg image of more than {MAX_SCANS} scans"
            )));
        }
        let [count, ref rest @ ..] = *segment else {
            return Err(damaged());
        };
        let (selectors, parameters) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(damaged)?;
        let &[first, last, approximation] = parameters else {
            return Err(damaged());
        };
        let (high, low) = (approximation >> 4, approximation & 15);
        let sound = match (self.progressive, first) {
            // All coefficients in full. libjpeg would warn, and take them as that.
            (false, _) => (first, last, approximation) == (0, 63, 0),
            (true, 0) => last == 0,
            (true, _) => first <= last && last < 64 && count == 1,
        };
        // A scan has the next bit of what is known, or the first bits of what is not.
        if count == 0 || !sound || low > 13 || (high != 0 && high != low + 1) {
            return Err(damaged());
        }
        for (i, selector) in selectors.chunks_exact(2).enumerate() {
            let twice = selectors.chunks_exact(2).take(i).any(|other| other[0] == selector[0]);
            let component = self.components.iter_mut().find(|own| own.id == selector[0] && !twice);
            let component = component.ok_or_else(damaged)?;
            let out_of_order = first != 0 && component.known[0].is_none();
            let band = &mut component.known[first.into()..=last.into()];
            if out_of_order || band.iter().any(|bit| bit.unwrap_or(0) != high) {
                return Err(Error::corrupt(
                    "a jpeg image whose progressive scans do not follow each other",
                ));
            }
            band.fill(Some(low));
        }
        Ok(())
    }

    fn jfif(&mut self, segment: &[u8]) -> Result<()> {
        if segment.len() >= 14 && segment.starts_with(b"JFIF\0") {
            self.jfif = true;
            if segment[5] != 1 {
                let version = segment[5];
                return Err(Error::unsupported(format!(
                    "a jpeg image of JFIF {version}: expected 1"
                )));
            }
        }
        Ok(())
    }

    fn adobe(&mut self, segment: &[u8]) {
        if segment.len() >= 12 && segment.starts_with(b"Adobe") {
            self.adobe_transform = Some(segment[11]);
        }
    }

    fn finish(self) -> Result<Frame> {
        let (height, width) = (self.height, self.width);
        if self.components.is_empty() {
            return Err(Error::corrupt("a jpeg image without a frame header"));
        }
        if let Some(missing) = self.components.iter().position(|own| own.known[0].is_none()) {
            return Err(Error::corrupt(format!(
                "a jpeg image without data for its channel {missing}"
            )));
        }
        let ids: Vec<_> = self.components.iter().map(|own| own.id).collect();
        // As libjpeg guesses it.
        let rgb = match (self.jfif, self.adobe_transform) {
            _ if ids.len() == 1 => false,
            (true, _) => false,
            (false, Some(transform @ 0..=1)) => transform == 0,
            (false, Some(transform)) => {
                return Err(Error::unsupported(format!(
                    "a jpeg image with Adobe's colour transform {transform}: expected 0 or 1"
                )));
            }
            (false, None) => ids == *b"RGB",
        };
        let size = Size {
            height,
            width,
            channels: ids.len(),
        };
        Ok(Frame {
            size,
            progressive: self.progressive,
            grid: Grid::new(width, height, &self.components),
            components: self.components,
            rgb,
        })
    }
}
