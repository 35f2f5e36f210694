//! What holds for any input of the parsers of squall-schema.
//!
//! Each function takes one input and panics where a property is broken: libFuzzer calls them through `fuzz_targets`, and the
//! tests of squall-schema call them on every file of `corpus`. Nothing here needs libFuzzer.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray};
use squall_schema::arrow::{field_from_arrow, field_to_arrow};
use squall_schema::codec::{Codec, decode_column, raw_array};
use squall_schema::columns::value_at;
use squall_schema::footer::{key_values, key_values_of_file};
use squall_schema::metadata::DatasetMetadata;
use squall_schema::petastorm::index::RowGroupIndex;
use squall_schema::petastorm::pickle::{Id, Node, Pickle};
use squall_schema::petastorm::unischema::Unischema;
use squall_schema::spark::StructType;
use squall_schema::{DType, Field, Result, Shape, Tensor, Value};

/// The most bytes that a byte of deflate gives. Pixels of one bit become bytes.
const DEFLATE_RATIO: usize = 1101;
/// The most bytes that a byte of jpeg gives: three channels of 64 pixels for each 64th of it.
const JPEG_RATIO: usize = 3 * 64 * 66;

/// A pickle, and the row-group indexes or the Unischema in it.
pub fn pickle(data: &[u8]) {
    for index in checked(RowGroupIndex::from_pickle(data)).unwrap_or_default() {
        checked(index.row_groups(&Value::Int(0)));
    }
    if let Some(pickle) = checked(Pickle::parse(data)) {
        every_value_is_there(&pickle);
    }
    let Some(unischema) = checked(Unischema::from_pickle(data)) else {
        return;
    };
    assert_eq!(Unischema::from_pickle(data).ok().as_ref(), Some(&unischema));
    let mut size = 0;
    for declared in &unischema.fields {
        size += declared.name.len() + declared.shape.0.len() + format!("{:?}", declared.dtype).len();
        size += declared.codec.as_ref().map_or(0, |codec| codec.to_string().len());
        for stored in [DType::Bytes, DType::Int64, DType::Decimal(38, 18)] {
            let stored = Field::scalar(&declared.name, stored);
            let Some(field) = checked(declared.field(&stored)) else {
                continue;
            };
            assert_eq!((&field.name, &field.codec), (&declared.name, &declared.codec));
            let shape = if field.codec.is_some() {
                &declared.shape
            } else {
                &stored.shape
            };
            assert_eq!(&field.shape, shape);
            canonical(&field);
        }
    }
    // What is kept is of the size of the input, however often it refers to itself.
    assert!(size <= 1000 * data.len(), "{size} bytes from {}", data.len());
}

/// The cells of an npy column.
pub fn npy(data: &[u8]) {
    cells(&Codec::Ndarray, data, &dtypes(data), &[0, 1, 2, 3], 1);
}

/// The cells of an npz column.
pub fn npz(data: &[u8]) {
    // The header is compressed, so that it tells nothing.
    let names = [
        "uint8",
        "float32",
        "int64",
        "complex64",
        "str",
        "bytes",
        "datetime64[us]",
    ];
    let dtypes = names.map(|name| name.parse().expect("a dtype"));
    cells(&Codec::CompressedNdarray, data, &dtypes, &[0, 1, 2, 3], DEFLATE_RATIO);
}

/// The cells of a png column.
pub fn png(data: &[u8]) {
    cells(
        &Codec::Png,
        data,
        &[DType::UInt8, DType::UInt16],
        &[2, 3],
        DEFLATE_RATIO * 8,
    );
}

/// The cells of a jpeg column.
pub fn jpeg(data: &[u8]) {
    cells(&Codec::Jpeg { quality: 80 }, data, &[DType::UInt8], &[2, 3], JPEG_RATIO);
}

/// The JSON that Squall keeps of a dataset, or Spark of a table.
pub fn metadata(data: &[u8]) {
    if let Some(schema) = std::str::from_utf8(data)
        .ok()
        .and_then(|text| checked(StructType::from_json(text)))
    {
        let text = schema.to_json();
        assert_eq!(StructType::from_json(&text).expect("what was written is read"), schema);
        checked(schema.to_schema());
    }
    let Some(metadata) = checked(DatasetMetadata::from_json(data)) else {
        return;
    };
    let text = metadata.to_json().expect("what was read is written");
    let again = DatasetMetadata::from_json(text.as_bytes()).expect("what was written is read");
    assert_eq!(again, metadata);
    let names: HashSet<_> = metadata.schema.names().collect();
    assert_eq!(names.len(), metadata.schema.fields().len());
    for field in metadata.schema.fields() {
        assert_eq!(metadata.schema.get(&field.name), Some(field));
        canonical(field);
    }
    checked(metadata.schema.project(&metadata.partition_by));
}

/// A Parquet footer: the input is one, and the end of a file.
pub fn footer(data: &[u8]) {
    let pairs = checked(key_values(data));
    if let Some(pairs) = &pairs {
        let size: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(size <= data.len());
    }
    checked(key_values_of_file(data));
    let length = u32::try_from(data.len()).expect("a short input").to_le_bytes();
    let file = [b"PAR1", data, &length, b"PAR1"].concat();
    assert_eq!(checked(key_values_of_file(&file)), pairs);
}

