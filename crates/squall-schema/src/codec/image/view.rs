//! A part of an image in another size, decoded into the tensor of a batch: crop, resize and flip in one go, and of a jpeg image no
//! more detail than is asked for.
//!
//! Input are cells and, for each, an [`ImageView`]; output is a dense column of `uint8`. jpeg is decoded at the smallest of the
//! scales 1/8 to 8/8 that is not below the wanted size, which libjpeg does by smaller inverse DCTs (Rust alone decodes whole
//! images); png has no such way. What is decoded is resized as PIL does it and torchvision with `antialias=True`: by a triangle
//! as wide as the pixels of the result.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray};
use arrow_buffer::MutableBuffer;
#[cfg(feature = "image-resize")]
use fast_image_resize as fir;

use super::{Scratch, Size, check_pixels, jpeg_scaled, png, room_for};
use crate::arrow::item_field;
use crate::codec::Codec;
use crate::codec::decode::{FREE_RATIO, FREE_SIZE, codec_of, validity};
use crate::codec::room::{CellMemory, Room};
use crate::columns::elements_from_buffer;
use crate::{DType, Error, Field, Result, Shape};

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Pixels above it.
    pub top: f64,
    /// Pixels to the left of it.
    pub left: f64,
    /// Its height.
    pub height: f64,
    /// Its width.
    pub width: f64,
}

/// What is shown of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageView {
    /// The pixels that may be looked at: those that a crop before all resizing has left.
    pub bounds: Region,
    /// What becomes the whole tensor. It lies within the bounds.
    pub region: Region,
    /// Whether left and right are exchanged.
    pub flip: bool,
    /// Whether a jpeg image is decoded with its full size, also where a smaller one would do.
    pub full_decode: bool,
}

/// The field of views with this height and width of the images of a field: `uint8[height, width]` for grey, and
/// `uint8[height, width, 3]` for colour. An error if the field has no images of 8 bits.
pub fn view_field(field: &Field, height: usize, width: usize) -> Result<Field> {
    let channels = match (&field.codec, field.dtype, &field.shape.0[..]) {
        (Some(Codec::Png | Codec::Jpeg { .. }), DType::UInt8, [_, _]) => None,
        (Some(Codec::Png | Codec::Jpeg { .. }), DType::UInt8, [_, _, None | Some(3)]) => Some(3),
        _ => {
            return Err(Error::invalid(format!(
                "{field} cannot be cropped or resized: expected png or jpeg images of uint8, grey or of 3 channels"
            )));
        }
    };
    if height == 0 || width == 0 {
        return Err(Error::invalid(format!(
            "{field} cannot have the size {height}x{width}: expected a pixel at least"
        )));
    }
    check_pixels(width, height)?;
    let dims: Vec<_> = [Some(height), Some(width), channels].into_iter().flatten().collect();
    Ok(Field {
        shape: Shape::fixed(&dims),
        codec: None,
        ..field.clone()
    })
}

/// Views of the images in cells, in the column of `target`, which is a [`view_field`] of `field`. `view` is asked with the place of
/// a cell, the height and the width of its image. The column takes its memory from `memory`. An error names the row,
/// counted in the cells.
pub fn decode_views(
    cells: &[Option<&[u8]>],
    (field, target): (&Field, &Field),
    view: &mut dyn FnMut(usize, [usize; 2]) -> Result<ImageView>,
    memory: &dyn CellMemory,
) -> Result<ArrayRef> {
    let mut decoder = Views::new(field, target)?;
    decoder.out = Room::new(memory.take(decoder.size.bytes().saturating_mul(cells.len())));
    let mut decode = |row: usize, cell: &Option<&[u8]>| match cell {
        Some(cell) => {
            decoder.append(cell, &mut |size| view(row, size))?;
            // There is an image, so the size of the views is no mere claim.
            decoder.reserve(cells.len() - row - 1)
        }
        None if field.nullable => room_for(&mut decoder.out, decoder.size.bytes()).map(|pixels| pixels.fill(0)),
        None => Err(Error::corrupt(format!("a null where {field} has none"))),
    };
    let mut cells_in_turn = cells.iter().enumerate();
    cells_in_turn
        .try_for_each(|(row, cell)| decode(row, cell).map_err(|error| error.at("row", row)))
        .and_then(|()| decoder.finish((cells, target), memory))
        .map_err(|error| error.at("column", &field.name))
}

/// Decodes views of images, one after the other, into one buffer.
struct Views<'a> {
    field: &'a Field,
    /// The size of all views.
    size: Size,
    out: Room,
    /// The pixels of the image that is looked at.
    pixels: Room,
    png: Scratch,
    #[cfg(feature = "image-resize")]
    resizer: fir::Resizer,
}

