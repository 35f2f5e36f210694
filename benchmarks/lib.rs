//! What the benchmarks share.

pub mod limits;
pub mod process;
pub mod sets;
pub mod timing;

/// Any error: a benchmark prints it and ends.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
