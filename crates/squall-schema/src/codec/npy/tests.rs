//! Arrays as numpy writes them, and what only a hostile one would hold.

use proptest::prelude::*;

use super::read::Reader;
use super::*;
use crate::{Tensor, Value};

fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + dict.len() + 1) % 64 != 0 {
        dict.push(' ');
    }
    dict.push('\n');
    [
        MAGIC,
        &[1, 0],
        &(dict.len() as u16).to_le_bytes(),
        dict.as_bytes(),
        data,
    ]
    .concat()
}

fn read(cell: &[u8]) -> Result<Value> {
    Reader::default().read(cell)
}

#[test]
fn orders_and_byte_orders() {
    let c = read(&npy("<i2", "False", "(2, 3)", &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0])).expect("an array");
    let tensor = c.as_tensor().expect("a tensor");
    assert_eq!(
        (tensor.shape(), tensor.as_slice::<i16>().expect("int16")),
        (&[2, 3][..], &[1, 2, 3, 4, 5, 6][..])
    );
    let fortran = read(&npy(">i2", "True", "(2, 3L)", &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6])).expect("an array");
    assert_eq!(fortran, c);
    let scalar = read(&npy("<f8", "False", "()", &1.5f64.to_le_bytes())).expect("an array");
    assert_eq!(scalar.as_tensor().expect("a tensor").shape(), [0; 0]);
}

#[test]
fn text_and_bytes_are_lists() {
    let cell = npy(
        "<U2",
        "False",
        "(2,)",
        &[b'a', 0, 0, 0, 0, 0, 0, 0, 0xe9, 0, 0, 0, b'b', 0, 0, 0],
    );
    assert_eq!(
        read(&cell).expect("an array"),
        Value::List(vec![Value::from("a"), Value::from("éb")])
    );
    let cell = npy("|S2", "False", "(1, 2)", b"\0Bc\0");
    let row = Value::List(vec![Value::Bytes(b"\0B".to_vec()), Value::Bytes(b"c".to_vec())]);
    assert_eq!(read(&cell).expect("an array"), Value::List(vec![row]));
}

#[test]
fn a_header_is_parsed_once() {
    let mut reader = Reader::default();
    let cell = |x: u8| npy("|u1", "False", "(1,)", &[x]);
    assert!(reader.read(&cell(1)).is_ok());
    let first = reader.last.clone();
    assert!(reader.read(&cell(2)).is_ok());
    assert_eq!(reader.last, first);
    assert!(reader.read(&npy("<f4", "False", "(1,)", &[0; 4])).is_ok());
    assert_ne!(reader.last, first);
}

#[test]
fn hostile_headers_are_refused() {
    let error = read(&npy("<f8", "False", "(1152921504606846976,)", &[0; 8])).expect_err("2^60 elements");
    assert!(error.to_string().contains("[1152921504606846976]"), "{error}");
    for cell in [
        npy("<f8", "False", "(4294967296, 4294967296)", &[0; 8]),
        npy("|O", "False", "(1,)", &[0; 8]),
        npy("<U99999999999999999999", "False", "(1,)", &[0; 8]),
        npy("|S9223372036854775807", "False", "(3,)", &[0; 8]),
        npy("|S0", "False", "(65537,)", &[]),
        npy("<U0", "True", "(1152921504606846976,)", &[]),
        npy("|u1", "False", &format!("({})", "1,".repeat(65)), &[0]),
        npy("|u1", "False", "(-1,)", &[0]),
        npy("<f8", "True", "(4611686018427387904, 0)", &[]),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(),
        [b"\x93NUMPY\x02\x00\x00\x00\x01\x00".to_vec(), vec![b' '; 65_536]].concat(),
        b"\x93NUMPY\x01\x00\xff\xff{}".to_vec(),
        b"\x93NUMPY\x07\x00\x02\x00{}".to_vec(),
        b"\x93NUMPY\x01\x00\x02\x00{}".to_vec(),
        Vec::new(),
    ] {
        let error = read(&cell).expect_err("a hostile header").to_string();
        assert!(error.len() < 300, "{error}");
    }
    let empty = npy("|S8", "True", "(4611686018427387904, 0)", &[]);
    assert_eq!(read(&empty).expect("an array"), Value::List(Vec::new()));
    let structs =
        b"\x93NUMPY\x01\x00\x42\x00{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }".to_vec();
    assert!(
        read(&[structs, vec![b' '; 40]].concat())
            .expect_err("structs")
            .to_string()
            .contains("structs")
    );
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), dict in "[{}'a-z_:0-9(), <|>=FT]{0,80}") {
        let _ = read(&bytes);
        let header = [MAGIC, &[1, 0], &(dict.len() as u16).to_le_bytes(), dict.as_bytes(), &bytes].concat();
        let _ = read(&header);
    }
}

