//! What the benchmarks share.

pub mod limits;
pub mod process;
pub mod sets;
pub mod timing;

/// Memory that is freed stays with the process: glibc gives it back to the system and asks for it again, page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any error: a benchmark prints it and ends.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
