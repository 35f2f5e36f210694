//! When two values are the same to Python, whatever their dtypes: what `in` asks of a set.
//!
//! Numbers are compared by value and exactly, so that `1`, `1.0`, `True` and `Decimal('1.00')` are one key and the `float32`
//! next to 0.1 is not that of 0.1. `nan` equals nothing.

use arrow_buffer::i256;
use squall_schema::{DType, Tensor};
use squall_schema::{Decimal, Element, Error, Result, TimeUnit, Value};

/// Most digits of a decimal behind the point.
const MAX_SCALE: usize = 76;

/// A value that is compared and hashed as Python does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Null,
    /// A number without a fraction, of any dtype.
    Int(i128),
    /// The bits of a `float64` that no [`Key::Int`] holds.
    Float(u64),
    /// A decimal that no [`Key::Int`] holds: digits, and how many of them stand behind the point, the last not 0.
    Decimal(i256, i8),
    Str(String),
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Nanoseconds since 1970-01-01.
    Time(i128),
}

impl Key {
    /// The key of a scalar; `None` for `nan`. Arrays have none.
    pub(crate) fn of(value: &Value) -> Result<Option<Self>> {
        Ok(Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Int((*value).into()),
            Value::Int(value) => Self::Int((*value).into()),
            Value::UInt(value) => Self::Int((*value).into()),
            Value::Float32(value) => return Ok(Self::float(f64::from(*value))),
            Value::Float64(value) => return Ok(Self::float(*value)),
            Value::Str(text) => Self::Str(text.clone()),
            Value::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Value::Decimal(value) => Self::decimal(value.unscaled, value.scale),
            Value::Date(days) => Self::Date(*days),
            Value::Datetime { value, unit, .. } => Self::Time(nanoseconds(*value, *unit)),
            other => {
                return Err(Error::unsupported(format!(
                    "expected a scalar to compare, found {}",
                    other.kind()
                )));
            }
        }))
    }

    /// The keys of all values that equal this one: a `float64` may be a decimal too.
    pub(crate) fn all_of(value: &Value) -> Result<Vec<Self>> {
        let Some(key) = Self::of(value)? else {
            return Ok(Vec::new());
        };
        let other = match &key {
            Self::Float(bits) => as_decimal(f64::from_bits(*bits)),
            Self::Decimal(unscaled, scale) => as_float(*unscaled, *scale),
            _ => None,
        };
        Ok([key].into_iter().chain(other).collect())
    }

    fn float(value: f64) -> Option<Self> {
        // Above, an i128 does not hold all of them: they stay floats, as decimals stay decimals.
        if value.fract() == 0.0 && value.abs() < 2f64.powi(126) {
            return Some(Self::Int(value as i128));
        }
        (!value.is_nan()).then_some(Self::Float(value.to_bits()))
    }

    fn decimal(mut unscaled: i256, mut scale: i8) -> Self {
        let ten = i256::from_i128(10);
        while scale > 0 && unscaled.wrapping_rem(ten) == i256::ZERO {
            unscaled = unscaled.wrapping_div(ten);
            scale -= 1;
        }
        while scale < 0 {
            let Some(larger) = unscaled.checked_mul(ten) else { break };
            unscaled = larger;
            scale += 1;
        }
        match unscaled.to_i128() {
            Some(value) if scale == 0 && value.unsigned_abs() < 1 << 126 => Self::Int(value),
            _ => Self::Decimal(unscaled, scale),
        }
    }
}

/// A float as a decimal of the same value, if there is one.
fn as_decimal(value: f64) -> Option<Key> {
    if !value.is_finite() {
        return None;
    }
    // Exact: a float64 has at most 1,074 digits behind the point.
    let text = format!("{value:.1074}");
    let (whole, fraction) = text.split_once('.')?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > MAX_SCALE {
        return None;
    }
    let unscaled = i256::from_string(&format!("{whole}{fraction}"))?;
    Some(Key::decimal(unscaled, i8::try_from(fraction.len()).ok()?))
}

/// A decimal as a float of the same value, if there is one.
fn as_float(unscaled: i256, scale: i8) -> Option<Key> {
    let value: f64 = format!("{unscaled}e{}", -i32::from(scale)).parse().ok()?;
    let exact = as_decimal(value)? == Key::Decimal(unscaled, scale);
    exact.then_some(Key::Float(value.to_bits()))
}

/// A time in the finest unit.
pub(crate) fn nanoseconds(value: i64, unit: TimeUnit) -> i128 {
    let factor = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i128::from(value) * factor
}

