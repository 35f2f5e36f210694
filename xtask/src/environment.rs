//! What the tests need beyond Rust: Python environments with torch and pyspark, and a Java for Spark.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// What fits tch 0.26: its build checks the version.
const TORCH: &[&str] = &["torch==2.13.0", "numpy", "setuptools"];
const PYSPARK: &[&str] = &["pyspark==4.0.5"];
/// Petastorm and the last versions of what it works with.
const PETASTORM: &[&str] = &[
    "petastorm==0.13.1",
    "pyarrow==12.0.1",
    "numpy<2",
    "pandas<2.3",
    "setuptools<70",
    "pyspark==3.5.9",
    "opencv-python-headless<4.12",
];
/// The last Python that pyarrow 12 has a wheel for.
const PETASTORM_PYTHON: (u32, u32) = (3, 11);
/// The first Java that Spark 4 runs on.
const JAVA: u32 = 17;

/// Variables that the build and the tests run with.
pub(crate) struct Environment {
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Why the Spark tests cannot run, if they cannot.
    pub(crate) no_spark: Option<String>,
    /// Why the tests with Petastorm cannot run, if they cannot.
    pub(crate) no_petastorm: Option<String>,
    /// Why nothing runs on a GPU, if nothing does.
    pub(crate) no_cuda: Option<String>,
}

/// Prints the environment as shell exports.
pub(crate) fn print() -> Result<()> {
    for (name, value) in prepare()?.variables {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}

/// Makes what is not there yet. What is printed goes to standard error.
pub(crate) fn prepare() -> Result<Environment> {
    let cache = cache_folder()?;
    let torch = venv(&cache, TORCH)?;
    let pyspark = venv(&cache, PYSPARK)?;
    let path = env::var("PATH").unwrap_or_default();
    let mut variables = vec![
        // torch-sys asks the `python3` that is first on the path where its libtorch is.
        ("VIRTUAL_ENV", torch.display().to_string()),
        ("PATH", format!("{}:{path}", torch.join("bin").display())),
        ("LIBTORCH_USE_PYTORCH", "1".to_owned()),
        // With all features on, the façade brings libtorch to every program of the workspace, also to those that have no
        // build script that says where it is.
        ("LD_LIBRARY_PATH", library_path(&torch)?),
        ("SQUALL_PYSPARK_PYTHON", python_of(&pyspark).display().to_string()),
    ];
    let no_petastorm = match petastorm_python()? {
        Some(python) => {
            let petastorm = venv_of(&python, &cache, PETASTORM)?;
            variables.push(("SQUALL_PETASTORM_PYTHON", python_of(&petastorm).display().to_string()));
            None
        }
        None => {
            let (major, minor) = PETASTORM_PYTHON;
            Some(format!(
                "Petastorm 0.13.1 needs Python 3.8 to {major}.{minor}, and none was found"
            ))
        }
    };
    let no_spark = match java() {
        Ok(home) => {
            variables.push(("JAVA_HOME", home.display().to_string()));
            None
        }
        Err(error) => Some(error.to_string()),
    };
    let cuda = "import torch; print(torch.cuda.is_available())";
    let cuda = Command::new(python_of(&torch))
        .args(["-c", cuda])
        .stderr(Stdio::null())
        .output()?;
    let has_cuda = String::from_utf8_lossy(&cuda.stdout).trim() == "True";
    Ok(Environment {
        variables,
        no_petastorm: no_petastorm.or_else(|| no_spark.clone()),
        no_spark,
        no_cuda: (!has_cuda).then(|| "libtorch finds no CUDA device on this machine".to_owned()),
    })
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache
        .or_else(home)
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("squall");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

fn library_path(torch: &Path) -> Result<String> {
    let lib = "import os, torch; print(os.path.join(os.path.dirname(torch.__file__), 'lib'))";
    let output = Command::new(python_of(torch)).args(["-c", lib]).output()?;
    if !output.status.success() {
        return Err(format!("cannot import torch: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let lib = String::from_utf8(output.stdout)?.trim().to_owned();
    Ok(match env::var("LD_LIBRARY_PATH") {
        Ok(others) if !others.is_empty() => format!("{lib}:{others}"),
        _ => lib,
    })
}

fn python_of(venv: &Path) -> PathBuf {
    venv.join("bin").join("python3")
}

/// A Python that is old enough for Petastorm.
fn petastorm_python() -> Result<Option<String>> {
    let (major, minor) = PETASTORM_PYTHON;
    let names = (8..=minor).rev().map(|minor| format!("python{major}.{minor}"));
    for name in std::iter::once("python3".to_owned()).chain(names) {
        let version = "import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 11))";
        let status = Command::new(&name).args(["-c", version]).stderr(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The virtual environment with these packages, named after the first.
pub(crate) fn venv(cache: &Path, packages: &[&str]) -> Result<PathBuf> {
    venv_of("python3", cache, packages)
}

fn venv_of(python: &str, cache: &Path, packages: &[&str]) -> Result<PathBuf> {
    let name = packages[0].replace("==", "-");
    let venv = cache.join(format!("venv-{name}"));
    let done = venv.join("squall-packages.txt");
    let wanted = packages.join("\n");
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(venv);
    }
    eprintln!("xtask: installing {} in {}", packages.join(", "), venv.display());
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&venv)).map_err(|error| {
        format!("{error}: Python 3 with its module venv is needed, on Debian the packages python3 and python3-venv")
    })?;
    run(Command::new(python_of(&venv))
        .args(["-m", "pip", "install", "--quiet"])
        .args(packages))?;
    fs::write(done, wanted)?;
    Ok(venv)
}

fn run(command: &mut Command) -> Result<()> {
    // Standard output is for exports.
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(())
}

/// The home of a Java that Spark runs on: found, or installed where this is root on a Debian.
fn java() -> Result<PathBuf> {
    if let Some(home) = find_java() {
        return Ok(home);
    }
    let package = format!("openjdk-{JAVA}-jre-headless");
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if is_root && Path::new("/usr/bin/apt-get").exists() {
        eprintln!("xtask: installing {package}");
        let apt = |arguments: &[&str]| {
            run(Command::new("apt-get")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let installed =
            apt(&["update", "-qq"]).and_then(|()| apt(&["install", "-y", "-qq", "--no-install-recommends", &package]));
        if let Err(error) = installed {
            eprintln!("xtask: {error}");
        }
    }
    let missing = format!("Spark needs Java {JAVA} or later, and none was found: install {package}, or set JAVA_HOME");
    find_java().ok_or_else(|| missing.into())
}

fn find_java() -> Option<PathBuf> {
    let homes = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin").join("java"));
    homes.into_iter().chain([PathBuf::from("java")]).find_map(|java| {
        let output = Command::new(java)
            .args(["-XshowSettings:properties", "-version"])
            .output()
            .ok()?;
        // The settings go to standard error.
        let settings = String::from_utf8_lossy(&output.stderr).into_owned();
        let property = |name: &str| {
            settings
                .lines()
                .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "))
        };
        let version: u32 = property("java.specification.version")?
            .split('.')
            .next()?
            .parse()
            .ok()?;
        (version >= JAVA).then(|| property("java.home").map(PathBuf::from))?
    })
}
