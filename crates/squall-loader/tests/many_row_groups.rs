//! The same rows in few row groups and in many.

use squall_loader::IntoLoader;
use squall_reader::{Remainder, Shuffle, make_batch_reader};
use squall_testkit::{Layout, Table};

const ROWS: usize = 2000;

#[test]
fn row_groups_of_any_number_give_every_row_once() {
    for row_group in [200, 20, 1] {
        let table = Table::write(&Layout {
            files: vec![ROWS / 2, ROWS / 2],
            row_group,
            page: 20,
            page_index: true,
        });
        for shuffle in [Shuffle::None, Shuffle::Windows, Shuffle::Full] {
            let reader = make_batch_reader(table.url())
                .columns(["id"])
                .shuffle(shuffle)
                .workers(2);
            let loader = reader.build().expect("a reader").into_loader(64);
            let mut times = vec![0; ROWS];
            for batch in loader.remainder(Remainder::Keep).build().expect("a loader") {
                for id in batch.expect("a batch").slice::<i32>("id").expect("ids") {
                    times[*id as usize] += 1;
                }
            }
            assert_eq!(times, [1; ROWS], "{shuffle:?} over row groups of {row_group} rows");
        }
    }
}
