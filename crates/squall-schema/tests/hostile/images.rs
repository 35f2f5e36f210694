//! Images, png and jpeg, that claim, grow and repeat.

use flate2::Crc;
use squall_schema::codec::Codec;
use squall_schema::{DType, Field, Result, Shape};

use super::arrays::deflated;
use super::{Attack, attack, decode};

const MIB: usize = 1 << 20;

fn png(cell: &[u8]) -> Result<()> {
    read(Codec::Png, cell)
}

fn jpeg(cell: &[u8]) -> Result<()> {
    read(Codec::Jpeg { quality: 80 }, cell)
}

/// A grey image of any size.
fn read(codec: Codec, cell: &[u8]) -> Result<()> {
    let field = Field::new("x", DType::UInt8, Shape(vec![None, None]));
    decode(&field.with_codec(Some(codec)), cell)
}

pub(super) fn attacks() -> Vec<Attack> {
    let damaged = "cannot decode the png image";
    vec![
        attack(png, "png of 60,000 x 60,000", "60000x60000 pixels", || {
            image(60_000, &zlib(MIB), &[])
        }),
        attack(png, "png of 2^31 x 2^31", "png image", || {
            image(u32::MAX >> 1, &zlib(64), &[])
        }),
        attack(png, "png of 16,000 x 16,000", "16000x16000 pixels", || {
            image(16_000, &zlib(MIB), &[])
        }),
        attack(png, "png cut short", damaged, || image(8, &zlib(20), &[])),
        attack(png, "png of a GiB of text", damaged, || {
            image(
                8,
                &zlib(20),
                &chunk(b"zTXt", &[b"a\0\0", &zlib(1024 * MIB)[..]].concat()),
            )
        }),
        attack(png, "png of a GiB of Unicode", damaged, || {
            image(
                8,
                &zlib(20),
                &chunk(b"iTXt", &[b"a\0\x01\0\0\0", &zlib(1024 * MIB)[..]].concat()),
            )
        }),
        attack(png, "png of a profile of a GiB", damaged, || {
            image(
                8,
                &zlib(20),
                &chunk(b"iCCP", &[b"a\0\0", &zlib(1024 * MIB)[..]].concat()),
            )
        }),
        attack(png, "png of chunks of 2 GiB", damaged, || {
            let mut png = image(8, &zlib(20), &chunk(b"tEXt", b"a\0a"));
            png[33..37].copy_from_slice(&(u32::MAX >> 1).to_be_bytes());
            png
        }),
        attack(jpeg, "jpeg of 65,500 x 65,500", "65500x65500 pixels", || {
            [frame(0xc0, 65_500), scan(&[0; 100])].concat()
        }),
        attack(jpeg, "jpeg of 16,000 x 16,000", "16000x16000 pixels", || {
            [frame(0xc0, 16_000), scan(&[0; 100])].concat()
        }),
        attack(png, "png of many chunks", damaged, || {
            image(8, &zlib(20), &chunk(b"tEXt", b"a\0b").repeat(MIB))
        }),
        attack(jpeg, "jpeg of 99 scans", "jpeg image", || {
            [frame(0xc2, 15_000), scan(&[0; 5000]).repeat(99)].concat()
        }),
        attack(jpeg, "jpeg of one long scan", "jpeg image", || {
            [frame(0xc0, 15_000), scan(&[0; 600_000])].concat()
        }),
        attack(jpeg, "jpeg of 4,000 scans", "jpeg image", || {
            [frame(0xc2, 15_000), scan(&[0; 10]).repeat(4000)].concat()
        }),
        attack(jpeg, "jpeg of 1,000,000 comments", "jpeg image", || {
            [&b"\xff\xd8"[..], &b"\xff\xfe\0\x04ab".repeat(MIB)].concat()
        }),
        attack(jpeg, "jpeg without tables", "jpeg image", || {
            [&frame(0xc0, 64)[..21], &scan(&[0; 100])].concat()
        }),
    ]
}

/// A square grey png of this data, with these chunks before it.
fn image(side: u32, data: &[u8], chunks: &[u8]) -> Vec<u8> {
    let head = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let parts = [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &head)[..],
        chunks,
        &chunk(b"IDAT", data),
        &chunk(b"IEND", &[]),
    ];
    parts.concat()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    [
        &(data.len() as u32).to_be_bytes()[..],
        kind,
        data,
        &sum.sum().to_be_bytes(),
    ]
    .concat()
}

/// So many zeros.
fn zlib(zeros: usize) -> Vec<u8> {
    // The checksum of zeros is 1 and their number.
    let sum = ((zeros % 65_521) << 16 | 1) as u32;
    [&[0x78, 0xda], &deflated(&[], zeros)[..], &sum.to_be_bytes()].concat()
}

/// The beginning of a square grey jpeg: its frame, which is progressive for the marker 0xc2, and tables of the least size.
fn frame(marker: u8, side: u16) -> Vec<u8> {
    let side = side.to_be_bytes();
    let frame = [
        &[0xff, 0xd8, 0xff, marker, 0, 11, 8][..],
        &side,
        &side,
        &[1, 1, 0x11, 0],
    ]
    .concat();
    let quantisation = [&[0xff, 0xdb, 0, 67, 0][..], &[1; 64]].concat();
    // One code of one bit, for zero.
    let huffman = |class: u8| [&[0xff, 0xc4, 0, 20, class, 1][..], &[0; 15], &[0]].concat();
    [frame, quantisation, huffman(0), huffman(0x10)].concat()
}

fn scan(data: &[u8]) -> Vec<u8> {
    [&[0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0][..], data].concat()
}
