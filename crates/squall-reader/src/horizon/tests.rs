//! The answers held against walks over the order, and the cache that asks them against other policies.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use squall_dataset::cache::{CacheOptions, RangeCache};

use super::*;
use crate::order::{OrderOptions, Shuffle};
use crate::share::Remainder;

fn order(pieces: &[u64], shuffle: Shuffle, (lanes, window): (u64, u64), epoch: u64) -> Order {
    let options = OrderOptions {
        shuffle,
        seed: 5,
        lanes,
        window,
    };
    Order::new(pieces, &options, epoch).expect("an order")
}

/// What [`uses`] says, by walking the epoch: for each rank, the samples with which a window is opened that reaches into a
/// stretch of the rows that no window before did.
fn walked(order: &Order, share: Share, rank: u64, wanted: &Rows) -> Vec<u64> {
    let share = Share { rank, ..share };
    let mut uses = BTreeMap::new();
    let mut next = 0;
    while let Some((slice, end)) = share.slice_of(order, next) {
        next = end;
        for run in slice.runs.iter().filter(|run| run.part == 0) {
            for q in run.rows.clone() {
                let (_, window) = order.windows(run.lane).of(q);
                let is_wanted = |row: u64| {
                    let (piece, n) = order.locate_unshuffled(run.lane, row);
                    piece == wanted.piece && wanted.rows.contains(&n)
                };
                if window.clone().any(is_wanted) {
                    uses.entry(run.lane).or_insert(q * order.lanes() + run.lane);
                }
            }
        }
    }
    uses.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn uses_are_those_of_a_walk(
        pieces in prop::collection::vec(1u64..40, 1..8),
        shuffle in prop::sample::select(vec![Shuffle::None, Shuffle::Windows, Shuffle::Full]),
        shape in (1u64..9, 1u64..30),
        (world_size, batch) in (1u64..6, 1u64..9),
        remainder in prop::sample::select(vec![Remainder::Keep, Remainder::Drop, Remainder::Pad]),
        epoch in 0u64..3,
        (first, n) in (0u64..40, 1u64..40),
    ) {
        let order = order(&pieces, shuffle, shape, epoch);
        let share = Share { rank: 0, world_size, global_batch: batch * world_size, remainder };
        for (piece, len) in (0u32..).zip(&pieces) {
            let rows = Rows { piece, rows: first % len..(first % len + n).min(*len) };
            let mut all = Vec::new();
            for rank in 0..world_size {
                let mut expected = walked(&order, share, rank, &rows);
                let mut found = uses(&order, &share, &[rank], &rows);
                expected.sort_unstable();
                found.sort_unstable();
                prop_assert_eq!(&found, &expected, "piece {} of rank {}", piece, rank);
                all.extend(found);
            }
            let ranks: Vec<_> = (0..world_size).collect();
            let mut together = uses(&order, &share, &ranks, &rows);
            together.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(together, all);
        }
    }
}

const PIECES: usize = 160;
const ROWS: u64 = 64;
const EPOCHS: u64 = 3;
/// Bytes of a piece: with the header of its entry, four blocks of a disk.
const BYTES: u64 = 16_000;

/// One rank that reads all: which piece it fetches with which sample, over all epochs.
fn accesses(lanes: u64) -> Vec<(u64, u32)> {
    let share = Share::of_batch_size(0, 1, 32, Remainder::Keep).expect("a share");
    let len = PIECES as u64 * ROWS;
    let mut accesses = Vec::new();
    for epoch in 0..EPOCHS {
        let order = order(&[ROWS; PIECES], Shuffle::Windows, (lanes, 32), epoch);
        let of_piece = |piece: u32| {
            let uses = uses(&order, &share, &[0], &Rows { piece, rows: 0..ROWS });
            uses.into_iter()
                .map(move |sample| (epoch * len + sample, piece))
                .collect::<Vec<_>>()
        };
        accesses.extend((0..PIECES as u32).flat_map(of_piece));
    }
    accesses.sort_unstable();
    accesses
}

