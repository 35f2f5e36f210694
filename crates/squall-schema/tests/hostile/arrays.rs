//! Arrays, npy and npz, that claim, grow and repeat.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray};
use flate2::{Compress, Compression, FlushCompress};
use squall_schema::codec::{Codec, decode_column};
use squall_schema::{DType, Field, Result, Shape};

use super::{Attack, attack, decode};

const GIB: usize = 1 << 30;

fn field(dtype: DType, shape: &[Option<usize>]) -> Field {
    Field::new("x", dtype, Shape(shape.to_vec())).with_codec(Some(Codec::Ndarray))
}

/// A vector of any length.
fn numbers(cell: &[u8]) -> Result<()> {
    decode(&field(DType::Float64, &[None]), cell)
}

fn words(cell: &[u8]) -> Result<()> {
    decode(&field(DType::Bytes, &[None]), cell)
}

/// A matrix that the metadata declares too large for any machine.
fn declared(cell: &[u8]) -> Result<()> {
    decode(&field(DType::Float64, &[Some(1 << 40), Some(3)]), cell)
}

/// A null in such a column, which is held as a matrix of zeros.
fn nulls(_: &[u8]) -> Result<()> {
    let field = field(DType::Float64, &[Some(1 << 40), Some(3)]).with_nullable(true);
    let column: ArrayRef = Arc::new(BinaryArray::new_null(1));
    decode_column(&column, &field).map(|_| ())
}

fn zipped(field: Field, cell: &[u8]) -> Result<()> {
    decode(&field.with_codec(Some(Codec::CompressedNdarray)), cell)
}

fn zipped_bytes(cell: &[u8]) -> Result<()> {
    zipped(field(DType::UInt8, &[None]), cell)
}

fn zipped_three_bytes(cell: &[u8]) -> Result<()> {
    zipped(field(DType::UInt8, &[Some(3)]), cell)
}

fn zipped_words(cell: &[u8]) -> Result<()> {
    zipped(field(DType::Bytes, &[None]), cell)
}

pub(super) fn attacks() -> Vec<Attack> {
    let cut = "should have more bytes";
    let not_sizes = "a shape that is not one of sizes";
    let no_array = "not an npz archive with an array \"arr\"";
    let too_free = "where the field does not tell";
    vec![
        attack(numbers, "npy of 2^60 elements", cut, || {
            npy("<f8", "(1152921504606846976,)", &[0; 8])
        }),
        attack(numbers, "npy of 2^64 elements", "too large", || {
            npy("<f8", "(4294967296, 4294967296)", &[0; 8])
        }),
        attack(numbers, "npy of a dimension of 2^64", not_sizes, || {
            npy("<f8", "(18446744073709551616,)", &[0; 8])
        }),
        attack(numbers, "npy of -1 elements", not_sizes, || {
            npy("<f8", "(-1,)", &[0; 8])
        }),
        attack(
            numbers,
            "npy of 2^62 times none",
            "found float64[4611686018427387904, 0]",
            || npy("<f8", "(4611686018427387904, 0)", &[]),
        ),
        attack(numbers, "npy of 10^6 dimensions", "expected at most 65535", || {
            npy("<f8", &format!("({})", "1,".repeat(1_000_000)), &[0; 8])
        }),
        attack(numbers, "npy of 30,000 dimensions", "more than 64 dimensions", || {
            npy("<f8", &format!("({})", "1,".repeat(30_000)), &[0; 1 << 20])
        }),
        attack(
            numbers,
            "npy header of 4 GiB",
            "an npy header of 4294967295 bytes",
            || b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '<f8'".to_vec(),
        ),
        attack(numbers, "npy header of spaces", "no descr", || {
            [&b"\x93NUMPY\x01\x00\xff\xff"[..], &[b' '; 65_535]].concat()
        }),
        attack(numbers, "npy of objects", "dtype \"|O\"", || {
            npy("|O", "(1,)", b"cos\nsystem\n(S'touch owned'\ntR.")
        }),
        attack(numbers, "npy of a long dtype", "an npy array of dtype", || {
            npy(&"<".repeat(60_000), "(1,)", &[])
        }),
        attack(words, "npy of 2^60 empty words", "too large", || {
            npy("|S0", "(1152921504606846976,)", &[])
        }),
        attack(words, "npy of 10^6 empty words", "elements of no bytes", || {
            npy("<U0", "(1000000,)", &[])
        }),
        attack(words, "npy of a word of 2^63", "too large", || {
            npy("|S9223372036854775807", "(3,)", &[0; 8])
        }),
        attack(declared, "npy of a shape of 2^40", "found float64[3]", || {
            npy("<f8", "(3,)", &[0; 24])
        }),
        attack(nulls, "nulls of a shape of 2^40", "more memory than there is", Vec::new),
        attack(zipped_bytes, "zip that claims 4 GiB", "claims 4294967295 bytes", || {
            Zip::new(&deflated(&[], 10), u32::MAX as usize).bytes()
        }),
        attack(zipped_bytes, "zip of a GiB of no array", "not an npy array", || {
            Zip::new(&deflated(&[], GIB), GIB).bytes()
        }),
        attack(zipped_bytes, "zip of a GiB", too_free, || zeros("|u1", GIB)),
        attack(
            zipped_three_bytes,
            "zip of a GiB for three bytes",
            "found uint8[1073741824]",
            || zeros("|u1", GIB),
        ),
        attack(zipped_words, "zip of 2^27 words", too_free, || zeros("|S1", GIB / 8)),
        attack(zipped_bytes, "zip of a GiB said to be small", "expected 1000", || {
            let head = npy("|u1", "(1000000,)", &[]);
            Zip::new(&deflated(&head, GIB), 1000).bytes()
        }),
        attack(
            zipped_three_bytes,
            "zip of a GiB behind an array",
            "expected 73",
            || {
                let array = npy("|u1", "(3,)", &[1, 2, 3]);
                Zip::new(&deflated(&array, GIB), array.len()).bytes()
            },
        ),
        attack(zipped_bytes, "zip of itself", "not an npy array", || {
            // The data of the entry begins where the archive begins.
            let whole = Zip::new(b"", 64);
            Zip {
                method: 0,
                offset: 0,
                compressed: 64,
                name_length: 0,
                ..whole
            }
            .bytes()
        }),
        attack(zipped_bytes, "zip whose entry is its directory", no_array, || {
            let zip = Zip::new(&deflated(&[], 1 << 20), 1 << 20);
            Zip {
                offset: 37 + zip.data.len(),
                ..zip
            }
            .bytes()
        }),
        attack(zipped_bytes, "zip whose entry is longer than it", no_array, || {
            Zip {
                compressed: 1 << 30,
                ..Zip::new(b"abc", 3)
            }
            .bytes()
        }),
        attack(zipped_bytes, "zip of 65,535 entries", no_array, || {
            Zip {
                name: *b"brr.npy",
                entries: u16::MAX,
                ..Zip::new(b"", 0)
            }
            .bytes()
        }),
        attack(zipped_bytes, "zip that claims 65,535 entries", no_array, || {
            let mut zip = Zip {
                name: *b"brr.npy",
                ..Zip::new(b"", 0)
            }
            .bytes();
            let end = zip.len() - 22;
            zip[end + 8..end + 12].fill(0xff);
            zip
        }),
        attack(zipped_bytes, "zip of method 14", "compressed with method 14", || {
            Zip {
                method: 14,
                ..Zip::new(b"", 0)
            }
            .bytes()
        }),
        attack(zipped_bytes, "zip of ends", no_array, || b"PK\x05\x06".repeat(1 << 20)),
    ]
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = dict.len() as u32;
    [b"\x93NUMPY\x02\x00", &length.to_le_bytes()[..], dict.as_bytes(), data].concat()
}

