//! Where a reader stands, in a form that outlives the process.

use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::order::{ORDER_VERSION, OrderOptions, Shuffle};
use crate::sequence::Sequence;
use crate::source::Source;

/// Version of the stored form.
const VERSION: u32 = 1;

/// The position of a run in its order: a hundred bytes of JSON, the same on all ranks that are in lock-step.
///
/// It counts rows that were delivered, not rows that were read ahead. It can be resumed on another world size, batch size
/// and number of threads; the rows that are left are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderState {
    version: u32,
    order: u32,
    dataset: String,
    selection: String,
    shuffle: String,
    seed: u64,
    lanes: u64,
    window: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The first sample of the epoch that was not delivered.
    pub next: u64,
}

/// What a state holds besides the position; two readers with the same have the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderIdentity {
    pub(crate) dataset: String,
    pub(crate) selection: String,
    pub(crate) order: OrderOptions,
}

impl OrderIdentity {
    pub(crate) fn new(sources: &[Source], sequence: &Sequence, seed: u64) -> Self {
        let [source, ..] = sources else {
            unreachable!("a plan has a dataset");
        };
        let order = OrderOptions {
            seed,
            ..source.order.clone()
        };
        let mut selections = Xxh3::new();
        let mut sampling = Xxh3::new();
        for source in sources {
            selections.update(&source.digest.to_le_bytes());
            sampling.update(source.sampling.as_bytes());
        }
        let dataset = match sequence {
            Sequence::One(_) => source.dataset.fingerprint().to_owned(),
            Sequence::Mixed(mix) => {
                sampling.update(mix.text().as_bytes());
                let mut datasets = Xxh3::new();
                for source in sources {
                    datasets.update(source.dataset.fingerprint().as_bytes());
                    sampling.update(format!("{:?}", source.order).as_bytes());
                }
                format!("{:032x}", datasets.digest128())
            }
        };
        Self {
            dataset,
            // Half of it says which rows there are, the other half how samples are made of them.
            selection: format!("{:08x}{:08x}", selections.digest() as u32, sampling.digest() as u32),
            order,
        }
    }
}

impl ReaderState {
    pub(crate) fn new(identity: &OrderIdentity, epoch: u64, next: u64) -> Self {
        Self {
            version: VERSION,
            order: ORDER_VERSION,
            dataset: identity.dataset.clone(),
            selection: identity.selection.clone(),
            shuffle: shuffle_name(identity.order.shuffle).to_owned(),
            seed: identity.order.seed,
            lanes: identity.order.lanes,
            window: identity.order.window,
            epoch,
            next,
        }
    }

    /// The options that a resumed reader takes over where it was given none: shuffle, seed, lanes, window.
    pub(crate) fn options(&self) -> Result<OrderOptions> {
        if (self.version, self.order) != (VERSION, ORDER_VERSION) {
            return Err(Error::unsupported(format!(
                "the state has version {} and order version {}: expected {VERSION} and {ORDER_VERSION}",
                self.version, self.order
            )));
        }
        let known = [Shuffle::None, Shuffle::Windows, Shuffle::Full];
        let shuffle = known.into_iter().find(|shuffle| shuffle_name(*shuffle) == self.shuffle);
        let shuffle =
            shuffle.ok_or_else(|| Error::invalid(format!("unknown shuffle mode {:?} in the state", self.shuffle)))?;
        Ok(OrderOptions {
            shuffle,
            seed: self.seed,
            lanes: self.lanes,
            window: self.window,
        })
    }

    /// Refuses a state of another order, saying what differs.
    pub(crate) fn check(&self, identity: &OrderIdentity) -> Result<()> {
        let now = Self::new(identity, self.epoch, self.next);
        let pairs = [
            ("the dataset's fingerprint", &*self.dataset, &*now.dataset),
            ("the selection of rows", rows(&self.selection), rows(&now.selection)),
            (
                "the sampler, the n-grams or the mixture",
                sampling(&self.selection),
                sampling(&now.selection),
            ),
            ("the shuffle mode", &self.shuffle, &now.shuffle),
            ("the seed", &self.seed.to_string(), &now.seed.to_string()),
            ("the number of lanes", &self.lanes.to_string(), &now.lanes.to_string()),
            ("the window", &self.window.to_string(), &now.window.to_string()),
        ];
        match pairs.into_iter().find(|(_, saved, found)| saved != found) {
            Some((what, saved, found)) => Err(Error::invalid(format!(
                "cannot resume: {what} changed since the state was saved, from {saved} to {found}"
            ))),
            None => Ok(()),
        }
    }

    /// The JSON text.
    pub fn to_json(&self) -> String {
        // A struct of numbers and strings always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The state in a JSON text.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid("not the state of a reader").with_source(error))
    }
}

/// Of the digest of a selection the half that says which rows there are to choose from.
fn rows(selection: &str) -> &str {
    selection.get(..8).unwrap_or(selection)
}

/// The half that says how samples are made of them.
fn sampling(selection: &str) -> &str {
    selection.get(8..).unwrap_or_default()
}

pub(crate) fn shuffle_name(shuffle: Shuffle) -> &'static str {
    match shuffle {
        Shuffle::None => "none",
        Shuffle::Windows => "windows",
        Shuffle::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> OrderIdentity {
        OrderIdentity {
            dataset: "0123456789abcdef0123456789abcdef".into(),
            selection: "0123456789abcdef".into(),
            order: OrderOptions {
                shuffle: Shuffle::Windows,
                seed: 4_294_967_295,
                lanes: 32,
                window: 8192,
            },
        }
    }

    #[test]
    fn it_is_small_and_comes_back() {
        let state = ReaderState::new(&identity(), 99, 1_000_000_000);
        let text = state.to_json();
        assert!(text.len() <= 200, "{} bytes: {text}", text.len());
        assert_eq!(ReaderState::from_json(&text).expect("own text"), state);
        assert!(state.check(&identity()).is_ok());
    }

    #[test]
    fn another_order_is_refused_by_name() {
        let state = ReaderState::new(&identity(), 0, 5);
        let error = state
            .check(&OrderIdentity {
                order: OrderOptions {
                    window: 64,
                    ..identity().order
                },
                ..identity()
            })
            .expect_err("other window");
        assert_eq!(
            error.to_string(),
            "cannot resume: the window changed since the state was saved, from 8192 to 64"
        );
        let error = state
            .check(&OrderIdentity {
                dataset: "f".into(),
                ..identity()
            })
            .expect_err("other dataset");
        assert!(
            error.to_string().contains("the dataset's fingerprint changed"),
            "{error}"
        );
    }
}
