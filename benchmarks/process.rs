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

/// The number behind a name in `/proc/self/status`.
fn status(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or(format!("/proc/self/status has no {name}"))?.parse()?)
}