impl<'a> Views<'a> {
    fn new(field: &'a Field, target: &Field) -> Result<Self> {
        let (height, width, channels) = match target.shape.as_fixed().as_deref() {
            Some([height, width]) => (*height, *width, 1),
            Some([height, width, channels]) => (*height, *width, *channels),
            _ => return Err(Error::internal(format!("{target} is no view of an image"))),
        };
        Ok(Self {
            field,
            size: Size {
                height,
                width,
                channels,
            },
            out: Room::new(MutableBuffer::new(0)),
            pixels: Room::new(MutableBuffer::new(0)),
            png: Scratch::default(),
            #[cfg(feature = "image-resize")]
            resizer: fir::Resizer::new(),
        })
    }

    fn reserve(&mut self, rows: usize) -> Result<()> {
        let bytes = self.size.bytes().checked_mul(rows);
        let reserved = bytes.and_then(|bytes| self.out.reserve(bytes));
        reserved.ok_or_else(|| Error::unsupported(format!("{rows} views take more memory than there is")))
    }

    /// Appends the view of an image.
    fn append(&mut self, cell: &[u8], view: &mut dyn FnMut([usize; 2]) -> Result<ImageView>) -> Result<()> {
        let (wanted, field) = (self.size, self.field);
        let accept = |dtype: DType, shape: &[usize]| {
            let channels = shape.get(2).copied().unwrap_or(1);
            if dtype != DType::UInt8 || channels != wanted.channels || !field.shape.accepts(shape) {
                return Err(Error::corrupt(format!("expected {field}, found {dtype}{shape:?}")));
            }
            let held: usize = shape.iter().product();
            let most = FREE_SIZE.max(FREE_RATIO.saturating_mul(cell.len()));
            if field.shape.as_fixed().is_none() && held > most {
                let length = cell.len();
                return Err(Error::corrupt(format!(
                    "an image of {held} bytes, compressed to {length}: expected at most {most} where the field does not tell"
                )));
            }
            Ok(())
        };
        self.pixels.truncate(0);
        let mut sure = |size: Size| {
            let own = view([size.height, size.width])?;
            own.check(size).map(|()| own)
        };
        let (decoded, eighths, view) = match codec_of(field, cell) {
            Some(Codec::Png) => {
                let size = png(cell, &mut self.pixels, &mut self.png, &accept)?.size;
                (size, 8, sure(size)?)
            }
            _ => {
                let mut shown = None;
                let (decoded, eighths) = jpeg_scaled(cell, &mut self.pixels, &accept, &mut |size| {
                    let own = shown.insert(sure(size)?);
                    Ok(own.eighths(wanted))
                })?;
                let view = shown.ok_or_else(|| Error::internal("an image that nobody looked at"))?;
                (decoded, eighths, view)
            }
        };
        let view = view.scaled(eighths, decoded);
        let target = room_for(&mut self.out, wanted.bytes())?;
        let pixels = self.pixels.written();
        match view.place_of_copy(wanted) {
            Some(place) => copy((pixels, decoded), place, (&mut *target, wanted)),
            None => {
                #[cfg(feature = "image-resize")]
                resize(&mut self.resizer, (pixels, decoded), &view, (&mut *target, wanted))?;
                #[cfg(not(feature = "image-resize"))]
                return Err(Error::unsupported(
                    "images are resized with the feature image-resize only",
                ));
            }
        }
        if view.flip {
            flip(target, wanted);
        }
        Ok(())
    }

    fn finish(self, (cells, target): (&[Option<&[u8]>], &Field), memory: &dyn CellMemory) -> Result<ArrayRef> {
        let length = i32::try_from(self.size.bytes());
        let length = length.map_err(|_| Error::unsupported("a tensor of more than 2^31 elements"))?;
        let elements = elements_from_buffer(DType::UInt8, self.out.finish(memory))?;
        let item = Arc::new(item_field(target));
        let list = FixedSizeListArray::try_new_with_length(item, length, elements, validity(cells), cells.len());
        Ok(Arc::new(list.map_err(|error| {
            Error::internal("views do not make a column").with_source(error)
        })?))
    }
}

