//! Several datasets as one: which dataset a sample comes from, and which of its samples it is.
//!
//! Samples are drawn in blocks of [`BLOCK`]. How many of a block come from each dataset is fixed by the weights; which places
//! of the block they take is shuffled. So the proportions hold in every block and not only on average, any sample can be
//! located without the ones before it, and what a resume needs is one number.

use std::ops::{Range, RangeInclusive};

use chacha20::rand_core::Rng;
use squall_schema::{Error, Result};

use crate::random::{Domain, Permutation, stream};
use crate::sequence::Stretch;

/// Samples in which the proportions hold.
pub const BLOCK: u64 = 1000;

/// How often a dataset may be read in one global batch.
const MAX_PASSES: u128 = 100;

/// Weights are whole multiples of one part in a million.
const UNITS: u64 = 1_000_000;

/// When an epoch of a mixture ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// With the first draw from a dataset that has no sample left, as Petastorm's `WeightedSamplingReader` does. The next
    /// epoch begins all datasets anew, each in another order.
    #[default]
    Shortest,
    /// When every dataset was read whole. Those that end before begin anew, each time in another order, and go on from
    /// where they are in the next epoch of the mixture.
    Longest,
}

/// A mixture of datasets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    seed: u64,
    ending: Ending,
    /// Samples of an epoch of each dataset.
    lens: Vec<u64>,
    /// For each dataset the sum of the weights up to and with its own, in parts of a million.
    cumulated: Vec<u64>,
    /// Samples of an epoch of the mixture.
    len: u64,
    /// What each dataset has drawn when an epoch of the mixture ends.
    drawn: Vec<u64>,
}

impl Mix {
    /// A mixture of datasets with so many samples an epoch, in proportion to these weights.
    ///
    /// Weights are taken to one part in a million of their sum. In each block of 1,000 samples each dataset has as many
    /// as its weight says; where that is no whole number, less than two more or fewer, so that none gains over time.
    pub fn new(seed: u64, lens: &[u64], weights: &[f64], ending: Ending) -> Result<Self> {
        let cumulated = cumulate(weights)?;
        if lens.len() != weights.len() {
            return Err(Error::invalid(format!(
                "expected a weight for each of {} datasets, found {}",
                lens.len(),
                weights.len()
            )));
        }
        let mut mix = Self {
            seed,
            ending,
            lens: lens.to_vec(),
            cumulated,
            len: 0,
            drawn: Vec::new(),
        };
        let ends = lens.iter().enumerate().map(|(member, len)| match ending {
            Ending::Shortest => mix.sample_of(member, *len),
            Ending::Longest => mix.sample_of(member, len.saturating_sub(1)).map(|last| last + 1),
        });
        let ends = ends
            .collect::<Option<Vec<_>>>()
            .filter(|_| lens.iter().all(|len| *len > 0));
        let ends = ends.ok_or_else(|| {
            Error::invalid(format!(
                "cannot mix datasets of {lens:?} samples: an epoch would have none, or more than 2^63"
            ))
        })?;
        mix.len = match ending {
            Ending::Shortest => ends.into_iter().min(),
            Ending::Longest => ends.into_iter().max(),
        }
        .unwrap_or(0);
        mix.drawn = mix.draws_before(mix.len);
        Ok(mix)
    }

    /// Refuses global batches that would read a dataset very often: each time its windows are opened anew.
    pub(crate) fn check_batch(&self, global_batch: u64) -> Result<()> {
        for (member, len) in self.lens.iter().enumerate() {
            let previous = member.checked_sub(1).map_or(0, |previous| self.cumulated[previous]);
            let rows = u128::from(global_batch.min(self.len)) * u128::from(self.cumulated[member] - previous)
                / u128::from(UNITS);
            if rows / u128::from(*len) > MAX_PASSES {
                return Err(Error::invalid(format!(
                    "a global batch of {global_batch} would read dataset {member} of the mixture, of {len} samples, {} times: expected at most {MAX_PASSES}",
                    rows / u128::from(*len)
                )));
            }
        }
        Ok(())
    }

    /// Samples of an epoch; every epoch has as many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether an epoch has no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The dataset of a sample of an epoch, by its place, the dataset's own epoch and the sample of it.
    pub fn locate(&self, epoch: u64, sample: u64) -> Option<(usize, u64, u64)> {
        if sample >= self.len {
            return None;
        }
        let member = usize::from(self.block(sample / BLOCK)[(sample % BLOCK) as usize]);
        let draw = self.draws_before(sample)[member];
        let (own_epoch, own) = self.draw(epoch, member, draw);
        Some((member, own_epoch, own))
    }

    /// What a draw from a dataset gives: an epoch of the dataset and a sample of it.
    fn draw(&self, epoch: u64, member: usize, draw: u64) -> (u64, u64) {
        match self.ending {
            Ending::Shortest => (epoch, draw),
            Ending::Longest => {
                let all = u128::from(epoch) * u128::from(self.drawn[member]) + u128::from(draw);
                let len = u128::from(self.lens[member]);
                // Epochs beyond 2^64 do not come in the life of anyone.
                ((all / len) as u64, (all % len) as u64)
            }
        }
    }

    /// The epochs of a dataset that an epoch of the mixture draws from.
    pub(crate) fn epochs_of(&self, member: usize, epoch: u64) -> RangeInclusive<u64> {
        let last = self.drawn[member].saturating_sub(1);
        self.draw(epoch, member, 0).0..=self.draw(epoch, member, last).0
    }

