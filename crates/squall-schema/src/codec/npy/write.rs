//! Arrays as `numpy.save` writes them: version 1, C order, little-endian.

use super::MAGIC;
use crate::{DType, Error, Result, Value};

/// What the header with its magic number is padded to.
const ALIGNMENT: usize = 64;
/// Room that numpy leaves in a header for the first dimension to grow.
const GROWTH_DIGITS: usize = 21;
/// What numpy writes for a time that is none.
const NOT_A_TIME: i64 = i64::MIN;

/// The array as a cell. `dtype` is that of the elements: it tells text from bytes where a list is empty.
pub(in crate::codec) fn write(value: &Value, dtype: DType) -> Result<Vec<u8>> {
    if let Value::Tensor(tensor) = value {
        let descr = tensor
            .dtype()
            .descr()
            .ok_or_else(|| Error::internal(format!("a tensor of {}", tensor.dtype())))?;
        let mut cell = header(descr, tensor.shape());
        cell.extend_from_slice(tensor.data());
        return Ok(cell);
    }
    let (shape, items) = elements(value)?;
    let unfit = |item: &Value| {
        Error::invalid(format!(
            "expected an array of {dtype} without nulls, found {} in it",
            item.kind()
        ))
    };
    let (descr, data) = match dtype {
        DType::Str => {
            let text = |item: &&Value| match item {
                Value::Str(text) => Ok(text.chars().map(u32::from).collect::<Vec<_>>()),
                other => Err(unfit(other)),
            };
            let texts = items.iter().map(text).collect::<Result<Vec<_>>>()?;
            // numpy has no elements of no width.
            let width = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let padded = texts.into_iter().flat_map(|mut text| {
                text.resize(width, 0);
                text
            });
            (format!("<U{width}"), padded.flat_map(u32::to_le_bytes).collect())
        }
        DType::Bytes => {
            let bytes = |item: &&Value| match item {
                Value::Bytes(bytes) => Ok(bytes.clone()),
                other => Err(unfit(other)),
            };
            let cells = items.iter().map(bytes).collect::<Result<Vec<_>>>()?;
            let width = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let padded = cells.into_iter().flat_map(|mut bytes| {
                bytes.resize(width, 0);
                bytes
            });
            (format!("|S{width}"), padded.collect())
        }
        DType::Date => {
            let days = |item: &&Value| match item {
                Value::Null => Ok(NOT_A_TIME),
                Value::Date(days) => Ok(i64::from(*days)),
                other => Err(unfit(other)),
            };
            ("<M8[D]".to_owned(), steps(&items, days)?)
        }
        DType::Datetime { unit, .. } => {
            let time = |item: &&Value| match item {
                Value::Null => Ok(NOT_A_TIME),
                Value::Datetime { value, unit: own, .. } if *own == unit => Ok(*value),
                other => Err(unfit(other)),
            };
            (format!("<M8[{unit}]"), steps(&items, time)?)
        }
        other => {
            return Err(match items.iter().find(|item| ***item == Value::Null) {
                Some(null) => unfit(null),
                None => Error::unsupported(format!(
                    "an npy array of {other}: expected numbers, bools, text, bytes or times"
                )),
            });
        }
    };
    let mut cell = header(&descr, &shape);
    cell.extend(data);
    Ok(cell)
}

fn steps(items: &[&Value], step: impl Fn(&&Value) -> Result<i64>) -> Result<Vec<u8>> {
    let steps = items.iter().map(step).collect::<Result<Vec<_>>>()?;
    Ok(steps.into_iter().flat_map(i64::to_le_bytes).collect())
}

/// The dimensions of nested lists, and their innermost items. Ragged ones are refused.
fn elements(value: &Value) -> Result<(Vec<usize>, Vec<&Value>)> {
    let mut shape = Vec::new();
    let mut items = vec![value];
    while let Some(Value::List(first)) = items.first() {
        let length = first.len();
        shape.push(length);
        let mut inner = Vec::with_capacity(items.len() * length);
        for item in items {
            match item {
                Value::List(own) if own.len() == length => inner.extend(own),
                other => {
                    return Err(Error::invalid(format!(
                        "an array whose parts differ: expected lists of {length}, found {}",
                        other.kind()
                    )));
                }
            }
        }
        items = inner;
    }
    Ok((shape, items))
}

/// Magic number, version, length and dict, padded as numpy 1.23 and later do.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: Vec<_> = shape.iter().map(usize::to_string).collect();
    let tuple = match &dims[..] {
        [one] => format!("({one},)"),
        dims => format!("({})", dims.join(", ")),
    };
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    if let Some(first) = dims.first() {
        dict.push_str(&" ".repeat(GROWTH_DIGITS.saturating_sub(first.len())));
    }
    let fixed = MAGIC.len() + 4;
    let length = (fixed + dict.len() + 1).next_multiple_of(ALIGNMENT) - fixed;
    dict.push_str(&" ".repeat(length - dict.len() - 1));
    dict.push('\n');
    let mut header = Vec::with_capacity(fixed + length);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[1, 0]);
    // 32 dimensions of 20 digits, numpy's most, stay far below 65,536.
    header.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    header.extend_from_slice(dict.as_bytes());
    header
}
