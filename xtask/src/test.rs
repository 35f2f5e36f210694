//! Every test of the project, in one command.

use std::process::Command;
use std::time::Instant;

use crate::Result;
use crate::docker;
use crate::environment::prepare;

/// The module of the integration tests that start Spark.
const SPARK_TESTS: &str = "with_spark::";

/// Those that start Petastorm, which writes with Spark.
const PETASTORM_TESTS: &str = "with_petastorm::";

/// Runs `cargo test` over the workspace with all features. `filter` goes to the test binaries.
pub(crate) fn run(filter: &[&str]) -> Result<()> {
    let began = Instant::now();
    let environment = prepare()?;
    let mut arguments = vec!["test", "--workspace", "--all-features", "--"];
    arguments.extend(filter);
    if environment.no_spark.is_some() {
        arguments.extend(["--skip", SPARK_TESTS]);
    }
    if environment.no_petastorm.is_some() {
        arguments.extend(["--skip", PETASTORM_TESTS]);
    }
    let status = Command::new("cargo")
        .args(&arguments)
        .envs(environment.variables.iter().cloned())
        .status()?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", arguments.join(" ")).into());
    }
    // What --all-features leaves out: images in Rust alone.
    let arguments = ["test", "-p", "squall-schema", "--lib", "--test", "schema", "--"];
    let status = Command::new("cargo").args(arguments).args(filter).status()?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", arguments.join(" ")).into());
    }
    docker::lint()?;
    println!("\ntests passed in {:.0} s", began.elapsed().as_secs_f64());
    for (what, why) in [
        ("the Spark tests", environment.no_spark),
        ("the tests with Petastorm", environment.no_petastorm),
        ("the copy to a GPU", environment.no_cuda),
    ] {
        if let Some(why) = why {
            println!("NOT RUN: {what}: {why}");
        }
    }
    Ok(())
}
