//! What a reader tells of its order, and how it moves in it.

use std::collections::BTreeMap;

use squall_reader::{
    BatchReader, Delivery, Epochs, Partition, ReaderBuilder, ReaderState, Remainder, Shuffle, Topology,
    make_batch_reader, make_mixed_reader, make_reader,
};
use squall_testkit::{Layout, Table};

use crate::{batches, error};

fn table() -> Table {
    Table::write(&Layout::default())
}

fn builder(table: &Table) -> ReaderBuilder<BatchReader> {
    make_batch_reader(table.url()).seed(3).lanes(4).window(9)
}

/// By dataset, file, row group and row.
type Deliveries = BTreeMap<(u32, String, u32, u64), Vec<Delivery>>;

/// Every sample that is delivered is where it was said to be, and every row says who takes it.
#[test]
fn what_is_said_is_what_comes() {
    let (a, b) = (
        table(),
        Table::write(&Layout {
            files: vec![25],
            ..Layout::default()
        }),
    );
    let one = |remainder| builder(&a).epochs(2).remainder(remainder).global_batch(21);
    let mixed = || {
        let member = |table: &Table| make_batch_reader(table.url()).lanes(4).window(9).columns(["id"]);
        make_mixed_reader([(member(&a), 2.0), (member(&b), 1.0)])
            .epochs(2)
            .global_batch(21)
    };
    let longest = || mixed().ending(squall_reader::Ending::Longest).remainder(Remainder::Pad);
    let cases: [Box<dyn Fn() -> ReaderBuilder<BatchReader>>; 5] = [
        Box::new(|| one(Remainder::Keep)),
        Box::new(|| one(Remainder::Drop)),
        Box::new(|| one(Remainder::Pad)),
        Box::new(mixed),
        Box::new(longest),
    ];
    for (case, builder) in cases.iter().enumerate() {
        let asked = builder().rank(0, 3).build().expect("a reader");
        // Of each epoch.
        let mut by_row = vec![Deliveries::new(); 2];
        for rank in 0..3 {
            let mut reader = builder().rank(rank, 3).build().expect("a reader");
            while let Some(batch) = reader.next_samples() {
                let batch = batch.expect("a batch");
                let said = asked
                    .epoch_plan(batch.epoch)
                    .explain(batch.step, rank)
                    .expect("an answer");
                assert_eq!(said.len(), batch.ids.len());
                for (place, (said, id)) in (0..).zip(said.into_iter().zip(&batch.ids)) {
                    assert_eq!(
                        (said.sample, said.row, said.padded),
                        (id.sample, id.row, id.padded),
                        "case {case}"
                    );
                    let dataset = asked.datasets().nth(id.dataset as usize).expect("a dataset");
                    let piece = &dataset.pieces()[id.piece as usize];
                    assert_eq!(said.file, dataset.file_of(piece).path.to_string());
                    let delivery = Delivery {
                        dataset: id.dataset,
                        step: batch.step,
                        rank,
                        place,
                        sample: id.sample,
                        padded: id.padded,
                    };
                    let key = (id.dataset, said.file, said.row_group, said.row);
                    by_row[id.epoch as usize].entry(key).or_default().push(delivery);
                }
            }
        }
        for (epoch, by_row) in (0..).zip(&mut by_row) {
            let plan = asked.epoch_plan(epoch);
            for (dataset, own) in asked.datasets().enumerate() {
                for piece in own.pieces().iter().step_by(3) {
                    let file = own.file_of(piece).path.to_string();
                    for row in (0..piece.rows).step_by(5) {
                        let said = plan.where_is(&file, piece.row_group, row).expect("an answer");
                        // Both datasets of the mixture have a file of that name.
                        let mut expected: Vec<_> = (0..asked.datasets().len() as u32)
                            .filter_map(|dataset| by_row.get(&(dataset, file.clone(), piece.row_group, row)))
                            .flatten()
                            .copied()
                            .collect();
                        expected.sort_unstable();
                        assert_eq!(
                            said, expected,
                            "case {case}, epoch {epoch}, dataset {dataset}, row {row}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_questions_are_refused() {
    let table = table();
    let reader = builder(&table).rank(1, 2).batch_size(10).build().expect("a reader");
    let message = |error: squall_schema::Error| error.to_string();
    assert!(message(error(reader.explain(6, 0))).contains("below the 6 of an epoch, found 6"));
    assert!(message(error(reader.explain(0, 2))).contains("below the world size 2, found 2"));
    assert!(message(error(reader.where_is("nope", 0, 0))).contains("no dataset that is read has a file \"nope\""));
    let wrong = message(error(reader.where_is("part-00000.parquet", 0, 16)));
    assert!(wrong.contains("below the 16 of the row group, found 16"), "{wrong}");
    let wrong = message(error(reader.where_is("part-00000.parquet", 9, 0)));
    assert!(wrong.contains("below the 4 of the file, found 9"), "{wrong}");
    // Petastorm's shards: the first row group is that of rank 0, the second that of rank 1.
    let shard = builder(&table)
        .rank(1, 2)
        .partition(Partition::RowGroups)
        .batch_size(10)
        .build()
        .expect("a reader");
    let wrong = message(error(shard.where_is("part-00000.parquet", 0, 3)));
    assert!(
        wrong.contains("this is rank 1 of 2, and the row group is that of rank 0"),
        "{wrong}"
    );
    assert!(message(error(shard.explain(0, 0))).contains("this is rank 1 of 2, found 0"));
    let found = shard.where_is("part-00000.parquet", 1, 3).expect("an answer")[0];
    let said = &shard.explain(found.step, 1).expect("an answer")[found.place as usize];
    assert_eq!((found.rank, said.row_group, said.row), (1, 1, 3));
    let refused = |builder: ReaderBuilder<BatchReader>| message(error(builder.build()));
    assert!(refused(builder(&table).workers(usize::MAX)).contains("expected 1 to 4096 workers"));
    assert!(refused(builder(&table).prefetch(usize::MAX)).contains("made ahead, found"));
}

#[test]
fn steps_are_skipped_and_runs_begin_again() {
    let table = table();
    let reader = |rank| {
        builder(&table)
            .epochs(3)
            .batch_size(16)
            .rank(rank, 2)
            .build()
            .expect("a reader")
    };
    let all = batches(reader(1));
    assert_eq!(all.len(), 12);
    for (read, skipped) in [(0, 0), (0, 3), (1, 3), (2, 2), (3, 6), (0, 12), (5, 100)] {
        let mut reader = reader(1);
        (0..read).for_each(|_| drop(reader.next()));
        reader.skip_steps(skipped).expect("a reader");
        let state = reader.state();
        let rest = batches(reader);
        let from = (read + skipped as usize).min(all.len());
        assert_eq!(rest, all[from..], "{read} read, {skipped} skipped");
        // A state that skipped is as any other.
        let resumed = builder(&table)
            .epochs(3)
            .batch_size(16)
            .rank(1, 2)
            .resume(state)
            .build();
        assert_eq!(batches(resumed.expect("a reader")), all[from..]);
    }
    let mut again = reader(1);
    let first: Vec<_> = again.by_ref().map(|batch| batch.expect("a batch")).collect();
    assert!(again.next().is_none());
    again.reset().expect("a reader");
    let second: Vec<_> = again.by_ref().map(|batch| batch.expect("a batch")).collect();
    assert_eq!(first, second);
    // In the middle of an epoch too, and back to a state.
    again.reset().expect("a reader");
    drop(again.next());
    let state = again.state();
    let _ = again.nth(4);
    again.seek(&state).expect("a state of its own");
    assert_eq!(again.next().expect("a batch").expect("rows"), first[1]);
}

#[test]
fn a_run_goes_epoch_by_epoch() {
    let table = table();
    let mut reader = builder(&table).epochs(2).batch_size(50).build().expect("a reader");
    let mut seen = Vec::new();
    while let Some(epoch) = reader.next_epoch() {
        let number = epoch.number();
        seen.push((
            number,
            epoch
                .map(|batch| batch.expect("a batch").num_rows())
                .collect::<Vec<_>>(),
        ));
    }
    assert_eq!(seen, [(0, vec![50, 50, 20]), (1, vec![50, 50, 20])]);
    assert_eq!((reader.len(), reader.rows_per_epoch()), (3, 120));
    let mut rows = make_reader(table.url())
        .epochs(2)
        .rank(0, 2)
        .batch_size(16)
        .build()
        .expect("a reader");
    assert_eq!(rows.len(), 60);
    // An epoch that is left goes on.
    let few: Vec<_> = rows.next_epoch().expect("an epoch").take(7).collect();
    assert_eq!((few.len(), rows.epoch()), (7, Some(0)));
    assert_eq!(rows.next_epoch().expect("an epoch").count(), 53);
    assert_eq!(rows.next_epoch().expect("an epoch").count(), 60);
    assert!(rows.next_epoch().is_none());
    rows.reset().expect("a reader");
    assert_eq!(rows.next_epoch().map(Iterator::count), Some(60));
    let mut dropping = make_reader(table.url())
        .epochs(2)
        .batch_size(100)
        .remainder(Remainder::Drop)
        .build()
        .expect("a reader");
    assert_eq!(dropping.len(), 100);
    assert_eq!(dropping.next_epoch().map(Iterator::count), Some(100));
    assert_eq!(dropping.epoch(), Some(1));
}

#[test]
fn ranks_of_a_group_take_the_same_samples() {
    let table = table();
    let rank = |rank, topology| {
        let reader = builder(&table).rank(rank, 4).topology(topology).batch_size(10);
        batches(reader.build().expect("a reader"))
    };
    let alone = |rank| batches(builder(&table).rank(rank, 2).batch_size(10).build().expect("a reader"));
    for own in 0..4 {
        assert_eq!(rank(own, Topology::consecutive(2)), alone(own / 2));
        assert_eq!(rank(own, Topology::strided(2)), alone(own % 2));
    }
    let wrong = builder(&table).rank(0, 4).topology(Topology::consecutive(3)).build();
    assert!(error(wrong).to_string().contains("divides the world size 4, found 3"));
}

#[test]
fn without_shuffling_the_answers_are_plain() {
    let table = table();
    let reader = make_batch_reader(table.url())
        .shuffle(Shuffle::None)
        .batch_size(10)
        .build()
        .expect("a reader");
    let first = reader.explain(0, 0).expect("an answer");
    assert!(
        first
            .iter()
            .zip(0..)
            .all(|(origin, row)| origin.row == row && origin.row_group == 0)
    );
    let found = reader.where_is("part-00001.parquet", 1, 3).expect("an answer");
    // 50 rows of the first file, 16 of the first row group of the second.
    assert_eq!((found[0].step, found[0].place, found[0].sample), (6, 9, 69));
}

/// Behind a resume with another global batch steps are those that are made from there.
#[test]
fn steps_behind_a_resume_are_explained() {
    let table = table();
    let mut begun = builder(&table).global_batch(30).build().expect("a reader");
    drop(begun.next());
    let state = begun.state();
    let reader = |rank| {
        builder(&table)
            .resume(state.clone())
            .rank(rank, 2)
            .global_batch(48)
            .build()
            .expect("a reader")
    };
    let asked = reader(0);
    for rank in 0..2 {
        let mut reader = reader(rank);
        while let Some(batch) = reader.next_samples() {
            let batch = batch.expect("a batch");
            // Of the epoch that is read, also behind its last batch.
            for said in [
                asked.epoch_plan(0).explain(batch.step, rank),
                reader.explain(batch.step, rank),
            ] {
                let said: Vec<_> = said
                    .expect("an answer")
                    .into_iter()
                    .map(|origin| origin.sample)
                    .collect();
                assert_eq!(said, batch.ids.iter().map(|id| id.sample).collect::<Vec<_>>());
            }
        }
    }
    assert!(
        error(asked.explain(0, 0))
            .to_string()
            .contains("before 30 came in batches of another size")
    );
}

/// A rank whose share of an epoch's last batch is empty does not reach into the next epoch.
#[test]
fn an_epoch_of_rows_ends_with_the_epoch() {
    let table = Table::write(&Layout {
        files: vec![9],
        ..Layout::default()
    });
    for rank in 0..4 {
        let reader = make_reader(table.url()).rank(rank, 4).batch_size(2).epochs(3);
        let mut reader = reader.build().expect("a reader");
        let mut rows = 0;
        while let Some(epoch) = reader.next_epoch() {
            let number = epoch.number();
            for row in epoch {
                assert_eq!(row.expect("a row").id().epoch, number);
                rows += 1;
            }
        }
        assert_eq!(rows, if rank == 0 { 9 } else { 6 });
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let table = table();
    let builder = || make_reader(table.url()).batch_size(10).seed(3);
    let other = make_reader(table.url())
        .seed(4)
        .build()
        .expect("a reader")
        .state()
        .expect("a state");
    let older = builder()
        .build()
        .expect("a reader")
        .state()
        .expect("a state")
        .to_json()
        .replace("\"v\":\"2.1\"", "\"v\":\"2.0\"");
    let older = ReaderState::from_json(&older).expect("a state");
    let mut reader = builder().build().expect("a reader");
    let mut seen: Vec<_> = reader.by_ref().take(13).map(|row| row.expect("a row").id()).collect();
    assert!(error(reader.seek(&other)).to_string().contains("the seed changed"));
    assert!(error(reader.seek(&older)).to_string().contains("version \"2.0\""));
    assert!(
        error(reader.skip_steps(1))
            .to_string()
            .contains("read the 7 rows that are left")
    );
    seen.extend(reader.map(|row| row.expect("a row").id()));
    let whole: Vec<_> = builder()
        .build()
        .expect("a reader")
        .map(|row| row.expect("a row").id())
        .collect();
    assert_eq!(seen, whole);
    let late = make_reader(table.url()).epochs(8).build().expect("a reader");
    let mut late = late;
    late.skip_steps(100).expect("a reader");
    let state = late.state().expect("a state");
    let refused = make_reader(table.url()).epochs(3).resume(state).build();
    assert!(error(refused).to_string().contains("counted from 0, of 3"));
    for rank in [8, 9] {
        let refused = make_reader(table.url())
            .rank(rank, 8)
            .topology(Topology::strided(2))
            .build();
        assert!(error(refused).to_string().contains("below the world size 8"));
    }
    let refused = make_reader(table.url())
        .rank(0, 0)
        .topology(Topology::strided(2))
        .build();
    assert!(error(refused).to_string().contains("below the world size 0"));
}
