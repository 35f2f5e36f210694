//! Many epochs over tiny row groups: the place where a loader that counts work in two steps loses some of it.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{Array, RecordBatch};
use squall_reader::{Predicate, Shuffle, make_batch_reader};
use squall_testkit::{Layout, Table};

/// The ids of a batch, whose other columns must be those of the same rows.
fn whole_rows(batch: &RecordBatch) -> impl Iterator<Item = usize> {
    let column = |name| batch.column_by_name(name).expect("a column");
    let ids = column("id").as_primitive::<Int32Type>();
    let names = column("name").as_string::<i32>();
    let x = column("x").as_list::<i32>();
    for (row, id) in ids.values().iter().enumerate() {
        let name = names.is_valid(row).then(|| names.value(row).to_owned());
        assert_eq!(name, (id % 7 != 0).then(|| format!("row {id}")), "the name of row {id}");
        let first = (id % 100) as i8;
        let values = x.value(row);
        let values = values.as_primitive::<Int8Type>().values();
        assert_eq!(values[..], [first, first + 1, first + 2], "x of row {id}");
    }
    ids.values()
        .iter()
        .map(|id| *id as usize)
        .collect::<Vec<_>>()
        .into_iter()
}

#[test]
fn five_hundred_epochs_lose_double_and_mix_no_row() {
    const EPOCHS: u64 = 500;
    // Ten row groups of two rows; the clause takes one row of some of them, and none of the fifth.
    let table = Table::write(&Layout {
        files: vec![20],
        row_group: 2,
        page: 1,
        page_index: true,
    });
    let selected = |id: usize| id % 5 != 1 && !(8..10).contains(&id);
    for (workers, lanes, shuffle) in [
        (1, 32, Shuffle::Windows),
        (2, 3, Shuffle::Windows),
        (3, 1, Shuffle::Full),
        (8, 7, Shuffle::Windows),
        (4, 5, Shuffle::Windows),
        (10, 32, Shuffle::Windows),
        (16, 2, Shuffle::Windows),
    ] {
        // Half of it by a where-clause, half by a predicate; or all of it by predicates.
        let named = Predicate::in_negate(Predicate::in_set(["row 8", "row 9"], "name"));
        let reader = make_batch_reader(table.url()).predicate(named);
        let reader = match workers % 2 {
            0 => reader.filter("id % 5 <> 1"),
            _ => reader.predicate(Predicate::in_lambda(["id"], |row| Ok(row.int("id")? % 5 != 1))),
        };
        let reader = reader
            .shuffle(shuffle)
            .lanes(lanes)
            .window(3)
            .batch_size(4)
            .seed(workers as u64)
            .workers(workers)
            .epochs(EPOCHS);
        let mut reader = reader.build().expect("a reader");
        let mut times = vec![[0; 20]; EPOCHS as usize];
        while let Some(batch) = reader.next_samples() {
            let batch = batch.expect("a batch");
            for id in whole_rows(&batch.columns) {
                times[batch.epoch as usize][id] += 1;
            }
        }
        for (epoch, times) in times.iter().enumerate() {
            let expected = std::array::from_fn(|id| u32::from(selected(id)));
            assert_eq!(*times, expected, "epoch {epoch} with {workers} workers");
        }
    }
}
