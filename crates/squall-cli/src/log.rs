//! What the crates of a cluster have to say, on standard error.

use log::{LevelFilter, Log, Metadata, Record};

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("{} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// With `verbose` they are heard from now on; else not even their errors, of which most are of executors that come and go.
pub(crate) fn begin(verbose: bool) {
    let level = if verbose { LevelFilter::Info } else { LevelFilter::Off };
    // There is no other: the first call counts.
    let _ = log::set_logger(&StandardError);
    log::set_max_level(level);
}
