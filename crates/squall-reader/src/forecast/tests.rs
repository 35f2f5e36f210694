//! Forecasts beside what they foretell: a reader's schedule that is walked step by step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::batches::Batches;
use super::fetches::{Fetches, fetches};
use super::*;
use crate::order::{Order, OrderOptions, Shuffle};
use crate::share::Share;

/// A row takes ten bytes, and each fetch three.
struct TenBytes;

impl Sizes for TenBytes {
    fn fetch(&self, _: u32, rows: Range<u64>) -> Result<u64> {
        Ok(10 * (rows.end - rows.start) + 3)
    }

    fn row(&self) -> (f64, f64) {
        (10.0, 20.0)
    }
}

fn order(pieces: &[u64], shuffle: Shuffle, lanes: u64, window: u64) -> Order {
    let options = OrderOptions {
        shuffle,
        seed: 5,
        lanes,
        window,
    };
    Order::new(pieces, &options, 2).expect("order")
}

fn share(world_size: u64, global_batch: u64, remainder: Remainder) -> Share {
    Share {
        rank: 0,
        world_size,
        global_batch,
        remainder,
    }
}

/// A rank's runs at each step, by the rule itself.
fn steps(order: &Order, share: Share, rank: u64) -> Vec<Vec<(u64, Range<u64>, bool)>> {
    let share = Share { rank, ..share };
    let (mut next, mut steps) = (0, Vec::new());
    while let Some((slice, end)) = share.slice_of(order, next) {
        next = end;
        let runs = slice.runs.into_iter();
        steps.push(runs.map(|run| (run.lane, run.rows, run.part > 0)).collect());
    }
    steps
}

/// What a rank fetches, step by step: the windows that the schedule opens, and what the driver fetches for each.
fn walked(order: &Order, share: Share, rank: u64) -> (Fetches, BTreeSet<u32>) {
    let mut fetched = Fetches::default();
    let mut pieces = BTreeSet::new();
    // Of each lane the last window, and the end of what was fetched, in this pass.
    let mut open: BTreeMap<u64, (Range<u64>, u64)> = BTreeMap::new();
    for (lane, run, _) in steps(order, share, rank).into_iter().flatten() {
        let windows = order.windows(lane);
        let mut at = run.start;
        while at < run.end {
            let (_, window) = windows.of(at);
            at = window.end;
            if open.get(&lane).is_some_and(|(last, _)| *last == window) {
                continue;
            }
            if open.get(&lane).is_some_and(|(last, _)| last.start > window.start) {
                open.clear();
            }
            let last = open.get(&lane).map_or(0, |(_, end)| *end);
            let ahead = windows.of(window.end.min(order.lane_len(lane) - 1)).1;
            let mut from = last.max(window.start);
            while from < ahead.end {
                let segment = order.segment_at(lane, from);
                fetched.bytes += TenBytes.fetch(segment.piece, segment.rows.clone()).expect("bytes");
                fetched.rows += segment.rows.end - segment.rows.start;
                from += segment.rows.end - segment.rows.start;
                pieces.insert(segment.piece);
            }
            open.insert(lane, (window, from.max(last)));
        }
    }
    fetched.row_groups = pieces.len() as u64;
    (fetched, pieces)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn every_rank_fetches_what_is_forecast(
        pieces in prop::collection::vec(0u64..60, 1..12), lanes in 1u64..9, window in 1u64..40, world_size in 1u64..10,
        batch_size in 1u64..40, shuffle in prop::sample::select(vec![Shuffle::None, Shuffle::Windows, Shuffle::Full]),
        remainder in prop::sample::select(vec![Remainder::Keep, Remainder::Drop, Remainder::Pad]),
    ) {
        prop_assume!(pieces.iter().sum::<u64>() > 0);
        let order = order(&pieces, shuffle, lanes, window);
        let share = share(world_size, batch_size * world_size, remainder);
        let batches = Batches::new(&order, share);
        let found = fetches(&batches, &TenBytes).expect("a forecast");
        prop_assert!(!found.coverage.is_sample());
        let mut all = BTreeSet::new();
        for rank in 0..world_size {
            let (expected, pieces) = walked(&order, share, rank);
            prop_assert_eq!(found.ranks[rank as usize], expected, "rank {}", rank);
            all.extend(pieces);
        }
        prop_assert_eq!(found.row_groups, all.len() as u64);
    }

    #[test]
    fn single_answers_are_those_of_the_share(
        pieces in prop::collection::vec(1u64..60, 1..8), lanes in 1u64..12, world_size in 1u64..9, batch_size in 1u64..9,
        remainder in prop::sample::select(vec![Remainder::Keep, Remainder::Drop, Remainder::Pad]),
    ) {
        let order = order(&pieces, Shuffle::Windows, lanes, 7);
        let share = share(world_size, batch_size * world_size, remainder);
        let batches = Batches::new(&order, share);
        for rank in 0..world_size {
            let steps = steps(&order, share, rank);
            prop_assert_eq!(batches.steps, steps.len() as u64);
            let (mut rows, mut padded) = (0, 0);
            for (batch, runs) in (0..).zip(steps) {
                let mut found = Vec::new();
                batches::walk(lanes.min(order.len()), &batches.samples(batch), batches.mine(batch, rank), |lane, places| {
                    found.push((lane, places));
                });
                let own: Vec<_> = runs.iter().filter(|(_, _, padded)| !padded).map(|(lane, rows, _)| (*lane, rows.clone())).collect();
                prop_assert_eq!(&found, &own);
                for (lane, expected) in &own {
                    prop_assert_eq!(&batches.places(batch, *lane, rank), expected);
                    let in_tail = batches.tail(*lane).is_some_and(|(_, ranks)| ranks.contains(&rank));
                    prop_assert!(batches.ranks_of_lane(*lane).contains(&rank) || in_tail);
                }
                rows += own.iter().map(|(_, rows)| rows.end - rows.start).sum::<u64>();
                padded += runs.iter().filter(|(_, _, padded)| *padded).map(|(_, rows, _)| rows.end - rows.start).sum::<u64>();
            }
            prop_assert_eq!(batches.rows_of(rank), (rows, padded));
        }
    }
}

