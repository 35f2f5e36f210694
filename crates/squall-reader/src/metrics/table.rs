//! Metrics as a table for people.

use std::fmt;
use std::time::Duration;

use crate::metrics::{Metrics, StageTimes, per_second};

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rows in {} batches in {:.2} s: {:.0} rows/s{}",
            self.rows,
            self.batches,
            self.wall.as_secs_f64(),
            self.rows_per_second(),
            match self.first_batch {
                Some(Duration::ZERO) | None => String::new(),
                Some(first) => format!(", the first after {:.3} s", first.as_secs_f64()),
            }
        )?;
        writeln!(f, "{:<12} {:>6} {:>8} {:>8}", "stage", "busy", "starved", "blocked")?;
        self.stage(f, "fetch", self.fetch, self.bytes_fetched)?;
        self.stage(f, "decode", self.decode, self.bytes_decoded)?;
        self.stage(f, "build", self.build, self.bytes_built)?;
        let parts = [
            ("  gather", self.build_parts.gather),
            ("  cells", self.build_parts.cells),
            ("  transform", self.build_parts.transform),
        ];
        for (name, time) in parts.into_iter().filter(|(_, time)| !time.is_zero()) {
            writeln!(f, "{name:<12} {}", percent(time, whole(&self.build)))?;
        }
        if let Some(loader) = &self.loader {
            let idle = loader.starved + loader.blocked;
            let all = loader.collate + loader.sink + idle;
            let [busy, starved, blocked] =
                [loader.collate + loader.sink, loader.starved, loader.blocked].map(|time| percent(time, all));
            writeln!(f, "{:<12} {busy} {starved:>8} {blocked:>8}", "loader")?;
        }
        self.stage(f, "consumer", self.consumer, 0)?;
        if let Some(budget) = self.memory.budget {
            let most = megabytes(self.memory.high_water);
            writeln!(f, "memory: at most {most} MB of a budget of {} MB", megabytes(budget))?;
        }
        if let Some(cache) = &self.cache {
            writeln!(f, "cache: {} hits, {} misses", cache.hits, cache.misses)?;
        }
        if self.storage.retries > 0 {
            writeln!(
                f,
                "storage: {} requests, {} retries",
                self.storage.requests, self.storage.retries
            )?;
        }
        if self.bad_rows > 0 {
            writeln!(f, "bad rows: {} skipped", self.bad_rows)?;
        }
        if let (Some(share), Some(loading)) = (self.cpu_share(), self.cpu.loading) {
            let (share, loading) = (100.0 * share, loading.as_secs_f64());
            writeln!(
                f,
                "processor: loading takes {share:.0} % of {} cores, {loading:.2} s",
                self.cpu.cores
            )?;
        }
        match self.limiting_stage() {
            Some(stage) => write!(f, "limited by {stage}: {}", stage.advice()),
            None => write!(f, "no batch was taken yet"),
        }
    }
}

impl Metrics {
    fn stage(&self, f: &mut fmt::Formatter<'_>, name: &str, times: StageTimes, bytes: u64) -> fmt::Result {
        let [busy, starved, blocked] =
            [times.busy, times.starved, times.blocked].map(|time| percent(time, whole(&times)));
        write!(f, "{name:<12} {busy} {starved:>8} {blocked:>8}")?;
        if bytes > 0 {
            let speed = per_second(bytes, self.wall) / 1e6;
            write!(f, "   {} MB, {speed:.1} MB/s", megabytes(bytes))?;
        }
        writeln!(f)
    }
}

fn whole(times: &StageTimes) -> Duration {
    times.busy + times.starved + times.blocked
}

fn percent(time: Duration, whole: Duration) -> String {
    let share = match whole.as_secs_f64() {
        0.0 => 0.0,
        whole => 100.0 * time.as_secs_f64() / whole,
    };
    format!("{share:>4.0} %")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
