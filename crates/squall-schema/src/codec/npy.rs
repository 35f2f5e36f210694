//! The npy format, versions 1 to 3: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! A header is a Python dict literal, which takes longer to parse than most cells take to copy; so a reader keeps the last
//! one, and a cell that begins with the same bytes is not parsed again.

use crate::{DType, Error, Result, Value};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read; numpy reads 10,000 bytes.
const MAX_HEADER: usize = 65_535;
/// Bytes of the longest head: magic, version, length and header.
pub(super) const MAX_HEAD: usize = MAGIC.len() + 6 + MAX_HEADER;
/// Most dimensions of an array, as in numpy.
const MAX_DIMS: usize = 64;
/// Most elements of no bytes, which no data bounds.
const MAX_EMPTY: usize = 65_536;
/// Characters of a header that a message repeats.
const SHOWN: usize = 200;

/// Reads arrays that mostly have the same header.
#[derive(Debug, Default)]
pub(super) struct Reader {
    last: Option<(Vec<u8>, Header)>,
}

/// What an array is before it is there.
pub(super) struct Announced {
    /// The dtype of a tensor; `None` for text and bytes.
    pub(super) dtype: Option<DType>,
    /// The dimensions.
    pub(super) shape: Vec<usize>,
    /// Bytes of header and data.
    pub(super) size: usize,
    /// Bytes that the value takes at least.
    pub(super) held: usize,
}

/// What the bytes behind a header are.
#[derive(Debug, Clone, PartialEq)]
struct Header {
    element: Element,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// One element of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element {
    /// A number or a bool. `swapped`: big-endian.
    Number { dtype: DType, swapped: bool },
    /// `S`: bytes, padded with zeros to this width.
    Bytes(usize),
    /// `U`: UCS-4 characters, padded with zeros to this number.
    Text { width: usize, swapped: bool },
}

impl Element {
    fn size(self) -> Option<usize> {
        match self {
            Self::Number { dtype, .. } => dtype.item_size(),
            Self::Bytes(width) => Some(width),
            Self::Text { width, .. } => width.checked_mul(4),
        }
    }
}

impl Reader {
    /// The array: a tensor of numbers, or nested lists of text or bytes.
    pub(super) fn read(&mut self, cell: &[u8]) -> Result<Value> {
        let (header, data) = self.header(cell)?;
        let (count, size) = header.count_and_size();
        let data = size.and_then(|size| data.get(..size)).ok_or_else(|| {
            Error::corrupt(format!(
                "an npy array of shape {:?} should have more bytes than the {} that are there",
                header.shape,
                data.len()
            ))
        })?;
        match header.element {
            Element::Number { dtype, swapped } => {
                let item = dtype.item_size().unwrap_or(1);
                let mut bytes = if header.fortran_order {
                    c_order(data, item, &header.shape)
                } else {
                    data.to_vec()
                };
                if swapped {
                    bytes.chunks_exact_mut(item).for_each(<[u8]>::reverse);
                }
                Ok(Value::Tensor(super::tensor(dtype, header.shape.clone(), bytes)?))
            }
            element => {
                let size = element.size().unwrap_or(0);
                if size == 0 && count.is_none_or(|count| count > MAX_EMPTY) {
                    return Err(Error::corrupt(format!(
                        "an npy array of shape {:?} and elements of no bytes: expected at most {MAX_EMPTY}",
                        header.shape
                    )));
                }
                let bytes = if header.fortran_order {
                    c_order(data, size, &header.shape)
                } else {
                    data.to_vec()
                };
                let item = |i: usize| text(&bytes[i * size..(i + 1) * size], element);
                let items = (0..count.unwrap_or(0)).map(item).collect::<Result<Vec<_>>>()?;
                Ok(Value::nested(items, &header.shape))
            }
        }
    }
}

