//! Directory names, as text and as values.

use super::*;

fn check(paths: &[&str], expected: &str) {
    let parsed: Vec<_> = paths.iter().map(|path| (*path, parse(path))).collect();
    let fields = infer(&parsed.iter().map(|(path, map)| (*path, map)).collect::<Vec<_>>());
    let text = match fields {
        Ok(fields) => fields.iter().map(Field::to_string).collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string(),
    };
    assert_eq!(text, expected);
}

#[test]
fn types_are_inferred_from_all_values() {
    check(
        &["a=1/x", "a=007/x", "a=__HIVE_DEFAULT_PARTITION__/x"],
        "a: int32 nullable",
    );
    check(&["a=1/x", "a=3000000000/x"], "a: int64");
    check(&["a=1/b=x%20y/f", "a=1.5/b=2/f"], "a: float64, b: str");
    check(&["d=2024-02-29/x", "d=1969-12-31/x"], "d: datetime64[D]");
    check(&["d=2023-02-29/x", "d=nan/x"], "d: str");
    check(&["a=__HIVE_DEFAULT_PARTITION__/x"], "a: str nullable");
    check(&["x", "y"], "");
    check(
        &["a=1/x", "y"],
        "the directories do not agree on the partition columns: expected [a] as in a=1/x, found [] (file y)",
    );
}

/// What Spark 3.5.9 and 4.0.5 infer, in UTC: lines of the values, the type, and the values as Spark prints them, sorted.
#[test]
fn types_and_values_are_those_of_spark() {
    for line in include_str!("../../tests/partitions.jsonl").lines() {
        let (values, spark, printed): (Vec<String>, String, Vec<String>) =
            serde_json::from_str(line).expect("a line of values");
        let paths = values.iter().filter(|value| !value.is_empty());
        let paths: Vec<_> = paths.map(|value| format!("p={value}/x")).collect();
        let parsed: Vec<_> = paths.iter().map(|path| (path.as_str(), parse(path))).collect();
        let fields = infer(&parsed.iter().map(|(path, map)| (*path, map)).collect::<Vec<_>>());
        let field = fields.expect("a field").remove(0);
        // Without a value there is no type; and numbers in hexadecimal and years before 0 stay text.
        let expected = match (spark.as_str(), values[0].as_str()) {
            ("void", _) | (_, "0x1p3" | "-2024-01-31") => "str".to_owned(),
            ("int", _) => "int32".to_owned(),
            ("bigint", _) => "int64".to_owned(),
            ("double", _) => "float64".to_owned(),
            ("string", _) => "str".to_owned(),
            ("date", _) => "datetime64[D]".to_owned(),
            ("timestamp", _) => "datetime64[us, UTC]".to_owned(),
            (decimal, _) => decimal.replace(',', ", "),
        };
        assert_eq!(field.dtype.to_string(), expected, "{line}");
        let print = |(_, map): &(&str, IndexMap<String, Option<String>>)| {
            let value = value(map["p"].as_deref(), &field, TimeZone::default()).expect("a value");
            match &value {
                Value::Null => "None".to_owned(),
                Value::Int(value) => value.to_string(),
                Value::Decimal(value) => value.to_string(),
                Value::Str(text) => text.clone(),
                Value::Float64(value) => format!("{value:?}"),
                time => {
                    let text = time.to_iso().expect("a time").replace('T', " ");
                    text.trim_end_matches('Z').replace(".500", ".5")
                }
            }
        };
        let mut found: Vec<_> = parsed.iter().map(print).collect();
        found.sort();
        match expected.as_str() {
            "float64" => {
                let numbers = |texts: &[String]| -> Vec<f64> {
                    texts
                        .iter()
                        .map(|text| text.replace("Infinity", "inf").parse().expect("a number"))
                        .collect()
                };
                let bits = |numbers: Vec<f64>| numbers.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(numbers(&found)), bits(numbers(&printed)), "{line}");
            }
            "str" if spark != "string" => {}
            _ => assert_eq!(found, printed, "{line}"),
        }
    }
}

#[test]
fn declared_decimals_and_zones() {
    let decimal = |text, precision, scale| decimal(text, precision, scale).map(|value| value.to_string());
    for (text, precision, scale, expected) in [
        ("1.5", 5, 2, Some("1.50")),
        ("-1.500", 5, 2, Some("-1.50")),
        ("1.505", 5, 2, None),
        ("1234", 5, 2, None),
        ("0", 1, 0, Some("0")),
        ("0.00", 3, 2, Some("0.00")),
        ("1e2", 5, 2, Some("100.00")),
        ("1e999999999", 5, 2, None),
        ("1e-999999999", 5, 2, None),
        ("1e99999999999", 5, 2, None),
        ("x", 5, 2, None),
        ("", 5, 2, None),
    ] {
        assert_eq!(decimal(text, precision, scale).as_deref(), expected, "{text}");
    }
    let instant = |text, zone: &str, utc| {
        let unit = TimeUnit::Microsecond;
        let field = Field::scalar("t", DType::Datetime { unit, utc });
        value(Some(text), &field, zone.parse().expect("a zone")).map(|value| value.to_iso())
    };
    let iso = |text: &str| Some(text.to_owned());
    assert_eq!(
        instant("2024-07-01 12:00:00", "Europe/Zurich", true).expect("a time"),
        iso("2024-07-01T10:00:00Z")
    );
    assert_eq!(
        instant("2024-07-01", "-03:30", true).expect("a time"),
        iso("2024-07-01T03:30:00Z")
    );
    assert_eq!(
        instant("2024-07-01 12:00:00", "Europe/Zurich", false).expect("a time"),
        iso("2024-07-01T12:00:00")
    );
    let error = instant("2024-07-01 12:00", "UTC", true)
        .expect_err("no time")
        .to_string();
    assert_eq!(
        error,
        "the partition value \"2024-07-01 12:00\" is not a datetime64[us, UTC] (column t)"
    );
}

#[test]
fn values_are_decoded() {
    assert_eq!(parse("k%3D=x%2Fy%20z/f")["k="], Some("x/y z".to_owned()));
    assert_eq!(days("1970-01-01"), Some(0));
    assert_eq!(days("2000-03-01"), Some(11_017));
    assert_eq!(days("1969-12-31"), Some(-1));
}

/// Petastorm declares types that are never inferred.
#[test]
fn values_of_declared_types() {
    let check = |text: &str, dtype: DType, expected: Option<Value>| {
        let found = value(Some(text), &Field::scalar("p", dtype), TimeZone::default());
        assert_eq!(found.ok(), expected, "{text} as {dtype}");
    };
    check("TRUE", DType::Bool, Some(Value::Bool(true)));
    check("false", DType::Bool, Some(Value::Bool(false)));
    check("1", DType::Bool, None);
    check("2.25", DType::Float32, Some(Value::Float32(2.25)));
    check("-2", DType::Int8, Some(Value::Int(-2)));
    check("x", DType::Int8, None);
    let (unscaled, precision, scale) = (i256::from_i128(150), 6, 2);
    let decimal = Decimal {
        unscaled,
        precision,
        scale,
    };
    check("1.5", DType::Decimal(6, 2), Some(Value::Decimal(decimal)));
}
