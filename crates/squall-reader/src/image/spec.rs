//! The steps from a stored image to the one that a model sees.

use std::ops::RangeInclusive;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::Rng;
use squall_schema::codec::{ImageView, Region};
use squall_schema::{Error, Field, Result};

use crate::random::below;

/// Areas of a random crop, as parts of the image, and its ratios of width to height: torchvision's.
const SCALE: RangeInclusive<f64> = 0.08..=1.0;
const RATIO: RangeInclusive<f64> = 3.0 / 4.0..=4.0 / 3.0;
/// How often a random crop is drawn that does not fit, before the middle is taken.
const DRAWS: usize = 10;

/// What is shown of each image of a field, by steps with the names and meanings of torchvision. They are done as one while the
/// image is decoded, so that images of different sizes make one dense tensor, `uint8[height, width, 3]` or `uint8[height, width]`.
///
/// ```
/// use squall_reader::{ImageSpec, make_reader};
///
/// let train = ImageSpec::new().random_resized_crop(224, 224).horizontal_flip(0.5);
/// let test = ImageSpec::new().resize_shorter(256).center_crop(224, 224);
/// let reader = make_reader("/data/imagenet").image("image", train);
/// ```
///
/// What is random depends on the reader's seed, the epoch and the sample, and on nothing else. All fields of a row draw the same
/// numbers: an image and its depth get the same crop, if they have the same size and steps.
///
/// Sizes are those of torchvision to the pixel; the pixels are those of its `antialias=True` within a level where a png image is
/// read, and a jpeg image with its full size. Where a jpeg image is decoded smaller, details differ by some levels;
/// [`ImageSpec::full_decode`] does without that.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageSpec {
    steps: Vec<Step>,
    full_decode: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Resize([usize; 2]),
    ResizeShorter(usize),
    CenterCrop([usize; 2]),
    RandomCrop([usize; 2]),
    RandomResizedCrop {
        size: [usize; 2],
        scale: RangeInclusive<f64>,
        ratio: RangeInclusive<f64>,
    },
    HorizontalFlip(f64),
}

impl ImageSpec {
    /// No step yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resizes to a height and a width.
    #[must_use]
    pub fn resize(self, height: usize, width: usize) -> Self {
        self.with(Step::Resize([height, width]))
    }

    /// Resizes so that the shorter side has a length; the other one keeps the ratio.
    #[must_use]
    pub fn resize_shorter(self, side: usize) -> Self {
        self.with(Step::ResizeShorter(side))
    }

    /// Keeps the middle. An image that is smaller is an error.
    #[must_use]
    pub fn center_crop(self, height: usize, width: usize) -> Self {
        self.with(Step::CenterCrop([height, width]))
    }

    /// Keeps a part at a random place. An image that is smaller is an error.
    #[must_use]
    pub fn random_crop(self, height: usize, width: usize) -> Self {
        self.with(Step::RandomCrop([height, width]))
    }

    /// Keeps a part of random area and ratio at a random place, and resizes it: of 0.08 to 1 of the area, 3/4 to 4/3 as wide as
    /// high.
    #[must_use]
    pub fn random_resized_crop(self, height: usize, width: usize) -> Self {
        self.random_resized_crop_within(height, width, SCALE, RATIO)
    }

    /// [`random_resized_crop`](Self::random_resized_crop) with other areas, as parts of the image, and other ratios of width to
    /// height.
    #[must_use]
    pub fn random_resized_crop_within(
        self,
        height: usize,
        width: usize,
        scale: RangeInclusive<f64>,
        ratio: RangeInclusive<f64>,
    ) -> Self {
        let size = [height, width];
        self.with(Step::RandomResizedCrop { size, scale, ratio })
    }

    /// Exchanges left and right, with a probability of 0 to 1.
    #[must_use]
    pub fn horizontal_flip(self, probability: f64) -> Self {
        self.with(Step::HorizontalFlip(probability))
    }

    /// Decodes jpeg images with their full size, also where a smaller one would do.
    #[must_use]
    pub fn full_decode(mut self) -> Self {
        self.full_decode = true;
        self
    }

    fn with(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Height and width of what is shown, whatever the image: checks the steps.
    pub(super) fn size(&self, field: &Field) -> Result<[usize; 2]> {
        for step in &self.steps {
            step.check().map_err(|error| error.at("column", &field.name))?;
        }
        let sizes = self
            .steps
            .iter()
            .rev()
            .filter(|step| !matches!(step, Step::HorizontalFlip(_)));
        let size = match sizes.into_iter().next() {
            Some(Step::ResizeShorter(_)) => None,
            Some(Step::Resize(size) | Step::CenterCrop(size) | Step::RandomCrop(size)) => Some(*size),
            Some(Step::RandomResizedCrop { size, .. }) => Some(*size),
            Some(Step::HorizontalFlip(_)) | None => match field.shape.as_fixed().as_deref() {
                Some([height, width, ..]) => Some([*height, *width]),
                _ => None,
            },
        };
        size.ok_or_else(|| {
            Error::invalid(format!(
                "the steps for the images of {field} leave their size open: end with a crop or a resize to a height and a width"
            ))
        })
    }

    /// What is shown of an image of this height and width.
    pub(super) fn view(&self, size: [usize; 2], rng: &mut ChaCha8Rng) -> Result<ImageView> {
        let mut state = State::new(size);
        for step in &self.steps {
            step.apply(&mut state, rng)?;
        }
        Ok(ImageView {
            bounds: state.bounds,
            region: state.region,
            flip: state.flip,
            full_decode: self.full_decode,
        })
    }
}

/// An image behind some steps.
struct State {
    bounds: Region,
    region: Region,
    size: [usize; 2],
    is_resized: bool,
    flip: bool,
}

impl State {
    fn new([height, width]: [usize; 2]) -> Self {
        let whole = Region {
            top: 0.0,
            left: 0.0,
            height: height as f64,
            width: width as f64,
        };
        Self {
            bounds: whole,
            region: whole,
            size: [height, width],
            is_resized: false,
            flip: false,
        }
    }

