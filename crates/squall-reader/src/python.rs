//! `str(value)` of Python, for the values that Petastorm's `make_reader` yields.
//!
//! Petastorm hashes this text to split a dataset, so it must be the same to the last character: that of numpy's scalars in
//! numpy 1.23 and 1.26, of `decimal.Decimal` and of `None`.

use std::borrow::Cow;
use std::fmt::Write;

use arrow_buffer::i256;
use half::f16;
use squall_schema::{DType, Decimal, Error, Field, Result, TimeUnit, Value};

use crate::equal::nanoseconds;

/// Python's text of a scalar of `field`. Of arrays it depends on numpy's print options; they are refused.
pub(crate) fn python_str<'a>(value: &'a Value, field: &Field) -> Result<Cow<'a, str>> {
    let text = match value {
        Value::Null => match field.dtype {
            // A null in a column of floats is nan in pandas.
            DType::Float16 | DType::Float32 | DType::Float64 => "nan",
            DType::Datetime { .. } => return Err(Error::unsupported("Petastorm fails where a time is null")),
            _ => "None",
        }
        .into(),
        Value::Bool(value) => if *value { "True" } else { "False" }.into(),
        Value::Int(value) => value.to_string().into(),
        Value::UInt(value) => value.to_string().into(),
        Value::Float32(value) if field.dtype == DType::Float16 => float(&half_digits(*value), f64::from(*value)).into(),
        Value::Float32(value) => {
            let exactly = |digits| format!("{value:.digits$e}");
            let digits = even_digits(format!("{value:e}"), exactly, |text| text.parse() == Ok(*value));
            float(&digits, f64::from(*value)).into()
        }
        Value::Float64(value) => {
            let exactly = |digits| format!("{value:.digits$e}");
            let digits = even_digits(format!("{value:e}"), exactly, |text| text.parse() == Ok(*value));
            float(&digits, *value).into()
        }
        // numpy pads text and bytes with NUL, and takes it off again.
        Value::Str(text) => text.trim_end_matches('\0').into(),
        Value::Bytes(value) => bytes(value).into(),
        Value::Decimal(value) => decimal(value).into(),
        Value::Date(_) => iso(value, 10)?.into(),
        Value::Datetime { value, unit, .. } => {
            // pandas' times become microseconds in numpy's.
            let micros = nanoseconds(*value, *unit).div_euclid(1000);
            let out_of_range = || Error::unsupported("a time outside the years 1 to 9999");
            let second = Value::Datetime {
                value: i64::try_from(micros.div_euclid(1_000_000)).map_err(|_| out_of_range())?,
                unit: TimeUnit::Second,
                utc: false,
            };
            format!("{}.{:06}", iso(&second, 19)?, micros.rem_euclid(1_000_000)).into()
        }
        other => {
            return Err(Error::unsupported(format!(
                "Python's text of {} is not defined: it depends on how numpy prints arrays",
                other.kind()
            )));
        }
    };
    Ok(text)
}

/// A date or a time; those of years of other than four digits, which Python's dates do not have, are longer.
fn iso(value: &Value, length: usize) -> Result<String> {
    let text = value
        .to_iso()
        .filter(|text| text.len() == length && !text.starts_with("0000"));
    text.ok_or_else(|| Error::unsupported("a time outside the years 1 to 9999"))
}

/// numpy's text of a float, from the shortest digits that tell it from its neighbours, such as `1.25e-7`.
fn float(shortest: &str, value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let (mantissa, exponent) = shortest
        .trim_start_matches('-')
        .split_once('e')
        .unwrap_or((shortest, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let minus = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{minus}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat(-exponent as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let n_whole = exponent as usize + 1;
    if digits.len() <= n_whole {
        return format!("{sign}{digits}{}.0", "0".repeat(n_whole - digits.len()));
    }
    let (whole, fraction) = digits.split_at(n_whole);
    format!("{sign}{whole}.{fraction}")
}

/// The shortest digits that tell a number from its neighbours, as numpy's Dragon4 picks them. `shortest` has as few,
/// but where the number is in the middle of two such texts, numpy takes that with the even digit.
fn even_digits(shortest: String, exactly: impl Fn(usize) -> String, is_same: impl Fn(&str) -> bool) -> String {
    let n_digits = shortest
        .bytes()
        .take_while(|byte| *byte != b'e')
        .filter(u8::is_ascii_digit)
        .count();
    let even = exactly(n_digits.max(1) - 1);
    if is_same(&even) { even } else { shortest }
}

/// The shortest digits that tell a `float16` from its neighbours.
fn half_digits(value: f32) -> String {
    let is_same = |text: &str| {
        let parsed: Result<f64, _> = text.parse();
        parsed.is_ok_and(|parsed| f16::from_f64(parsed).to_f32() == value)
    };
    // Five digits tell any two of them apart. The nearest of so many may lie outside where the next of them does not: the
    // neighbours of a power of two are not equally far.
    for digits in 0..5 {
        let nearest = format!("{value:.digits$e}");
        let next = |step: i32| {
            let (mantissa, exponent) = nearest.split_once('e')?;
            let mantissa: i32 = mantissa.replace('.', "").parse().ok()?;
            let exponent: i32 = exponent.parse().ok()?;
            let text = format!("{:e}", f64::from(mantissa + step));
            let (mantissa, shift) = text.split_once('e')?;
            let shift: i32 = shift.parse().ok()?;
            Some(format!("{mantissa}e{}", exponent - digits as i32 + shift))
        };
        let texts = [Some(nearest.clone()), next(-1), next(1)];
        if let Some(text) = texts.into_iter().flatten().find(|text| is_same(text)) {
            return text;
        }
    }
    format!("{value:e}")
}

/// `repr` of bytes, without the NULs at their end.
fn bytes(value: &[u8]) -> String {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let value = &value[..end];
    let quote = if value.contains(&b'\'') && !value.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut text = format!("b{quote}");
    for byte in value {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            byte if char::from(*byte) == quote => {
                text.push('\\');
                text.push(quote);
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push(quote);
    text
}

/// "to-scientific-string" of the General Decimal Arithmetic Specification, which Python's `decimal` follows.
fn decimal(value: &Decimal) -> String {
    let sign = if value.unscaled < i256::ZERO { "-" } else { "" };
    let digits = value.unscaled.to_string();
    let digits = digits.trim_start_matches('-');
    let exponent = -i32::from(value.scale);
    let left = exponent + digits.len() as i32;
    if exponent <= 0 && left > -6 {
        if exponent == 0 {
            return format!("{sign}{digits}");
        }
        if left <= 0 {
            return format!("{sign}0.{}{digits}", "0".repeat(-left as usize));
        }
        let (whole, fraction) = digits.split_at(left as usize);
        return format!("{sign}{whole}.{fraction}");
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}E{:+}", left - 1)
}

#[cfg(test)]
mod tests;
