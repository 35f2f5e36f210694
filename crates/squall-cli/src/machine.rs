//! The flags that say what of the machine is used. None of them changes the order.

use clap::Args;
use squall::{ByteSize, ReaderBuilder};

#[derive(Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct Machine {
    /// Threads that decode and transform [default: as many as there are cores]
    #[arg(long, value_name = "THREADS")]
    workers: Option<usize>,
    /// Bytes that the reader may hold at a time: 256MiB [default: 1GiB, or what windows and batches need]
    #[arg(long, value_name = "BYTES")]
    memory_budget: Option<ByteSize>,
    /// Batches that are made ahead [default: 4 MiB of them, at most 32, at least 4 and twice the workers]
    #[arg(long, value_name = "BATCHES")]
    prefetch: Option<usize>,
}

impl Machine {
    pub(crate) fn apply<R>(&self, mut reader: ReaderBuilder<R>) -> ReaderBuilder<R> {
        if let Some(threads) = self.workers {
            reader = reader.workers(threads);
        }
        if let Some(bytes) = self.memory_budget {
            reader = reader.memory_budget(bytes);
        }
        if let Some(batches) = self.prefetch {
            reader = reader.prefetch(batches);
        }
        reader
    }
}
