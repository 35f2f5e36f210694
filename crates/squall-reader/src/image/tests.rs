use proptest::prelude::*;
use squall_schema::codec::{Codec, ImageView, Region};
use squall_schema::{DType, Shape};

use super::*;

fn region(top: f64, left: f64, height: f64, width: f64) -> Region {
    Region {
        top,
        left,
        height,
        width,
    }
}

fn view(spec: &ImageSpec, size: [usize; 2], sample: u64) -> Result<ImageView> {
    spec.view(size, &mut stream(7, 0, Domain::Image, sample))
}

fn colour() -> Field {
    Field::new("image", DType::UInt8, Shape(vec![None, None, Some(3)])).with_codec(Some(Codec::Png))
}

/// Of an image of 300x451 pixels torchvision makes one of 256x384 by `resize(256)`, whose `center_crop(224)` begins at 16, 80.
#[test]
fn sizes_are_those_of_torchvision() {
    let whole = region(0.0, 0.0, 300.0, 451.0);
    let (down, across) = (300.0 / 256.0, 451.0 / 384.0);
    let cases = [
        (ImageSpec::new().resize(10, 20), whole, whole),
        (
            ImageSpec::new().resize_shorter(256).center_crop(224, 224),
            whole,
            region(16.0 * down, 80.0 * across, 224.0 * down, 224.0 * across),
        ),
        (
            ImageSpec::new().center_crop(201, 200),
            // Halves are rounded to the even neighbour: 49.5 to 50, 125.5 to 126.
            region(50.0, 126.0, 201.0, 200.0),
            region(50.0, 126.0, 201.0, 200.0),
        ),
        (
            ImageSpec::new().center_crop(200, 201).resize(20, 20),
            region(50.0, 125.0, 200.0, 201.0),
            region(50.0, 125.0, 200.0, 201.0),
        ),
    ];
    for (spec, bounds, region) in cases {
        let found = view(&spec, [300, 451], 0).expect("a view");
        assert_eq!(
            (found.bounds, found.region, found.flip),
            (bounds, region, false),
            "{spec:?}"
        );
    }
    let flipped = ImageSpec::new()
        .horizontal_flip(1.0)
        .center_crop(200, 200)
        .horizontal_flip(1.0);
    assert!(!view(&flipped, [300, 451], 0).expect("a view").flip);
}

#[test]
fn random_parts_have_the_areas_and_ratios_of_their_ranges() {
    let spec = ImageSpec::new().random_resized_crop(224, 224).horizontal_flip(0.25);
    let (mut flips, mut areas) = (0, 0.0);
    for sample in 0..2000 {
        let ImageView {
            bounds, region, flip, ..
        } = view(&spec, [300, 400], sample).expect("a view");
        assert_eq!(bounds, region);
        let (area, ratio) = (region.height * region.width / 120_000.0, region.width / region.height);
        // Sides are whole pixels.
        assert!(
            (0.079..=1.0).contains(&area) && (0.74..=1.35).contains(&ratio),
            "{region:?}"
        );
        assert!(
            region.top + region.height <= 300.0 && region.left + region.width <= 400.0,
            "{region:?}"
        );
        flips += u32::from(flip);
        areas += area / 2000.0;
    }
    assert!((420..580).contains(&flips), "{flips}");
    // A little below the mean of 0.54: what does not fit is drawn again.
    assert!((0.42..0.58).contains(&areas), "{areas}");
    // No part of a strip has a ratio of the range: the middle is taken.
    let found = view(&spec, [10, 1000], 0).expect("a view").region;
    assert_eq!(found, region(0.0, 493.0, 10.0, 13.0));
}

/// Golden numbers: a change here changes what users see of their images.
#[test]
fn what_is_drawn_is_pinned() {
    let spec = ImageSpec::new().random_resized_crop(224, 224).horizontal_flip(0.5);
    let drawn = [0, 1, 2].map(|sample| {
        let ImageView { region, flip, .. } = view(&spec, [300, 400], sample).expect("a view");
        (region.top, region.left, region.height, region.width, flip)
    });
    let expected = [
        (78.0, 83.0, 162.0, 167.0, true),
        (1.0, 4.0, 290.0, 387.0, true),
        (86.0, 236.0, 138.0, 157.0, true),
    ];
    assert_eq!(drawn, expected);
}

