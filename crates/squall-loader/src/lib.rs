//! Rows to batches to tensors on the host.
