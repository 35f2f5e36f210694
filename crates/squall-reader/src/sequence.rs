//! The samples of a plan's epochs: those of one dataset, or of several that are mixed.
//!
//! From here on up, an epoch is samples `0..len`; a run of them is one [`Stretch`] of the order of the dataset that is read,
//! or several where datasets are mixed.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::mix::Mix;

/// The epochs of a plan.
#[derive(Debug, Clone)]
pub(crate) enum Sequence {
    /// One dataset of so many samples an epoch.
    One(u64),
    /// Several datasets.
    Mixed(Arc<Mix>),
}

/// A run of samples of one epoch of one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The place of the dataset in the plan.
    pub(crate) source: usize,
    /// The epoch of the dataset, which is the plan's but in a mixture that repeats datasets.
    pub(crate) epoch: u64,
    /// Samples of the dataset's order.
    pub(crate) samples: Range<u64>,
    /// Which samples of the plan they are, where the numbers differ.
    pub(crate) numbers: Option<Arc<[u64]>>,
    /// 0, or where they stand in their batch a second time, to fill it, the how manieth time.
    pub(crate) layer: usize,
}

impl Stretch {
    /// The plan's number of a sample of the dataset's order that is in the stretch.
    pub(crate) fn number(&self, sample: u64) -> u64 {
        match &self.numbers {
            None => sample,
            Some(numbers) => numbers[(sample - self.samples.start) as usize],
        }
    }
}

impl Sequence {
    /// Samples of an epoch; every epoch has as many.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::One(len) => *len,
            Self::Mixed(mix) => mix.len(),
        }
    }

    /// The samples of an epoch that these are.
    pub(crate) fn stretches(&self, epoch: u64, samples: Range<u64>, layer: usize) -> Vec<Stretch> {
        match self {
            Self::One(_) => vec![Stretch {
                source: 0,
                epoch,
                samples,
                numbers: None,
                layer,
            }],
            Self::Mixed(mix) => mix.stretches(epoch, samples, layer),
        }
    }

    /// The epochs of a dataset that an epoch of the plan reads of.
    pub(crate) fn epochs_of(&self, source: usize, epoch: u64) -> RangeInclusive<u64> {
        match self {
            Self::One(_) => epoch..=epoch,
            Self::Mixed(mix) => mix.epochs_of(source, epoch),
        }
    }

    /// Which sample of an epoch of the plan is a sample of a dataset's epoch; `None` where it is none.
    pub(crate) fn number(&self, source: usize, epoch: u64, own_epoch: u64, sample: u64) -> Option<u64> {
        match self {
            Self::One(_) => Some(sample),
            Self::Mixed(mix) => mix.number(source, epoch, own_epoch, sample),
        }
    }
}
