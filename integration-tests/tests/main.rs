//! The tests that cross crates and processes. `cargo xtask test` brings what they need.

mod digest;

mod examples;
mod fixtures;
mod with_petastorm;
mod with_spark;
#[cfg(feature = "spark")]
mod with_spark_connect;
