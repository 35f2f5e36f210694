use std::sync::Arc;

use arrow_array::builder::FixedSizeListBuilder;
use arrow_array::builder::Int16Builder;
use arrow_array::{
    BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, StringArray, UInt8Array, UInt32Array,
};
use arrow_schema::Field;
use arrow_select::take::take as take_rows;
use proptest::prelude::*;

use super::*;

/// Columns of every width, with nulls in some, and one that is not of fixed width.
fn batch(rows: usize, offset: usize) -> RecordBatch {
    let ids = || (0..(rows + offset) as i64).map(|id| id * 7 - 3);
    let some = |id: i64| id % 3 != 0;
    let mut lists =
        FixedSizeListBuilder::new(Int16Builder::new(), 5).with_field(Field::new("element", DataType::Int16, false));
    for id in ids() {
        (0..5).for_each(|i| lists.values().append_value((id + i) as i16));
        lists.append(some(id));
    }
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        (
            "bytes",
            Arc::new(ids().map(|id| id as u8).collect::<UInt8Array>()),
            false,
        ),
        (
            "bool",
            Arc::new(
                ids()
                    .map(|id| some(id).then_some(id % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
            true,
        ),
        (
            "f0",
            Arc::new(ids().map(|id| some(id).then_some(id as f32)).collect::<Float32Array>()),
            true,
        ),
        (
            "text",
            Arc::new(ids().map(|id| Some(id.to_string())).collect::<StringArray>()),
            false,
        ),
        (
            "f64",
            Arc::new(ids().map(|id| id as f64).collect::<Float64Array>()),
            false,
        ),
        ("list", Arc::new(lists.finish()), true),
        (
            "f1",
            Arc::new(ids().map(|id| -id as f32).collect::<Float32Array>()),
            false,
        ),
        (
            "decimal",
            Arc::new(ids().map(i128::from).collect::<Decimal128Array>()),
            false,
        ),
        ("id", Arc::new(ids().collect::<Int64Array>()), false),
    ];
    let fields = columns
        .iter()
        .map(|(name, column, nullable)| Field::new(*name, column.data_type().clone(), *nullable));
    let schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column, _)| column).collect();
    RecordBatch::try_new(schema, columns)
        .expect("columns")
        .slice(offset, rows)
}

/// Rows that go through blocks are those that Arrow's own kernel takes.
fn assert_taken(rows: usize, offset: usize, picks: &[usize]) {
    let batch = batch(rows, offset);
    let layout = Layout::new(&batch.schema(), &[6, 2]);
    // Two blocks: the even rows, backwards, and the odd ones.
    let place = |row: usize| match row % 2 {
        0 => (0, (rows.div_ceil(2) - 1 - row / 2) as u32),
        _ => (1, (row / 2) as u32),
    };
    let blocks: Vec<Block> = (0..2)
        .map(|block| {
            let own: UInt32Array = (0..rows as u32).filter(|row| row % 2 == block).collect();
            let columns = batch
                .columns()
                .iter()
                .map(|column| take_rows(column, &own, None).expect("rows"));
            let part = RecordBatch::try_new(batch.schema(), columns.collect()).expect("columns");
            let places: Vec<_> = own.values().iter().map(|row| place(*row as usize).1).collect();
            // Memory that was used before.
            let mut block = layout.block(own.len(), vec![0xaa; rows * 40]).expect("room");
            // In two parts.
            let half = own.len() / 2;
            let (first, second) = places.split_at(half);
            let rest = part.slice(half, own.len() - half);
            layout.write(&part.slice(0, half), first, &mut block).expect("laid out");
            layout.write(&rest, second, &mut block).expect("laid out");
            block
        })
        .collect();
    let blocks: Vec<&Block> = blocks.iter().collect();
    let mut taken: Vec<_> = (0u32..)
        .zip(picks)
        .map(|(out, row)| {
            let (window, at) = place(*row);
            Taken { window, at, out }
        })
        .collect();
    taken.sort_by_key(|row| row.window);
    let indices: UInt32Array = picks.iter().map(|row| *row as u32).collect();
    for (place, column) in batch.columns().iter().enumerate() {
        let expected = take_rows(column, &indices, None).expect("rows");
        if place == 3 {
            assert!(!layout.has(place));
            continue;
        }
        let bytes = layout
            .bytes(&[layout.span(place).expect("span")], &taken, &blocks)
            .remove(0);
        let found = layout.column(place, bytes, &taken, &blocks).expect("column");
        assert_eq!(&found, &expected, "column {place}");
    }
    let packed = layout.no_nulls(&[6, 2], &taken, &blocks).map(|()| {
        let span = layout.span_of(&[6, 2]).expect("neighbours");
        layout.bytes(&[span], &taken, &blocks).remove(0)
    });
    match picks.iter().position(|row| batch.column(2).is_null(*row)) {
        Some(row) => assert_eq!(packed.expect_err("null").place("batch row"), Some(&*row.to_string())),
        None => {
            let id = |row: &usize| ((row + offset) as i64 * 7 - 3) as f32;
            let expected: Vec<f32> = picks.iter().flat_map(|row| [-id(row), id(row)]).collect();
            assert_eq!(packed.expect("numbers").typed_data::<f32>(), expected);
        }
    }
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(rows in 1usize..700, offset in 0usize..9, seed in any::<u64>(), n in 0usize..300) {
        let picks: Vec<_> = (0..n).map(|i| (seed.wrapping_mul(i as u64 * 2 + 1) >> 20) as usize % rows).collect();
        assert_taken(rows, offset, &picks);
    }
}

#[test]
fn values_lie_side_by_side_where_they_are_packed() {
    assert_taken(90, 0, &[2, 1, 4, 4, 85]);
}
