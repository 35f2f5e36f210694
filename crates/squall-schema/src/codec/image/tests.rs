use proptest::prelude::*;

use super::*;

fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
    let bytes: usize = shape.iter().product::<usize>() * dtype.item_size().expect("a number");
    let bytes: Vec<_> = (0..bytes).map(|i| (i * 7 % 251) as u8).collect();
    super::super::tensor(dtype, shape.to_vec(), bytes).expect("a tensor")
}

#[test]
fn png_gives_back_what_it_was_given() {
    for dtype in [DType::UInt8, DType::UInt16] {
        for shape in [
            &[1, 1][..],
            &[13, 17],
            &[1, 1, 3],
            &[13, 17, 3],
            &[1, 300],
            &[300, 1, 3],
        ] {
            let image = tensor(dtype, shape);
            let cell = encode_png(&image).expect("a png image");
            assert_eq!(
                png_tensor(&cell, &accept_any).expect("an image"),
                image,
                "{dtype}{shape:?}"
            );
        }
    }
}

#[test]
fn what_is_no_image_is_not_encoded() {
    type Encode = fn(&Tensor) -> Result<Vec<u8>>;
    let png: Encode = encode_png;
    let jpeg: Encode = |tensor| encode_jpeg(tensor, 80);
    let too_good: Encode = |tensor| encode_jpeg(tensor, 101);
    let cases: [(Encode, _, &[usize], _); 9] = [
        (
            png,
            DType::Float32,
            &[2, 2],
            "a png image: expected uint8 or uint16, found float32",
        ),
        (
            png,
            DType::UInt8,
            &[4],
            "[height, width] or [height, width, 3], found [4]",
        ),
        (png, DType::UInt8, &[2, 2, 1], "found [2, 2, 1]"),
        (png, DType::UInt8, &[2, 2, 4], "found [2, 2, 4]"),
        (
            png,
            DType::UInt8,
            &[0, 2, 3],
            "a png image of 2x0 pixels: expected at least one",
        ),
        (
            jpeg,
            DType::UInt16,
            &[2, 2],
            "a jpeg image: expected uint8, found uint16",
        ),
        (jpeg, DType::UInt8, &[2, 0], "a jpeg image of 0x2 pixels"),
        (
            jpeg,
            DType::UInt8,
            &[1, 65_501],
            "expected at most 65500 in each direction",
        ),
        (too_good, DType::UInt8, &[2, 2], "expected 1 to 100, found 101"),
    ];
    for (encode, dtype, shape, part) in cases {
        let error = encode(&tensor(dtype, shape)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(encode_jpeg(&tensor(DType::UInt8, &[2, 2]), 0).is_err());
    let error = check_pixels(1 << 20, 1 << 20).expect_err("2^40 pixels").to_string();
    assert!(error.contains("expected at most 268435456"), "{error}");
}

#[test]
fn a_header_that_claims_too_much_is_refused() {
    let mut claim = encode_png(&tensor(DType::UInt8, &[1, 1])).expect("a png image");
    // Width and height in IHDR: 60,000 x 60,000, then 16,000 x 16,000, with their checksums.
    for (side, checksum) in [([0xea, 0x60], 0xa5b9_2a9e_u32), ([0x3e, 0x80], 0x6415_8002)] {
        claim[16..24].copy_from_slice(&[0, 0, side[0], side[1], 0, 0, side[0], side[1]]);
        claim[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = png_tensor(&claim, &accept_any).expect_err("a claim").to_string();
        assert!(error.contains("pixels"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, xor in 1u8..) {
        let _ = png_tensor(&bytes, &accept_any);
        let _ = jpeg_tensor(&bytes, &accept_any);
        let grey = tensor(DType::UInt8, &[3, 2]);
        for (decode, mut cell) in [
            (png_tensor as fn(&[u8], Accept<'_>) -> Result<Tensor>, encode_png(&grey).expect("png")),
            (jpeg_tensor, encode_jpeg(&grey, 90).expect("jpeg")),
        ] {
            let at = at.index(cell.len());
            cell[at] ^= xor;
            let _ = decode(&cell, &accept_any);
            cell.truncate(at);
            prop_assert!(decode(&cell, &accept_any).is_err());
        }
    }
}
