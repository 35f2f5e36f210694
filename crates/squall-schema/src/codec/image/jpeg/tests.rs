use std::fs;
use std::path::PathBuf;

use super::super::{accept_any, png_tensor};
use super::*;

/// A file of `tests/images`, made by `generate.py` there.
fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/images")
        .join(name);
    fs::read(path).expect(name)
}

/// The jpeg images that are not damaged, each with OpenCV's pixels.
fn images() -> Vec<(String, Vec<u8>, Tensor)> {
    let expected: serde_json::Value = serde_json::from_slice(&fixture("expected.json")).expect("JSON");
    let names = expected["images"].as_object().expect("images").keys();
    let names = names.filter_map(|name| name.strip_suffix(".jpeg"));
    let pixels = |name: &str| {
        fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/images/{name}.pixels.png")))
    };
    names
        .filter_map(|name| Some((name, png_tensor(&pixels(name).ok()?, &accept_any).expect(name))))
        .map(|(name, pixels)| (name.to_owned(), fixture(&format!("{name}.jpeg")), pixels))
        .filter(|(name, ..)| name != "cmyk")
        .collect()
}

/// The largest and the mean difference.
fn difference(left: &Tensor, right: &Tensor) -> (u8, f64) {
    assert_eq!(left.shape(), right.shape());
    let pairs = left.data().iter().zip(right.data().iter());
    let differences: Vec<_> = pairs.map(|(left, right)| left.abs_diff(*right)).collect();
    let sum: f64 = differences.iter().map(|difference| f64::from(*difference)).sum();
    let most = differences.iter().max().copied().unwrap_or(0);
    (most, sum / differences.len() as f64)
}

/// The bounds of docs/codecs.md. What they come from: 4 and 0.397, at quality 95 with halved chroma.
#[test]
fn rust_alone_decodes_within_four_levels_of_opencv() {
    let mut seen = 0;
    for (name, cell, pixels) in images() {
        if name == "rgb-adobe" {
            let error = tensor(&cell, &accept_any, pure::decode).expect_err(&name).to_string();
            assert!(error.contains("the feature jpeg-turbo decodes it"), "{error}");
            continue;
        }
        let decoded = tensor(&cell, &accept_any, pure::decode).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (most, mean) = difference(&decoded, &pixels);
        let (most_allowed, mean_allowed) = match pixels.shape().len() {
            2 => (1, 0.02),
            _ => (4, 0.5),
        };
        assert!(
            most <= most_allowed && mean <= mean_allowed,
            "{name}: most {most}, mean {mean}"
        );
        seen += 1;
    }
    assert!(seen >= 25, "{seen}");
}

/// Both encoders are given the picture; what OpenCV made of it is decoded by the same decoder.
#[test]
fn rust_alone_encodes_within_four_levels_of_opencv() {
    for name in ["colour", "grey"] {
        let image = png_tensor(&fixture(&format!("{name}.png")), &accept_any).expect("a picture");
        for quality in [30, 80, 95, 100] {
            let ours = encode(&image, quality, pure::encode).expect("a jpeg image");
            let theirs = fixture(&format!("{name}-q{quality}.jpeg"));
            let [ours, theirs] = [ours, theirs].map(|cell| tensor(&cell, &accept_any, pure::decode).expect("an image"));
            let (most, mean) = difference(&ours, &theirs);
            assert!(most <= 4 && mean <= 0.25, "{name} {quality}: most {most}, mean {mean}");
        }
    }
}

#[test]
fn a_claim_is_compared_with_the_bytes() {
    let cell = fixture("grey-q30.jpeg");
    let frame = cell
        .windows(2)
        .position(|bytes| bytes == [0xff, 0xc0])
        .expect("a frame header");
    for (marker, side) in [(0xc0, 16_000u16), (0xc2, 16_000), (0xc0, 1_000), (0xc0, 65_535)] {
        let mut claim = cell.clone();
        claim[frame + 1] = marker;
        for at in [frame + 5, frame + 7] {
            claim[at..at + 2].copy_from_slice(&side.to_be_bytes());
        }
        let error = jpeg_tensor(&claim, &accept_any).expect_err("a claim").to_string();
        assert!(error.contains(&format!("{side}x{side} pixels")), "{error}");
    }
}

#[test]
fn a_scan_costs_time_and_is_counted() {
    let cell = fixture("progressive-grey.jpeg");
    let scan = cell
        .windows(2)
        .rposition(|bytes| bytes == [0xff, 0xda])
        .expect("a scan");
    let (head, last) = (&cell[..scan], &cell[scan..cell.len() - 2]);
    let many = [head, &last.repeat(101), &[0xff, 0xd9]].concat();
    let error = jpeg_tensor(&many, &accept_any).expect_err("101 scans more").to_string();
    assert!(error.contains("scans"), "{error}");
}

#[cfg(feature = "jpeg-turbo")]
mod side_by_side {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn libjpeg_encodes_to_the_bytes_of_opencv() {
        let expected: serde_json::Value = serde_json::from_slice(&fixture("expected.json")).expect("JSON");
        for name in ["colour", "grey", "odd"] {
            let image = png_tensor(&fixture(&format!("{name}.png")), &accept_any).expect("a picture");
            for quality in 1..=100 {
                let cell = encode(&image, quality, turbo::encode).expect("a jpeg image");
                let digest: String = Sha256::digest(&cell)[..8]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let expected = &expected["encoded"][name][usize::from(quality) - 1];
                assert_eq!(*expected, digest, "{name} at quality {quality}");
            }
        }
    }

    /// One bit of an image is turned at a time. What Rust alone still decodes, libjpeg decodes without a warning; what
    /// libjpeg decodes is rarely refused by Rust alone.
    #[test]
    fn what_libjpeg_refuses_rust_alone_refuses() {
        let (mut refused, mut alike, mut stricter) = (0, 0, 0);
        for name in ["odd-420", "progressive-grey", "restart", "progressive-422", "optimized"] {
            let cell = fixture(&format!("{name}.jpeg"));
            for at in 0..cell.len() {
                let mut turned = cell.clone();
                turned[at] ^= 1 << (at % 8);
                match (
                    tensor(&turned, &accept_any, pure::decode),
                    tensor(&turned, &accept_any, turbo::decode),
                ) {
                    (Ok(ours), Ok(theirs)) => {
                        assert_eq!(ours.shape(), theirs.shape(), "{name}, byte {at}");
                        alike += 1;
                    }
                    (Ok(_), Err(error)) => panic!("{name}, byte {at}: {error}"),
                    (Err(_), Ok(_)) => stricter += 1,
                    (Err(_), Err(_)) => refused += 1,
                }
            }
        }
        assert!(
            refused > 1500 && alike > 2000 && stricter * 20 < alike,
            "{refused} {alike} {stricter}"
        );
    }
}