impl Reader {
    /// What an array is, by its first [`MAX_HEAD`] bytes.
    pub(super) fn announced(&mut self, head: &[u8]) -> Result<Announced> {
        let (header, data) = self.header(head)?;
        let header_size = head.len() - data.len();
        let (count, size) = header.count_and_size();
        let size = size.and_then(|size| size.checked_add(header_size));
        let too_large = || Error::corrupt(format!("an npy array of shape {:?} is too large", header.shape));
        let (dtype, held) = match header.element {
            Element::Number { dtype, .. } => (Some(dtype), size),
            _ => (
                None,
                count
                    .and_then(|count| count.checked_mul(size_of::<Value>()))
                    .zip(size)
                    .map(|(a, b)| a.max(b)),
            ),
        };
        Ok(Announced {
            dtype,
            shape: header.shape.clone(),
            size: size.ok_or_else(too_large)?,
            held: held.ok_or_else(too_large)?,
        })
    }

    /// The header of an array, and the bytes behind it.
    fn header<'a>(&mut self, cell: &'a [u8]) -> Result<(&Header, &'a [u8])> {
        if !matches!(&self.last, Some((bytes, _)) if cell.starts_with(bytes)) {
            let length = header_length(cell)?;
            let header = parse(&cell[..length])?;
            self.last = Some((cell[..length].to_vec(), header));
        }
        match &self.last {
            Some((bytes, header)) => Ok((header, &cell[bytes.len()..])),
            None => Err(Error::internal("a header that was not kept")),
        }
    }
}

impl Header {
    /// Elements, and their bytes, where they are not too many to count.
    fn count_and_size(&self) -> (Option<usize>, Option<usize>) {
        let mut dims = self.shape.iter();
        let count = dims.try_fold(1usize, |product, dim| product.checked_mul(*dim));
        let size = count
            .zip(self.element.size())
            .and_then(|(count, size)| count.checked_mul(size));
        (count, size)
    }
}

/// Bytes of magic, version, length and dict.
fn header_length(cell: &[u8]) -> Result<usize> {
    let cut = || Error::corrupt(format!("not an npy array: {} bytes without a header", cell.len()));
    let Some([major, _, rest @ ..]) = cell.strip_prefix(MAGIC) else {
        return Err(cut());
    };
    let (width, length) = match (major, rest) {
        (1, [a, b, ..]) => (2, usize::from(u16::from_le_bytes([*a, *b]))),
        (2 | 3, [a, b, c, d, ..]) => (4, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        (1..=3, _) => return Err(cut()),
        (version, _) => return Err(Error::unsupported(format!("npy version {version}: expected 1 to 3"))),
    };
    if length > MAX_HEADER {
        return Err(Error::corrupt(format!(
            "an npy header of {length} bytes: expected at most {MAX_HEADER}"
        )));
    }
    let end = MAGIC.len() + 2 + width + length;
    if end > cell.len() {
        return Err(Error::corrupt(format!(
            "an npy header of {length} bytes in a cell of {}",
            cell.len()
        )));
    }
    Ok(end)
}

/// Parses the dict literal at the end of a header.
fn parse(header: &[u8]) -> Result<Header> {
    let start = if header[MAGIC.len()] == 1 {
        MAGIC.len() + 4
    } else {
        MAGIC.len() + 6
    };
    let text = std::str::from_utf8(&header[start..]).map_err(|_| Error::corrupt("an npy header that is not text"))?;
    let shown: String = text.trim_end().chars().take(SHOWN).collect();
    let wrong = |why: &str| Error::corrupt(format!("an npy header with {why}: {shown}"));
    let value = |key: &str| {
        let at = text
            .find(&format!("'{key}'"))
            .or_else(|| text.find(&format!("\"{key}\"")));
        let behind = at.map(|at| text[at + key.len() + 2..].trim_start());
        behind.and_then(|rest| rest.strip_prefix(':')).map(str::trim_start)
    };
    let descr = value("descr").ok_or_else(|| wrong("no descr"))?;
    if descr.starts_with('[') {
        return Err(Error::unsupported(format!("an npy array of structs: {shown}")));
    }
    let quote = descr
        .chars()
        .next()
        .filter(|c| "'\"".contains(*c))
        .ok_or_else(|| wrong("no descr"))?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let order = value("fortran_order").ok_or_else(|| wrong("no fortran_order"))?;
    let fortran_order = match (order.starts_with("True"), order.starts_with("False")) {
        (true, _) => true,
        (_, true) => false,
        _ => return Err(wrong("no fortran_order")),
    };
    let shape = value("shape")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split_once(')'));
    let (dims, _) = shape.ok_or_else(|| wrong("no shape"))?;
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    // Python 2 wrote long integers with an L.
    let dims = dims
        .map(|dim| dim.trim_end_matches('L').parse())
        .take(MAX_DIMS + 1)
        .collect::<std::result::Result<Vec<usize>, _>>();
    let shape = dims.map_err(|_| wrong("a shape that is not one of sizes"))?;
    if shape.len() > MAX_DIMS {
        return Err(wrong(&format!("more than {MAX_DIMS} dimensions")));
    }
    Ok(Header {
        element: element(descr)?,
        fortran_order,
        shape,
    })
}

