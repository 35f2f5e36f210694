//! Single values in a pickle: Python's, and numpy's in the two ways of pickling them.

use arrow_array::types::{
    Date32Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_buffer::i256;
use arrow_cast::parse::Parser;

use super::object::Objects;
use super::pickle::{Id, Node};
use crate::codec::npy_scalar;
use crate::{Decimal, TimeUnit, Value};

/// A scalar, such as the key of an index: a numpy scalar in the way of numpy's pickles or as a call of its class, or a plain value.
pub(super) fn scalar(objects: Objects<'_>, id: Id) -> Option<Value> {
    match objects.node(id) {
        Node::None => return Some(Value::Null),
        Node::Bool(value) => return Some(Value::Bool(*value)),
        Node::Int(value) => return Some(Value::Int(*value)),
        Node::Long(bytes) => {
            let (low, high) = bytes.split_at_checked(8)?;
            let fits = high.iter().all(|byte| *byte == 0);
            return fits.then(|| low.try_into().map(u64::from_le_bytes).map(Value::UInt).ok())?;
        }
        Node::Float(value) => return Some(Value::Float64(*value)),
        Node::Str(text) => return Some(Value::Str(text.clone())),
        Node::Bytes(bytes) => return Some(Value::Bytes(bytes.clone())),
        _ => {}
    }
    let made = objects.made(id)?;
    match (made.class, made.arguments) {
        ("scalar", [dtype, data]) if made.module.ends_with("multiarray") => {
            npy_scalar(&descr(objects, *dtype)?, &bytes(objects, *data)?).ok()
        }
        ("Decimal", [text]) => decimal(objects.text(*text)?),
        ("datetime64", [text, unit @ ..]) => {
            let unit = unit.first().and_then(|unit| objects.text(*unit));
            datetime(objects.text(*text)?, unit)
        }
        ("bytes_", [_]) => bytes(objects, made.arguments[0]).map(Value::Bytes),
        ("float16" | "float32", [value]) => match objects.node(*value) {
            Node::Float(value) => Some(Value::Float32(*value as f32)),
            _ => None,
        },
        // A call of a numpy class.
        (_, [value]) if made.module == "numpy" && !matches!(objects.node(*value), Node::Object(_)) => {
            scalar(objects, *value)
        }
        _ => None,
    }
}

/// numpy's descriptor of a pickled `numpy.dtype`: kind and width are its argument, the byte order is in its state.
fn descr(objects: Objects<'_>, id: Id) -> Option<String> {
    let made = objects.made(id)?;
    let kind = objects.text(*made.arguments.first()?)?;
    let state = objects.sequence(made.state?)?;
    let order = objects.text(*state.get(1)?)?;
    if kind != "M8" {
        return Some(format!("{order}{kind}"));
    }
    // The unit is the first of (unit, multiple, divisor, events).
    let metadata = objects.sequence(*state.get(8)?)?;
    let unit = objects.sequence(*metadata.get(1)?)?;
    let multiple = unit.get(1).map(|id| objects.node(*id));
    let unit = String::from_utf8(bytes(objects, *unit.first()?)?).ok()?;
    matches!(multiple, Some(Node::Int(1))).then(|| format!("{order}M8[{unit}]"))
}

/// Bytes, in whatever way the protocol has for them.
fn bytes(objects: Objects<'_>, id: Id) -> Option<Vec<u8>> {
    match objects.node(id) {
        Node::Bytes(bytes) => return Some(bytes.clone()),
        // A byte string of Python 2.
        Node::Str(text) => return Some(text.clone().into_bytes()),
        _ => {}
    }
    let made = objects.made(id)?;
    match (made.module, made.class, made.arguments) {
        // Python 3 in protocol 2: text, encoded in Latin-1.
        ("_codecs", "encode", [text, _]) => {
            let codes = objects.text(*text)?.chars().map(|c| u8::try_from(u32::from(c)).ok());
            codes.collect()
        }
        ("builtins" | "__builtin__", "bytes", []) => Some(Vec::new()),
        ("builtins" | "__builtin__", "bytes", [list]) => {
            let byte = |id: &Id| match objects.node(*id) {
                Node::Int(byte) => u8::try_from(*byte).ok(),
                _ => None,
            };
            objects.sequence(*list)?.iter().map(byte).collect()
        }
        _ => None,
    }
}

pub(super) fn decimal(text: &str) -> Option<Value> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    Some(Value::Decimal(Decimal {
        unscaled: i256::from_string(&digits)?,
        precision: u8::try_from(digits.trim_start_matches('-').len()).ok()?,
        scale: i8::try_from(fraction.len()).ok()?,
    }))
}

fn datetime(text: &str, unit: Option<&str>) -> Option<Value> {
    let (value, unit) = match unit {
        None | Some("D") => return Date32Type::parse(text).map(Value::Date),
        Some("s") => (TimestampSecondType::parse(text)?, TimeUnit::Second),
        Some("ms") => (TimestampMillisecondType::parse(text)?, TimeUnit::Millisecond),
        Some("us") => (TimestampMicrosecondType::parse(text)?, TimeUnit::Microsecond),
        Some("ns") => (TimestampNanosecondType::parse(text)?, TimeUnit::Nanosecond),
        _ => return None,
    };
    Some(Value::Datetime {
        value,
        unit,
        utc: false,
    })
}
