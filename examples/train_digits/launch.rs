//! Starts the ranks of a run on this machine, as torchrun would.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use crate::{Options, Result};

/// Whether a launcher started this process as a rank.
pub(crate) fn is_rank() -> bool {
    env::var_os("RANK").is_some()
}

/// Starts the ranks with the same options, and waits for them. When one fails, the others are ended.
pub(crate) fn ranks(options: &Options) -> Result<()> {
    options.check(options.world_size)?;
    let scratch = tempfile::tempdir()?;
    // Free now; taken again in a moment by rank 0.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut ranks = Vec::new();
    for rank in 0..options.world_size {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args_os().skip(1));
        if options.data.is_none() {
            command.arg("--data").arg(scratch.path());
        }
        let started = command
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", options.world_size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .spawn();
        ranks.push(Rank(started?));
    }
    let mut left = options.world_size;
    while left > 0 {
        left = 0;
        for (i, rank) in ranks.iter_mut().enumerate() {
            match rank.0.try_wait()? {
                Some(status) if !status.success() => return Err(format!("rank {i} failed: {status}").into()),
                Some(_) => {}
                None => left += 1,
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A rank's process, ended when it is dropped.
struct Rank(Child);

impl Drop for Rank {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
