//! Several datasets read as one.

use std::collections::BTreeMap;

use squall_reader::{
    BatchReader, Ending, MIX_BLOCK, Partition, ReaderBuilder, ReaderState, Remainder, Sampler, Shuffle, TransformSpec,
    make_batch_reader, make_mixed_reader,
};
use squall_schema::RowId;
use squall_testkit::{Layout, Table};

use crate::{batches, error, sorted};

fn table(rows: usize) -> Table {
    Table::write(&Layout {
        files: vec![rows / 3, rows - rows / 3],
        row_group: 40,
        ..Layout::default()
    })
}

fn mixed(tables: &[(&Table, f64)]) -> ReaderBuilder<BatchReader> {
    let member = |(table, weight): &(&Table, f64)| {
        let reader = make_batch_reader(table.url()).columns(["id"]).lanes(3).window(8);
        (reader, *weight)
    };
    make_mixed_reader(tables.iter().map(member).collect::<Vec<_>>())
}

fn rows(reader: ReaderBuilder<BatchReader>) -> Vec<(i32, RowId)> {
    batches(reader.build().expect("a reader"))
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn proportions_hold_in_every_block() {
    let (a, b, c) = (table(2600), table(1300), table(500));
    let mixture = || mixed(&[(&a, 0.65), (&b, 0.3), (&c, 0.05)]).seed(3).global_batch(250);
    let all = rows(mixture());
    // The third dataset would last longest, the first ends with its 2,600th row.
    assert!((3900..=4100).contains(&all.len()), "{}", all.len());
    let mut by_sample: Vec<_> = all.iter().map(|(_, id)| (id.sample, id.dataset)).collect();
    by_sample.sort_unstable();
    assert!(by_sample.iter().enumerate().all(|(i, (sample, _))| i as u64 == *sample));
    for block in by_sample.chunks_exact(MIX_BLOCK as usize) {
        let count = |dataset| block.iter().filter(|(_, own)| *own == dataset).count();
        assert_eq!([count(0), count(1), count(2)], [650, 300, 50]);
    }
    // Each row is that of its dataset, at most once.
    let mut seen: Vec<_> = all.iter().map(|(id, row)| (row.dataset, *id)).collect();
    seen.sort_unstable();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    // Every rank has its part of each dataset, batch by batch.
    let ranks: Vec<_> = (0..5)
        .map(|rank| batches(mixture().rank(rank, 5).build().expect("a reader")))
        .collect();
    let together: Vec<_> = ranks.iter().flatten().flatten().map(|(_, id)| id.sample).collect();
    assert_eq!(together.len(), all.len());
    for batch in ranks.iter().flat_map(|rank| &rank[..rank.len() - 1]) {
        let first = batch.iter().filter(|(_, id)| id.dataset == 0).count();
        assert!((27..=38).contains(&first), "{first} of {}", batch.len());
    }
}

#[test]
fn a_mixture_resumes_anywhere_on_other_ranks() {
    let (a, b) = (table(150), table(60));
    for ending in [Ending::Shortest, Ending::Longest] {
        for remainder in [Remainder::Keep, Remainder::Pad] {
            let builder = || mixed(&[(&a, 1.0), (&b, 2.0)]).ending(ending).remainder(remainder);
            let builder = || builder().epochs(3).global_batch(12);
            let sets = |reader: ReaderBuilder<BatchReader>| -> Vec<Vec<_>> {
                let batches = batches(reader.build().expect("a reader")).into_iter();
                let batches = batches.map(|batch| batch.into_iter().map(|(id, row)| (row, id)).collect::<Vec<_>>());
                batches.collect()
            };
            let key = |(row, id): &(RowId, i32)| (row.epoch, row.sample, row.dataset, row.padded, *id);
            let whole: Vec<Vec<_>> = sets(builder().seed(5))
                .iter()
                .map(|batch| sorted_by(batch, key))
                .collect();
            for done in [0, 1, whole.len() / 3, whole.len() / 3 + 1, whole.len() - 1, whole.len()] {
                let mut first = builder().seed(5).build().expect("a reader");
                (0..done).for_each(|_| drop(first.next().expect("a batch")));
                let text = first.state().to_json();
                assert!(text.len() <= 200, "{text}");
                let state = ReaderState::from_json(&text).expect("own text");
                let ranks: Vec<_> = (0..4)
                    .map(|rank| sets(builder().resume(state.clone()).rank(rank, 4)))
                    .collect();
                assert!(ranks.iter().all(|rank| rank.len() == whole.len() - done));
                for step in 0..whole.len() - done {
                    let batch: Vec<_> = ranks.iter().flat_map(|rank| rank[step].clone()).collect();
                    assert_eq!(sorted_by(&batch, key), whole[done + step], "step {step} after {done}");
                }
            }
        }
    }
}

fn sorted_by<T, K: Ord>(rows: &[T], key: impl Fn(&T) -> K) -> Vec<K> {
    let mut keys: Vec<_> = rows.iter().map(key).collect();
    keys.sort_unstable();
    keys
}

/// The long dataset is read once an epoch; the short one again and again, each of its passes whole.
#[test]
fn the_longest_dataset_sets_the_length() {
    let (a, b) = (table(300), table(20));
    let reader = mixed(&[(&a, 0.5), (&b, 0.5)]).ending(Ending::Longest).epochs(2);
    let all = rows(reader);
    for epoch in 0..2 {
        let own: Vec<_> = all.iter().filter(|(_, id)| id.epoch == epoch).collect();
        let long = own
            .iter()
            .filter(|(_, id)| id.dataset == 0)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(sorted(long), (0..300).collect::<Vec<_>>());
    }
    let mut counts = BTreeMap::new();
    for (id, _) in all.iter().filter(|(_, id)| id.dataset == 1) {
        *counts.entry(*id).or_insert(0) += 1;
    }
    let (least, most) = (counts.values().min(), counts.values().max());
    assert_eq!(counts.len(), 20);
    assert!(
        most.zip(least).is_some_and(|(most, least)| most - least <= 1),
        "{counts:?}"
    );
}

#[test]
fn a_dataset_of_one_row_mixes() {
    let one = Table::write(&Layout {
        files: vec![1],
        ..Layout::default()
    });
    let many = table(90);
    let of_one = |all: &[(i32, RowId)]| all.iter().filter(|(_, id)| id.dataset == 0).count();
    // It ends with the second draw from it, which may be the first but one.
    let short = rows(mixed(&[(&one, 1.0), (&many, 9.0)]).seed(1));
    assert!(of_one(&short) == 1 || short.len() == 90, "{short:?}");
    assert!(!short.is_empty());
    let long = rows(
        mixed(&[(&one, 1.0), (&many, 9.0)])
            .seed(1)
            .ending(Ending::Longest)
            .epochs(3),
    );
    assert!(of_one(&long) > 3);
    for epoch in 0..3 {
        let own = long.iter().filter(|(_, id)| id.epoch == epoch && id.dataset == 1);
        assert_eq!(sorted(own.map(|(id, _)| *id).collect()), (0..90).collect::<Vec<_>>());
    }
}

/// A batch larger than the epoch has its samples again and again, on any number of ranks.
#[test]
fn a_mixture_smaller_than_a_batch_is_padded() {
    let (a, b) = (table(7), table(4));
    let builder = || {
        mixed(&[(&a, 2.0), (&b, 1.0)])
            .seed(4)
            .ending(Ending::Longest)
            .global_batch(48)
            .remainder(Remainder::Pad)
            .epochs(2)
    };
    let key = |(id, row): &(i32, RowId)| (row.epoch, row.padded, row.sample, row.dataset, *id);
    let whole = rows(builder());
    assert_eq!(whole.len(), 96);
    for epoch in 0..2 {
        let samples = whole.iter().copied().filter(|(_, id)| id.epoch == epoch);
        let (padded, own): (Vec<_>, Vec<_>) = samples.partition(|(_, id)| id.padded);
        let own: BTreeMap<_, _> = own
            .into_iter()
            .map(|(id, row)| (row.sample, (row.dataset, id)))
            .collect();
        assert!(own.keys().copied().eq(0..own.len() as u64) && own.len() < 24);
        let mut again: Vec<_> = padded
            .into_iter()
            .map(|(id, row)| (row.sample, row.dataset, id))
            .collect();
        again.sort_unstable();
        let mut expected: Vec<_> = (own.len()..48).map(|place| (place % own.len()) as u64).collect();
        expected.sort_unstable();
        assert_eq!(again.iter().map(|(sample, ..)| *sample).collect::<Vec<_>>(), expected);
        assert!(again.iter().all(|(sample, dataset, id)| own[sample] == (*dataset, *id)));
    }
    let ranks: Vec<_> = (0..4).flat_map(|rank| rows(builder().rank(rank, 4))).collect();
    assert_eq!(sorted_by(&ranks, key), sorted_by(&whole, key));
}

/// Each dataset of a mixture has a sampler, a filter, columns of its own.
#[test]
fn datasets_of_a_mixture_have_options_of_their_own() {
    let (a, b) = (table(200), table(200));
    let heavy = || {
        make_batch_reader(a.url())
            .columns(["id"])
            .sampler(Sampler::weighted("id").samples(100))
    };
    let some = || {
        make_batch_reader(b.url())
            .columns(["id"])
            .rows(50..60)
            .shuffle(Shuffle::None)
    };
    let builder = || {
        let reader = make_mixed_reader([(heavy(), 3.0), (some(), 1.0)]);
        reader.seed(2).ending(Ending::Longest).global_batch(20).epochs(2)
    };
    let whole = rows(builder());
    let own = |dataset, epoch| {
        whole
            .iter()
            .filter(move |(_, id)| id.dataset == dataset && id.epoch == epoch)
    };
    for epoch in 0..2 {
        assert_eq!(own(0, epoch).count(), 100);
        assert!(own(0, epoch).all(|(id, _)| *id > 0));
        assert!(own(1, epoch).all(|(id, _)| (50..60).contains(id)));
    }
    // The other one is unshuffled: its rows come in turn, over the epochs.
    let mut turn: Vec<_> = whole.iter().filter(|(_, id)| id.dataset == 1).collect();
    turn.sort_unstable_by_key(|(_, id)| (id.epoch, id.sample));
    assert!(
        turn.iter()
            .zip((50..60).cycle())
            .all(|((id, _), expected)| *id == expected)
    );
    let ranks: Vec<_> = (0..4).flat_map(|rank| rows(builder().rank(rank, 4))).collect();
    let key = |(id, row): &(i32, RowId)| (row.epoch, row.sample, row.dataset, *id);
    assert_eq!(sorted_by(&ranks, key), sorted_by(&whole, key));
}

#[test]
fn what_does_not_mix_is_refused() {
    let (a, b) = (table(30), table(30));
    let member = || make_batch_reader(a.url());
    let refused = |builder: ReaderBuilder<BatchReader>| error(builder.build()).to_string();
    let refuse = |builder, expected: &str| {
        let message = refused(builder);
        assert!(message.contains(expected), "{message}");
    };
    let pair = |other| make_mixed_reader([(member(), 1.0), (other, 1.0)]);
    refuse(pair(member().rank(0, 2)), "the rank concerns the run");
    refuse(
        pair(member()).columns(["id"]),
        "the choice of columns concerns a dataset",
    );
    refuse(
        pair(make_batch_reader(b.url()).columns(["id", "x"])),
        "name: str nullable is in",
    );
    let renamed = TransformSpec::per_batch(Ok).remove("x");
    refuse(pair(member().transform(renamed)), "x: int8[?] is in");
    refuse(
        pair(member()).partition(Partition::RowGroups),
        "no row groups of its own",
    );
    refuse(make_mixed_reader([(member(), 1.0)]), "found 1 of 1");
    refuse(member().ending(Ending::Longest), "one dataset is no mixture");
    let state = mixed(&[(&a, 1.0), (&b, 1.0)]).build().expect("a reader").state();
    refuse(
        mixed(&[(&a, 1.0), (&b, 3.0)]).resume(state),
        "the mixture (weights, ending",
    );
}