impl ImageView {
    /// Refuses what is not inside of an image.
    fn check(&self, size: Size) -> Result<()> {
        let all = Region {
            top: 0.0,
            left: 0.0,
            height: size.height as f64,
            width: size.width as f64,
        };
        if all.has(&self.bounds) && self.bounds.has(&self.region) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a view of {:?} in {:?}: expected one inside of the image of {}x{} pixels",
            self.region, self.bounds, size.height, size.width
        )))
    }

    /// The smallest scale, in eighths, at which the region is not smaller than the view.
    fn eighths(&self, wanted: Size) -> u8 {
        let is_enough = |eighths: &u8| {
            let scale = f64::from(*eighths) / 8.0;
            self.region.height * scale >= wanted.height as f64 && self.region.width * scale >= wanted.width as f64
        };
        (1..8)
            .find(|eighths| !self.full_decode && is_enough(eighths))
            .unwrap_or(8)
    }

    /// The same view of an image that was decoded with so many eighths of its size.
    fn scaled(self, eighths: u8, decoded: Size) -> Self {
        if eighths == 8 {
            return self;
        }
        // The last line and column may stand for less than the others: sizes are rounded up.
        let scale = f64::from(eighths) / 8.0;
        let [bounds, region] = [self.bounds, self.region].map(|own| Region {
            top: own.top * scale,
            left: own.left * scale,
            height: own.height * scale,
            width: own.width * scale,
        });
        // Whole pixels: those at the edges count.
        let (top, left) = (bounds.top.floor(), bounds.left.floor());
        let bottom = (bounds.top + bounds.height).ceil().min(decoded.height as f64);
        let right = (bounds.left + bounds.width).ceil().min(decoded.width as f64);
        Self {
            bounds: Region {
                top,
                left,
                height: bottom - top,
                width: right - left,
            },
            region,
            ..self
        }
    }

    /// Row and column where the region begins, if it is the view as it is.
    fn place_of_copy(&self, wanted: Size) -> Option<[usize; 2]> {
        let Region {
            top,
            left,
            height,
            width,
        } = self.region;
        let is_same = height == wanted.height as f64 && width == wanted.width as f64;
        (is_same && top.fract() == 0.0 && left.fract() == 0.0).then_some([top as usize, left as usize])
    }
}

impl Region {
    /// Whether another one lies inside, but for what rounding makes of a border.
    fn has(&self, other: &Self) -> bool {
        const ROUNDING: f64 = 1e-6;
        other.height > 0.0
            && other.width > 0.0
            && other.top >= self.top - ROUNDING
            && other.left >= self.left - ROUNDING
            && other.top + other.height <= self.top + self.height + ROUNDING
            && other.left + other.width <= self.left + self.width + ROUNDING
    }
}

impl Size {
    fn bytes(self) -> usize {
        self.height * self.width * self.channels
    }
}

/// Copies the pixels of a view that is not resized.
fn copy((pixels, size): (&[u8], Size), [top, left]: [usize; 2], (target, wanted): (&mut [u8], Size)) {
    let (line, part) = (size.width * size.channels, wanted.width * wanted.channels);
    let lines = pixels.chunks_exact(line).skip(top);
    for (own, line) in target.chunks_exact_mut(part).zip(lines) {
        own.copy_from_slice(&line[left * size.channels..][..part]);
    }
}

/// Exchanges left and right.
fn flip(pixels: &mut [u8], size: Size) {
    for line in pixels.chunks_exact_mut(size.width * size.channels) {
        match size.channels {
            3 => line.as_chunks_mut::<3>().0.reverse(),
            _ => line.reverse(),
        }
    }
}

#[cfg(feature = "image-resize")]
fn resize(
    resizer: &mut fir::Resizer,
    (pixels, size): (&[u8], Size),
    view: &ImageView,
    (target, wanted): (&mut [u8], Size),
) -> Result<()> {
    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::internal("cannot resize an image").with_source(error)
    }
    let kind = match size.channels {
        1 => fir::PixelType::U8,
        _ => fir::PixelType::U8x3,
    };
    // Sides are 65,500 pixels or 2^28 at most.
    let image = fir::images::ImageRef::new(size.width as u32, size.height as u32, pixels, kind).map_err(failed)?;
    let Region {
        top,
        left,
        height,
        width,
    } = view.bounds;
    let bounds = fir::images::CroppedImage::new(&image, left as u32, top as u32, width as u32, height as u32);
    let bounds = bounds.map_err(failed)?;
    let region = view.region;
    let (region_top, region_left) = ((region.top - top).max(0.0), (region.left - left).max(0.0));
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
        .use_alpha(false)
        .crop(
            region_left,
            region_top,
            region.width.min(width - region_left),
            region.height.min(height - region_top),
        );
    let (w, h) = (wanted.width as u32, wanted.height as u32);
    let mut target = fir::images::Image::from_slice_u8(w, h, target, kind).map_err(failed)?;
    resizer.resize(&bounds, &mut target, &options).map_err(failed)
}

#[cfg(all(test, feature = "image-resize"))]
mod tests;
