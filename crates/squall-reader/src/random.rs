//! The one source of randomness of the order, pinned for good.
//!
//! Every random choice has a name: seed, epoch, a [`Domain`] and an index. These four numbers, little-endian, are the
//! 32 bytes of a ChaCha8 key (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), whose stream with nonce 0 makes
//! the choice. No other state exists, so a choice does not depend on what was chosen before it, or by whom.
//!
//! The algorithms are written out here because those of the rand crates may change between releases. The golden
//! vectors in the tests hold them; a change of any of them needs a new [`ORDER_VERSION`](crate::ORDER_VERSION).

use std::ops::Range;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use multiversion::multiversion;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a random choice is for. The numbers are part of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// The order of the pieces in an epoch.
    Pieces = 1,
    /// The length of a lane's first window.
    FirstWindow = 2,
    /// The rows of a window; the index is that of [`window_index`].
    Window = 3,
    /// The rows of a rank's slice of a global batch; the index is the slice's first place.
    Slice = 4,
    /// What a TransformSpec draws for a row; the index is the sample.
    Row = 5,
    /// The places of the datasets in a block of a mixture; the index is the block's.
    Mix = 6,
    /// The seed of a dataset of a mixture; the index is its place.
    Member = 7,
    /// What a sampler draws; the index is that of a block of draws, of rows, or of a class.
    Draw = 8,
    /// Crops and flips of the images of a row; the index is the sample.
    Image = 9,
}

