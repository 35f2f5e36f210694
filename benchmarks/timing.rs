//! Several runs of one thing on a machine that may be shared: the best counts, the others tell how noisy it was.

use std::time::Instant;

use crate::Result;

/// Rates of several runs, in rows a second.
#[derive(Debug, Clone, Default)]
pub struct Rates(Vec<f64>);

impl Rates {
    /// Adds a run that was measured elsewhere.
    pub fn add(&mut self, rate: f64) {
        self.0.push(rate);
        self.0.sort_by(f64::total_cmp);
    }

    /// Runs once, and adds the rate of the rows that it gives.
    pub fn measure(&mut self, run: impl FnOnce() -> Result<usize>) -> Result<usize> {
        let began = Instant::now();
        let rows = run()?;
        self.add(rows as f64 / began.elapsed().as_secs_f64());
        Ok(rows)
    }

    /// The best run; 0 where there is none.
    pub fn best(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// How far the median run is below the best, as a share of it.
    pub fn noise(&self) -> f64 {
        match self.0.get(self.0.len() / 2) {
            Some(median) => 1.0 - median / self.best(),
            None => 0.0,
        }
    }
}