/// The value, or `None` for an error, which must say something.
fn checked<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let text = error.to_string();
            assert!(
                !error.message().is_empty() && text.len() < 4096,
                "an error of {} bytes",
                text.len()
            );
            None
        }
    }
}

/// Every value that another refers to is in the pickle.
fn every_value_is_there(pickle: &Pickle) {
    let mut seen = HashSet::new();
    let mut next = vec![pickle.root()];
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let pair = |(key, value): &(Id, Id)| [*key, *value];
        match pickle.node(id) {
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => next.extend(items),
            Node::Dict(pairs) => next.extend(pairs.iter().flat_map(pair)),
            Node::Object(object) => {
                next.extend([object.class, object.arguments]);
                next.extend(object.state.iter().chain(&object.items));
                next.extend(object.pairs.iter().flat_map(pair));
            }
            _ => {}
        }
    }
}

/// A field that has a canonical column is found in it again.
fn canonical(field: &Field) {
    if let Some(column) = checked(field_to_arrow(field))
        && field.codec.is_none()
        && let Some(found) = checked(field_from_arrow(&column))
    {
        assert_eq!((&found.name, found.nullable), (&field.name, field.nullable));
        assert_eq!(found.dtype, field.dtype);
        assert_eq!(found.shape, field.shape);
    }
}

/// The dtypes that a header could mean, by the letters in it.
fn dtypes(cell: &[u8]) -> Vec<DType> {
    let head = &cell[..cell.len().min(256)];
    let names = [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ];
    let dtypes = names.map(|name| name.parse::<DType>().expect("a dtype"));
    let named = |dtype: &DType| {
        let descr = dtype.descr().map(|descr| &descr.as_bytes()[1..]);
        descr.is_some_and(|descr| head.windows(descr.len()).any(|found| found == descr))
    };
    let numbers = dtypes.into_iter().filter(named).take(3);
    let times = ["datetime64[D]", "datetime64[ns]"].map(|name| name.parse().expect("a dtype"));
    numbers.chain([DType::Str, DType::Bytes]).chain(times).collect()
}

/// Decodes the cell in columns of these dtypes and numbers of free dimensions; where that gives a tensor, in a column of its
/// shape as well.
fn cells(codec: &Codec, cell: &[u8], dtypes: &[DType], ranks: &[usize], max_ratio: usize) {
    for dtype in dtypes {
        let field = |shape| {
            Field::new("x", *dtype, shape)
                .with_nullable(true)
                .with_codec(Some(codec.clone()))
        };
        for rank in ranks {
            let Some(value) = column(&field(Shape(vec![None; *rank])), cell) else {
                continue;
            };
            let Value::Tensor(tensor) = &value else {
                continue;
            };
            if let Codec::Ndarray | Codec::CompressedNdarray = codec {
                let mut raw = raw_array(cell, codec).expect("what was decoded");
                // numpy takes any byte but 0 for true.
                if *dtype == DType::Bool {
                    raw.bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
                }
                assert!(
                    raw.shape == tensor.shape() && raw.bytes == tensor.data().as_slice(),
                    "{raw:?}"
                );
            }
            let size = tensor.data().len();
            let item = tensor.dtype().item_size().expect("a dtype of tensors");
            assert_eq!(tensor.shape().iter().product::<usize>() * item, size);
            assert!(
                size <= cell.len().saturating_mul(max_ratio),
                "{size} bytes of {}",
                cell.len()
            );
            let fixed = field(Shape::fixed(tensor.shape()));
            assert!(same(&column(&fixed, cell).expect("its own shape"), &value));
            let mut other = tensor.shape().to_vec();
            other[rank - 1] += 1;
            assert!(column(&field(Shape(vec![None; rank + 1])), cell).is_none());
            assert!(column(&field(Shape::fixed(&other)), cell).is_none());
        }
    }
}

/// The cell gives the same value alone, and behind a cell of the same header.
fn column(field: &Field, cell: &[u8]) -> Option<Value> {
    let decode = |cells: Vec<Option<&[u8]>>| {
        let stored: ArrayRef = Arc::new(BinaryArray::from(cells));
        checked(decode_column(&stored, field))
    };
    let alone = decode(vec![Some(cell)])?;
    let canonical = field_to_arrow(field).expect("a canonical type");
    assert_eq!(alone.data_type(), canonical.data_type());
    let value = value_at(&alone, field, 0).expect("a value");
    let thrice = decode(vec![Some(cell), None, Some(cell)]).expect("what was decoded once");
    assert!(thrice.len() == 3 && thrice.is_null(1));
    for row in [0, 2] {
        let found = value_at(&thrice, field, row).expect("a value");
        assert!(same(&found, &value), "{field} in row {row}: {found:?}, alone {value:?}");
    }
    Some(value)
}

/// Equality in which a NaN is itself.
fn same(a: &Value, b: &Value) -> bool {
    let bytes = |tensor: &Tensor| (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
    match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) => bytes(a) == bytes(b),
        (a, b) => a == b || format!("{a:?}") == format!("{b:?}"),
    }
}