/// The forecast of one epoch, and its map where one is wanted.
fn forecast(order: &Order, share: Share, pieces: &[u64], map_size: Option<MapSize>) -> (Forecast, Option<DeliveryMap>) {
    let parties = [Party {
        first_rank: 0,
        batches: Batches::new(order, share),
        pieces: None,
    }];
    let ranks = Ranks {
        world_size: share.world_size,
        hands: Hands {
            workers: 2,
            prefetch: 4,
        },
        sizes: &[&TenBytes],
        bytes: 10 * order.len(),
    };
    let stored = Stored::new(pieces, share.global_batch);
    let most = (stored.pieces(), parties[0].batches.steps, share.world_size);
    let mut map = map_size.map(|size| map(size, most).expect("a map"));
    let mut verdict = Verdict::default();
    verdict.add(&parties, &stored, share.world_size, map.as_mut());
    (of_parties(&parties, &stored, &ranks, verdict).expect("a forecast"), map)
}

/// The quality of `shuffle` over 64 row groups of 1000 rows, in global batches of 256 rows of 4 ranks.
fn quality(shuffle: Shuffle, lanes: u64, window: u64) -> Quality {
    let pieces = [1000; 64];
    let order = order(&pieces, shuffle, lanes, window);
    forecast(&order, share(4, 256, Remainder::Drop), &pieces, None)
        .0
        .quality
}

#[test]
fn quality_is_1_of_a_random_permutation_and_falls_with_order() {
    let full = quality(Shuffle::Full, 1, 1);
    assert!(full.quality > 0.95 && full.rank_quality > 0.95, "{full:?}");
    assert!((full.design_effect - 1.0).abs() < 0.05, "{full:?}");
    let distance = full.row_groups_per_batch - full.row_groups_per_random_batch;
    assert!(distance.abs() < 0.5, "{full:?}");
    // All rows of a batch lie in one stratum, or in two: they tell as much as one row, or two.
    let none = quality(Shuffle::None, 1, 1);
    assert!(none.quality * 256.0 > 0.9 && none.quality * 256.0 < 1.5, "{none:?}");
    assert!(
        none.rank_quality * 64.0 > 0.9 && none.rank_quality * 64.0 < 1.5,
        "{none:?}"
    );
    let lanes = [1, 4, 16, 64].map(|lanes| quality(Shuffle::Windows, lanes, 100).quality);
    assert!(lanes.is_sorted() && lanes[0] < 0.02 && lanes[3] > 0.2, "{lanes:?}");
    let windows = [100, 2000, 16000].map(|window| quality(Shuffle::Windows, 4, window).quality);
    assert!(windows.is_sorted() && windows[2] > 4.0 * windows[0], "{windows:?}");
}

