//! Values as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde_json::{Map, Number, Value as Json, json};
use sha2::{Digest, Sha256};
use squall::codec::{Codec, raw_array};
use squall::columns::{column_from_values, element_bytes};
use squall::{DType, Error, Field, Result, Row, Schema, Tensor, Value};

/// How arrays are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrays {
    /// Dtype, shape, and the SHA-256 of the bytes in C order, little-endian.
    Digest,
    /// Nested lists; a complex number is a list of two.
    Values,
}

/// Whether a digest of the field's arrays needs their cells: text has a width there that it loses when it is decoded.
pub(crate) fn needs_cells(field: &Field) -> bool {
    matches!(field.codec, Some(Codec::Ndarray | Codec::CompressedNdarray)) && field.dtype.item_size().is_none()
}

/// A row as an object with a member for each column of `delivered`. Those that [`needs_cells`] of `stored` come encoded where
/// arrays are digested.
pub(crate) fn row(row: &Row, delivered: &Schema, stored: &Schema, arrays: Arrays) -> Result<Json> {
    let member = |(name, cell): (&str, &Value)| {
        let array = match (arrays, delivered.get(name), stored.get(name)) {
            (Arrays::Digest, _, Some(field)) if needs_cells(field) => cell_digest(cell, field)?,
            (Arrays::Digest, Some(field), _) => array_digest(cell, field)?,
            _ => None,
        };
        Ok((name.to_owned(), array.map_or_else(|| value(cell, arrays), Ok)?))
    };
    let members = row.iter().map(member);
    Ok(Json::Object(members.collect::<Result<Map<_, _>>>()?))
}

/// Numbers, strings, booleans and null as they are; arrays as `arrays` says; decimals, dates and times as strings, in ISO
/// form; bytes as base64.
pub(crate) fn value(value: &Value, arrays: Arrays) -> Result<Json> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float32(value) => float32(*value),
        Value::Float64(value) => float64(*value),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!(STANDARD.encode(bytes)),
        Value::Decimal(decimal) => json!(decimal.to_string()),
        Value::Tensor(tensor) => match arrays {
            Arrays::Digest => digest(tensor)?,
            Arrays::Values => nested(&elements(tensor)?, tensor.shape()),
        },
        Value::List(items) => Json::Array(
            items
                .iter()
                .map(|item| self::value(item, arrays))
                .collect::<Result<_>>()?,
        ),
        Value::Struct(members) => {
            let members = members
                .iter()
                .map(|(name, member)| Ok((name.clone(), self::value(member, arrays)?)));
            Json::Object(members.collect::<Result<Map<_, _>>>()?)
        }
        other => match other.to_iso() {
            Some(text) => json!(text),
            None => {
                return Err(Error::unsupported(format!(
                    "a {} outside the years of the ISO form",
                    other.kind()
                )));
            }
        },
    })
}

/// The shortest text that is this `f32` again. JSON has no NaN and no infinity: they are strings.
fn float32(value: f32) -> Json {
    match value.to_string().parse::<f64>() {
        Ok(shortest) if value.is_finite() => float64(shortest),
        _ => json!(value.to_string()),
    }
}

fn float64(value: f64) -> Json {
    Number::from_f64(value).map_or_else(|| json!(value.to_string()), Json::Number)
}

fn digest(tensor: &Tensor) -> Result<Json> {
    let descr = tensor.dtype().descr();
    let descr = descr.ok_or_else(|| Error::internal(format!("a tensor of {}", tensor.dtype())))?;
    let sha256 = Sha256::digest(tensor.data().as_slice());
    Ok(json!({ "dtype": descr, "shape": tensor.shape(), "sha256": hex(&sha256) }))
}

/// The digest of an array that is encoded in a cell; `None` for a null.
fn cell_digest(cell: &Value, field: &Field) -> Result<Option<Json>> {
    let (Value::Bytes(cell), Some(codec)) = (cell, &field.codec) else {
        return Ok(None);
    };
    let array = raw_array(cell, codec).map_err(|error| error.at("column", &field.name))?;
    let sha256 = Sha256::digest(&array.bytes);
    Ok(Some(
        json!({ "dtype": array.descr, "shape": array.shape, "sha256": hex(&sha256) }),
    ))
}

