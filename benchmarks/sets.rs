//! The sets that `sets.py` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// A folder of Parquet files.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name in `sets.py`.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
    /// Its data files, by name.
    pub files: Vec<PathBuf>,
}

impl Set {
    /// The set of this name, which is made if it is not there.
    pub fn make(name: &str) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sets.py");
        let made = Command::new("python3")
            .arg(script)
            .arg(name)
            .stderr(Stdio::inherit())
            .output()?;
        if !made.status.success() {
            return Err(format!("sets.py {name}: {}", made.status).into());
        }
        let folder = String::from_utf8(made.stdout)?;
        Self::open(name, Path::new(folder.trim()))
    }

    /// The set in this folder.
    pub fn open(name: &str, folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
        files.sort();
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            files,
        })
    }

    /// The folder, as a reader takes it.
    pub fn url(&self) -> String {
        self.folder.display().to_string()
    }
}
