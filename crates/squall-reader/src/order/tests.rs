use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn options(shuffle: Shuffle, seed: u64, lanes: u64, window: u64) -> OrderOptions {
    OrderOptions {
        shuffle,
        seed,
        lanes,
        window,
    }
}

fn rows(order: &Order) -> Vec<(u32, u64)> {
    (0..order.len())
        .map(|s| order.locate(s).expect("sample inside"))
        .collect()
}

#[test]
fn without_shuffling_rows_come_as_stored() {
    let order = Order::new(&[2, 0, 1], &options(Shuffle::None, 9, 4, 4), 3).expect("order");
    assert_eq!(rows(&order), [(0, 0), (0, 1), (2, 0)]);
    assert_eq!(order.locate(3), None);
}

#[test]
fn epochs_and_seeds_give_other_orders() {
    let with =
        |seed, epoch| rows(&Order::new(&[50; 8], &options(Shuffle::Windows, seed, 4, 16), epoch).expect("order"));
    assert_eq!(with(1, 1), with(1, 1));
    assert_ne!(with(1, 1), with(1, 2));
    assert_ne!(with(1, 1), with(2, 1));
}

/// Golden vectors: a change here changes the order of every user, and needs a new `ORDER_VERSION`.
#[test]
fn the_order_is_pinned() {
    let order = Order::new(&[5, 3, 4], &options(Shuffle::Windows, 7, 3, 2), 1).expect("order");
    let expected = [
        (0, 1),
        (0, 4),
        (2, 1),
        (0, 0),
        (1, 0),
        (2, 0),
        (0, 2),
        (1, 2),
        (2, 2),
        (0, 3),
        (1, 1),
        (2, 3),
    ];
    assert_eq!(rows(&order), expected);
}

#[test]
fn bad_options_are_refused() {
    assert!(Order::new(&[1], &options(Shuffle::Windows, 0, 0, 1), 0).is_err());
    assert!(Order::new(&[1], &options(Shuffle::Windows, 0, 1, 0), 0).is_err());
    assert!(Order::new(&[u64::MAX, 2], &options(Shuffle::None, 0, 1, 1), 0).is_err());
}

proptest! {
    #[test]
    fn every_row_stands_once(
        pieces in prop::collection::vec(0u64..40, 0..12),
        shuffle in prop::sample::select(vec![Shuffle::None, Shuffle::Windows, Shuffle::Full]),
        seed: u64, epoch in 0u64..5, lanes in 1u64..20, window in 1u64..30,
    ) {
        let order = Order::new(&pieces, &options(shuffle, seed, lanes, window), epoch).expect("order");
        let expected: HashSet<_> = pieces.iter().enumerate()
            .flat_map(|(piece, rows)| (0..*rows).map(move |row| (piece as u32, row))).collect();
        let found = rows(&order);
        prop_assert_eq!(found.len(), expected.len());
        for (sample, (piece, row)) in (0u64..).zip(&found) {
            prop_assert_eq!(order.sample_of(*piece, *row), Some(sample));
        }
        prop_assert_eq!(order.sample_of(pieces.len() as u32, 0), None);
        prop_assert_eq!(order.iter().collect::<Vec<_>>(), found.clone());
        prop_assert_eq!(order.iter().rev().collect::<Vec<_>>(), found.iter().rev().copied().collect::<Vec<_>>());
        let (a, b) = (found.len() / 3, found.len() / 3 + 5);
        let part: Vec<_> = order.samples(a as u64..b as u64).collect();
        prop_assert_eq!(part, &found[a..b.min(found.len())]);
        let mut samples = order.iter();
        let ends: Vec<_> = std::iter::from_fn(|| Some([samples.next()?, samples.next_back()?])).flatten().collect();
        let both: Vec<_> = (0..found.len() / 2).flat_map(|i| [found[i], found[found.len() - 1 - i]]).collect();
        prop_assert_eq!(ends, both);
        prop_assert_eq!(order.iter().step_by(3).collect::<Vec<_>>(), found.iter().step_by(3).copied().collect::<Vec<_>>());
        prop_assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected);
    }

    #[test]
    fn samples_are_those_of_random_access(
        pieces in prop::collection::vec(0u64..40, 1..12), lanes in 1u64..8, window in 1u64..30, a in 0u64..400, b in 0u64..400,
        shuffle in prop::sample::select(vec![Shuffle::None, Shuffle::Windows, Shuffle::Full]),
    ) {
        let order = Order::new(&pieces, &options(shuffle, 3, lanes, window), 0).expect("order");
        let (found, expected): (Vec<_>, Vec<_>) = (order.samples(a..b).collect(), (a..b).map_while(|s| order.locate(s)).collect());
        prop_assert_eq!(order.samples(a..b).size_hint(), (found.len(), Some(found.len())));
        prop_assert_eq!(found, expected);
    }

    /// What the pipeline streams, lane by lane and window by window, is what random access gives.
    #[test]
    fn segments_and_windows_agree_with_random_access(
        pieces in prop::collection::vec(0u64..40, 1..12), seed: u64, lanes in 1u64..8, window in 1u64..30,
    ) {
        let order = Order::new(&pieces, &options(Shuffle::Windows, seed, lanes, window), 0).expect("order");
        let lanes = order.lanes();
        for lane in 0..lanes {
            let windows = order.windows(lane);
            let mut q = 0;
            while q < order.lane_len(lane) {
                let (index, range) = windows.of(q);
                prop_assert_eq!(range.start, q);
                let mut stored = Vec::new();
                while (stored.len() as u64) < range.end - range.start {
                    let segment = order.segment_at(lane, range.start + stored.len() as u64);
                    stored.extend(segment.rows.map(|row| (segment.piece, row)));
                }
                let permutation = order.window_permutation(lane, index, &range);
                for i in 0..range.end - range.start {
                    let streamed = stored[permutation.get(i) as usize];
                    prop_assert_eq!(order.locate((range.start + i) * lanes + lane), Some(streamed));
                }
                q = range.end;
            }
        }
    }
}
