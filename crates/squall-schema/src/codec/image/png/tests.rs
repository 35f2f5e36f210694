use std::path::PathBuf;
use std::{fs, io};

use proptest::prelude::*;

use super::super::accept_any;
use super::*;

type Decoded = std::result::Result<(Image, Vec<u8>), String>;

/// What both ways make of a cell; of the plain one `None` where it leaves the cell to the other.
fn both(cell: &[u8], scratch: &mut Scratch) -> (Option<Decoded>, Decoded) {
    let mut out = Room::new(MutableBuffer::new(0));
    let general = any_png(cell, &mut out, &accept_any);
    let general = general
        .map(|image| (image, out.written().to_vec()))
        .map_err(|error| error.to_string());
    let is_plain = plain::lines(cell, scratch, &accept_any)
        .expect("all are accepted")
        .is_some();
    let plain = is_plain.then(|| {
        let mut out = Room::new(MutableBuffer::new(0));
        let image = png(cell, &mut out, scratch, &accept_any);
        image
            .map(|image| (image, out.written().to_vec()))
            .map_err(|error| error.to_string())
    });
    (plain, general)
}

/// An image with this filter on all lines, or with whichever suits each of them.
fn encoded(tensor: &Tensor, filter: Option<png::Filter>) -> Vec<u8> {
    let [height, width] = [0, 1].map(|i| tensor.shape()[i] as u32);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(match tensor.shape().len() {
        2 => ColorType::Grayscale,
        _ => ColorType::Rgb,
    });
    encoder.set_depth(match tensor.dtype() {
        DType::UInt16 => BitDepth::Sixteen,
        _ => BitDepth::Eight,
    });
    encoder.set_filter(filter.unwrap_or(png::Filter::Adaptive));
    let mut pixels = tensor.data().to_vec();
    if tensor.dtype() == DType::UInt16 {
        turn_bytes(&mut pixels);
    }
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&pixels).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

fn fixtures() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let paths = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let paths: io::Result<Vec<PathBuf>> = paths;
    let png = paths
        .expect("the images")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|own| own == "png"));
    png.map(|path| (path.clone(), fs::read(path).expect("an image")))
        .collect()
}

#[test]
fn images_of_opencv_are_decoded_as_the_crate_does() {
    let mut scratch = Scratch::default();
    let mut n_plain = 0;
    for (path, cell) in fixtures() {
        let (plain, general) = both(&cell, &mut scratch);
        n_plain += usize::from(plain.is_some());
        if let Some(plain) = plain {
            assert_eq!(plain, general, "{}", path.display());
        }
    }
    assert!(n_plain > 20, "{n_plain}");
}

/// What the plain way gives for a damaged image, the crate gives too.
#[test]
fn damage_is_left_to_the_crate() {
    let mut scratch = Scratch::default();
    for name in ["grey.png", "colour-16-bits.png"] {
        let (_, good) = fixtures()
            .into_iter()
            .find(|(path, _)| path.ends_with(name))
            .expect(name);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            for cell in [&bad, &good[..at]] {
                if let (Some(plain), general) = both(cell, &mut scratch) {
                    assert_eq!(plain, general, "{name}, byte {at}");
                }
            }
        }
        assert!(matches!(both(&good, &mut scratch), (Some(Ok(_)), Ok(_))), "{name}");
    }
}

proptest! {
    #[test]
    fn both_ways_give_the_same_pixels(
        (height, width) in (1usize..40, 1usize..40),
        (is_rgb, is_deep) in any::<(bool, bool)>(),
        filter in 0usize..6,
        seed in any::<u32>(),
        noise in 1u32..256,
    ) {
        let shape = if is_rgb { vec![height, width, 3] } else { vec![height, width] };
        let dtype = if is_deep { DType::UInt16 } else { DType::UInt8 };
        let bytes = shape.iter().product::<usize>() * dtype.item_size().expect("a number");
        let byte = |i: usize| ((seed.wrapping_mul(i as u32 + 1) >> 16) % noise + i as u32 / 3) as u8;
        let tensor = crate::codec::tensor(dtype, shape, (0..bytes).map(byte).collect()).expect("a tensor");
        use png::Filter;
        let filters = [Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth];
        let cell = encoded(&tensor, filters.get(filter).copied());
        let (plain, general) = both(&cell, &mut Scratch::default());
        let (image, pixels) = plain.expect("a plain image").expect("pixels");
        prop_assert_eq!(&pixels, tensor.data().as_slice());
        prop_assert_eq!(general.expect("pixels"), (image, pixels));
    }
}
