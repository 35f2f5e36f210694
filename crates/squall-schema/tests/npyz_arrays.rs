//! npyz as the oracle of npy and npz: what it writes is read, and it reads what is written.

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray};
use half::f16;
use npyz::npz::{NpzArchive, NpzWriter};
use npyz::num_complex::Complex;
use npyz::{AutoSerialize, DType as NpyType, Deserialize, NpyFile, Order, Serialize, WriteOptions, WriterBuilder};
use proptest::prelude::*;
use squall_schema::codec::{Codec, decode_column, encode_value};
use squall_schema::columns::value_at;
use squall_schema::{DType, Field, Shape, Tensor, Value};

/// An element, and how it lies in a tensor.
trait Number: Serialize + Deserialize + AutoSerialize + Copy + PartialEq + std::fmt::Debug {
    const DTYPE: DType;
    fn of(seed: u64) -> Self;
    fn bytes(self) -> Vec<u8>;
}

macro_rules! numbers {
    ($($native:ty => $dtype:ident, $of:expr);*) => { $(impl Number for $native {
        const DTYPE: DType = DType::$dtype;
        fn of(seed: u64) -> Self { ($of)(seed) }
        fn bytes(self) -> Vec<u8> { self.to_le_bytes().to_vec() }
    })* };
}
numbers!(i8 => Int8, |x| x as i8; i16 => Int16, |x| x as i16; i32 => Int32, |x| x as i32; i64 => Int64, |x| x as i64;
    u8 => UInt8, |x| x as u8; u16 => UInt16, |x| x as u16; u32 => UInt32, |x| x as u32; u64 => UInt64, |x| x;
    f32 => Float32, |x| x as f32 / 3.0; f64 => Float64, |x| x as f64 / 3.0; f16 => Float16, |x| f16::from_f32((x % 1000) as f32));

impl Number for bool {
    const DTYPE: DType = DType::Bool;
    fn of(seed: u64) -> Self {
        seed.is_multiple_of(3)
    }
    fn bytes(self) -> Vec<u8> {
        vec![u8::from(self)]
    }
}

impl Number for Complex<f32> {
    const DTYPE: DType = DType::Complex64;
    fn of(seed: u64) -> Self {
        Self::new(seed as f32, -(seed as f32) / 7.0)
    }
    fn bytes(self) -> Vec<u8> {
        [self.re.to_le_bytes(), self.im.to_le_bytes()].concat()
    }
}

impl Number for Complex<f64> {
    const DTYPE: DType = DType::Complex128;
    fn of(seed: u64) -> Self {
        Self::new(seed as f64, -(seed as f64) / 7.0)
    }
    fn bytes(self) -> Vec<u8> {
        [self.re.to_le_bytes(), self.im.to_le_bytes()].concat()
    }
}

/// The places of the elements in C order, counted in Fortran order.
fn fortran_places(dims: &[usize]) -> Vec<usize> {
    let n: usize = dims.iter().product();
    let place = |mut c: usize| {
        let mut index = vec![0; dims.len()];
        for axis in (0..dims.len()).rev() {
            index[axis] = c % dims[axis];
            c /= dims[axis];
        }
        let mut stride = 1;
        let strides = dims.iter().map(|dim| {
            let own = stride;
            stride *= dim;
            own
        });
        index.iter().zip(strides).map(|(i, stride)| i * stride).sum()
    };
    (0..n).map(place).collect()
}

fn decoded(cell: &[u8], field: &Field) -> Value {
    let cells: ArrayRef = Arc::new(BinaryArray::from_vec(vec![cell]));
    let column = decode_column(&cells, field).expect("a column");
    assert_eq!(column.len(), 1);
    value_at(&column, field, 0).expect("a value")
}

fn write<T: Number>(elements: &[T], dims: &[u64], order: Order, is_big_endian: bool, npz: bool) -> Vec<u8> {
    let descr = T::DTYPE.descr().expect("a number").to_owned();
    let descr = match is_big_endian && !descr.starts_with('|') {
        true => format!(">{}", &descr[1..]),
        false => descr,
    };
    let dtype = NpyType::Plain(descr.parse().expect("a descriptor"));
    let mut bytes = Vec::new();
    if npz {
        let mut archive = NpzWriter::new(Cursor::new(&mut bytes));
        let options =
            npyz::zip::write::FileOptions::default().compression_method(npyz::zip::CompressionMethod::Deflated);
        let entry = archive.array::<T>("arr", options).expect("an entry");
        let mut writer = entry
            .dtype(dtype)
            .shape(dims)
            .order(order)
            .begin_nd()
            .expect("a writer");
        writer
            .extend(elements.iter().copied())
            .and_then(|()| writer.finish())
            .expect("an array");
        drop(archive);
    } else {
        let options = WriteOptions::<T>::new().dtype(dtype).shape(dims).order(order);
        let mut writer = options.writer(&mut bytes).begin_nd().expect("a writer");
        writer
            .extend(elements.iter().copied())
            .and_then(|()| writer.finish())
            .expect("an array");
    }
    bytes
}

