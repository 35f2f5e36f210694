//! What the kernel says of this process.

use std::fs;

use crate::Result;

/// Peak resident memory so far, in bytes.
pub fn peak_memory() -> Result<u64> {
    status("VmHWM:").map(|kib| kib * 1024)
}

/// Resident memory, in bytes.
pub fn memory() -> Result<u64> {
    status("VmRSS:").map(|kib| kib * 1024)
}

/// Threads.
pub fn threads() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Seconds of CPU that all threads took so far, those that ended included.
pub fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program is in parentheses and may hold spaces; behind it user time is the 12th field, system time the 13th.
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / TICKS_A_SECOND)
}

/// What Linux counts in, on all its architectures.
const TICKS_A_SECOND: f64 = 100.0;

/// The number behind a name in `/proc/self/status`.
fn status(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or(format!("/proc/self/status has no {name}"))?.parse()?)
}
