//! What the crate does with whole inputs from outside: images of OpenCV's, arrays of another library's, the inputs of the
//! fuzz targets, and attacks.

#[cfg(target_os = "linux")]
mod hostile;
mod images;
mod npyz_arrays;
mod replay;
