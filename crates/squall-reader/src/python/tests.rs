//! Digests of what numpy 1.23.5 and 1.26.4 on Python 3.11 print: MD5 of the texts, one a line.

use md5::{Digest, Md5};

use super::*;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn text(value: &Value, dtype: DType) -> String {
    let field = Field::scalar("x", dtype);
    python_str(value, &field).expect("a text").into_owned()
}

fn digest(texts: impl Iterator<Item = String>) -> String {
    let text: Vec<_> = texts.collect();
    let digest = Md5::digest(text.join("\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bit patterns all over the range, every power of two, and numbers around the borders of the scientific form.
#[test]
fn doubles_print_as_numpys() {
    let patterns = (0..100_000).map(|i: u64| f64::from_bits(i.wrapping_mul(GOLDEN)));
    let powers = (-1074..1024).map(|e: i32| 2f64.powi(e.max(-1022)) / 2f64.powi((-1022 - e).max(0)));
    let tenths = (0..10_000).map(|i| f64::from(i) / 10.0);
    let large = (0..20_000).map(|i| f64::from(i) * 1e12);
    let small = (0..3_000).map(|i| f64::from(i) / 1e7);
    let all = patterns.chain(powers).chain(tenths).chain(large).chain(small);
    let found = digest(all.map(|x| text(&x.into(), DType::Float64)));
    assert_eq!(found, "f1ee12ada44238a23efbe2fcd2bd9233");
}

#[test]
fn floats_print_as_numpys() {
    let patterns = (0..100_000).map(|i: u64| f32::from_bits((i.wrapping_mul(GOLDEN) >> 32) as u32));
    let powers = (-149..128).map(|e| 2f64.powi(e) as f32);
    let tenths = (0..10_000u16).map(|i| f32::from(i) / 10.0);
    let large = (0..20_000u16).map(|i| f32::from(i) * 1e12);
    let small = (0..3_000u16).map(|i| f32::from(i) / 1e7);
    let all = patterns.chain(powers).chain(tenths).chain(large).chain(small);
    let found = digest(all.map(|x| text(&x.into(), DType::Float32)));
    assert_eq!(found, "f3fedff0c144f8478b4b9c205c0e1883");
}

/// Every half float there is.
#[test]
fn halves_print_as_numpys() {
    let all = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32());
    let found = digest(all.map(|x| text(&x.into(), DType::Float16)));
    assert_eq!(found, "a64aa44c0727d56ac4cdbab60d31ba9c");
}

#[test]
fn decimals_print_as_pythons() {
    let mut texts = Vec::new();
    for unscaled in [0, 1, 9, 10, 123, 100_000, 1_234_567, 10i128.pow(20)] {
        for scale in 0..30 {
            for sign in if unscaled == 0 { &[1][..] } else { &[1, -1] } {
                let unscaled = i256::from_i128(unscaled * sign);
                let value = Decimal {
                    unscaled,
                    precision: 38,
                    scale,
                };
                texts.push(text(&Value::Decimal(value), DType::Decimal(38, scale)));
            }
        }
    }
    assert_eq!(digest(texts.into_iter()), "9e563a9a66d3cf32a4a3ba5c84a8d558");
}

#[test]
fn bytes_and_text_print_as_numpys() {
    let pairs = (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| vec![a, b]));
    let found = digest(pairs.map(|pair| text(&Value::Bytes(pair), DType::Bytes)));
    assert_eq!(found, "cb28dd6b288232b9a05eaad89d4dcc40");
    assert_eq!(text(&"a\0é\0\0".into(), DType::Str), "a\0é");
}

#[test]
fn times_print_as_numpys() {
    // From 0001-01-01 to 9999-12-31.
    let days = (-719_162..2_932_897).step_by(997).map(Value::Date);
    assert_eq!(
        digest(days.map(|day| text(&day, DType::Date))),
        "7e8547173e2f84e32ec9a7b62bf7980b"
    );
    let (unit, utc) = (TimeUnit::Microsecond, false);
    let times = (-20_000i64..20_000).step_by(7).map(|i| i * 1_234_567_891_234);
    let found = digest(times.map(|value| text(&Value::Datetime { value, unit, utc }, DType::Datetime { unit, utc })));
    assert_eq!(found, "6f73ad98b6638f72384bb3ebdb5de836");
    // pandas cuts nanoseconds off, towards the past.
    let (unit, utc) = (TimeUnit::Nanosecond, true);
    let before = Value::Datetime { value: -1, unit, utc };
    assert_eq!(
        text(&before, DType::Datetime { unit, utc }),
        "1969-12-31T23:59:59.999999"
    );
}

#[test]
fn the_rest_prints_as_pythons_or_is_refused() {
    assert_eq!(text(&true.into(), DType::Bool), "True");
    assert_eq!(text(&Value::Null, DType::Str), "None");
    assert_eq!(text(&Value::Null, DType::Float32), "nan");
    assert_eq!(text(&u64::MAX.into(), DType::UInt64), "18446744073709551615");
    let refused = |value: Value, dtype| python_str(&value, &Field::scalar("x", dtype)).expect_err("refused");
    let (unit, utc) = (TimeUnit::Second, false);
    refused(Value::Null, DType::Datetime { unit, utc });
    refused(
        Value::Datetime {
            value: i64::MAX,
            unit,
            utc,
        },
        DType::Datetime { unit, utc },
    );
    refused(Value::Date(2_932_897), DType::Date);
    refused(Value::Date(-719_163), DType::Date);
    refused(Value::List(Vec::new()), DType::Str);
}
