//! Where a reader stands, in a form that outlives the process.

use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result};

use crate::order::{ORDER_VERSION, Shuffle};

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
    pub(crate) selection: u64,
    pub(crate) shuffle: Shuffle,
    pub(crate) seed: u64,
    pub(crate) lanes: u64,
    pub(crate) window: u64,
}

impl ReaderState {
    pub(crate) fn new(identity: &OrderIdentity, epoch: u64, next: u64) -> Self {
        Self {
            version: VERSION,
            order: ORDER_VERSION,
            dataset: identity.dataset.clone(),
            selection: format!("{:x}", identity.selection),
            shuffle: shuffle_name(identity.shuffle).to_owned(),
            seed: identity.seed,
            lanes: identity.lanes,
            window: identity.window,
            epoch,
            next,
        }
    }

    /// The options that a resumed reader takes over where it was given none: shuffle, seed, lanes, window.
    pub(crate) fn options(&self) -> Result<(Shuffle, u64, u64, u64)> {
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
        Ok((shuffle, self.seed, self.lanes, self.window))
    }

    /// Refuses a state of another order, saying what differs.
    pub(crate) fn check(&self, identity: &OrderIdentity) -> Result<()> {
        let now = Self::new(identity, self.epoch, self.next);
        let pairs = [
            ("the dataset's fingerprint", &self.dataset, &now.dataset),
            ("the selection of rows", &self.selection, &now.selection),
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

fn shuffle_name(shuffle: Shuffle) -> &'static str {
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
            selection: 0x0123_4567_89ab_cdef,
            shuffle: Shuffle::Windows,
            seed: 4_294_967_295,
            lanes: 32,
            window: 8192,
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
                window: 64,
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