#[test]
fn steps_that_leave_a_size_open_or_make_no_sense_are_refused() {
    let grey = Field::new("x", DType::UInt8, Shape::fixed(&[28, 28])).with_codec(Some(Codec::Png));
    let crop = |scale, ratio| ImageSpec::new().random_resized_crop_within(8, 8, scale, ratio);
    let cases = [
        (ImageSpec::new(), "leave their size open"),
        (
            ImageSpec::new().center_crop(8, 8).resize_shorter(9),
            "leave their size open",
        ),
        (ImageSpec::new().horizontal_flip(0.5), "leave their size open"),
        (ImageSpec::new().resize(0, 8), "a size of 0x8"),
        (ImageSpec::new().resize_shorter(0).resize(8, 8), "a shorter side of 0"),
        (crop(0.0..=1.0, 1.0..=1.0), "expected ranges above 0"),
        (crop(0.5..=0.2, 1.0..=1.0), "expected ranges above 0"),
        (crop(0.5..=1.0, 1.0..=f64::NAN), "expected ranges above 0"),
        (
            ImageSpec::new().resize(8, 8).horizontal_flip(1.5),
            "the probability 1.5",
        ),
    ];
    let schema = Schema::new(vec![colour(), grey]).expect("a schema");
    for (spec, part) in cases {
        let error = Images::new(&[("image".to_owned(), spec)], &schema)
            .expect_err(part)
            .to_string();
        assert!(error.contains(part), "{error}");
    }
    let spec = ImageSpec::new().horizontal_flip(0.5);
    assert_eq!(spec.size(&schema.fields()[1]).expect("a size"), [28, 28]);
    let twice = ["x", "x"].map(|name| (name.to_owned(), spec.clone()));
    assert!(Images::new(&twice, &schema).is_err());
    assert!(Images::new(&[("y".to_owned(), spec)], &schema).is_err());
    let error = view(&ImageSpec::new().random_crop(31, 10), [30, 40], 0).expect_err("too large");
    assert!(
        error
            .to_string()
            .contains("a crop of 31x10 pixels from an image of 30x40"),
        "{error}"
    );
}

fn step() -> impl Strategy<Value = fn(ImageSpec, usize, usize) -> ImageSpec> {
    let steps: [fn(ImageSpec, usize, usize) -> ImageSpec; 6] = [
        |spec, h, w| spec.resize(h, w),
        |spec, h, _| spec.resize_shorter(h),
        |spec, h, w| spec.center_crop(h, w),
        |spec, h, w| spec.random_crop(h, w),
        |spec, h, w| spec.random_resized_crop(h, w),
        |spec, _, _| spec.horizontal_flip(0.5),
    ];
    prop::sample::select(steps.to_vec())
}

proptest! {
    /// Whatever the steps, what is shown lies inside of what may be looked at, and that inside of the image.
    #[test]
    fn views_lie_inside_of_images(
        steps in prop::collection::vec((step(), 1usize..60, 1usize..60), 0..6),
        (height, width) in (1usize..100, 1usize..100),
        sample in any::<u64>(),
    ) {
        let spec = steps.into_iter().fold(ImageSpec::new(), |spec, (step, h, w)| step(spec, h, w));
        if let Ok(found) = view(&spec, [height, width], sample) {
            let whole = region(0.0, 0.0, height as f64, width as f64);
            for (outer, inner) in [(whole, found.bounds), (found.bounds, found.region)] {
                prop_assert!(inner.height > 0.0 && inner.width > 0.0);
                prop_assert!(inner.top >= outer.top - 1e-6 && inner.left >= outer.left - 1e-6);
                prop_assert!(inner.top + inner.height <= outer.top + outer.height + 1e-6);
                prop_assert!(inner.left + inner.width <= outer.left + outer.width + 1e-6);
            }
            prop_assert_eq!(view(&spec, [height, width], sample).expect("a view"), found);
        }
    }
}