    /// Which sample of an epoch is a sample of a dataset's own epoch: [`Mix::locate`] the other way round.
    pub(crate) fn number(&self, member: usize, epoch: u64, own_epoch: u64, sample: u64) -> Option<u64> {
        let (first, skipped) = self.draw(epoch, member, 0);
        let draw = (u128::from(own_epoch.checked_sub(first)?) * u128::from(self.lens[member]) + u128::from(sample))
            .checked_sub(u128::from(skipped))?;
        let draw = u64::try_from(draw).ok().filter(|draw| *draw < self.drawn[member])?;
        self.sample_of(member, draw)
    }

    /// The runs of the datasets' own samples that samples of an epoch are made of.
    pub(crate) fn stretches(&self, epoch: u64, samples: Range<u64>, layer: usize) -> Vec<Stretch> {
        let draws = self.draws_before(samples.start);
        let mut numbers: Vec<Vec<u64>> = vec![Vec::new(); self.lens.len()];
        let mut next = samples.start;
        while next < samples.end {
            let places = self.block(next / BLOCK);
            let end = samples.end.min((next / BLOCK + 1) * BLOCK);
            for sample in next..end {
                numbers[usize::from(places[(sample % BLOCK) as usize])].push(sample);
            }
            next = end;
        }
        let mut stretches = Vec::new();
        for (source, (numbers, first)) in numbers.into_iter().zip(draws).enumerate() {
            let mut done = 0;
            while done < numbers.len() {
                let (own_epoch, own) = self.draw(epoch, source, first + done as u64);
                let now = (numbers.len() - done).min(usize::try_from(self.lens[source] - own).unwrap_or(usize::MAX));
                stretches.push(Stretch {
                    source,
                    epoch: own_epoch,
                    samples: own..own + now as u64,
                    numbers: Some(numbers[done..done + now].into()),
                    layer,
                });
                done += now;
            }
        }
        stretches
    }

    /// Which sample of an epoch is the `n`-th draw from a dataset, both counted from 0. None beyond 2^63.
    pub(crate) fn sample_of(&self, member: usize, n: u64) -> Option<u64> {
        // The last block before which there are at most n draws.
        let (mut low, mut high) = (0, (1 << 63) / BLOCK);
        if self.before(member, high) <= n {
            return None;
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.before(member, middle) <= n {
                true => low = middle,
                false => high = middle,
            }
        }
        let wanted = (n - self.before(member, low)) as usize;
        let block = self.block(low);
        let mut places = (0u64..).zip(&block).filter(|(_, own)| usize::from(**own) == member);
        places.nth(wanted).map(|(place, _)| low * BLOCK + place)
    }

    /// Draws from each dataset before a sample.
    fn draws_before(&self, sample: u64) -> Vec<u64> {
        let mut draws: Vec<_> = (0..self.lens.len())
            .map(|member| self.before(member, sample / BLOCK))
            .collect();
        for member in &self.block(sample / BLOCK)[..(sample % BLOCK) as usize] {
            draws[usize::from(*member)] += 1;
        }
        draws
    }

    /// Draws from a dataset before a block. The sum over the datasets is the number of samples: each sum of weights is cut to
    /// a whole number once, and what one dataset gains by it the next one loses.
    fn before(&self, member: usize, block: u64) -> u64 {
        let up_to = |cumulated: u64| (u128::from(block * BLOCK) * u128::from(cumulated) / u128::from(UNITS)) as u64;
        let previous = member
            .checked_sub(1)
            .map_or(0, |previous| up_to(self.cumulated[previous]));
        up_to(self.cumulated[member]) - previous
    }

    /// The dataset of each place of a block.
    fn block(&self, block: u64) -> Vec<u16> {
        let counts = (0..self.lens.len()).map(|member| self.before(member, block + 1) - self.before(member, block));
        let sorted: Vec<u16> = (0u16..)
            .zip(counts)
            .flat_map(|(member, count)| (0..count).map(move |_| member))
            .collect();
        let permutation = Permutation::new(BLOCK, &mut stream(self.seed, 0, Domain::Mix, block));
        (0..BLOCK)
            .map(|place| sorted[permutation.get(place) as usize])
            .collect()
    }

    /// A digest of all that decides the mixture, for the state.
    pub(crate) fn text(&self) -> String {
        let ending = match self.ending {
            Ending::Shortest => "shortest",
            Ending::Longest => "longest",
        };
        format!("{ending} {:?} {:?}", self.cumulated, self.lens)
    }
}

/// The seed of a dataset of a mixture: the same dataset taken twice comes in two orders.
pub(crate) fn member_seed(seed: u64, member: usize) -> u64 {
    stream(seed, 0, Domain::Member, member as u64).next_u64()
}

/// The sums of the weights, in parts of a million of their total.
fn cumulate(weights: &[f64]) -> Result<Vec<u64>> {
    let total: f64 = weights.iter().sum();
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        return Err(Error::invalid(format!(
            "expected the weight of a dataset to be above 0, found {weight:e}"
        )));
    }
    if !(2..=usize::from(u16::MAX)).contains(&weights.len()) || !total.is_finite() {
        return Err(Error::invalid(format!(
            "expected two to {} datasets with weights of a finite sum, found {} of {total:e}",
            u16::MAX,
            weights.len()
        )));
    }
    let mut sum = 0.0;
    let mut cumulated = Vec::with_capacity(weights.len());
    let mut before = 0;
    for weight in weights {
        sum += weight;
        let units = (sum / total * UNITS as f64).round() as u64;
        if units <= before {
            return Err(Error::invalid(format!(
                "expected the weight of a dataset to be at least a millionth of their sum {total:e}, found {weight:e}"
            )));
        }
        cumulated.push(units);
        before = units;
    }
    if let Some(last) = cumulated.last_mut() {
        *last = UNITS;
    }
    Ok(cumulated)
}

#[cfg(test)]
mod tests;
