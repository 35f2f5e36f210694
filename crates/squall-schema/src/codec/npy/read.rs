//! From a cell to an array.
//!
//! A header is a Python dict literal, which takes longer to parse than most cells take to copy; so a reader keeps the last
//! one, and a cell that begins with the same bytes is not parsed again.

use super::{Element, MAGIC, SHOWN};
use crate::codec::RawArray;
use crate::columns::{elements_from_bytes, value_at};
use crate::{DType, Error, Field, Result, Value};

/// Longest header that is read; numpy reads 10,000 bytes.
const MAX_HEADER: usize = 65_535;
/// Bytes of the longest head: magic, version, length and header.
pub(in crate::codec) const MAX_HEAD: usize = MAGIC.len() + 6 + MAX_HEADER;
/// Most dimensions of an array, as in numpy.
const MAX_DIMS: usize = 64;
/// Most elements of no width, of which an array of no bytes can claim any number.
const MAX_EMPTY: usize = 1 << 16;
/// Most lists of an array of text for each of its elements, beside [`MAX_EMPTY`]: dimensions of 1 make many.
const MAX_LISTS: usize = 4;

/// Reads arrays that mostly have the same header.
#[derive(Debug, Default)]
pub(in crate::codec) struct Reader {
    pub(super) last: Option<(Vec<u8>, Header)>,
}

/// What an array is before it is there.
pub(in crate::codec) struct Announced {
    /// The dtype of a tensor; `None` for text, bytes and times.
    pub(in crate::codec) dtype: Option<DType>,
    /// The dimensions.
    pub(in crate::codec) shape: Vec<usize>,
    /// Bytes of header and data.
    pub(in crate::codec) size: usize,
    /// Bytes that the value takes at least.
    pub(in crate::codec) held: usize,
}

/// What the bytes behind a header are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    element: Element,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Numbers or bools in C order and little-endian, as they lie in the cell.
pub(in crate::codec) struct Dense<'a> {
    pub(in crate::codec) dtype: DType,
    pub(in crate::codec) shape: &'a [usize],
    pub(in crate::codec) data: &'a [u8],
}

impl Reader {
    /// The array: a tensor of numbers, or nested lists of text, bytes or times.
    pub(in crate::codec) fn read(&mut self, cell: &[u8]) -> Result<Value> {
        let (header, data) = self.parts(cell)?;
        if let Element::Number { dtype, .. } = header.element {
            let bytes = header.little_endian(data);
            return Ok(Value::Tensor(crate::codec::tensor(dtype, header.shape.clone(), bytes)?));
        }
        let size = header.element.size().unwrap_or(0);
        let count: usize = header.shape.iter().product();
        if size == 0 && count > MAX_EMPTY {
            return Err(Error::corrupt(format!(
                "an npy array of {count} elements of no bytes: expected at most {MAX_EMPTY}"
            )));
        }
        let mut lists = header.shape.iter().scan(1usize, |lists, dim| {
            *lists = lists.saturating_mul(*dim);
            Some(*lists)
        });
        let most = count.saturating_mul(MAX_LISTS).saturating_add(MAX_EMPTY);
        if count > 0
            && lists
                .try_fold(0usize, |sum, own| sum.checked_add(own).filter(|sum| *sum <= most))
                .is_none()
        {
            return Err(Error::unsupported(format!(
                "an npy array of {count} elements and shape {:?}: it makes too many lists",
                header.shape
            )));
        }
        let bytes = header.c_order(data);
        let item = |i: usize| text_or_time(&bytes[i * size..(i + 1) * size], header.element);
        let items = (0..count).map(item).collect::<Result<Vec<_>>>()?;
        Ok(Value::nested(items, &header.shape))
    }

    /// The array as numpy holds it: see [`RawArray`](crate::codec::RawArray).
    pub(in crate::codec) fn raw(&mut self, cell: &[u8]) -> Result<RawArray> {
        let (header, data) = self.parts(cell)?;
        Ok(RawArray {
            descr: header.element.descr(),
            shape: header.shape.clone(),
            bytes: header.little_endian(data),
        })
    }

    /// The array where it lies in the cell as it does in a tensor: without a copy.
    pub(in crate::codec) fn dense<'a>(&'a mut self, cell: &'a [u8]) -> Result<Option<Dense<'a>>> {
        let (header, data) = self.parts(cell)?;
        Ok(match header.element {
            Element::Number { dtype, swapped: false } if !header.fortran_order => Some(Dense {
                dtype,
                shape: &header.shape,
                data,
            }),
            _ => None,
        })
    }

