use arrow_buffer::i256;
use proptest::prelude::*;
use squall_schema::{Decimal, TimeUnit};

use super::*;

fn fractions() -> impl Strategy<Value = Vec<f64>> {
    // Of a sum of 1, or somewhat less.
    prop::collection::vec(0u32..100, 1..6).prop_filter_map("a sum", |parts| {
        let sum: u32 = parts.iter().sum();
        (sum > 0).then(|| parts.iter().map(|part| f64::from(*part) / f64::from(sum)).collect())
    })
}

proptest! {
    /// Each row, and each value, is in exactly one subset.
    #[test]
    fn subsets_partition_the_rows(fractions in fractions(), seed: u64, piece: u32, row: u64, text: String) {
        let subsets = || 0..fractions.len();
        let buckets = |subset| Split::by_row(fractions.clone(), subset).seed(seed).buckets().expect("a split");
        prop_assert_eq!(subsets().filter(|subset| buckets(*subset).has_row(piece, row)).count(), 1);
        let value = Value::from(text.as_str());
        prop_assert_eq!(subsets().filter(|subset| buckets(*subset).has_value(&value).expect("text")).count(), 1);
        let petastorm = |subset| PetastormBuckets::new(&fractions, subset).expect("a split");
        prop_assert!(subsets().filter(|subset| petastorm(*subset).has(&text)).count() <= 1);
    }

    #[test]
    fn what_is_left_of_1_is_in_no_subset(row: u64) {
        let buckets = |fractions: &[f64], subset| Split::by_row(fractions, subset).buckets().expect("a split");
        let halves = [buckets(&[0.5, 0.5], 0), buckets(&[0.5, 0.5], 1)].map(|half| half.has_row(3, row));
        prop_assert_eq!(buckets(&[0.25, 0.25], 0).has_row(3, row) || buckets(&[0.25, 0.25], 1).has_row(3, row), halves[0]);
        prop_assert!(halves[0] != halves[1]);
    }
}

#[test]
fn sizes_are_those_asked_for() {
    let buckets = Split::by_row([0.8, 0.1, 0.1], 1).seed(3).buckets().expect("a split");
    let n = (0..100_000).filter(|row| buckets.has_row(7, *row)).count();
    // Five standard deviations of a binomial distribution.
    assert!((9_525..10_475).contains(&n), "{n}");
}

#[test]
fn the_same_value_has_the_same_bytes() {
    let bytes = |value: Value| hashed_bytes(&value).expect("a scalar").into_owned();
    assert_eq!(bytes(5i8.into()), b"5");
    assert_eq!(bytes(5u64.into()), bytes(5i64.into()));
    assert_eq!(bytes(0.5f32.into()), bytes(0.5f64.into()));
    assert_eq!(bytes((-0.0f64).into()), [0; 8]);
    assert_eq!(bytes(f32::NAN.into()), bytes((-f64::NAN).into()));
    let time = |value, unit| Value::Datetime {
        value,
        unit,
        utc: false,
    };
    assert_eq!(bytes(time(-2, TimeUnit::Second)), b"-2000000000");
    assert_eq!(
        bytes(time(-2, TimeUnit::Second)),
        bytes(time(-2_000, TimeUnit::Millisecond))
    );
    assert_eq!(bytes(Value::Date(18_262)), b"18262");
    assert_eq!(bytes(true.into()), b"true");
    assert_eq!(bytes(Value::Null), b"");
    let unscaled = i256::from_i128(-1750);
    assert_eq!(
        bytes(Value::Decimal(Decimal {
            unscaled,
            precision: 9,
            scale: 3
        })),
        b"-1.75"
    );
    assert!(hashed_bytes(&Value::List(Vec::new())).is_err());
}

#[test]
fn fractions_are_checked() {
    let message = |fractions: &[f64], subset| match Split::by_row(fractions, subset).buckets() {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(message(&[0.7, 0.2, 0.1], 2), "fine");
    assert_eq!(
        message(&[0.8, 0.2], 2),
        "expected a subset below the number of fractions, 2, found 2"
    );
    assert_eq!(message(&[1.5, -0.5], 0), "expected fractions from 0 to 1, found 1.5");
    assert_eq!(message(&[f64::NAN], 0), "expected fractions from 0 to 1, found NaN");
    let expected = "expected fractions that sum to at most 1, found [0.75, 0.5], which sum to 1.25";
    assert_eq!(message(&[0.75, 0.5], 0), expected);
    let seventh = Split::by_row([0.7, 0.2, 0.1], 2).buckets().expect("a split");
    assert_eq!(seventh.range.end, 1 << 64);
}

/// Computed with hashlib of Python.
#[test]
fn buckets_are_those_of_petastorm() {
    let vectors = [
        ("a", 5_424_169_405_281_637_297),
        ("1", 1_684_580_506_825_903_010),
        ("guid_7", 31_016_307_352_302_394),
        ("", 1_277_653_728_798_287_499),
        ("None", 3_055_081_712_287_350_781),
        ("nan", 7_896_581_706_763_570_385),
        ("True", 7_191_119_041_185_571_731),
        ("0.1", 6_208_107_504_583_773_291),
        ("1e+16", 8_823_503_747_244_521_807),
        ("-7", 3_915_006_679_658_872_399),
        ("é漢", 2_823_877_114_057_232_665),
        ("b'x\\xff'", 4_458_062_318_948_489_966),
        ("2020-01-01T00:00:00.000000", 7_579_629_077_744_628_438),
        ("0E-9", 8_002_379_194_472_374_662),
        ("18446744073709551615", 7_470_724_296_935_536_141),
    ];
    for (text, bucket) in vectors {
        assert_eq!(petastorm_bucket(text), bucket, "{text:?}");
    }
}

/// Borders as `math.ceil(sum(fractions[:n]) * (sys.maxsize - 1))` gives them in Python 3.11.
#[test]
fn borders_are_those_of_petastorm() {
    let border = |fractions: &[f64], subset| PetastormBuckets::new(fractions, subset).expect("a split").0;
    assert_eq!(
        border(&[0.5, 0.5], 1),
        4_611_686_018_427_387_904..9_223_372_036_854_775_808
    );
    assert_eq!(
        border(&[0.8, 0.1, 0.1], 2),
        8_301_034_833_169_298_432..9_223_372_036_854_775_808
    );
    assert_eq!(
        border(&[0.7, 0.2, 0.1], 2),
        8_301_034_833_169_297_408..9_223_372_036_854_774_784
    );
    assert_eq!(
        border(&[0.1; 10], 9),
        8_301_034_833_169_297_408..9_223_372_036_854_774_784
    );
    assert_eq!(
        border(&[1.0 / 3.0; 3], 2),
        6_148_914_691_236_516_864..9_223_372_036_854_775_808
    );
    assert_eq!(
        border(&[0.05, 0.9], 1),
        461_168_601_842_738_816..8_762_203_435_012_037_632
    );
}
