//! Executors that failed where another may not: their disk is full, they do not see a place, a store does not know them.
//!
//! Such an executor fails at once and asks for work again, before all others. So after a failure its next attempts of the same
//! conversion wait, longer after each failure, and hold its slots: the driver submits the job again, and whoever is free takes the
//! unit. An executor whose store was out of order for a moment is soon at work again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use squall_schema::{ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::lease::{Watch, conversion_of};
use super::place::Place;
use super::record::Ledger;

/// How long an executor waits after its first failure; twice as long after each that follows, up to the most.
const HOLD: Duration = Duration::from_secs(5);
const HOLD_AT_MOST: Duration = Duration::from_secs(80);
/// How often it looks whether it need wait.
const LOOK: Duration = Duration::from_millis(500);
/// After so long a conversion is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Whether another executor may do what failed with an error of this kind.
pub(crate) fn is_doubtful(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Storage | ErrorKind::NotFound)
}

/// When the process failed last, and how often without having done a unit, by conversions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts(Arc<Mutex<HashMap<String, (Instant, u32)>>>);

impl Doubts {
    /// The process failed at a pass. What fails while it waits counts once: slots fail together.
    pub(crate) fn add(&self, pass: &str) {
        let now = Instant::now();
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, (at, _)| at.elapsed() < FORGOTTEN);
        let (at, n) = failed.entry(conversion_of(pass).to_owned()).or_insert((now, 0));
        if *n == 0 || now >= until(*at, *n) {
            (*at, *n) = (now, *n + 1);
        }
    }

    /// The process did a unit of a pass after all.
    pub(crate) fn clear(&self, pass: &str) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.remove(conversion_of(pass));
    }

    /// Waits if the process failed before, while others have time to do the unit. An error if nobody wants it any more.
    pub(crate) async fn wait(&self, (pass, unit): (&str, usize), place: &Place) -> Result<()> {
        let mut watch = Watch::of(pass);
        while self.holds(pass) {
            // What it cannot see now it may see when it has waited.
            if let Ok(store) = place.open() {
                watch.look(&store).await?;
                if Ledger::new(&store, pass).has(unit).await.unwrap_or_default() {
                    return Ok(());
                }
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn holds(&self, pass: &str) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = failed.get(conversion_of(pass));
        found.is_some_and(|(at, n)| Instant::now() < until(*at, *n))
    }
}

fn until(failed: Instant, n: u32) -> Instant {
    failed
        + HOLD
            .saturating_mul(2u32.saturating_pow(n.saturating_sub(1)))
            .min(HOLD_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_waited_for_longer() {
        let now = Instant::now();
        let holds: Vec<_> = (1..=6).map(|n| (until(now, n) - now).as_secs()).collect();
        assert_eq!(holds, [5, 10, 20, 40, 80, 80]);
        assert_eq!(until(now, u32::MAX), until(now, 6));
        let doubts = Doubts::default();
        assert!(!doubts.holds("one-0-write"));
        for _ in 0..3 {
            // Slots that fail together.
            doubts.add("one-0-write");
        }
        let n = doubts.0.lock().expect("no panic")["one"].1;
        assert!(n == 1 && doubts.holds("one-0-gather") && !doubts.holds("other-0-write"));
        doubts.clear("one-0-gather");
        assert!(!doubts.holds("one-0-write"));
    }
}
