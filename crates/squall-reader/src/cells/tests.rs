use arrow_array::Array;
use arrow_array::cast::AsArray;
use squall_schema::codec::{Codec, encode_value};
use squall_schema::{DType, Shape, Tensor, Value};

use super::*;

/// Elements of a tensor: with 8 of them a column is worth keeping.
const LEN: usize = 16 << 10;

fn field() -> Field {
    Field::new("x", DType::Float32, Shape::fixed(&[LEN])).with_codec(Some(Codec::Ndarray))
}

fn cell(value: f32) -> Vec<u8> {
    let values: Vec<f32> = (0..LEN).map(|i| value + i as f32).collect();
    let tensor = Tensor::from_vec(&[LEN], values).expect("a tensor");
    encode_value(&Value::Tensor(tensor), &field()).expect("a cell")
}

fn column(used: &UsedMemory, values: &[f32]) -> ArrayRef {
    let cells: Vec<_> = values.iter().map(|value| cell(*value)).collect();
    let cells: Vec<_> = cells.iter().map(|cell| Some(&cell[..])).collect();
    decode(&cells, &field(), used).expect("a column")
}

fn place_of(column: &ArrayRef) -> *const u8 {
    column.as_fixed_size_list().values().to_data().buffers()[0].as_ptr()
}

fn first_values(column: &ArrayRef) -> Vec<f32> {
    let list = column.as_fixed_size_list();
    let values = list.values().as_primitive::<arrow_array::types::Float32Type>().values();
    values.chunks_exact(LEN).map(|row| row[0]).collect()
}

#[test]
fn a_column_takes_the_memory_of_one_that_is_gone_and_of_no_other() {
    let used = UsedMemory::default();
    let first = column(&used, &[1.0; 8]);
    let place = place_of(&first);
    let second = column(&used, &[2.0; 8]);
    assert_ne!(place_of(&second), place);
    let kept = first.slice(3, 1);
    drop(first);
    // A slice holds all of it.
    let third = column(&used, &[3.0; 8]);
    assert_ne!(place_of(&third), place);
    assert_eq!(first_values(&kept), [1.0]);
    drop(kept);
    let fourth = column(&used, &[4.0; 5]);
    assert_eq!((place_of(&fourth), fourth.len()), (place, 5));
    assert_eq!(first_values(&fourth), [4.0; 5]);
    drop(fourth);
    // What a short one left is as large as it was.
    let fifth = column(&used, &[5.0; 8]);
    assert_eq!(place_of(&fifth), place);
    assert_eq!(first_values(&fifth), [5.0; 8]);
    assert_eq!(first_values(&second), [2.0; 8]);
    assert_eq!(first_values(&third), [3.0; 8]);
}

#[test]
fn what_is_kept_is_bounded_and_goes_with_the_reader() {
    let used = UsedMemory::default();
    let columns: Vec<_> = (0..200).map(|i| column(&used, &[i as f32; 8])).collect();
    drop(columns);
    let bytes: usize = used.kept().iter().map(MutableBuffer::capacity).sum();
    assert!(bytes > UsedMemory::MOST / 2 && bytes <= UsedMemory::MOST, "{bytes}");
    let last = column(&used, &[7.0; 8]);
    drop(used);
    assert_eq!(first_values(&last), [7.0; 8]);
}

#[test]
fn small_columns_are_left_to_the_allocator() {
    let used = UsedMemory::default();
    drop(column(&used, &[1.0]));
    assert!(used.kept().is_empty());
}
