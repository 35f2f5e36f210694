//! Several runs of one thing on a machine that may be shared: the best counts, the others tell how noisy it was.

use std::time::Instant;

use crate::Result;
use crate::process::cpu_seconds;

/// Rates of several runs, in rows a second, and the CPU that they took together.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    rates: Vec<f64>,
    rows: f64,
    cpu_seconds: f64,
}

impl Rates {
    /// Adds a run that was measured elsewhere.
    pub fn add(&mut self, rows: f64, seconds: f64, cpu_seconds: f64) {
        self.rates.push(rows / seconds);
        self.rates.sort_by(f64::total_cmp);
        self.rows += rows;
        self.cpu_seconds += cpu_seconds;
    }

    /// Runs once, and adds the rate of the rows that it gives.
    pub fn measure(&mut self, run: impl FnOnce() -> Result<usize>) -> Result<usize> {
        let (began, cpu) = (Instant::now(), cpu_seconds()?);
        let rows = run()?;
        self.add(rows as f64, began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        Ok(rows)
    }

    /// Seconds of CPU that a row takes, which other work on the machine changes little; 0 where it is not known.
    pub fn cpu_per_row(&self) -> f64 {
        match self.rows {
            0.0 => 0.0,
            rows => self.cpu_seconds / rows,
        }
    }

    /// The best run; 0 where there is none.
    pub fn best(&self) -> f64 {
        self.rates.last().copied().unwrap_or_default()
    }

    /// How far the median run is below the best, as a share of it.
    pub fn noise(&self) -> f64 {
        match self.rates.get(self.rates.len() / 2) {
            Some(median) => 1.0 - median / self.best(),
            None => 0.0,
        }
    }
}