/// An array of zeros, as numpy would have zipped it.
fn zeros(descr: &str, count: usize) -> Vec<u8> {
    let head = npy(descr, &format!("({count},)"), &[]);
    Zip::new(&deflated(&head, count), head.len() + count).bytes()
}

/// These bytes and a number of zeros behind them, deflated: a block of a MiB of zeros is copied, for making a GiB of them takes
/// longer than the test.
pub(super) fn deflated(head: &[u8], zeros: usize) -> Vec<u8> {
    const BLOCK: usize = 1 << 20;
    let block = |bytes: &[u8]| {
        let mut block = Vec::with_capacity(bytes.len() + 100);
        let mut deflate = Compress::new(Compression::best(), false);
        deflate
            .compress_vec(bytes, &mut block, FlushCompress::Full)
            .expect("room");
        block
    };
    let full = block(&vec![0; BLOCK.min(zeros)]);
    let rest = block(&vec![0; zeros % BLOCK]);
    // A block of no bytes is the last.
    [block(head), full.repeat(zeros / BLOCK), rest, vec![3, 0]].concat()
}

/// An archive of one entry, which may lie.
struct Zip {
    name: [u8; 7],
    method: u16,
    data: Vec<u8>,
    compressed: usize,
    size: usize,
    offset: usize,
    name_length: u16,
    entries: u16,
}

impl Zip {
    fn new(data: &[u8], size: usize) -> Self {
        Self {
            name: *b"arr.npy",
            method: 8,
            data: data.to_vec(),
            compressed: data.len(),
            size,
            offset: 0,
            name_length: 7,
            entries: 1,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let [compressed, size, offset] = [self.compressed, self.size, self.offset].map(|n| (n as u32).to_le_bytes());
        let method = self.method.to_le_bytes();
        let mut zip = b"PK\x03\x04\x14\0\0\0".to_vec();
        for part in [
            &method[..],
            &[0; 8],
            &compressed,
            &size,
            &self.name_length.to_le_bytes(),
            &[0; 2],
            &self.name,
            &self.data,
        ] {
            zip.extend_from_slice(part);
        }
        let directory = zip.len() as u32;
        for _ in 0..self.entries {
            let parts = [
                b"PK\x01\x02\x14\0\x14\0\0\0",
                &method[..],
                &[0; 8],
                &compressed,
                &size,
                &[7, 0],
                &[0; 12],
                &offset,
                &self.name,
            ];
            zip.extend(parts.concat());
        }
        let length = zip.len() as u32 - directory;
        let count = self.entries.to_le_bytes();
        let end = [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &length.to_le_bytes(),
            &directory.to_le_bytes(),
            &[0; 2],
        ];
        zip.extend(end.concat());
        zip
    }
}
