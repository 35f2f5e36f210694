use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;

use super::super::{accept_any, encode_jpeg, encode_png, png_tensor};
use super::*;
use crate::Tensor;
use crate::codec::room::{FreshMemory, Stale};

/// Waves with a little noise.
fn picture(height: usize, width: usize, channels: usize) -> Tensor {
    let mut noise = 1u32;
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..channels {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let wave = ((x * (channel + 1)) as f32 / 11.0).sin() * 60.0 + (y as f32 / 9.0).cos() * 50.0;
                pixels.push((128.0 + wave + (noise >> 29) as f32) as u8);
            }
        }
    }
    let shape = [vec![height, width], vec![channels]].concat();
    Tensor::from_vec(&shape[..if channels == 1 { 2 } else { 3 }], pixels).expect("a picture")
}

fn region(top: f64, left: f64, height: f64, width: f64) -> Region {
    Region {
        top,
        left,
        height,
        width,
    }
}

fn field(codec: Codec, is_colour: bool) -> Field {
    let dims = if is_colour {
        vec![None, None, Some(3)]
    } else {
        vec![None, None]
    };
    Field::new("image", DType::UInt8, Shape(dims)).with_codec(Some(codec))
}

fn jpeg_codec() -> Codec {
    Codec::Jpeg { quality: 95 }
}

fn shown(cell: &[u8], field: &Field, size: [usize; 2], view: ImageView) -> Result<Vec<u8>> {
    let target = view_field(field, size[0], size[1])?;
    let column = decode_views(&[Some(cell)], (field, &target), &mut |_, _| Ok(view), &FreshMemory)?;
    Ok(column
        .as_fixed_size_list()
        .values()
        .as_primitive::<UInt8Type>()
        .values()
        .to_vec())
}