fn element(descr: &str) -> Result<Element> {
    let shown: String = descr.chars().take(SHOWN).collect();
    let unsupported = || Error::unsupported(format!("an npy array of dtype {shown:?}"));
    let (swapped, kind) = match descr.split_at_checked(1).ok_or_else(unsupported)? {
        ("<" | "|" | "=", kind) => (false, kind),
        (">", kind) => (true, kind),
        _ => return Err(unsupported()),
    };
    let dtype = match kind {
        "b1" => DType::Bool,
        "i1" => DType::Int8,
        "i2" => DType::Int16,
        "i4" => DType::Int32,
        "i8" => DType::Int64,
        "u1" => DType::UInt8,
        "u2" => DType::UInt16,
        "u4" => DType::UInt32,
        "u8" => DType::UInt64,
        "f2" => DType::Float16,
        "f4" => DType::Float32,
        "f8" => DType::Float64,
        _ => {
            let width = kind
                .get(1..)
                .and_then(|width| width.parse().ok())
                .ok_or_else(unsupported)?;
            return match &kind[..1] {
                "S" => Ok(Element::Bytes(width)),
                "U" => Ok(Element::Text { width, swapped }),
                _ => Err(unsupported()),
            };
        }
    };
    Ok(Element::Number { dtype, swapped })
}

/// The elements in C order, from Fortran order: the first index runs fastest there.
fn c_order(data: &[u8], item: usize, shape: &[usize]) -> Vec<u8> {
    // Beside a dimension of zero the others may be of any size, and their product with it.
    if data.is_empty() {
        return Vec::new();
    }
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = item;
    for dim in shape {
        strides.push(stride);
        stride *= dim;
    }
    let mut bytes = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    let count = data.len().checked_div(item).unwrap_or(0);
    for _ in 0..count {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        bytes.extend_from_slice(&data[at..at + item]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    bytes
}

/// An element of `S` or `U` without its padding, which numpy does not tell from zeros at the end.
fn text(bytes: &[u8], element: Element) -> Result<Value> {
    let Element::Text { swapped, .. } = element else {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        return Ok(Value::Bytes(bytes[..end].to_vec()));
    };
    let code = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if swapped {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    let codes: Vec<_> = bytes.chunks_exact(4).map(code).collect();
    let end = codes.iter().rposition(|code| *code != 0).map_or(0, |last| last + 1);
    let text: Option<String> = codes[..end].iter().map(|code| char::from_u32(*code)).collect();
    let text = text.ok_or_else(|| Error::corrupt("an npy array of text with a number that is no character"))?;
    Ok(Value::Str(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
}
