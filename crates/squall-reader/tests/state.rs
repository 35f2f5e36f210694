//! Resuming.

use squall_reader::{ReaderState, make_batch_reader};
use squall_testkit::{Layout, Table};

use crate::{batches, error, sorted};

#[test]
fn a_state_resumes_on_another_world_size() {
    let table = Table::write(&Layout::default());
    let builder = || {
        make_batch_reader(table.url())
            .seed(3)
            .lanes(4)
            .window(9)
            .epochs(3)
            .global_batch(12)
    };
    let whole: Vec<_> = batches(builder().build().expect("a reader"))
        .into_iter()
        .map(|batch| sorted(batch.into_iter().map(|(id, _)| id).collect()))
        .collect();
    for done in [0, 1, 9, 10, 11, 29, 30] {
        let mut first = builder().build().expect("a reader");
        (0..done).for_each(|_| drop(first.next().expect("a batch")));
        let state = ReaderState::from_json(&first.state().to_json()).expect("own text");
        // The options that are not given come from the state.
        let rest = |rank| {
            batches(
                make_batch_reader(table.url())
                    .epochs(3)
                    .resume(state.clone())
                    .rank(rank, 3)
                    .global_batch(12)
                    .workers(3)
                    .build()
                    .expect("a reader"),
            )
        };
        let ranks = [rest(0), rest(1), rest(2)];
        let steps = whole.len() - done;
        for step in 0..steps {
            let batch = ranks
                .iter()
                .flat_map(|rank| rank[step].iter().map(|(id, _)| *id))
                .collect();
            assert_eq!(sorted(batch), whole[done + step], "step {step} after {done}");
        }
        assert!(ranks.iter().all(|rank| rank.len() == steps));
    }
}

#[test]
fn a_state_of_another_order_is_refused() {
    let table = Table::write(&Layout::default());
    let mut reader = make_batch_reader(table.url()).seed(3).build().expect("a reader");
    assert!(reader.next().is_some());
    let state = reader.state();
    let refused = error(make_batch_reader(table.url()).seed(4).resume(state.clone()).build());
    assert!(
        refused
            .to_string()
            .contains("the seed changed since the state was saved, from 3 to 4"),
        "{refused}"
    );
    let beyond = state.to_json().replace("\"next\":64", "\"next\":121");
    let beyond = ReaderState::from_json(&beyond).expect("a state");
    let refused = error(make_batch_reader(table.url()).resume(beyond).build());
    assert!(
        refused.to_string().contains("stands at sample 121 of an epoch of 120"),
        "{refused}"
    );
    let other = Table::write(&Layout {
        files: vec![7, 9],
        ..Layout::default()
    });
    let refused = error(make_batch_reader(other.url()).resume(state).build());
    assert!(
        refused.to_string().contains("the dataset's fingerprint changed"),
        "{refused}"
    );
}
