//! The tests that cross crates and processes. `cargo xtask test` brings what they need.

mod examples;
mod fixtures;
mod spark;
