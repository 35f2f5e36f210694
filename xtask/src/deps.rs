//! What each crate may see. The rules are those of ARCHITECTURE.md.

use std::process::Command;

use serde_json::Value;

use crate::Result;

/// Crates that a crate must not reach by any path of normal dependencies, with these features. A name that ends in `*`
/// stands for all that begin like it.
const NEVER: [(&str, &str, &[&str]); 11] = [
    (
        "squall-schema",
        "",
        &[
            "tokio",
            "object_store",
            "parquet",
            "datafusion*",
            "ballista*",
            "tch",
            "torch-sys",
            // Only behind the feature jpeg-turbo: without it nothing of C is compiled for an image.
            "mozjpeg*",
        ],
    ),
    (
        "squall-dataset",
        "",
        &[
            "datafusion*",
            "ballista*",
            "tch",
            "torch-sys",
            // Only behind the stores' features: who reads local files needs no HTTP and no cryptography.
            "reqwest",
            "hyper",
            "ring",
            "hdfs-native*",
        ],
    ),
    ("squall-reader", "", &["datafusion*", "ballista*", "tch", "torch-sys"]),
    (
        "squall-reader",
        "filter",
        &["datafusion", "ballista*", "tch", "torch-sys"],
    ),
    ("squall-loader", "", &["datafusion*", "ballista*", "tch", "torch-sys"]),
    ("squall-torch", "", &["datafusion*", "ballista*"]),
    (
        "squall-converter",
        "",
        // Only behind their features: a cluster brings DataFusion's defaults, Spark's client needs protoc.
        &[
            "tch",
            "torch-sys",
            "squall-reader",
            "apache-spark-connect*",
            "ballista*",
        ],
    ),
    ("squall-converter", "spark", &["tch", "torch-sys", "squall-reader"]),
    (
        "squall",
        "reader",
        &[
            "datafusion*",
            "ballista*",
            "tch",
            "torch-sys",
            "mozjpeg*",
            "reqwest",
            "hyper",
            // An allocator is the program's choice, never a library's.
            "mimalloc",
        ],
    ),
    (
        "squall",
        "reader,filter",
        &["datafusion", "ballista*", "tch", "torch-sys"],
    ),
    (
        "squall",
        "convert",
        &[
            "tch",
            "torch-sys",
            "squall-reader",
            "apache-spark-connect*",
            "ballista*",
        ],
    ),
];

/// The crates of the workspace that a crate may name. The chain has one direction.
const MAY_NAME: [(&str, &[&str]); 12] = [
    ("squall-schema", &[]),
    ("squall-dataset", &["squall-schema"]),
    ("squall-reader", &["squall-schema", "squall-dataset"]),
    ("squall-loader", &["squall-schema", "squall-reader"]),
    ("squall-torch", &["squall-schema", "squall-loader"]),
    ("squall-converter", &["squall-schema", "squall-dataset"]),
    (
        "squall",
        &[
            "squall-schema",
            "squall-dataset",
            "squall-reader",
            "squall-loader",
            "squall-torch",
            "squall-converter",
        ],
    ),
    // What users are shown, they can do: no way past the façade.
    ("squall-cli", &["squall"]),
    ("squall-examples", &["squall"]),
    ("squall-benchmarks", &["squall"]),
    ("squall-integration-tests", &["squall"]),
    ("squall-testkit", &[]),
];

/// Checks both tables, and that the testkit is a dev-dependency only.
pub(crate) fn check() -> Result<()> {
    let mut broken = Vec::new();
    for (package, features, never) in NEVER {
        for seen in tree(package, features)? {
            if let Some(rule) = never.iter().find(|rule| matches(rule, &seen)) {
                broken.push(format!(
                    "{package} with features [{features}] sees {seen}, against the rule {rule}"
                ));
            }
        }
    }
    let metadata = run("cargo", &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (on, kind) = (
                dependency["name"].as_str().unwrap_or_default(),
                dependency["kind"].as_str(),
            );
            if on == "squall-testkit" && kind != Some("dev") {
                broken.push(format!("{name} depends on squall-testkit outside of its tests"));
            }
            let ours = packages.iter().any(|own| own["name"] == on);
            let allowed = MAY_NAME
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, allowed)| *allowed);
            // Tests may look behind the façade; the examples and the integration tests have it as a dev-dependency.
            let counts = kind != Some("dev") || ["squall-examples", "squall-integration-tests"].contains(&name);
            if let (true, true, Some(allowed)) = (ours, counts, allowed)
                && !allowed.contains(&on)
            {
                broken.push(format!("{name} names {on}, but may name only [{}]", allowed.join(", ")));
            }
        }
    }
    if !broken.is_empty() {
        return Err(broken.join("\nxtask: ").into());
    }
    println!("deps: {} rules hold", NEVER.len() + MAY_NAME.len() + 1);
    Ok(())
}

fn matches(rule: &str, name: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == rule,
    }
}

/// The names of all crates that the package reaches.
fn tree(package: &str, features: &str) -> Result<Vec<String>> {
    let arguments = ["tree", "-p", package, "--no-default-features", "--features", features];
    let format = ["-e", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = run("cargo", &[&arguments[..], &format].concat())?;
    let mut names: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    if !names.iter().any(|name| name == package) {
        return Err(format!("cargo tree does not list {package} itself").into());
    }
    Ok(names)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_whole_names_or_beginnings() {
        assert!(matches("datafusion*", "datafusion-expr") && matches("datafusion*", "datafusion"));
        assert!(matches("datafusion", "datafusion") && !matches("datafusion", "datafusion-expr"));
        assert!(!matches("tch", "tch-extra"));
    }

    /// The rules would fail if there were something to find.
    #[test]
    fn the_tree_shows_what_is_there() {
        let names = tree("squall-converter", "").expect("cargo tree");
        assert!(names.iter().any(|name| name == "datafusion"));
    }
}
