//! Where a reader stands, in a form that outlives the process.

use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::order::{ORDER_VERSION, OrderOptions, Shuffle};
use crate::sequence::Sequence;
use crate::source::Source;

/// Version of the stored form, and of the order.
fn versions() -> String {
    format!("2.{ORDER_VERSION}")
}

/// The position of a run in its order: at most 200 bytes of JSON, the same on all ranks that are in lock-step. (Samplers, n-grams
/// and mixtures add up to 40.)
///
/// It counts rows that were delivered, not rows that were read ahead. It can be resumed on another world size, batch size
/// and number of threads; the rows that are left are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderState {
    /// Version of the stored form, and of the order.
    v: String,
    /// Digest of the datasets.
    data: String,
    /// Digest of the selected rows.
    rows: String,
    #[serde(default = "windows", skip_serializing_if = "is_windows")]
    shuffle: String,
    seed: u64,
    lanes: u64,
    window: u64,
    /// Digest of the sampler or of the n-grams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    draw: Option<String>,
    /// Digest of the weights and the ending of a mixture, and of the order options of its datasets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mix: Option<String>,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The first sample of the epoch that was not delivered.
    pub next: u64,
}

fn windows() -> String {
    shuffle_name(Shuffle::Windows).to_owned()
}

fn is_windows(name: &str) -> bool {
    name == shuffle_name(Shuffle::Windows)
}

/// What a state holds besides the position; two readers with the same have the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderIdentity {
    pub(crate) dataset: String,
    pub(crate) selection: String,
    pub(crate) sampling: Option<String>,
    pub(crate) mixture: Option<String>,
    pub(crate) order: OrderOptions,
}

impl OrderIdentity {
    pub(crate) fn new(sources: &[Source], sequence: &Sequence, seed: u64) -> Self {
        let [source, ..] = sources else {
            unreachable!("a plan has a dataset");
        };
        let (mut datasets, mut rows, mut sampling) = (Xxh3::new(), Xxh3::new(), Xxh3::new());
        for source in sources {
            datasets.update(source.dataset.fingerprint().as_bytes());
            rows.update(&source.digest.to_le_bytes());
            sampling.update(source.sampling.as_bytes());
            sampling.update(&[0]);
        }
        let sampled = sources.iter().any(|source| !source.sampling.is_empty());
        let mixture = match sequence {
            Sequence::One(_) => None,
            Sequence::Mixed(mix) => {
                let mut mixture = Xxh3::new();
                mixture.update(mix.text().as_bytes());
                for source in sources {
                    let OrderOptions {
                        shuffle, lanes, window, ..
                    } = &source.order;
                    mixture.update(format!("{} {lanes} {window};", shuffle_name(*shuffle)).as_bytes());
                }
                Some(format!("{:08x}", mixture.digest() as u32))
            }
        };
        Self {
            dataset: format!("{:016x}", datasets.digest()),
            selection: format!("{:016x}", rows.digest()),
            sampling: sampled.then(|| format!("{:08x}", sampling.digest() as u32)),
            mixture,
            order: OrderOptions {
                seed,
                ..source.order.clone()
            },
        }
    }
}

impl ReaderState {
    pub(crate) fn new(identity: &OrderIdentity, epoch: u64, next: u64) -> Self {
        Self {
            v: versions(),
            data: identity.dataset.clone(),
            rows: identity.selection.clone(),
            shuffle: shuffle_name(identity.order.shuffle).to_owned(),
            seed: identity.order.seed,
            lanes: identity.order.lanes,
            window: identity.order.window,
            draw: identity.sampling.clone(),
            mix: identity.mixture.clone(),
            epoch,
            next,
        }
    }

    /// The options that a resumed reader takes over where it was given none: shuffle, seed, lanes, window.
    pub(crate) fn options(&self) -> Result<OrderOptions> {
        if self.v != versions() {
            return Err(Error::unsupported(format!(
                "the state has version {:?}, of its form and of the order: expected {:?}",
                self.v,
                versions()
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
        self.options()?;
        let now = Self::new(identity, self.epoch, self.next);
        let none = || "none".to_owned();
        let pairs = [
            ("the dataset's fingerprint", self.data.clone(), now.data),
            ("the selection of rows", self.rows.clone(), now.rows),
            (
                "the sampler or the n-gram",
                self.draw.clone().unwrap_or_else(none),
                now.draw.unwrap_or_else(none),
            ),
            (
                "the mixture (weights, ending, or the lanes, window or shuffle mode of a dataset)",
                self.mix.clone().unwrap_or_else(none),
                now.mix.unwrap_or_else(none),
            ),
            ("the shuffle mode", self.shuffle.clone(), now.shuffle),
            ("the seed", self.seed.to_string(), now.seed.to_string()),
            ("the number of lanes", self.lanes.to_string(), now.lanes.to_string()),
            ("the window", self.window.to_string(), now.window.to_string()),
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
            dataset: "0123456789abcdef".into(),
            selection: "0123456789abcdef".into(),
            sampling: None,
            mixture: None,
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
        let most = OrderOptions {
            shuffle: Shuffle::Windows,
            seed: u64::MAX,
            lanes: 1 << 24,
            window: u64::MAX,
        };
        for order in [identity().order, most] {
            let identity = OrderIdentity { order, ..identity() };
            let state = ReaderState::new(&identity, u64::MAX, u64::MAX);
            let text = state.to_json();
            assert!(text.len() <= 200, "{} bytes: {text}", text.len());
            assert_eq!(ReaderState::from_json(&text).expect("own text"), state);
            assert!(state.check(&identity).is_ok());
        }
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
        let older = state.to_json().replace(&versions(), "2.0");
        let older = ReaderState::from_json(&older).expect("a state");
        assert!(
            older
                .check(&identity())
                .is_err_and(|error| error.to_string().contains("version \"2.0\""))
        );
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
