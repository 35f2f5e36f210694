use arrow_array::{BinaryArray, BinaryViewArray, LargeBinaryArray};

use super::*;
use crate::codec::encode_value;
use crate::codec::room::Stale;
use crate::{Shape, Tensor};

fn cell(elements: [f32; 6], codec: Codec) -> (Field, Vec<u8>) {
    let tensor = Tensor::from_vec(&[2, 3], elements.to_vec()).expect("a tensor");
    let field = Field::new("x", DType::Float32, Shape::fixed(&[2, 3])).with_codec(Some(codec));
    let cell = encode_value(&Value::Tensor(tensor), &field).expect("a cell");
    (field.with_nullable(true), cell)
}

#[test]
fn cells_are_decoded_alike_wherever_they_lie() {
    for codec in [Codec::Ndarray, Codec::CompressedNdarray] {
        let (field, first) = cell([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], codec.clone());
        let (_, second) = cell([-1.0, 0.5, 0.0, 1e9, 7.0, 8.0], codec);
        let cells = [None, Some(&first[..]), Some(&second[..]), None, Some(&first[..])];
        let columns: [ArrayRef; 3] = [
            Arc::new(BinaryArray::from_iter(cells)),
            Arc::new(LargeBinaryArray::from_iter(cells)),
            Arc::new(BinaryViewArray::from_iter(cells)),
        ];
        let decoded = decode_cells(&cells, &field).expect("a column");
        let used = decode_cells_in(&cells, &field, &Stale).expect("a column");
        assert_eq!(&*used, &*decoded, "what memory held before shows");
        for column in columns {
            assert_eq!(
                &*decode_column(&column, &field).expect("a column"),
                &*decoded,
                "{}",
                column.data_type()
            );
            let part = decode_column(&column.slice(1, 3), &field).expect("a column");
            assert_eq!(&*part, &*decoded.slice(1, 3));
        }
    }
}

#[test]
fn images_in_used_memory_are_as_in_fresh_memory() {
    let pixels: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37) as u8).collect();
    let tensor = Tensor::from_vec(&[7, 5, 3], pixels).expect("a picture");
    for codec in [Codec::Png, Codec::Jpeg { quality: 90 }] {
        let field = Field::new("x", DType::UInt8, Shape::fixed(&[7, 5, 3])).with_codec(Some(codec));
        let cell = encode_value(&Value::Tensor(tensor.clone()), &field).expect("a cell");
        let field = field.with_nullable(true);
        let cells = [Some(&cell[..]), None, Some(&cell[..]), None];
        let fresh = decode_cells(&cells, &field).expect("a column");
        assert_eq!(&*decode_cells_in(&cells, &field, &Stale).expect("a column"), &*fresh);
    }
}

#[test]
fn the_cell_at_fault_is_named() {
    let (field, good) = cell([0.0; 6], Codec::Ndarray);
    let error = decode_cells(&[Some(&good), None, Some(&good[..20])], &field).expect_err("a cell cut short");
    assert_eq!((error.place("row"), error.place("column")), (Some("2"), Some("x")));
    let vector = field.with_codec(Some(Codec::SparkVector));
    let error = decode_cells(&[Some(&good)], &vector).expect_err("no cell");
    assert!(error.to_string().contains("is no binary cell"), "{error}");
}
