use std::io::Write;

use flate2::write::{DeflateEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

fn zlib(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory is written to");
    encoder.finish().expect("an end")
}

/// What another implementation makes of a stream.
fn by_flate2(data: &[u8], out: &mut [u8]) -> Option<()> {
    let mut inflate = Decompress::new(true);
    let status = inflate.decompress(data, out, FlushDecompress::Finish).ok()?;
    let is_whole = inflate.total_in() == data.len() as u64 && inflate.total_out() == out.len() as u64;
    (status == Status::StreamEnd && is_whole).then_some(())
}

/// Text as of a language with few words: literals, lengths and distances of all kinds.
fn text(seed: u32, n_words: u32, length: usize) -> Vec<u8> {
    let mut noise = seed;
    let mut draw = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise >> 8
    };
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let word = draw() % n_words;
        let letters = 1 + word % 40;
        bytes.extend((0..letters).map(|i| (word.wrapping_mul(i + 7) >> 3) as u8));
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn streams_of_all_kinds_are_inflated() {
    let mut inflater = Inflater::default();
    for length in [0, 1, 2, 7, 100, 1000, 70_000] {
        for (seed, n_words) in [(1, 1), (2, 5), (3, 300), (4, 100_000)] {
            let bytes = text(seed, n_words, length);
            // Without compression, with fixed codes where they are short, with codes of their own.
            for level in [0, 1, 6, 9] {
                let mut out = vec![0xaa; length];
                let inflated = inflater.zlib(&zlib(&bytes, level), &mut out);
                assert!(
                    inflated.is_some() && out == bytes,
                    "{length} bytes, {n_words} words, level {level}"
                );
                let mut other = vec![0; length + 1];
                assert!(inflater.zlib(&zlib(&bytes, level), &mut other).is_none());
                assert!(length == 0 || inflater.zlib(&zlib(&bytes, level), &mut other[..length - 1]).is_none());
            }
        }
    }
}

/// Codes of 15 bits: symbols that become rarer by half.
#[test]
fn the_longest_codes_are_found() {
    let bytes: Vec<u8> = (0..200_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) | 1 << 31).trailing_zeros() as u8)
        .collect();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(1));
    encoder.write_all(&bytes).expect("memory is written to");
    let data = encoder.finish().expect("an end");
    let mut out = vec![0; bytes.len()];
    assert!(Inflater::default().deflate(&data, &mut out).is_some() && out == bytes);
}

#[test]
fn damage_gives_nothing() {
    let mut inflater = Inflater::default();
    for (n_words, level) in [(1, 6), (300, 1), (300, 6), (100_000, 0)] {
        let bytes = text(5, n_words, 600);
        let good = zlib(&bytes, level);
        let mut out = vec![0; bytes.len()];
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let is_there = inflater.zlib(&bad, &mut out).is_some();
                // Some bits say nothing of the bytes: those of the window, those that fill up the last byte.
                assert!(!is_there || out == bytes, "byte {at}, bit {bit}");
            }
            assert!(inflater.zlib(&good[..at], &mut out).is_none());
        }
        assert!(inflater.zlib(&[&good[..], &[0]].concat(), &mut out).is_none());
        assert!(inflater.zlib(&good, &mut out).is_some());
    }
}

proptest! {
    #[test]
    fn no_input_panics(data in prop::collection::vec(any::<u8>(), 0..400), size in 0usize..2000, kind in 0u8..8) {
        let mut inflater = Inflater::default();
        let mut out = vec![0; size];
        let _ = inflater.zlib(&data, &mut out);
        // The first bits choose the kind of the first block.
        let _ = inflater.deflate(&[&[kind], &data[..]].concat(), &mut out);
    }

    #[test]
    fn what_is_inflated_is_what_others_inflate(
        seed in any::<u32>(), n_words in 1u32..400, length in 0usize..4000, level in 0u32..10,
        at in any::<prop::sample::Index>(), xor in any::<u8>(),
    ) {
        let mut data = zlib(&text(seed, n_words, length), level);
        let at = at.index(data.len());
        data[at] ^= xor;
        let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
        if Inflater::default().zlib(&data, &mut ours).is_some() {
            prop_assert!(by_flate2(&data, &mut theirs).is_some());
            prop_assert_eq!(ours, theirs);
        } else {
            prop_assert!(by_flate2(&data, &mut theirs).is_none());
        }
    }
}
