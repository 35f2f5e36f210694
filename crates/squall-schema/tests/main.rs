//! What the crate does with whole inputs from outside: the inputs of the fuzz targets, and attacks.

#[cfg(target_os = "linux")]
mod hostile;
mod replay;