/// Whether `found` is true for the key of one of the elements, of lists of lists too. A scalar is one element.
pub(crate) fn any_element(value: &Value, found: &impl Fn(&Key) -> bool) -> Result<bool> {
    match value {
        Value::Null => Ok(false),
        Value::List(items) => {
            for item in items {
                let holds = match item {
                    Value::Null => found(&Key::Null),
                    item => any_element(item, found)?,
                };
                if holds {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Tensor(tensor) => any_in_tensor(tensor, found),
        scalar => Ok(Key::of(scalar)?.as_ref().is_some_and(found)),
    }
}

fn any_in_tensor(tensor: &Tensor, found: &impl Fn(&Key) -> bool) -> Result<bool> {
    fn ints<T: Element + Into<i128>>(tensor: &Tensor, found: &impl Fn(&Key) -> bool) -> Result<bool> {
        Ok(tensor.as_slice::<T>()?.iter().any(|x| found(&Key::Int((*x).into()))))
    }
    fn floats<T: Element + Into<f64>>(tensor: &Tensor, found: &impl Fn(&Key) -> bool) -> Result<bool> {
        let mut elements = tensor.as_slice::<T>()?.iter();
        Ok(elements.any(|x| Key::float((*x).into()).as_ref().is_some_and(found)))
    }
    match tensor.dtype() {
        DType::Bool => Ok(tensor.data().iter().any(|x| found(&Key::Int((*x).into())))),
        DType::Int8 => ints::<i8>(tensor, found),
        DType::Int16 => ints::<i16>(tensor, found),
        DType::Int32 => ints::<i32>(tensor, found),
        DType::Int64 => ints::<i64>(tensor, found),
        DType::UInt8 => ints::<u8>(tensor, found),
        DType::UInt16 => ints::<u16>(tensor, found),
        DType::UInt32 => ints::<u32>(tensor, found),
        DType::UInt64 => ints::<u64>(tensor, found),
        DType::Float16 => floats::<half::f16>(tensor, found),
        DType::Float32 => floats::<f32>(tensor, found),
        DType::Float64 => floats::<f64>(tensor, found),
        DType::Date | DType::Datetime { .. } => {
            let width = tensor.dtype().item_size().unwrap_or(8);
            let mut elements = tensor
                .data()
                .chunks_exact(width)
                .map(|bytes| time(bytes, tensor.dtype()));
            Ok(elements.any(|key| key.as_ref().is_some_and(found)))
        }
        other => Err(Error::unsupported(format!(
            "elements of dtype {other} are not compared"
        ))),
    }
}

/// An element of a tensor of dates or times.
fn time(bytes: &[u8], dtype: DType) -> Option<Key> {
    match dtype {
        DType::Datetime { unit, .. } => {
            let value = i64::from_le_bytes(bytes.try_into().ok()?);
            Some(Key::Time(nanoseconds(value, unit)))
        }
        _ => Some(Key::Date(i32::from_le_bytes(bytes.try_into().ok()?))),
    }
}

/// A decimal as plain digits, without those that say nothing.
pub(crate) fn plain_decimal(value: &Decimal) -> String {
    let text = value.to_string();
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(unscaled: i128, scale: i8) -> Value {
        Value::Decimal(Decimal {
            unscaled: i256::from_i128(unscaled),
            precision: 38,
            scale,
        })
    }

    /// What Python says of `a in {b}`, each way round.
    #[test]
    fn values_are_equal_where_pythons_are() {
        let time = |value, unit| Value::Datetime { value, unit, utc: true };
        let big = 9_007_199_254_740_993i64;
        let cases = [
            (Value::Int(1), Value::Float64(1.0), true),
            (Value::Bool(true), Value::Int(1), true),
            (Value::UInt(u64::MAX), Value::Int(-1), false),
            (Value::Float32(0.1), Value::Float64(0.1), false),
            (Value::Float32(0.5), Value::Float64(0.5), true),
            (Value::Int(big), Value::Float64(big as f64), false),
            (Value::Float64(-0.0), Value::Int(0), true),
            (Value::Float64(f64::NAN), Value::Float64(f64::NAN), false),
            (Value::Float64(f64::INFINITY), Value::Float32(f32::INFINITY), true),
            (decimal(100, 2), Value::Int(1), true),
            (decimal(150, 2), Value::Float64(1.5), true),
            (decimal(150, 2), decimal(15, 1), true),
            (decimal(1, 1), Value::Float64(0.1), false),
            (decimal(3, -2), Value::Int(300), true),
            (Value::from("1"), Value::Int(1), false),
            (Value::from("a"), Value::Bytes(b"a".to_vec()), false),
            (Value::Null, Value::Null, true),
            (time(1, TimeUnit::Second), time(1_000_000, TimeUnit::Microsecond), true),
            (time(0, TimeUnit::Second), Value::Date(0), false),
        ];
        for (a, b, expected) in cases {
            for (a, b) in [(&a, &b), (&b, &a)] {
                let set = Key::all_of(a).expect("keys");
                let found = Key::of(b).expect("a key").is_some_and(|key| set.contains(&key));
                assert_eq!(found, expected, "{a:?} {b:?}");
            }
        }
        assert!(Key::of(&Value::List(Vec::new())).is_err());
    }

    #[test]
    fn elements_are_found_in_arrays() {
        let has = |value: Value, key: Key| any_element(&value, &|own| *own == key).expect("a comparison");
        let tensor = Tensor::from_vec(&[2, 2], vec![1u8, 2, 3, 200]).expect("a tensor");
        assert!(has(tensor.clone().into(), Key::Int(200)) && !has(tensor.into(), Key::Int(4)));
        let tensor = Tensor::from_vec(&[1], vec![half::f16::from_f32(0.5)]).expect("a tensor");
        assert!(has(tensor.into(), Key::Float(0.5f64.to_bits())));
        let text = |text: &str| Key::Str(text.into());
        let list = Value::List(vec![
            Value::List(vec!["a".into()]),
            Value::List(vec![Value::Null, "b".into()]),
        ]);
        assert!(has(list.clone(), text("b")) && has(list.clone(), Key::Null) && !has(list, text("c")));
        assert!(!has(Value::Null, Key::Null) && has("a".into(), text("a")));
    }

    #[test]
    fn zeros_at_the_end_of_a_decimal_say_nothing() {
        let text = |unscaled, scale| match decimal(unscaled, scale) {
            Value::Decimal(value) => plain_decimal(&value),
            _ => String::new(),
        };
        assert_eq!(
            [text(150, 2), text(100, 2), text(100, 0), text(-5, 3)],
            ["1.5", "1", "100", "-0.005"]
        );
    }
}