/// The stream of a named choice.
pub(crate) fn stream(seed: u64, epoch: u64, domain: Domain, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, epoch, domain as u64, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The hash that says which part of a split these bytes belong to: XXH3 of 64 bits (Y. Collet), which needs no table and has
/// implementations in many languages.
pub(crate) fn split_hash(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// One number for a window of a lane. Windows of different lanes never share it: there are at most 2^24 lanes.
pub(crate) fn window_index(lane: u64, window: u64) -> u64 {
    (window << 24) | lane
}

/// An integer below `n`, each with the same probability (D. Lemire, "Fast Random Integer Generation in an Interval",
/// 2019). `n` is not 0.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        let low = product as u64;
        // The lowest `2^64 mod n` values would make some results likelier than others.
        if low >= n || low >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

/// Up to this size a permutation is a table.
const TABLE_SIZE: u64 = 4096;
/// Half rounds of the Feistel network.
const ROUNDS: usize = 8;

/// A random permutation of `0..n` with O(1) access.
///
/// Up to 4,096 elements it is a table, shuffled by R. Durstenfeld's algorithm (1964). Above, it is an alternating Feistel
/// network on exactly the bits that `n - 1` has, with cycle walking (J. Black and P. Rogaway, "Ciphers with Arbitrary
/// Finite Domains", 2002): values outside are permuted again until they fall inside, fewer than two times on average.
#[derive(Debug, Clone)]
pub(crate) enum Permutation {
    Identity,
    Table(Box<[u16]>),
    Feistel(Feistel),
}

impl Permutation {
    pub(crate) fn new(n: u64, rng: &mut ChaCha8Rng) -> Self {
        if n > TABLE_SIZE {
            return Self::Feistel(Feistel::new(n, rng));
        }
        let mut table: Box<[u16]> = (0..n as u16).collect();
        for i in (1..table.len()).rev() {
            table.swap(i, below(rng, i as u64 + 1) as usize);
        }
        Self::Table(table)
    }

    /// Where `i` goes.
    pub(crate) fn get(&self, i: u64) -> u64 {
        match self {
            Self::Identity => i,
            Self::Table(table) => u64::from(table[i as usize]),
            Self::Feistel(feistel) => feistel.get(i),
        }
    }

    /// Calls `f` with each of `0..n` in order and where it goes. Several times as fast as asking for each.
    pub(crate) fn each(&self, n: u64, f: impl FnMut(u64, u64)) {
        self.each_of(0..n, f);
    }

    /// Calls `f` with each of these in order and where it goes.
    pub(crate) fn each_of(&self, rows: Range<u64>, mut f: impl FnMut(u64, u64)) {
        match self {
            Self::Identity => rows.for_each(|i| f(i, i)),
            Self::Table(table) => {
                let images = &table[rows.start as usize..rows.end as usize];
                rows.zip(images).for_each(|(i, image)| f(i, u64::from(*image)));
            }
            Self::Feistel(feistel) => feistel.each_of(rows, f),
        }
    }

    /// What goes to `image`. Takes as long as [`Permutation::get`], and a search where there is a table.
    pub(crate) fn inverse(&self, image: u64) -> u64 {
        match self {
            Self::Identity => image,
            // Every image below n stands in the table.
            Self::Table(table) => table.iter().position(|own| u64::from(*own) == image).unwrap_or(0) as u64,
            Self::Feistel(feistel) => feistel.inverse(image),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Feistel {
    n: u64,
    low_bits: u32,
    low_mask: u64,
    high_mask: u64,
    keys: [u64; ROUNDS],
}

impl Feistel {
    fn new(n: u64, rng: &mut ChaCha8Rng) -> Self {
        let bits = u64::BITS - (n - 1).leading_zeros();
        let low_bits = bits / 2;
        Self {
            n,
            low_bits,
            low_mask: (1 << low_bits) - 1,
            high_mask: (1 << (bits - low_bits)) - 1,
            keys: std::array::from_fn(|_| rng.next_u64()),
        }
    }

    fn get(&self, i: u64) -> u64 {
        self.walk(i, self.keys.iter().enumerate())
    }

    /// Many values at a time, and those that fall outside many at a time again.
    fn each_of(&self, rows: Range<u64>, mut f: impl FnMut(u64, u64)) {
        const AT_ONCE: usize = 256;
        let (mut images, mut again) = ([0; AT_ONCE], [0; AT_ONCE]);
        let mut start = rows.start;
        while start < rows.end {
            let n = (rows.end - start).min(AT_ONCE as u64) as usize;
            let images = &mut images[..n];
            (start..).zip(&mut *images).for_each(|(i, image)| *image = i);
            permute(self, images);
            loop {
                let is_outside = |image: &u64| *image >= self.n;
                let outside = images.iter().copied().filter(is_outside);
                let n = again
                    .iter_mut()
                    .zip(outside)
                    .map(|(again, image)| *again = image)
                    .count();
                if n == 0 {
                    break;
                }
                permute(self, &mut again[..n]);
                let outside = images.iter_mut().filter(|image| is_outside(image));
                outside.zip(&again).for_each(|(image, again)| *image = *again);
            }
            (start..).zip(images).for_each(|(i, image)| f(i, *image));
            start += n as u64;
        }
    }

    #[inline(always)]
    fn round(&self, round: usize, key: u64, low: &mut u64, high: &mut u64) {
        if round.is_multiple_of(2) {
            *high ^= mix(*low ^ key) & self.high_mask;
        } else {
            *low ^= mix(*high ^ key) & self.low_mask;
        }
    }

    /// The half rounds are their own inverses: undone in the other direction.
    fn inverse(&self, image: u64) -> u64 {
        self.walk(image, self.keys.iter().enumerate().rev())
    }

    fn walk<'a>(&self, from: u64, rounds: impl Iterator<Item = (usize, &'a u64)> + Clone) -> u64 {
        let mut x = from;
        loop {
            let (mut low, mut high) = (x & self.low_mask, x >> self.low_bits);
            for (round, key) in rounds.clone() {
                self.round(round, *key, &mut low, &mut high);
            }
            x = (high << self.low_bits) | low;
            if x < self.n {
                return x;
            }
        }
    }
}

/// All rounds of each value. Those of one wait for each other, those of several do not; where the processor multiplies eight at
/// once, it takes a third of the time.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw"))]
fn permute(feistel: &Feistel, values: &mut [u64]) {
    const AT_ONCE: usize = 16;
    let (low_bits, low_mask) = (feistel.low_bits, feistel.low_mask);
    let (groups, rest) = values.as_chunks_mut::<AT_ONCE>();
    for group in groups {
        let mut low = group.map(|value| value & low_mask);
        let mut high = group.map(|value| value >> low_bits);
        for (round, key) in feistel.keys.iter().enumerate() {
            for (low, high) in low.iter_mut().zip(&mut high) {
                feistel.round(round, *key, low, high);
            }
        }
        for ((value, low), high) in group.iter_mut().zip(low).zip(high) {
            *value = (high << low_bits) | low;
        }
    }
    for value in rest {
        let (mut low, mut high) = (*value & low_mask, *value >> low_bits);
        for (round, key) in feistel.keys.iter().enumerate() {
            feistel.round(round, *key, &mut low, &mut high);
        }
        *value = (high << low_bits) | low;
    }
}

/// The finaliser of SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[inline(always)]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_permutes(n: u64, permutation: &Permutation) {
        let mut seen = vec![false; n as usize];
        let mut each = Vec::new();
        permutation.each(n, |i, image| each.push((i, image)));
        let mut part = Vec::new();
        permutation.each_of(n / 3..n - n / 4, |i, image| part.push((i, image)));
        assert_eq!(part, each[(n / 3) as usize..(n - n / 4) as usize]);
        for i in 0..n {
            let image = permutation.get(i) as usize;
            assert_eq!(each[i as usize], (i, image as u64));
            if i % (1 + n / 64) == 0 {
                assert_eq!(permutation.inverse(image as u64), i);
            }
            assert!(
                !std::mem::replace(&mut seen[image], true),
                "{image} stands twice for n = {n}"
            );
        }
    }

    #[test]
    fn every_size_is_a_permutation() {
        let assert_size = |n| assert_permutes(n, &Permutation::new(n, &mut stream(7, 0, Domain::Window, n)));
        (0..=TABLE_SIZE).for_each(assert_size);
        for k in 12..=20 {
            ((1 << k) - 1..=(1 << k) + 1).for_each(assert_size);
        }
    }

    /// The sizes that are tables otherwise too: a network of few bits is where a wrong width or mask would show.
    #[test]
    fn feistel_networks_of_every_size_are_permutations() {
        for n in 1..=TABLE_SIZE + 1 {
            let feistel = Feistel::new(n, &mut stream(7, 1, Domain::Window, n));
            assert_permutes(n, &Permutation::Feistel(feistel));
        }
    }

    /// Both ways of making a permutation put each element in each place about equally often.
    #[test]
    fn permutations_are_uniform() {
        let count_pairs = |make: &dyn Fn(u64, &mut ChaCha8Rng) -> Permutation, n: u64| {
            let draws = 20_000;
            let mut counts = vec![0u32; (n * n) as usize];
            for draw in 0..draws {
                let permutation = make(n, &mut stream(1, 2, Domain::Window, draw));
                (0..n).for_each(|i| counts[(i * n + permutation.get(i)) as usize] += 1);
            }
            let expected = draws as f64 / n as f64;
            let chi2: f64 = counts
                .iter()
                .map(|c| (f64::from(*c) - expected).powi(2) / expected)
                .sum();
            // (n - 1)^2 degrees of freedom; six standard deviations above the mean.
            let freedom = ((n - 1) * (n - 1)) as f64;
            assert!(
                chi2 < freedom + 6.0 * (2.0 * freedom).sqrt(),
                "chi2 {chi2} for {freedom}"
            );
        };
        count_pairs(&Permutation::new, 11);
        count_pairs(&|n, rng| Permutation::Feistel(Feistel::new(n, rng)), 11);
        count_pairs(&|n, rng| Permutation::Feistel(Feistel::new(n, rng)), 24);
    }

    /// What the package xxhash 3 of Python gives: `xxhash.xxh3_64_intdigest(bytes, seed)`.
    #[test]
    fn the_hash_of_splits_is_pinned() {
        let mut place = [0; 16];
        (place[0], place[8]) = (3, 5);
        let vectors: [(u64, &[u8], u64); 7] = [
            (0, b"", 0x2d06_8005_38d3_94c2),
            (0, b"user 7", 0x0c95_2251_e229_b72e),
            (7, b"user 7", 0x0f94_36c2_91aa_1de7),
            (u64::MAX, b"-2000000000", 0x62e3_088c_0549_fd8c),
            (7, &place, 0xfc77_1871_8dfb_0732),
            (7, &0.5f64.to_le_bytes(), 0xadaa_1de5_5609_a838),
            (1, &[b'x'; 300], 0x34c2_97d5_dc46_ccff),
        ];
        for (seed, bytes, expected) in vectors {
            assert_eq!(split_hash(seed, bytes), expected, "{bytes:?}");
        }
    }

    /// Golden vectors: a change here changes the order of every user.
    #[test]
    fn the_generator_is_pinned() {
        let mut rng = stream(42, 1, Domain::Pieces, 0);
        let raw: Vec<_> = (0..2).map(|_| rng.next_u64()).collect();
        let small: Vec<_> = (0..8).map(|_| below(&mut rng, 10)).collect();
        let table = Permutation::new(8, &mut stream(42, 1, Domain::Window, window_index(3, 5)));
        let table: Vec<_> = (0..8).map(|i| table.get(i)).collect();
        let feistel = Permutation::new(1_000_000, &mut stream(42, 1, Domain::Window, 9));
        let feistel: Vec<_> = (0..4).map(|i| feistel.get(i)).collect();
        assert_eq!(raw, [0xd689_8089_8e48_bf0f, 0x8113_5d1c_e44a_d813]);
        assert_eq!(small, [8, 7, 7, 6, 6, 0, 1, 5]);
        assert_eq!(table, [7, 1, 4, 5, 6, 3, 2, 0]);
        assert_eq!(feistel, [41_679, 385_401, 122_129, 554_266]);
    }
}
