//! How random the order is: that nothing but chance decides it, and the figures of `docs/order.md`, "How random it is".
//!
//! All seeds are fixed, so each test gives the same result at every run. What is held against chance is turned into a number
//! of standard deviations; five of them, on either side, are exceeded once in 1.7 million tests.

use super::*;
use crate::random::below;

const MOST_DEVIATIONS: f64 = 5.0;

/// How many standard deviations these counts, all expected to be the same, are from it: chi-square with so many degrees of
/// freedom, made normal by the cube root of E. Wilson and M. Hilferty, "The Distribution of Chi-Square" (1931).
fn deviations(counts: &[u32], freedom: usize) -> f64 {
    let total: u32 = counts.iter().sum();
    let expected = f64::from(total) / counts.len() as f64;
    assert!(expected >= 50.0, "too few for chi-square: {expected} in a cell");
    let squares = counts.iter().map(|count| (f64::from(*count) - expected).powi(2));
    let (chi2, freedom) = (squares.sum::<f64>() / expected, freedom as f64);
    let spread = 2.0 / (9.0 * freedom);
    ((chi2 / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

fn assert_even(counts: &[u32], freedom: usize, what: &str) {
    let deviations = deviations(counts, freedom);
    assert!(
        deviations.abs() < MOST_DEVIATIONS,
        "{what}: {deviations:.2} standard deviations"
    );
}

/// A number below `n` that no order uses: the choices of these tests.
fn choose(n: u64, index: u64) -> u64 {
    below(&mut stream(u64::MAX, u64::MAX, Domain::Row, index), n)
}

fn windows(lanes: u64, window: u64, seed: u64) -> OrderOptions {
    OrderOptions {
        shuffle: Shuffle::Windows,
        seed,
        lanes,
        window,
    }
}

/// The chi-square test looks at one sample of each epoch, for the samples of an epoch are not independent.
#[test]
fn every_row_group_comes_in_every_tenth_of_an_epoch() {
    const PIECES: u64 = 40;
    const ROWS: u64 = 125;
    const DRAWS: u64 = 20_000;
    let check = |what: &str, order: &dyn Fn(u64) -> Order| {
        let mut counts = vec![0; 10 * PIECES as usize];
        for draw in 0..DRAWS {
            let tenth = draw % 10;
            let length = PIECES * ROWS / 10;
            let sample = tenth * length + choose(length, draw);
            let (piece, _) = order(draw).locate(sample).expect("a sample");
            counts[(tenth * PIECES) as usize + piece as usize] += 1;
        }
        // Each tenth was drawn equally often by design, which takes a degree of freedom from each.
        assert_even(&counts, 10 * (PIECES as usize - 1), what);
    };
    let pieces = [ROWS; PIECES as usize];
    let new = |options: &OrderOptions, epoch| Order::new(&pieces, options, epoch).expect("an order");
    check("epochs of a seed", &|draw| new(&windows(32, 8, 3), draw));
    check("first epochs of many seeds", &|draw| new(&windows(32, 8, draw), 0));
    let full = OrderOptions {
        shuffle: Shuffle::Full,
        ..windows(32, 8, 3)
    };
    check("full shuffle", &|draw| new(&full, draw));
}

/// Windows that are tables, and larger ones; also with a size that is no power of two.
#[test]
fn every_row_of_a_window_comes_in_every_place_of_it() {
    const PARTS: u64 = 16;
    for length in [64, 5_000, 8_192] {
        let mut counts = vec![0; (PARTS * PARTS) as usize];
        let part = |place: u64| place * PARTS / length;
        for draw in 0..25_600 {
            let order = Order::new(&[1 << 20], &windows(32, length, 3), draw).expect("an order");
            let (lane, place) = (draw % 32, choose(length, draw));
            let (index, rows) = order.windows(lane).of(length);
            assert_eq!(rows.end - rows.start, length);
            let row = order.window_permutation(lane, index, &rows).get(place);
            counts[(part(place) * PARTS + part(row)) as usize] += 1;
        }
        assert_even(&counts, counts.len() - 1, &format!("windows of {length} rows"));
    }
}

#[test]
fn first_windows_have_every_length() {
    let mut counts = vec![0; 64];
    for epoch in 0..200 {
        let order = Order::new(&[32 * 64], &windows(32, 64, 3), epoch).expect("an order");
        (0..32).for_each(|lane| counts[order.windows(lane).of(0).1.end as usize - 1] += 1);
    }
    assert_even(&counts, counts.len() - 1, "lengths of the first window");
}

/// Row groups, and rows of each, of the dataset of the documentation: sorted, so that what is near in it is alike.
const PIECES: u64 = 40;
const ROWS: u64 = 25_000;
const BATCH: usize = 1_024;

fn sorted_dataset(shuffle: Shuffle, lanes: u64, window: u64, epoch: u64) -> Order {
    let options = OrderOptions {
        shuffle,
        ..windows(lanes, window, 1)
    };
    Order::new(&[ROWS; PIECES as usize], &options, epoch).expect("an order")
}

/// Where each sample is stored, as the place in the whole dataset. As [`Order::locate`], but a window's table is made once.
fn positions(order: &Order) -> Vec<u64> {
    let mut positions = vec![0; order.len() as usize];
    for lane in 0..order.lanes() {
        let windows = order.windows(lane);
        let mut q = 0;
        while q < order.lane_len(lane) {
            let (index, rows) = windows.of(q);
            let permutation = order.window_permutation(lane, index, &rows);
            for i in 0..rows.end - rows.start {
                let (piece, row) = order.locate_unshuffled(lane, rows.start + permutation.get(i));
                let sample = (rows.start + i) * order.lanes() + lane;
                positions[sample as usize] = u64::from(piece) * ROWS + row;
            }
            q = rows.end;
        }
    }
    for sample in (0..order.len()).step_by(99_991) {
        let (piece, row) = order.locate(sample).expect("a sample");
        assert_eq!(positions[sample as usize], u64::from(piece) * ROWS + row);
    }
    positions
}

/// What the documentation tells of an epoch in batches of 1,024; the last one, of 576, counts for the row groups only.
#[derive(Debug)]
struct Mix {
    /// Row groups of which a batch holds rows: of the first, the last, the poorest, and on average.
    groups: [f64; 4],
    /// Correlation of the stored positions of samples `s` and `s + 1`, and of `s` and `s + 32`.
    next: f64,
    next_of_lane: f64,
    /// Correlation of the mean positions of consecutive batches.
    batches: f64,
    /// Standard deviation of these means over that of random samples of as many rows.
    spread: f64,
}

fn mix(positions: &[u64]) -> Mix {
    let groups = positions.chunks(BATCH).map(|batch| {
        let bits = batch.iter().fold(0u64, |bits, position| bits | 1 << (position / ROWS));
        f64::from(bits.count_ones())
    });
    let groups: Vec<_> = groups.collect();
    let values: Vec<_> = positions.iter().map(|position| *position as f64).collect();
    let means: Vec<_> = values.chunks_exact(BATCH).map(mean).collect();
    let (n, batch) = (values.len() as f64, BATCH as f64);
    // Of rows 0..n, drawn without replacement.
    let random = (n * n - 1.0) / 12.0 / batch * (n - batch) / (n - 1.0);
    Mix {
        groups: [
            groups[0],
            groups[groups.len() - 1],
            groups.iter().copied().fold(f64::MAX, f64::min),
            mean(&groups),
        ],
        next: correlation(&values, 1),
        next_of_lane: correlation(&values, 32),
        batches: correlation(&means, 1),
        spread: (variance(&means) / random).sqrt(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// Of values that are `lag` apart.
fn correlation(values: &[f64], lag: usize) -> f64 {
    let mean = mean(values);
    let pairs = values.iter().zip(&values[lag..]);
    let products: f64 = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum();
    products / variance(values) / values.len() as f64
}

/// The page with the figures.
const PAGE: &str = include_str!("../../../../docs/order.md");

fn assert_in_page(lines: &[String]) {
    let table = lines.join("\n");
    assert!(
        PAGE.contains(&table),
        "docs/order.md does not have these figures:\n{table}"
    );
}

#[test]
fn batches_are_mixed_as_the_page_says() {
    const EPOCHS: u64 = 4;
    let measure = |shuffle, lanes, window| {
        let epochs = (0..EPOCHS).map(|epoch| mix(&positions(&sorted_dataset(shuffle, lanes, window, epoch))));
        epochs.collect::<Vec<_>>()
    };
    let columns = [
        measure(Shuffle::Windows, 32, 8_192),
        measure(Shuffle::Windows, 256, 1_024),
        measure(Shuffle::Windows, 1, 32 * 8_192),
        measure(Shuffle::Full, 1, 1),
    ];
    let line = |what: &str, digits: usize, figure: &dyn Fn(&Mix) -> f64| {
        let cell = |epochs: &Vec<Mix>| {
            let figures: Vec<_> = epochs.iter().map(figure).collect();
            let least = figures.iter().copied().fold(f64::MAX, f64::min);
            let most = figures.iter().copied().fold(f64::MIN, f64::max);
            // Zero has no sign in the page.
            let text = |figure: f64| format!("{figure:.digits$}").replace("-0.00", "0.00");
            let (least, most) = (text(least), text(most));
            if least == most {
                least
            } else {
                format!("{least} to {most}")
            }
        };
        let cells: Vec<_> = columns.iter().map(cell).collect();
        format!("| {what} | {} |", cells.join(" | "))
    };
    assert_in_page(&[
        line("row groups in a batch, on average", 1, &|mix| mix.groups[3]),
        line("in the poorest batch", 0, &|mix| mix.groups[2]),
        line("in the first batch", 0, &|mix| mix.groups[0]),
        line("in the last batch", 0, &|mix| mix.groups[1]),
        line("correlation of a sample and the next", 2, &|mix| mix.next),
        line("of a sample and the 32nd behind it", 2, &|mix| mix.next_of_lane),
        line("of the means of a batch and the next", 2, &|mix| mix.batches),
        line("spread of these means, over that of random batches", 2, &|mix| {
            mix.spread
        }),
    ]);
}

#[test]
fn a_full_shuffle_cannot_be_told_from_a_random_one() {
    let deviations_of_zero = |correlation: f64, n: usize| (correlation + 1.0 / n as f64) * (n as f64).sqrt();
    for epoch in 0..2 {
        let positions = positions(&sorted_dataset(Shuffle::Full, 32, 8_192, epoch));
        let mix = mix(&positions);
        let (n, batches) = (positions.len(), positions.len() / BATCH);
        assert_eq!(mix.groups, [PIECES as f64; 4]);
        assert!(deviations_of_zero(mix.next, n).abs() < MOST_DEVIATIONS, "{mix:?}");
        assert!(
            deviations_of_zero(mix.next_of_lane, n).abs() < MOST_DEVIATIONS,
            "{mix:?}"
        );
        assert!(
            deviations_of_zero(mix.batches, batches).abs() < MOST_DEVIATIONS,
            "{mix:?}"
        );
        let spread = (mix.spread - 1.0) * (2.0 * batches as f64).sqrt();
        assert!(spread.abs() < MOST_DEVIATIONS, "{mix:?}");
        // Pairs of neighbours fall into all pairs of 32 parts of the dataset.
        let part = |position: u64| position * 32 / n as u64;
        let mut counts = vec![0; 32 * 32];
        for pair in positions.chunks_exact(2) {
            counts[(part(pair[0]) * 32 + part(pair[1])) as usize] += 1;
        }
        // Each part is full in the end: of 64 sums of a row or a column all but one are given.
        assert_even(&counts, 31 * 31, "pairs of neighbours");
    }
}

/// How often row groups are read by all ranks together, over their number. Ranks take slices as docs/order.md says it.
fn reads(order: &Order, positions: &[u64], ranks: u64, global_batch: u64) -> f64 {
    let mut touched = vec![0u64; ranks as usize];
    for start in (0..order.len()).step_by(global_batch as usize) {
        let end = (start + global_batch).min(order.len());
        let (short, longer) = ((end - start) / ranks, (end - start) % ranks);
        let mut place = 0;
        for lane in 0..order.lanes() {
            let first = start + (lane + order.lanes() - start % order.lanes()) % order.lanes();
            for sample in (first..end).step_by(order.lanes() as usize) {
                let rank = if place < longer * (short + 1) {
                    place / (short + 1)
                } else {
                    longer + (place - longer * (short + 1)) / short
                };
                touched[rank as usize] |= 1 << (positions[sample as usize] / ROWS);
                place += 1;
            }
        }
        assert_eq!(place, end - start);
    }
    let reads: u32 = touched.iter().map(|bits| bits.count_ones()).sum();
    f64::from(reads) / PIECES as f64
}

#[test]
fn ranks_read_their_own_row_groups_as_the_page_says() {
    let order = sorted_dataset(Shuffle::Windows, 32, 8_192, 0);
    let positions = positions(&order);
    let line = |(ranks, global_batch)| {
        let reads = reads(&order, &positions, ranks, global_batch);
        format!("| {ranks} | {global_batch} | {reads:.3} |")
    };
    let runs = [
        (1, 1_024),
        (2, 1_024),
        (4, 1_024),
        (8, 1_024),
        (16, 1_024),
        (32, 1_024),
        (64, 1_024),
        (3, 960),
        (3, 1_023),
        (6, 960),
        (6, 1_020),
    ];
    assert_in_page(&runs.map(line));
}
