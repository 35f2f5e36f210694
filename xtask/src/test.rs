//! Every test of the project, in one command.

use std::process::Command;
use std::time::Instant;

use crate::Result;
use crate::docker;
use crate::environment::prepare;

/// The modules of the integration tests that start Spark.
const SPARK_TESTS: [&str; 2] = ["with_spark::", "with_spark_connect::"];
/// Names the jar of Spark Connect for Spark 3.5, which comes from Maven: pyspark 3.5 does not have it.
const SPARK_35_JAR: &str = "SQUALL_SPARK35_CONNECT_JAR";

/// Those that start Petastorm, which writes with Spark.
const PETASTORM_TESTS: &str = "with_petastorm::";

/// Runs `cargo test` over the workspace with all features. `filter` goes to the test binaries.
pub(crate) fn run(filter: &[&str]) -> Result<()> {
    let began = Instant::now();
    let environment = prepare()?;
    let mut arguments = vec!["test", "--workspace", "--all-features", "--"];
    arguments.extend(filter);
    if environment.no_spark.is_some() {
        arguments.extend(SPARK_TESTS.into_iter().flat_map(|tests| ["--skip", tests]));
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
    let no_spark_35 = std::env::var_os(SPARK_35_JAR).is_none();
    let no_spark_35 = no_spark_35.then(|| format!("{SPARK_35_JAR} names no jar (spark-connect_2.12, version 3.5)"));
    for (what, why) in [
        ("the Spark tests", environment.no_spark),
        ("the test of Spark Connect with a server of Spark 3.5", no_spark_35),
        ("the tests with Petastorm", environment.no_petastorm),
        ("the copy to a GPU", environment.no_cuda),
    ] {
        if let Some(why) = why {
            println!("NOT RUN: {what}: {why}");
        }
    }
    Ok(())
}
