//! Batches as libtorch tensors on a device: the only crate that links libtorch.
//!
//! [`TorchSink`] takes batches of squall-loader. A CPU tensor is one copy of the host buffer into memory of libtorch's
//! own; on the way to a GPU the copy is pinned, and moved without blocking, on the loader's thread, while the trainer works
//! on the batch before.

mod tensor;

mod sink;

pub use sink::{TensorBatch, ToDevice, TorchSink};