/// Hits of a cache of so many pieces that evicts the one that `worth` gives the least for, the new one included.
fn simulate(
    accesses: &[(u64, u32)],
    capacity: usize,
    bypass: bool,
    worth: impl Fn(usize, u32) -> Reverse<u64>,
) -> usize {
    let mut held: HashSet<u32> = HashSet::new();
    let mut hits = 0;
    for (at, (_, piece)) in accesses.iter().enumerate() {
        if held.contains(piece) {
            hits += 1;
            continue;
        }
        held.insert(*piece);
        if held.len() > capacity {
            let candidates = held.iter().filter(|own| bypass || *own != piece);
            let worst = candidates.min_by_key(|own| (worth(at, **own), **own)).copied();
            held.remove(&worst.expect("a piece"));
        }
    }
    hits
}

/// Hits of Belady's rule, the optimum: what is needed last goes, the new piece itself if it is that.
fn belady(accesses: &[(u64, u32)], capacity: usize) -> usize {
    simulate(accesses, capacity, true, |at, piece| {
        let next = accesses[at + 1..].iter().position(|(_, own)| *own == piece);
        Reverse(next.map_or(u64::MAX, |next| next as u64))
    })
}

fn least_recently_used(accesses: &[(u64, u32)], capacity: usize) -> usize {
    simulate(accesses, capacity, false, |at, piece| {
        let last = accesses[..=at].iter().rposition(|(_, own)| *own == piece);
        Reverse(u64::MAX - last.map_or(0, |last| last as u64))
    })
}

/// The future of one rank that reads all.
struct ByOrder {
    /// The samples with which each piece is fetched, ascending.
    uses: Vec<Vec<u64>>,
    now: Mutex<u64>,
}

impl Foresight for ByOrder {
    fn next_use(&self, _: &ObjectKey, part: Option<u64>) -> Option<NextUse> {
        let (uses, now) = (&self.uses[part? as usize], *self.now.lock().expect("no panic"));
        let next = uses.iter().find(|sample| **sample > now);
        Some(next.map_or(NextUse::Never, |next| NextUse::After(next - now)))
    }
}

/// Hits of the cache on disk.
fn of_cache(accesses: &[(u64, u32)], capacity: usize, foresight: bool) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    let limit = capacity as u64 * BYTES.next_multiple_of(4096);
    let cache = RangeCache::open(&CacheOptions::new(directory.path(), limit)).expect("a cache");
    let of_piece = |piece: usize| {
        accesses
            .iter()
            .filter(|own| own.1 as usize == piece)
            .map(|own| own.0)
            .collect()
    };
    let order = Arc::new(ByOrder {
        uses: (0..PIECES).map(of_piece).collect(),
        now: Mutex::new(0),
    });
    let _registered = foresight.then(|| cache.register(order.clone()));
    let key = ObjectKey::new("s3://a", "x", 1 << 30, Some("1"), None).expect("a key");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (sample, piece) in accesses {
        *order.now.lock().expect("no panic") = *sample;
        let start = u64::from(*piece) * BYTES;
        let fetch = |missing: Vec<Range<u64>>| async move {
            Ok(missing
                .iter()
                .map(|range| vec![0; (range.end - range.start) as usize].into())
                .collect())
        };
        runtime
            .block_on(cache.get_ranges(&key, Some(u64::from(*piece)), &[start..start + BYTES], fetch))
            .expect("bytes");
    }
    cache.metrics().hits as usize
}

/// The figures of docs/caching.md.
#[test]
fn the_cache_does_nearly_as_well_as_the_optimum() {
    println!("lanes, fetches, hits: least recently used, this, optimum");
    for lanes in [1, 7, 30] {
        let accesses = accesses(lanes);
        let capacity = PIECES / 2;
        let (lru, optimum) = (least_recently_used(&accesses, capacity), belady(&accesses, capacity));
        let own = of_cache(&accesses, capacity, true);
        let own_lru = of_cache(&accesses, capacity, false);
        println!(
            "{lanes}, {}: {lru} (the cache without foresight: {own_lru}), {own}, {optimum}",
            accesses.len()
        );
        assert!(own * 100 >= optimum * 95, "{own} of {optimum} hits with {lanes} lanes");
        assert!(own <= optimum && own_lru <= lru + lru / 10);
    }
}