#[test]
fn a_sample_of_the_batches_finds_the_same_quality() {
    // Twice as many rows as are laid out one by one.
    let pieces = [131_072; 64];
    let found = |shuffle, lanes| {
        let order = order(&pieces, shuffle, lanes, 64);
        forecast(&order, share(4, 256, Remainder::Drop), &pieces, None).0
    };
    let full = found(Shuffle::Full, 1);
    assert!(
        full.batches_taken.is_sample() && full.batches_taken.of == 32_768,
        "{:?}",
        full.batches_taken
    );
    assert!(full.quality.quality > 0.9, "{:?}", full.quality);
    let none = found(Shuffle::None, 1).quality.quality * 256.0;
    assert!(none > 0.9 && none < 1.1, "{none}");
}

#[test]
fn a_random_batch_has_as_many_row_groups_as_chance_gives() {
    let stored = Stored::new(&[1, 1, 2], 1);
    // Of the 6 pairs of 4 rows, each single row is in 3, and the two of the last row group are missed by 1.
    let expected = 0.5 + 0.5 + 5.0 / 6.0;
    assert!((stored.random_row_groups(2) - expected).abs() < 0.05);
    assert_eq!(stored.random_row_groups(4), 3.0);
    let stored = Stored::new(&[1000; 1000], 1);
    let expected = 1000.0 * (1.0 - (1.0f64 - 0.001).powi(1000));
    assert!((stored.random_row_groups(1000) - expected).abs() < 0.5);
}

#[test]
fn enormous_plans_are_answered_from_a_sample() {
    let pieces = vec![50_000_000u64; 2000];
    let order = order(&pieces, Shuffle::Windows, 32, 8192);
    let (forecast, _) = forecast(&order, share(1024, 65_536, Remainder::Drop), &pieces, None);
    assert_eq!(forecast.steps, 1_525_878);
    assert_eq!(forecast.delivered, 1_525_878 * 65_536);
    assert!(forecast.batches_taken.is_sample() && forecast.memory_steps_taken.is_sample());
    // Each of 32 lanes is read by 32 ranks.
    let rows_fetched: u64 = forecast.ranks.iter().map(|rank| rank.rows_fetched).sum();
    let amplification = rows_fetched as f64 / forecast.rows as f64;
    assert!((amplification - 32.0).abs() < 0.1, "{amplification}");
}

#[test]
fn the_map_counts_every_row_once() {
    let pieces = [100, 50, 0, 100];
    let order = order(&pieces, Shuffle::Windows, 3, 10);
    let size = MapSize {
        rows: 4,
        columns: 1000,
        groups: 2,
    };
    let (forecast, map) = forecast(&order, share(2, 20, Remainder::Keep), &pieces, Some(size));
    let map = map.expect("a map");
    assert_eq!((map.rows, map.columns, map.groups), (4, 13, 2));
    let row = |row| (0..map.columns).flat_map(|column| map.cell(row, column)).sum::<u64>();
    assert_eq!([row(0), row(1), row(2), row(3)], [100, 50, 0, 100]);
    let of_first: u64 = map.counts.iter().step_by(2).sum();
    assert_eq!(of_first, forecast.ranks[0].rows);
}

#[test]
fn memory_counts_windows_fetches_and_batches() {
    let pieces = [1000];
    let order = order(&pieces, Shuffle::None, 1, 100);
    let (forecast, _) = forecast(&order, share(1, 10, Remainder::Drop), &pieces, None);
    let memory = forecast.ranks[0].memory;
    // 4 batches in work, then as many planned ones until more than one window is new: batches 0 to 20 of windows 0 to 2. The
    // batch before may need another one.
    assert!([3000, 4000].contains(&memory.windows), "{memory:?}");
    assert_eq!(memory.fetched, 10 * 1000 + 3);
    assert_eq!(memory.batches, 6 * 10 * 20 + 2 * 10 * 10);
}