    /// What an array is, by its first [`MAX_HEAD`] bytes.
    pub(in crate::codec) fn announced(&mut self, head: &[u8]) -> Result<Announced> {
        let (header, data) = self.header(head)?;
        let header_size = head.len() - data.len();
        let (count, size) = header.count_and_size();
        let size = size.and_then(|size| size.checked_add(header_size));
        let too_large = || Error::corrupt(format!("an npy array of shape {:?} is too large", header.shape));
        let (dtype, held) = match header.element {
            Element::Number { dtype, .. } => (Some(dtype), size),
            _ => {
                let values = count.and_then(|count| count.checked_mul(size_of::<Value>()));
                (None, values.zip(size).map(|(values, size)| values.max(size)))
            }
        };
        Ok(Announced {
            dtype,
            shape: header.shape.clone(),
            size: size.ok_or_else(too_large)?,
            held: held.ok_or_else(too_large)?,
        })
    }

    /// The header, and the bytes of the elements.
    fn parts<'a>(&'a mut self, cell: &'a [u8]) -> Result<(&'a Header, &'a [u8])> {
        let (header, data) = self.header(cell)?;
        let (_, size) = header.count_and_size();
        let data = size.and_then(|size| data.get(..size)).ok_or_else(|| {
            Error::corrupt(format!(
                "an npy array of shape {:?} should have more bytes than the {} that are there",
                header.shape,
                data.len()
            ))
        })?;
        Ok((header, data))
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
            None => Err(Error::internal("an npy header that was not kept")),
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

    /// The elements in C order, in the order of bytes that they are stored in.
    fn c_order(&self, data: &[u8]) -> Vec<u8> {
        match self.fortran_order {
            true => c_order(data, self.element.size().unwrap_or(0), &self.shape),
            false => data.to_vec(),
        }
    }

    /// The elements in C order and little-endian.
    fn little_endian(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.c_order(data);
        let (part, is_swapped) = self.element.part();
        if is_swapped {
            bytes.chunks_exact_mut(part).for_each(<[u8]>::reverse);
        }
        bytes
    }
}

/// The dtype of the elements of a cell.
pub(in crate::codec) fn dtype(cell: &[u8]) -> Result<DType> {
    let header = parse(&cell[..header_length(cell)?])?;
    Ok(match header.element {
        Element::Number { dtype, .. } | Element::Time { dtype, .. } => dtype,
        Element::Bytes(_) => DType::Bytes,
        Element::Text { .. } => DType::Str,
    })
}

/// One element by itself, such as numpy pickles it.
pub(crate) fn scalar(descr: &str, bytes: &[u8]) -> Result<Value> {
    let element = Element::from_descr(descr)?;
    if element.size() != Some(bytes.len()) {
        return Err(Error::corrupt(format!("{} bytes of dtype {descr:?}", bytes.len())));
    }
    let Element::Number { dtype, swapped } = element else {
        return text_or_time(bytes, element);
    };
    let mut bytes = bytes.to_vec();
    if swapped {
        bytes.reverse();
    }
    value_at(&elements_from_bytes(dtype, &bytes)?, &Field::scalar("", dtype), 0)
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
        element: Element::from_descr(descr)?,
        fortran_order,
        shape,
    })
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

/// An element of `S` or `U` without its padding, which numpy does not tell from zeros at the end; or a time.
fn text_or_time(bytes: &[u8], element: Element) -> Result<Value> {
    match element {
        Element::Number { .. } => Err(Error::internal("a number among text")),
        Element::Bytes(_) => Ok(Value::Bytes(without_padding(bytes, 0).to_vec())),
        Element::Text { swapped, .. } => {
            let code = |bytes: &[u8; 4]| match swapped {
                true => u32::from_be_bytes(*bytes),
                false => u32::from_le_bytes(*bytes),
            };
            let codes: Vec<_> = bytes.as_chunks::<4>().0.iter().map(code).collect();
            let text: Option<String> = without_padding(&codes, 0)
                .iter()
                .map(|code| char::from_u32(*code))
                .collect();
            let text = text.ok_or_else(|| Error::corrupt("an npy array of text with a number that is no character"))?;
            Ok(Value::Str(text))
        }
        Element::Time { dtype, factor, swapped } => {
            let bytes = bytes
                .try_into()
                .map_err(|_| Error::internal("a time of other than 8 bytes"))?;
            let steps = match swapped {
                true => i64::from_be_bytes(bytes),
                false => i64::from_le_bytes(bytes),
            };
            // Not a time.
            if steps == i64::MIN {
                return Ok(Value::Null);
            }
            let too_far = || Error::unsupported(format!("a time of {steps} steps of {factor}: too far from 1970"));
            let value = steps.checked_mul(factor).ok_or_else(too_far)?;
            match dtype {
                DType::Datetime { unit, utc } => Ok(Value::Datetime { value, unit, utc }),
                _ => Ok(Value::Date(i32::try_from(value).map_err(|_| too_far())?)),
            }
        }
    }
}

fn without_padding<T: PartialEq>(units: &[T], zero: T) -> &[T] {
    let end = units.iter().rposition(|unit| *unit != zero);
    &units[..end.map_or(0, |last| last + 1)]
}
