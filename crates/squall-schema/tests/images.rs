//! Images beside what OpenCV makes of them: see `images/generate.py`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt16Type};
use arrow_array::{ArrayRef, BinaryArray};
use serde_json::Value;
use sha2::{Digest, Sha256};
use squall_schema::codec::{Codec, decode_column};
use squall_schema::{DType, Field, Result, Shape};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/images")
        .join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(path("expected.json")).expect("expected.json")).expect("JSON")
}

/// The image as the one cell of a column of this codec, decoded.
fn column(name: &str, dtype: DType, shape: Shape, codec: Codec) -> Result<ArrayRef> {
    let cell = fs::read(path(name)).expect(name);
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&cell]));
    decode_column(&column, &Field::new("image", dtype, shape).with_codec(Some(codec)))
}

/// The bytes of an image's pixels. The codec of the column does not matter: an image is what it begins as.
fn decode(name: &str, dtype: DType, shape: &[usize]) -> Result<Vec<u8>> {
    let column = column(name, dtype, Shape::fixed(shape), Codec::Png)?;
    let other = self::column(name, dtype, Shape::fixed(shape), Codec::Jpeg { quality: 80 })?;
    assert_eq!(&column, &other, "{name}");
    let values = column.as_fixed_size_list().values();
    Ok(match dtype {
        DType::UInt16 => values.as_primitive::<UInt16Type>().values().inner().to_vec(),
        _ => values.as_primitive::<UInt8Type>().values().to_vec(),
    })
}

/// What is refused, and a part of the reason. OpenCV gives `None` for some of them, four channels for others, and partly grey
/// pixels for the damaged ones.
const REFUSED: &[(&str, &str)] = &[
    ("alpha.png", "a png image of Rgba"),
    ("grey-alpha.png", "a png image of GrayscaleAlpha"),
    ("cut.png", "cannot decode the png image"),
    ("without-end.png", "cannot decode the png image"),
    ("flipped.png", "cannot decode the png image"),
    ("cmyk.jpeg", "a jpeg image of 4 channels: expected grey or colour"),
    ("two-components.jpeg", "a jpeg image of 2 channels"),
    ("cut.jpeg", "a jpeg image is cut short: expected more after 8"),
    ("without-end.jpeg", "a jpeg image is cut short"),
    (
        "cut-in-tables.jpeg",
        "a jpeg image is cut short: expected more after 100 bytes",
    ),
    ("cut-with-end.jpeg", "damaged data: it ends before the last block"),
    ("zeroed.jpeg", "a jpeg image with damaged data"),
    ("restart-lost.jpeg", "a jpeg image with damaged data"),
    ("restart-renamed.jpeg", "damaged data: a restart marker is missing"),
    ("bytes-between.jpeg", "expected a marker at byte 2, found 61"),
    ("no-height.jpeg", "a jpeg image of 47x0 pixels"),
    (
        "too-wide.jpeg",
        "an image of 60000x60000 pixels: expected at most 268435456",
    ),
    ("12-bits.jpeg", "a jpeg image of 12 bits: expected 8"),
    ("arithmetic.jpeg", "a jpeg image with arithmetic coding"),
];

/// What only the feature `jpeg-turbo` decodes.
const LIBJPEG_ONLY: [(&str, &str); 2] = [
    ("rgb-adobe.jpeg", "the feature jpeg-turbo decodes it"),
    ("no-huffman-table.jpeg", "a Huffman table is missing"),
];

#[test]
fn pixels_are_those_of_opencv() {
    let turbo = cfg!(feature = "jpeg-turbo");
    let expected = expected();
    let mut seen = 0;
    for (name, image) in expected["images"].as_object().expect("images") {
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            let codec = match name.ends_with(".png") {
                true => Codec::Png,
                false => Codec::Jpeg { quality: 80 },
            };
            // Of either rank: an image of the other is refused for that.
            let errors = [vec![None; 2], vec![None, None, Some(3)]].map(|shape| {
                let refused = column(name, DType::UInt8, Shape(shape), codec.clone());
                refused.expect_err(name).to_string()
            });
            let clear = |error: &String| error.contains(reason) && error.contains("(row 0, column image)");
            assert!(errors.iter().any(clear), "{name}: {errors:?}");
            continue;
        }
        let dtype = match image["dtype"].as_str() {
            Some("uint16") => DType::UInt16,
            _ => DType::UInt8,
        };
        let shape = image["shape"].as_array().expect("a shape").iter();
        let shape: Vec<_> = shape.map(|dim| dim.as_u64().expect("a dimension") as usize).collect();
        let decoded = decode(name, dtype, &shape);
        if let (false, Some((_, reason))) = (turbo, LIBJPEG_ONLY.iter().find(|(only, _)| only == name)) {
            let error = decoded.expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
            continue;
        }
        let pixels = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        // How far the decoder in Rust alone is away is tested where both decoders are.
        if turbo || name.ends_with(".png") {
            let digest: String = Sha256::digest(&pixels)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(image["sha256"], digest, "{name}");
        }
        seen += 1;
    }
    assert!(seen >= 38, "{seen} images");
}
