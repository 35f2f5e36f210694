//! The command `squall`.
//!
//! Each command is a file: its flags, as typed; then one function that does it. Facts go to standard output, errors to
//! standard error as one sentence. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod bench;
mod cache;
#[cfg(feature = "ballista")]
mod cluster;
mod convert;
mod converted;
mod copy;
mod engine;
mod inspect;
mod json;
mod layout;
#[cfg(feature = "ballista")]
mod log;
mod machine;
mod metadata;
mod options;
mod picture;
mod plan;
mod progress;
mod read;
mod rows;
mod source;
mod verify;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use squall::{Error, ErrorKind};

/// Converts tables into datasets for training, and reads them as a trainer would.
#[derive(Parser)]
#[command(name = "squall", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(Box<bench::Bench>),
    Convert(Box<convert::Convert>),
    Copy(copy::Copy),
    #[cfg(feature = "ballista")]
    Executor(cluster::Executor),
    Inspect(inspect::Inspect),
    Metadata(metadata::Metadata),
    Plan(Box<plan::Plan>),
    Read(Box<read::Read>),
    #[cfg(feature = "ballista")]
    Scheduler(cluster::Scheduler),
    Verify(Box<verify::Verify>),
}

/// How facts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What a command failed with.
enum Failure {
    Squall(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Squall(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes a file beside its place and moves it there: a crash leaves what was there, or all that is new.
fn save(path: &Path, text: &str, what: &str) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let saved = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    saved.map_err(|error| {
        Error::new(ErrorKind::Storage, format!("cannot write {what}"))
            .at("file", path.display())
            .with_source(error)
    })
}

fn main() -> ExitCode {
    // Clap prints its own errors, and exits with 2 where the usage is wrong.
    let done = match Cli::parse().command {
        Command::Bench(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Copy(command) => command.run(),
        #[cfg(feature = "ballista")]
        Command::Executor(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Metadata(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Read(command) => command.run(),
        #[cfg(feature = "ballista")]
        Command::Scheduler(command) => command.run(),
        Command::Verify(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has what it wanted: `squall read … | head`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            eprintln!("squall: cannot write: {error}");
            ExitCode::FAILURE
        }
        Err(Failure::Squall(error)) => {
            eprintln!("squall: {error}");
            match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::NoData => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
