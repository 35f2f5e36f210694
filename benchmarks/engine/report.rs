//! The figures as a table, beside what they should be.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use squall_benchmarks::Result;
use squall_benchmarks::timing::Rates;

/// What Squall should reach: on a set, beside a system, at least this multiple of its rate.
const TARGETS: [(&str, &str, f64); 8] = [
    ("tabular", RAW_SCAN, 0.35),
    ("tabular", "petastorm", 12.0),
    ("png", "petastorm", 8.0),
    ("npy", RAW_SCAN, 0.5),
    ("npy", "petastorm", 30.0),
    ("jpeg", "bare decode", 0.95),
    ("jpeg", "dali", 1.0),
    ("jpeg", "petastorm", 1.0),
];
/// The faster of the raw scans.
const RAW_SCAN: &str = "raw scan";
/// From opening a dataset on a local disk to the first batch.
const FIRST_BATCH: Duration = Duration::from_millis(100);

/// One system on one set.
pub(crate) struct Measured {
    set: String,
    system: String,
    rates: Rates,
    pub(crate) first_batch: Option<Duration>,
    pub(crate) note: String,
}

impl Measured {
    pub(crate) fn new(set: &str, system: &str, rates: Rates) -> Self {
        Self {
            set: set.to_owned(),
            system: system.to_owned(),
            rates,
            first_batch: None,
            note: String::new(),
        }
    }
}

pub(crate) struct Report {
    threads: usize,
    repeat: usize,
    measured: Vec<Measured>,
}

/// Whether Squall reached what it should.
struct Verdict {
    text: String,
    met: bool,
}

impl Report {
    pub(crate) fn new(threads: usize, repeat: usize) -> Self {
        Self {
            threads,
            repeat,
            measured: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    pub(crate) fn print(&self) {
        println!("{} threads, the best of {}", self.threads, self.repeat);
        println!(
            "{:8} {:32} {:>12} {:>9} {:>7} {:>12} {:>9} {:>12}",
            "set", "system", "rows/s", "squall is", "noise", "µs CPU/row", "squall is", "first batch"
        );
        for measured in &self.measured {
            let own = self.find(&measured.set, "squall");
            let own_cpu = own.map_or(0.0, |own| own.rates.cpu_per_row());
            let own = own.map_or(0.0, |own| own.rates.best());
            let first = measured
                .first_batch
                .map_or(String::new(), |first| format!("{:.0} ms", first.as_secs_f64() * 1e3));
            let ratio = match measured.rates.best() {
                0.0 => String::new(),
                best => format!("{:.2} ×", own / best),
            };
            let (cpu, cpu_ratio) = match measured.rates.cpu_per_row() {
                0.0 => Default::default(),
                cpu => (format!("{:.3}", cpu * 1e6), format!("{:.2} ×", cpu / own_cpu)),
            };
            println!(
                "{:8} {:32} {:>12.0} {ratio:>9} {:>5.0} % {cpu:>12} {cpu_ratio:>9} {first:>12}  {}",
                measured.set,
                measured.system,
                measured.rates.best(),
                measured.rates.noise() * 100.0,
                measured.note
            );
        }
        for Verdict { text, met } in self.verdicts() {
            println!("{} {text}", if met { "met   " } else { "MISSED" });
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let measured: Vec<Value> = self.measured.iter().map(Measured::json).collect();
        let verdicts: Vec<Value> = self
            .verdicts()
            .map(|Verdict { text, met }| json!({"target": text, "met": met}))
            .collect();
        let report = json!({
            "threads": self.threads, "repeat": self.repeat, "measured": measured, "targets": verdicts,
        });
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
        Ok(())
    }

    fn find(&self, set: &str, system: &str) -> Option<&Measured> {
        let same = |measured: &&Measured| measured.set == set && measured.system.starts_with(system);
        // Of the raw scans the faster is the limit; of all else the name is the whole of it.
        self.measured
            .iter()
            .filter(same)
            .filter(|measured| system == RAW_SCAN || measured.system == system)
            .max_by(|one, other| one.rates.best().total_cmp(&other.rates.best()))
    }

    fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let rates = TARGETS.iter().filter_map(|(set, system, target)| {
            let (own, other) = (self.find(set, "squall")?, self.find(set, system)?);
            if other.rates.best() == 0.0 {
                return None;
            }
            let ratio = own.rates.best() / other.rates.best();
            Some(Verdict {
                text: format!(
                    "{set}: {ratio:.2} of {system}, expected {target}{}",
                    missed_by(ratio / target)
                ),
                met: ratio >= *target,
            })
        });
        let first = self.measured.iter().filter(|measured| measured.system == "squall");
        let first = first.filter_map(|measured| {
            let first = measured.first_batch?;
            Some(Verdict {
                text: format!(
                    "{}: first batch in {:.0} ms, expected {} ms",
                    measured.set,
                    first.as_secs_f64() * 1e3,
                    FIRST_BATCH.as_millis()
                ),
                met: first <= FIRST_BATCH,
            })
        });
        rates.chain(first)
    }
}

fn missed_by(share: f64) -> String {
    match share < 1.0 {
        true => format!(", missed by {:.0} %", (1.0 - share) * 100.0),
        false => String::new(),
    }
}

impl Measured {
    fn json(&self) -> Value {
        json!({
            "set": self.set,
            "system": self.system,
            "rows_per_second": self.rates.best(),
            "noise": self.rates.noise(),
            "cpu_seconds_per_row": self.rates.cpu_per_row(),
            "first_batch_seconds": self.first_batch.map(|first| first.as_secs_f64()),
            "note": self.note,
        })
    }
}
