//! How large a batch is.

use arrow_array::cast::AsArray;
use arrow_array::types::{BinaryType, ByteArrayType, Utf8Type};
use arrow_array::{Array, GenericByteArray, RecordBatch};
use arrow_schema::DataType;

/// Bytes of the values, of a slice those that belong to it.
pub(crate) fn bytes_of(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| bytes(column.as_ref()) as u64).sum()
}

/// The types that batches are mostly made of are told without a look at their buffers: it is asked for every batch.
fn bytes(array: &dyn Array) -> usize {
    let nulls = array.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    let values = match array.data_type() {
        DataType::Boolean => array.len().div_ceil(8),
        DataType::Binary => of_bytes::<BinaryType>(array.as_bytes()),
        DataType::Utf8 => of_bytes::<Utf8Type>(array.as_bytes()),
        DataType::FixedSizeList(item, length) => match (item.data_type().primitive_width(), array.as_fixed_size_list())
        {
            (Some(width), list) if list.values().null_count() == 0 => array.len() * *length as usize * width,
            _ => return of_any(array),
        },
        other => match other.primitive_width() {
            Some(width) => array.len() * width,
            None => return of_any(array),
        },
    };
    nulls + values
}

fn of_bytes<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>) -> usize {
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0], offsets[array.len()]);
    (last - first) as usize + size_of_val(offsets)
}

fn of_any(array: &dyn Array) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Float32Type;
    use arrow_array::{ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float64Array, Int16Array, StringArray};

    use super::*;

    /// Arrow counts offsets without the first one, and does not count bits of nulls as whole bytes everywhere.
    #[test]
    fn sizes_are_those_of_arrow() {
        let list = |row: Option<i32>| row.map(|row| [Some(row as f32), Some(1.0), Some(2.0)]);
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int16Array::from_iter_values(0..64)),
            Arc::new(Float64Array::from_iter(
                (0..64).map(|i| (i % 3 > 0).then_some(f64::from(i))),
            )),
            Arc::new(BooleanArray::from_iter((0..64).map(|i| Some(i % 2 > 0)))),
            Arc::new(StringArray::from_iter(
                (0..64).map(|i| (i % 5 > 0).then(|| "x".repeat(i))),
            )),
            Arc::new(BinaryArray::from_iter_values((0..64).map(|i| vec![1; 100 * i]))),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                (0..64).map(|row| list(Some(row))),
                3,
            )),
        ];
        for array in arrays {
            for part in [array.clone(), array.slice(8, 16), array.slice(64, 0)] {
                let (own, arrow) = (bytes(part.as_ref()), of_any(part.as_ref()));
                assert!(own.abs_diff(arrow) <= 8, "{own}, not {arrow}: {:?}", part.data_type());
            }
        }
    }
}