    fn resize(&mut self, size: [usize; 2]) {
        self.is_resized |= self.size != size;
        self.size = size;
    }

    fn crop(&mut self, [top, left]: [usize; 2], size: [usize; 2]) {
        let down = self.region.height / self.size[0] as f64;
        let across = self.region.width / self.size[1] as f64;
        // Behind a flip, what is on the left was on the right.
        let left = if self.flip { self.size[1] - left - size[1] } else { left };
        self.region = Region {
            top: self.region.top + top as f64 * down,
            left: self.region.left + left as f64 * across,
            height: size[0] as f64 * down,
            width: size[1] as f64 * across,
        };
        if !self.is_resized {
            self.bounds = self.region;
        }
        self.size = size;
    }

    /// How many places a crop of this size has, down and across, less one.
    fn room(&self, size: [usize; 2]) -> Result<[usize; 2]> {
        let room = |axis: usize| self.size[axis].checked_sub(size[axis]);
        let room = room(0).zip(room(1)).map(|(down, across)| [down, across]);
        room.ok_or_else(|| {
            let [height, width] = self.size;
            Error::invalid(format!(
                "a crop of {}x{} pixels from an image of {height}x{width}: expected one that is not larger",
                size[0], size[1]
            ))
        })
    }
}

impl Step {
    fn check(&self) -> Result<()> {
        let is_range = |range: &RangeInclusive<f64>| {
            *range.start() > 0.0 && range.end().is_finite() && range.start() <= range.end()
        };
        match self {
            Self::Resize(size) | Self::CenterCrop(size) | Self::RandomCrop(size) if size.contains(&0) => Err(
                Error::invalid(format!("a size of {}x{}: expected a pixel at least", size[0], size[1])),
            ),
            Self::ResizeShorter(0) => Err(Error::invalid("a shorter side of 0 pixels: expected one at least")),
            Self::RandomResizedCrop { scale, ratio, .. } if !is_range(scale) || !is_range(ratio) => {
                Err(Error::invalid(format!(
                    "a random crop of the areas {scale:?} and the ratios {ratio:?}: expected ranges above 0"
                )))
            }
            Self::HorizontalFlip(probability) if !(0.0..=1.0).contains(probability) => Err(Error::invalid(format!(
                "a flip with the probability {probability}: expected 0 to 1"
            ))),
            _ => Ok(()),
        }
    }

    fn apply(&self, state: &mut State, rng: &mut ChaCha8Rng) -> Result<()> {
        match self {
            Self::Resize(size) => state.resize(*size),
            Self::ResizeShorter(side) => {
                let [height, width] = state.size;
                // Rounded down, as in torchvision.
                let longer = |long: usize, short: usize| (side * long / short).max(1);
                state.resize(match height <= width {
                    true => [*side, longer(width, height)],
                    false => [longer(height, width), *side],
                });
            }
            Self::CenterCrop(size) => {
                let room = state.room(*size)?;
                // Halves go to the even neighbour, as Python rounds.
                state.crop(room.map(|room| (room as f64 / 2.0).round_ties_even() as usize), *size);
            }
            Self::RandomCrop(size) => {
                let room = state.room(*size)?;
                let place = room.map(|room| below(rng, room as u64 + 1) as usize);
                state.crop(place, *size);
            }
            Self::RandomResizedCrop { size, scale, ratio } => {
                let (place, own) = random_part(state.size, scale, ratio, rng);
                state.crop(place, own);
                state.resize(*size);
            }
            Self::HorizontalFlip(probability) => state.flip ^= uniform(rng, 0.0, 1.0) < *probability,
        }
        Ok(())
    }
}

/// A number from `low` to below `high`.
fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    // 53 bits: as many as a double has.
    let part = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    low + part * (high - low)
}

/// Place and size of the part that torchvision's `RandomResizedCrop.get_params` draws.
fn random_part(
    [height, width]: [usize; 2],
    scale: &RangeInclusive<f64>,
    ratio: &RangeInclusive<f64>,
    rng: &mut ChaCha8Rng,
) -> ([usize; 2], [usize; 2]) {
    let area = height as f64 * width as f64;
    // libm gives the same on every machine.
    let (low, high) = (libm::log(*ratio.start()), libm::log(*ratio.end()));
    for _ in 0..DRAWS {
        let wanted = area * uniform(rng, *scale.start(), *scale.end());
        let aspect = libm::exp(uniform(rng, low, high));
        let own_width = (wanted * aspect).sqrt().round_ties_even() as usize;
        let own_height = (wanted / aspect).sqrt().round_ties_even() as usize;
        if (1..=height).contains(&own_height) && (1..=width).contains(&own_width) {
            let top = below(rng, (height - own_height) as u64 + 1) as usize;
            let left = below(rng, (width - own_width) as u64 + 1) as usize;
            return ([top, left], [own_height, own_width]);
        }
    }
    // The largest part in the middle that has a ratio of the range.
    let own = width as f64 / height as f64;
    let [own_height, own_width] = if own < *ratio.start() {
        [(width as f64 / ratio.start()).round_ties_even() as usize, width]
    } else if own > *ratio.end() {
        [height, (height as f64 * ratio.end()).round_ties_even() as usize]
    } else {
        [height, width]
    };
    let size = [own_height.clamp(1, height), own_width.clamp(1, width)];
    ([(height - size[0]) / 2, (width - size[1]) / 2], size)
}
