//! Batches as libtorch tensors on a device: the only crate that links libtorch.