/// Along one axis, for each pixel of the result: the first pixel of the source, and the weights from there. What PIL computes
/// (Pillow's Resample.c, `precompute_coeffs` with the bilinear filter), written down anew.
fn weights(source: usize, bounds: [f64; 2], region: [f64; 2], target: usize) -> Vec<(usize, Vec<f64>)> {
    let scale = region[1] / target as f64;
    let reach = scale.max(1.0);
    let [first, last] = [bounds[0], (bounds[0] + bounds[1]).min(source as f64)];
    let of_pixel = |i: usize| {
        let centre = region[0] + (i as f64 + 0.5) * scale;
        let begin = (centre - reach + 0.5).floor().max(first) as usize;
        let end = (centre + reach + 0.5).floor().min(last) as usize;
        let weight = |x: usize| (1.0 - ((x as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let own: Vec<_> = (begin..end).map(weight).collect();
        let sum: f64 = own.iter().sum();
        (begin, own.into_iter().map(|weight| weight / sum).collect())
    };
    (0..target).map(of_pixel).collect()
}

/// The view by the definition, in doubles.
fn expected(picture: &Tensor, view: &ImageView, [height, width]: [usize; 2]) -> Vec<f64> {
    let (source, channels) = (picture.shape(), picture.shape().get(2).copied().unwrap_or(1));
    let pixels = picture.as_slice::<u8>().expect("bytes");
    let (bounds, region) = (view.bounds, view.region);
    let rows = weights(
        source[0],
        [bounds.top, bounds.height],
        [region.top, region.height],
        height,
    );
    let columns = weights(
        source[1],
        [bounds.left, bounds.width],
        [region.left, region.width],
        width,
    );
    let mut out = Vec::new();
    for (top, down) in &rows {
        for x in 0..width {
            let (left, across) = &columns[if view.flip { width - 1 - x } else { x }];
            for channel in 0..channels {
                let pixel =
                    |i: usize, j: usize| f64::from(pixels[((top + i) * source[1] + left + j) * channels + channel]);
                let line = |i: usize| {
                    across
                        .iter()
                        .enumerate()
                        .map(|(j, weight)| weight * pixel(i, j))
                        .sum::<f64>()
                };
                out.push(down.iter().enumerate().map(|(i, weight)| weight * line(i)).sum());
            }
        }
    }
    out
}

fn difference(found: &[u8], expected: &[f64]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    let each = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| (f64::from(*found) - expected).abs());
    (each.clone().fold(0.0, f64::max), each.sum::<f64>() / found.len() as f64)
}

/// Half a level is lost where lines are rounded to bytes, half in the end: together one, and a little for weights of 16 bits.
#[test]
fn views_are_what_the_definition_says() {
    let whole = region(0.0, 0.0, 60.0, 90.0);
    let views = [
        (whole, whole, [20, 30]),
        (whole, whole, [75, 33]),
        (whole, region(3.25, 10.5, 40.0, 70.75), [32, 32]),
        (region(5.0, 7.0, 50.0, 41.0), region(5.0, 7.0, 50.0, 41.0), [24, 24]),
        (region(5.0, 7.0, 50.0, 41.0), region(20.0, 7.0, 10.0, 41.0), [40, 12]),
    ];
    for channels in [1, 3] {
        let picture = picture(60, 90, channels);
        let cell = encode_png(&picture).expect("a png image");
        for (bounds, region, size) in views {
            for flip in [false, true] {
                let full_decode = true;
                let view = ImageView {
                    bounds,
                    region,
                    flip,
                    full_decode,
                };
                let found = shown(&cell, &field(Codec::Png, channels == 3), size, view).expect("a view");
                let (most, mean) = difference(&found, &expected(&picture, &view, size));
                assert!(
                    most <= 1.1 && mean <= 0.35,
                    "{view:?} {size:?}: most {most}, mean {mean}"
                );
            }
        }
    }
}

#[test]
fn a_crop_that_is_not_resized_is_exact() {
    let picture = picture(30, 40, 3);
    let cell = encode_png(&picture).expect("a png image");
    let whole = region(0.0, 0.0, 30.0, 40.0);
    for flip in [false, true] {
        let view = ImageView {
            bounds: whole,
            region: region(11.0, 3.0, 19.0, 37.0),
            flip,
            full_decode: false,
        };
        let found = shown(&cell, &field(Codec::Png, true), [19, 37], view).expect("a view");
        assert_eq!(difference(&found, &expected(&picture, &view, [19, 37])), (0.0, 0.0));
    }
}

/// A block that is decoded to fewer pixels is averaged by the transform, where the triangle takes in its neighbours too. The blue
/// of this picture has waves of 23 pixels, and at a scale of 1/8 two pixels of each: the worst there is. What the bounds come from:
/// 5.6 and 1.6 for grey, 18.7 and 3.9 for colour.
#[test]
fn jpeg_images_are_decoded_no_larger_than_needed() {
    for channels in [1, 3] {
        let picture = picture(203, 301, channels);
        let cell = encode_jpeg(&picture, 95).expect("a jpeg image");
        let whole = region(0.0, 0.0, 203.0, 301.0);
        for (region, size) in [
            (whole, [24, 36]),
            (whole, [101, 150]),
            (region(50.0, 60.0, 120.0, 160.0), [40, 40]),
            (region(50.0, 60.0, 120.0, 160.0), [119, 159]),
        ] {
            let view = ImageView {
                bounds: region,
                region,
                flip: true,
                full_decode: false,
            };
            let found = shown(&cell, &field(jpeg_codec(), channels == 3), size, view).expect("a view");
            let (most, mean) = difference(&found, &expected(&picture, &view, size));
            let (most_allowed, mean_allowed) = if channels == 1 { (8.0, 2.0) } else { (24.0, 4.5) };
            assert!(
                most <= most_allowed && mean <= mean_allowed,
                "{region:?} {size:?}: most {most}, mean {mean}"
            );
        }
    }
}

#[test]
fn the_scale_is_the_smallest_that_suffices() {
    let eighths = |side: f64, wanted: usize| {
        let own = region(0.0, 0.0, side, 2.0 * side);
        let view = ImageView {
            bounds: own,
            region: own,
            flip: false,
            full_decode: false,
        };
        view.eighths(Size {
            height: wanted,
            width: wanted,
            channels: 3,
        })
    };
    let found = [
        (256.0, 224),
        (256.0, 256),
        (512.0, 256),
        (500.0, 224),
        (2000.0, 224),
        (100.0, 224),
    ];
    assert_eq!(found.map(|(side, wanted)| eighths(side, wanted)), [7, 8, 4, 4, 1, 8]);
}

#[test]
fn what_cannot_be_shown_is_named() {
    let cell = encode_png(&picture(30, 40, 3)).expect("a png image");
    let colour = field(Codec::Png, true);
    let whole = region(0.0, 0.0, 30.0, 40.0);
    for bad in [
        region(0.0, 0.0, 31.0, 40.0),
        region(-1.0, 0.0, 10.0, 10.0),
        region(0.0, 0.0, 0.0, 10.0),
        region(0.0, f64::NAN, 10.0, 10.0),
        region(0.0, 0.0, f64::INFINITY, 10.0),
    ] {
        for (bounds, region) in [(bad, bad), (whole, bad)] {
            let view = ImageView {
                bounds,
                region,
                flip: false,
                full_decode: false,
            };
            let error = shown(&cell, &colour, [8, 8], view).expect_err("no view");
            assert_eq!((error.place("row"), error.place("column")), (Some("0"), Some("image")));
        }
    }
    let view = ImageView {
        bounds: whole,
        region: whole,
        flip: false,
        full_decode: false,
    };
    let error = shown(&cell, &field(Codec::Png, false), [8, 8], view).expect_err("colour where grey is expected");
    assert!(error.to_string().contains("found uint8[30, 40, 3]"), "{error}");
    assert!(shown(&cell[..100], &colour, [8, 8], view).is_err());
    let arrays = Field::new("x", DType::UInt8, Shape(vec![None, None])).with_codec(Some(Codec::Ndarray));
    let deep = Field::new("x", DType::UInt16, Shape(vec![None, None])).with_codec(Some(Codec::Png));
    for field in [arrays, deep, field(Codec::Png, true).with_codec(None)] {
        assert!(view_field(&field, 8, 8).is_err(), "{field}");
    }
    assert!(view_field(&colour, 0, 8).is_err() && view_field(&colour, 1 << 20, 1 << 20).is_err());
}

#[test]
fn nulls_stay_where_a_field_has_some() {
    let cell = encode_png(&picture(30, 40, 3)).expect("a png image");
    let whole = region(0.0, 0.0, 30.0, 40.0);
    let colour = field(Codec::Png, true);
    let mut view = |_, _| {
        Ok(ImageView {
            bounds: whole,
            region: whole,
            flip: false,
            full_decode: false,
        })
    };
    let target = view_field(&colour, 8, 8).expect("a field");
    let cells = [None, Some(&cell[..]), None];
    let nullable = colour.clone().with_nullable(true);
    let column = decode_views(&cells, (&nullable, &target), &mut view, &FreshMemory).expect("a column");
    // Memory that was used before leaves nothing behind.
    let used = decode_views(&cells, (&nullable, &target), &mut view, &Stale).expect("a column");
    assert_eq!(&column, &used);
    assert_eq!((column.len(), column.null_count()), (3, 2));
    let error = decode_views(&cells, (&colour, &target), &mut view, &FreshMemory).expect_err("a null");
    assert_eq!(error.place("row"), Some("0"));
    // The views were of the same picture.
    assert!(png_tensor(&cell, &accept_any).is_ok());
}
