//! What a trainer wants a batch to be.

use squall_schema::Result;

use crate::HostBatch;

/// Turns batches on the host into what the trainer takes. It runs on the loader's thread, some batches ahead.
pub trait Sink: Send + 'static {
    /// What the trainer takes.
    type Batch: Send + 'static;

    /// Takes one batch.
    fn put(&mut self, batch: HostBatch) -> Result<Self::Batch>;
}

/// Leaves batches on the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Sink for Host {
    type Batch = HostBatch;

    fn put(&mut self, batch: HostBatch) -> Result<HostBatch> {
        Ok(batch)
    }
}
