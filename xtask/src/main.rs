//! The project's own tasks. `cargo xtask` lists them.

mod deps;
mod docker;
mod environment;
mod fuzz;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <task>

  deps   checks that no crate sees what it must not
  docker lints the files of docker/; nothing is built or run
  env    makes the test environments and prints them as shell exports: eval \"$(cargo xtask env)\"
  fuzz   runs the fuzz targets, all or those named, for so many seconds each or 600: fuzz 60 npy npz
  test   makes the test environments, builds, and runs every test, those of libtorch, Spark and Petastorm included

The environments are kept in $XDG_CACHE_HOME/squall, or ~/.cache/squall.";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["deps"] => deps::check(),
        ["docker"] => docker::lint(),
        ["env"] => environment::print(),
        ["fuzz", ref arguments @ ..] => fuzz::run(arguments),
        ["test", ref filter @ ..] => test::run(filter),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