fn check<T: Number>(dims: &[usize], seed: u64) {
    let n: usize = dims.iter().product();
    let elements: Vec<T> = (0..n as u64)
        .map(|i| T::of(seed.wrapping_mul(2 * i + 1) >> 5))
        .collect();
    let in_c: Vec<u8> = elements.iter().flat_map(|element| element.bytes()).collect();
    let tensor = Tensor::new(T::DTYPE, dims.to_vec(), arrow_buffer::Buffer::from_slice_ref(&in_c)).expect("a tensor");
    let long: Vec<u64> = dims.iter().map(|dim| *dim as u64).collect();
    let places = fortran_places(dims);
    let mut in_fortran = elements.clone();
    for (c, place) in places.into_iter().enumerate() {
        in_fortran[place] = elements[c];
    }
    for codec in [Codec::Ndarray, Codec::CompressedNdarray] {
        let npz = codec == Codec::CompressedNdarray;
        for shape in [Shape::fixed(dims), Shape(vec![None; dims.len()])] {
            let field = Field::new("x", T::DTYPE, shape).with_codec(Some(codec.clone()));
            for is_big_endian in [false, true] {
                let c = write(&elements, &long, Order::C, is_big_endian, npz);
                let fortran = write(&in_fortran, &long, Order::Fortran, is_big_endian, npz);
                assert_eq!(decoded(&c, &field), Value::Tensor(tensor.clone()), "{field}");
                assert_eq!(decoded(&fortran, &field), Value::Tensor(tensor.clone()), "{field}");
            }
            let cell = encode_value(&Value::Tensor(tensor.clone()), &field).expect("a cell");
            let (found, found_dims) = if npz {
                let mut archive = NpzArchive::new(Cursor::new(&cell)).expect("an archive");
                let array = archive.by_name("arr").expect("an archive").expect("an array");
                let found_dims = array.shape().to_vec();
                (array.into_vec::<T>().expect("elements"), found_dims)
            } else {
                let array = NpyFile::new(&cell[..]).expect("an array");
                let found_dims = array.shape().to_vec();
                (array.into_vec::<T>().expect("elements"), found_dims)
            };
            assert_eq!((found, found_dims), (elements.clone(), long.clone()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn numbers_of_every_dtype_order_and_byte_order(dims in prop::collection::vec(1usize..4, 1..4), seed: u64) {
        check::<bool>(&dims, seed);
        check::<i8>(&dims, seed);
        check::<i16>(&dims, seed);
        check::<i32>(&dims, seed);
        check::<i64>(&dims, seed);
        check::<u8>(&dims, seed);
        check::<u16>(&dims, seed);
        check::<u32>(&dims, seed);
        check::<u64>(&dims, seed);
        check::<f16>(&dims, seed);
        check::<f32>(&dims, seed);
        check::<f64>(&dims, seed);
        check::<Complex<f32>>(&dims, seed);
        check::<Complex<f64>>(&dims, seed);
    }
}

#[test]
fn text_and_bytes() {
    let words = ["", "é漢", "a longer word"];
    let list = Value::List(words.iter().map(|word| Value::from(*word)).collect());
    let field = Field::new("x", DType::Str, Shape(vec![None])).with_codec(Some(Codec::Ndarray));
    let cell = encode_value(&list, &field).expect("a cell");
    let array = NpyFile::new(&cell[..]).expect("an array");
    assert_eq!(array.dtype(), NpyType::Plain("<U13".parse().expect("a descriptor")));
    assert_eq!(array.into_vec::<String>().expect("text"), words);

    let cells = [&b"a\0b"[..], b"", b"xyz"];
    let list = Value::List(cells.iter().map(|cell| Value::Bytes(cell.to_vec())).collect());
    let field = Field::new("x", DType::Bytes, Shape(vec![None])).with_codec(Some(Codec::Ndarray));
    let cell = encode_value(&list, &field).expect("a cell");
    let array = NpyFile::new(&cell[..]).expect("an array");
    assert_eq!(array.into_vec::<Vec<u8>>().expect("bytes"), cells);
}