#[test]
fn times_and_complex_numbers() {
    let hours = npy(
        ">M8[h]",
        "False",
        "(2,)",
        &[[0; 7].as_slice(), &[2], &[0x80], &[0; 7]].concat(),
    );
    let second = |value| Value::Datetime {
        value,
        unit: TimeUnit::Second,
        utc: false,
    };
    assert_eq!(
        read(&hours).expect("times"),
        Value::List(vec![second(7200), Value::Null])
    );
    let weeks = npy("<M8[W]", "False", "()", &(-1i64).to_le_bytes());
    assert_eq!(read(&weeks).expect("a date"), Value::Date(-7));
    assert!(read(&npy("<M8[W]", "False", "()", &i64::MAX.to_le_bytes())).is_err());
    for descr in ["<M8[M]", "<M8", "<m8[s]", "<M8[25s]", "|V8", "<f16"] {
        let error = read(&npy(descr, "False", "(1,)", &[0; 16])).expect_err(descr);
        assert!(error.to_string().contains(descr), "{error}");
    }
    // Real, then imaginary, each big-endian.
    let complex = npy(">c8", "False", "(1,)", &[0x3f, 0x80, 0, 0, 0xbf, 0, 0, 0]);
    let expected = [1f32.to_le_bytes(), (-0.5f32).to_le_bytes()].concat();
    let found = read(&complex).expect("a tensor");
    assert_eq!(
        found.as_tensor().map(|tensor| tensor.data().as_slice()),
        Some(&expected[..])
    );
}

#[test]
fn elements_of_no_width_are_counted() {
    assert!(read(&npy("|S0", "False", "(3,)", b"")).is_ok());
    let error = read(&npy("|S0", "False", "(1152921504606846976,)", b"")).expect_err("2^60 of nothing");
    assert!(error.to_string().contains("of no bytes"), "{error}");
}

/// Dimensions of 1 make a list each for every element.
#[test]
fn lists_are_counted() {
    let ones = |n: usize| format!("({}, {})", 100_000, "1, ".repeat(n));
    assert!(read(&npy("|S1", "False", &ones(3), &[b'a'; 100_000])).is_ok());
    let error = read(&npy("|S1", "False", &ones(60), &[b'a'; 100_000])).expect_err("61 lists for each");
    assert!(error.to_string().contains("too many lists"), "{error}");
}

/// The bytes are those of `numpy.save` of numpy 2.4.
#[test]
fn what_is_written_is_what_numpy_writes() {
    let tensor = Value::Tensor(Tensor::from_vec(&[2, 3], vec![0i16, 1, 2, 3, 4, 5]).expect("a tensor"));
    let cell = write(&tensor, DType::Int16).expect("a cell");
    let dict = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }";
    let expected = [
        &b"\x93NUMPY\x01\x00v\x00"[..],
        format!("{dict:<117}\n").as_bytes(),
        &[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0],
    ]
    .concat();
    assert_eq!(String::from_utf8_lossy(&cell), String::from_utf8_lossy(&expected));
    let ragged = Value::List(vec![
        Value::List(vec![Value::from("a")]),
        Value::List(vec![Value::from("a"), Value::from("b")]),
    ]);
    assert!(
        write(&ragged, DType::Str)
            .expect_err("ragged")
            .to_string()
            .contains("lists of 1")
    );
    let null = Value::List(vec![Value::Int(1), Value::Null]);
    assert!(
        write(&null, DType::Int32)
            .expect_err("a null")
            .to_string()
            .contains("without nulls")
    );
}

fn arrays() -> impl Strategy<Value = (Value, DType)> {
    let dims = prop::collection::vec(0usize..4, 0..4);
    let numbers = (dims.clone(), 0usize..14, any::<u64>()).prop_map(|(dims, kind, seed)| {
        use DType as D;
        let dtype = [
            D::Bool,
            D::Int8,
            D::Int16,
            D::Int32,
            D::Int64,
            D::UInt8,
            D::UInt16,
            D::UInt32,
            D::UInt64,
            D::Float16,
            D::Float32,
            D::Float64,
            D::Complex64,
            D::Complex128,
        ][kind];
        let size = dtype.item_size().unwrap_or(1) * dims.iter().product::<usize>();
        // A bool is 0 or 1.
        let mask = if dtype == D::Bool { 1 } else { 0xff };
        let bytes = (0..size).map(|i| (seed.rotate_left(i as u32 * 7) & mask) as u8);
        let tensor = Tensor::new(dtype, dims, arrow_buffer::Buffer::from_iter(bytes)).expect("a tensor");
        (Value::Tensor(tensor), dtype)
    });
    let lists = (prop::collection::vec(1usize..4, 1..3), any::<i32>(), 0..4usize).prop_map(|(dims, seed, kind)| {
        let dtype = [
            DType::Str,
            DType::Bytes,
            DType::Date,
            DType::Datetime {
                unit: TimeUnit::Microsecond,
                utc: false,
            },
        ][kind];
        let item = |i: usize| match dtype {
            DType::Str => Value::from(format!("é{}", seed.wrapping_mul(i as i32))),
            DType::Bytes => Value::Bytes(seed.wrapping_mul(i as i32).to_string().into_bytes()),
            _ if i == 2 => Value::Null,
            DType::Date => Value::Date(seed.wrapping_mul(i as i32)),
            _ => Value::Datetime {
                value: i64::from(seed) * i as i64,
                unit: TimeUnit::Microsecond,
                utc: false,
            },
        };
        let items = (0..dims.iter().product()).map(item).collect();
        (Value::nested(items, &dims), dtype)
    });
    prop_oneof![numbers, lists]
}

proptest! {
    #[test]
    fn arrays_survive((value, dtype) in arrays()) {
        let cell = write(&value, dtype).expect("a cell");
        prop_assert_eq!(read(&cell).expect("an array"), value);
    }
}
