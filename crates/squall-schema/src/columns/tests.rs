use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Int64Array, ListArray};
use proptest::prelude::*;

use std::sync::Arc;

use arrow_buffer::i256;
use half::f16;

use super::*;
use crate::arrow::field_to_arrow;
use crate::{DType, Decimal, Field, Shape, Tensor, TimeUnit, Value};

fn lists(rows: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
}

#[test]
fn lists_of_one_length_become_tensors() {
    let field = Field::new("x", DType::Int32, Shape::fixed(&[2, 2])).with_nullable(true);
    let column = lists(vec![
        Some((0..4).map(Some).collect()),
        None,
        Some((4..8).map(Some).collect()),
    ]);
    // A slice starts at an offset that is not zero.
    let tensors = normalise(&column.slice(1, 2), &field).expect("lists of four");
    assert_eq!(value_at(&tensors, &field, 0).expect("null"), Value::Null);
    let tensor = Tensor::from_vec(&[2, 2], vec![4, 5, 6, 7]).expect("four elements");
    assert_eq!(value_at(&tensors, &field, 1).expect("tensor"), Value::Tensor(tensor));
}

#[test]
fn a_list_of_another_length_names_its_row() {
    let field = Field::new("x", DType::Int32, Shape::fixed(&[2]));
    let error =
        normalise(&lists(vec![Some(vec![Some(1), Some(2)]), Some(vec![Some(3)])]), &field).expect_err("short list");
    assert_eq!(error.place("row"), Some("1"), "{error}");
    let error = normalise(&lists(vec![Some(vec![Some(1), None])]), &field).expect_err("null element");
    assert!(error.to_string().contains("element 1"), "{error}");
}

#[test]
fn what_does_not_fit_is_an_error_and_not_a_null() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 300]));
    assert!(normalise(&column, &Field::scalar("x", DType::Int8)).is_err());
    let error = column_from_values(&Field::scalar("x", DType::Int8), &[&Value::Int(1), &Value::Int(300)]);
    assert_eq!(error.expect_err("300 is no int8").place("row"), Some("1"));
    let error = column_from_values(&Field::scalar("x", DType::Float32), &[&Value::Float64(0.5)]);
    assert!(error.expect_err("float64").to_string().contains("found float64"));
    assert!(column_from_values(&Field::scalar("x", DType::Str), &[&Value::Null]).is_err());
}

#[test]
fn vectors_with_and_without_null_elements_stand_in_one_column() {
    let field = Field::new("x", DType::Int32, Shape(vec![None])).with_nullable(true);
    let rows = [
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(7)]),
    ];
    let column = normalise(&lists(rows.to_vec()), &field).expect("lists");
    let cells: Vec<_> = (0..rows.len())
        .map(|row| value_at(&column, &field, row).expect("a value"))
        .collect();
    assert!(matches!((&cells[0], &cells[1]), (Value::Tensor(_), Value::List(_))));
    let again = column_from_values(&field, &cells.iter().collect::<Vec<_>>()).expect("the same column");
    assert_eq!(&again, &column);
    // A null row before a list, in a column of fixed shape.
    let field = Field::new("w", DType::Str, Shape::fixed(&[2])).with_nullable(true);
    let words = Value::List(vec![Value::from("a"), Value::from("b")]);
    let column = column_from_values(&field, &[&Value::Null, &words]).expect("a column");
    assert_eq!(value_at(&column, &field, 1).expect("a value"), words);
    assert_eq!(value_at(&column, &field, 0).expect("a value"), Value::Null);
}

#[test]
fn a_null_leaves_the_bits_of_its_neighbours() {
    let field = Field::new("x", DType::Float16, Shape(vec![None, None])).with_nullable(true);
    // A NaN that signals, which arithmetic would quiet.
    let nan = Tensor::from_vec(&[1, 1], vec![f16::from_bits(0x7c01)]).expect("a tensor");
    let nan = Value::Tensor(nan);
    let column = column_from_values(&field, &[&nan, &Value::Null]).expect("a column");
    let Value::Tensor(found) = value_at(&column, &field, 0).expect("a value") else {
        panic!("no tensor");
    };
    assert_eq!(found.data().as_slice(), [0x01, 0x7c]);
    assert_eq!(value_at(&column, &field, 1).expect("a value"), Value::Null);
}

fn values(dtype: DType) -> BoxedStrategy<Value> {
    match dtype {
        DType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DType::UInt64 => any::<u64>().prop_map(Value::UInt).boxed(),
        DType::Int16 => any::<i16>().prop_map(Value::from).boxed(),
        DType::Float32 => (-1e9f32..1e9).prop_map(Value::Float32).boxed(),
        DType::Str => ".{0,8}".prop_map(Value::Str).boxed(),
        DType::Bytes => proptest::collection::vec(any::<u8>(), 0..9)
            .prop_map(Value::Bytes)
            .boxed(),
        DType::Date => any::<i32>().prop_map(Value::Date).boxed(),
        DType::Datetime { unit, utc } => any::<i64>()
            .prop_map(move |value| Value::Datetime { value, unit, utc })
            .boxed(),
        DType::Decimal(precision, scale) => any::<i32>()
            .prop_map(move |n| {
                Value::Decimal(Decimal {
                    unscaled: i256::from_i128(n.into()),
                    precision,
                    scale,
                })
            })
            .boxed(),
        _ => unreachable!("not in the list of the test"),
    }
}

proptest! {
    #[test]
    fn columns_keep_their_values(
        (dtype, rows) in prop::sample::select(vec![
            DType::Bool, DType::UInt64, DType::Int16, DType::Float32, DType::Str, DType::Bytes, DType::Date,
            DType::Datetime { unit: TimeUnit::Millisecond, utc: true }, DType::Decimal(12, 2), DType::Decimal(60, 2),
        ]).prop_flat_map(|dtype| {
            let cell = prop_oneof![1 => Just(Value::Null), 4 => values(dtype)];
            (Just(dtype), proptest::collection::vec(cell, 0..20))
        })
    ) {
        let field = Field::scalar("x", dtype).with_nullable(true);
        let column = column_from_values(&field, &rows.iter().collect::<Vec<_>>()).expect("values of the dtype");
        let canonical = field_to_arrow(&field).expect("canonical");
        prop_assert_eq!(column.data_type(), canonical.data_type());
        for (i, value) in rows.iter().enumerate() {
            prop_assert_eq!(&value_at(&column, &field, i).expect("value"), value);
        }
        // The same values as a ragged vector, and as a vector of fixed length.
        let vector = Value::List(rows.clone());
        let ragged = Field::new("x", dtype, Shape(vec![None]));
        let column = column_from_values(&ragged, &[&vector, &vector]).expect("vectors");
        for row in 0..2 {
            match value_at(&column, &ragged, row).expect("vector") {
                Value::List(found) => prop_assert_eq!(&found, &rows),
                Value::Tensor(found) => prop_assert_eq!(found.shape(), &[rows.len()]),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
