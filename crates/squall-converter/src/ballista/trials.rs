//! Failures that may be those of one executor: how often the others are asked before the conversion fails.

use std::collections::{BTreeMap, BTreeSet};

use squall_schema::{Error, Result};

use super::fault::Fault;

/// How often a unit may fail on several executors, and how often anything may in a row while no unit is done and nobody else is at
/// work.
const TRIES: usize = 3;
/// How often nothing may happen in a row after a failure.
const STALLS: usize = 15;

/// The failures of a pass.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    /// How often units failed, and on which executors.
    units: BTreeMap<usize, (usize, BTreeSet<String>)>,
    failures: usize,
    stalls: usize,
    last: Option<Error>,
}

impl Trials {
    /// Whether anything failed.
    pub(crate) fn is_any(&self) -> bool {
        self.last.is_some()
    }

    /// A unit was done.
    pub(crate) fn progress(&mut self) {
        (self.failures, self.stalls) = (0, 0);
    }

    /// An error if others were asked often enough, of whom some may be at work.
    pub(crate) fn failed(&mut self, fault: Fault, are_others_at_work: bool) -> Result<()> {
        let (unit, executor) = (fault.unit, fault.executor);
        self.last = Some(fault.error);
        self.failures += usize::from(!are_others_at_work);
        self.stalls = 0;
        let (n, executors) = self.units.entry(unit).or_default();
        *n += 1;
        executors.insert(executor);
        let is_enough = self.failures >= TRIES || (*n >= TRIES && executors.len() > 1);
        self.go_on(!is_enough)
    }

    /// Nothing happened after a failure: an error if that was so often enough.
    pub(crate) fn stalled(&mut self) -> Result<()> {
        self.stalls += 1;
        self.go_on(self.stalls < STALLS)
    }

    fn go_on(&mut self, goes_on: bool) -> Result<()> {
        match self.last.take_if(|_| !goes_on) {
            None => Ok(()),
            Some(error) => {
                let executors = self.units.values().flat_map(|(_, executors)| executors);
                let executors: BTreeSet<_> = executors.map(String::as_str).collect();
                Err(error.at("executor", executors.into_iter().collect::<Vec<_>>().join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use squall_schema::ErrorKind;

    use super::*;

    fn fault(unit: usize, executor: &str) -> Fault {
        Fault {
            error: Error::new(ErrorKind::Storage, "no space is left on the disk"),
            executor: executor.to_owned(),
            unit,
        }
    }

    #[test]
    fn one_executor_fails_alone_and_all_fail_together() {
        let mut trials = Trials::default();
        for _ in 0..10 {
            trials.failed(fault(1, "a"), true).expect("others are at work");
        }
        for _ in 1..TRIES {
            trials.failed(fault(1, "a"), false).expect("another may do it");
        }
        trials.progress();
        for _ in 1..TRIES {
            trials.failed(fault(2, "a"), false).expect("another may do it");
        }
        trials.failed(fault(3, "a"), false).expect_err("nobody does a unit");

        let mut trials = Trials::default();
        for executor in ["a", "b"] {
            trials.failed(fault(1, executor), true).expect("another may do it");
            trials.progress();
        }
        let error = trials.failed(fault(1, "a"), true).expect_err("it fails on all");
        assert_eq!(error.place("executor"), Some("a, b"));

        let mut trials = Trials::default();
        trials.failed(fault(1, "a"), false).expect("another may do it");
        for _ in 1..STALLS {
            trials.stalled().expect("another may do it");
        }
        let error = trials.stalled().expect_err("nobody does it");
        assert_eq!((error.kind(), error.place("executor")), (ErrorKind::Storage, Some("a")));
    }
}