/// The digest of an array that is no tensor; `None` for what is no array.
fn array_digest(cell: &Value, field: &Field) -> Result<Option<Json>> {
    Ok(match (cell, field.dtype, &field.codec) {
        (Value::List(_), dtype @ (DType::Str | DType::Bytes | DType::Date | DType::Datetime { .. }), _) => {
            elements_digest(cell, dtype)
        }
        // A scalar that is encoded is an array of no dimensions.
        (cell, dtype, Some(_)) if dtype.item_size().is_some() && field.shape.is_scalar() && *cell != Value::Null => {
            let column = column_from_values(&Field::scalar(&field.name, dtype), &[cell])?;
            Some(digest(&Tensor::new(dtype, Vec::new(), element_bytes(&column)?)?)?)
        }
        _ => None,
    })
}

/// The digest of an array of text, bytes or times as numpy holds it: elements of one width, for text and bytes the least that
/// holds them all, padded with zeros; text in UCS-4, times in 64 bits.
fn elements_digest(value: &Value, dtype: DType) -> Option<Json> {
    let mut shape = Vec::new();
    let mut items = vec![value];
    while let (Value::List(first), true) = (items.first()?, shape.len() < 32) {
        shape.push(first.len());
        if first.is_empty() {
            items.clear();
            break;
        }
        items = items
            .into_iter()
            .flat_map(|item| if let Value::List(own) = item { &own[..] } else { &[] })
            .collect();
    }
    let units = |item: &&Value| match item {
        Value::Str(text) => Some(
            text.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect::<Vec<u8>>(),
        ),
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Date(days) => Some(i64::from(*days).to_le_bytes().to_vec()),
        Value::Datetime { value, .. } => Some(value.to_le_bytes().to_vec()),
        // numpy's time that is none.
        Value::Null if !matches!(dtype, DType::Str | DType::Bytes) => Some(i64::MIN.to_le_bytes().to_vec()),
        _ => None,
    };
    let items = items.iter().map(units).collect::<Option<Vec<_>>>()?;
    let (kind, unit) = match dtype {
        DType::Str => ("<U", 4),
        DType::Bytes => ("|S", 1),
        _ => ("<M", 8),
    };
    // numpy has no elements of no width.
    let width = items.iter().map(Vec::len).max().unwrap_or(0).max(unit);
    let mut digest = Sha256::new();
    for mut item in items {
        item.resize(width, 0);
        digest.update(item);
    }
    let descr = match dtype {
        DType::Str | DType::Bytes => format!("{kind}{}", width / unit),
        DType::Datetime { unit, .. } => format!("<M8[{unit}]"),
        _ => "<M8[D]".to_owned(),
    };
    Some(json!({ "dtype": descr, "shape": shape, "sha256": hex(&digest.finalize()) }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn elements(tensor: &Tensor) -> Result<Vec<Json>> {
    macro_rules! list {
        ($native:ty, $json:expr) => {
            tensor.as_slice::<$native>()?.iter().map($json).collect()
        };
    }
    Ok(match tensor.dtype() {
        DType::Bool => tensor.data().iter().map(|byte| json!(*byte != 0)).collect(),
        DType::Int8 => list!(i8, |x| json!(x)),
        DType::Int16 => list!(i16, |x| json!(x)),
        DType::Int32 => list!(i32, |x| json!(x)),
        DType::Int64 => list!(i64, |x| json!(x)),
        DType::UInt8 => list!(u8, |x| json!(x)),
        DType::UInt16 => list!(u16, |x| json!(x)),
        DType::UInt32 => list!(u32, |x| json!(x)),
        DType::UInt64 => list!(u64, |x| json!(x)),
        DType::Float16 => list!(half::f16, |x| float32(x.to_f32())),
        DType::Float32 => list!(f32, |x| float32(*x)),
        DType::Float64 => list!(f64, |x| float64(*x)),
        DType::Complex64 => {
            let parts = tensor.data().as_chunks::<8>().0.iter().map(|bytes| {
                let (re, im) = (
                    [bytes[0], bytes[1], bytes[2], bytes[3]],
                    [bytes[4], bytes[5], bytes[6], bytes[7]],
                );
                json!([float32(f32::from_le_bytes(re)), float32(f32::from_le_bytes(im))])
            });
            parts.collect()
        }
        DType::Complex128 => {
            let parts = tensor.data().as_chunks::<8>().0.iter();
            let parts: Vec<_> = parts.map(|part| float64(f64::from_le_bytes(*part))).collect();
            parts.as_chunks::<2>().0.iter().map(|pair| json!(pair)).collect()
        }
        other => return Err(Error::internal(format!("a tensor of {other}"))),
    })
}

fn nested(elements: &[Json], shape: &[usize]) -> Json {
    match shape {
        [] => elements.first().cloned().unwrap_or(Json::Null),
        [_] => Json::Array(elements.to_vec()),
        [n, inner @ ..] => {
            let size = elements.len() / (*n).max(1);
            Json::Array(
                (0..*n)
                    .map(|i| nested(&elements[i * size..(i + 1) * size], inner))
                    .collect(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_digests_or_nested_lists() {
        let tensor = Value::Tensor(Tensor::from_vec(&[2, 2], vec![1.0f32, 2.5, -0.1, f32::NAN]).expect("a tensor"));
        assert_eq!(
            value(&tensor, Arrays::Values).expect("json").to_string(),
            r#"[[1.0,2.5],[-0.1,"NaN"]]"#
        );
        // printf '\x01\x00\x02\x00' | sha256sum
        let tensor = Value::Tensor(Tensor::from_vec(&[2], vec![1i16, 2]).expect("a tensor"));
        let expected = r#"{"dtype":"<i2","shape":[2],"sha256":"SHA"}"#;
        let sha = "7b11c1133330cd161071bf23a0c9b6ce5320a8f3a0f83620035a72be46df4104";
        let found = value(&tensor, Arrays::Digest).expect("json").to_string();
        assert_eq!(found, expected.replace("SHA", sha));
    }

    /// Digests of `numpy.array([["a", "bé"], ["", "c"]])` and `numpy.array([b"a", b"b\0c"])`, by numpy 2.4.
    #[test]
    fn text_is_digested_as_numpy_holds_it() {
        let list = |items: &[&str]| Value::List(items.iter().map(|item| Value::from(*item)).collect());
        let text = Value::List(vec![list(&["a", "bé"]), list(&["", "c"])]);
        let found = elements_digest(&text, DType::Str).expect("a digest").to_string();
        assert_eq!(
            found,
            r#"{"dtype":"<U2","shape":[2,2],"sha256":"d81523acc1a59e1501a5f5e9e5d237d9c37e435a9537438db27ddb2145c28fbe"}"#
        );
        let bytes = Value::List(vec![Value::Bytes(b"a".to_vec()), Value::Bytes(b"b\0c".to_vec())]);
        let found = elements_digest(&bytes, DType::Bytes).expect("a digest").to_string();
        assert_eq!(
            found,
            r#"{"dtype":"|S3","shape":[2],"sha256":"7d7d1d9ec04f7a9c3360ac2f2baf5e8167c4e0946063229fecb1b8120ff083f8"}"#
        );
        assert_eq!(elements_digest(&Value::List(vec![Value::Null]), DType::Str), None);
        // numpy.array(["1970-01-02", "NaT"], "M8[D]")
        let days = Value::List(vec![Value::Date(1), Value::Null]);
        let found = elements_digest(&days, DType::Date).expect("a digest").to_string();
        assert_eq!(
            found,
            r#"{"dtype":"<M8[D]","shape":[2],"sha256":"SHA"}"#.replace(
                "SHA",
                "8bfd453c13278f5fe3040b806e4234aa6aea3377f3abf6ca19ab74dad908b7ae"
            )
        );
    }

    #[test]
    fn scalars_keep_their_text() {
        let text = |cell: Value| value(&cell, Arrays::Digest).expect("json").to_string();
        assert_eq!(text(Value::Float32(0.1)), "0.1");
        assert_eq!(text(Value::UInt(u64::MAX)), "18446744073709551615");
        assert_eq!(text(Value::Bytes(vec![0, 255])), "\"AP8=\"");
        assert_eq!(text(Value::Date(0)), "\"1970-01-01\"");
        assert_eq!(text(Value::Float64(f64::INFINITY)), "\"inf\"");
    }
}
