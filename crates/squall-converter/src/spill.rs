//! A directory on local disk for rows that are on their way, taken away at the end.

use std::fs;
use std::path::Path;

use squall_dataset::{DatasetUrl, Store};
use squall_schema::{Error, ErrorKind, Result};

use crate::checkpoint::{self, Checkpoint, Durability};
use crate::error::file_problem;
use crate::scratch::Scratch;

/// Where Linux tells one start of the system from the next. Elsewhere runs are not found again.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// What the names of such directories begin with.
const PREFIX: &str = ".squall-spill-";

/// The directory; it is removed when this is dropped.
pub(crate) struct Spill {
    scratch: Scratch,
    store: Store,
    /// What is done already, where that is recorded.
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Spill {
    /// A directory of its own below `parent`: that of a killed conversion which was known by `mark`, or a new one. Runs are not brought to
    /// the disk, which would cost more than it saves, so they are found again until the machine starts anew.
    pub(crate) async fn begin(parent: &Path, mark: Option<&str>) -> Result<Self> {
        let boot = fs::read_to_string(BOOT).ok();
        let mark = mark.zip(boot).map(|(mark, boot)| format!("{mark}-{}", boot.trim()));
        let left = mark
            .as_deref()
            .and_then(|mark| Scratch::resume(parent, PREFIX, &checkpoint::directory(mark)));
        let made = match left {
            Some(left) => Ok(left),
            None => fs::create_dir_all(parent).and_then(|()| Scratch::begin(parent, PREFIX)),
        };
        let scratch = made.map_err(|error| {
            let problem = file_problem(&error).unwrap_or("it cannot be written to");
            Error::new(ErrorKind::Storage, format!("no spill directory: {problem}"))
                .at("directory", parent.display())
                .with_source(error)
        })?;
        let text = scratch.path.to_str().map(str::to_owned);
        let store = text
            .ok_or_else(|| Error::unsupported(format!("the path {:?} is not UTF-8", scratch.path)))
            .and_then(|text| Store::create(&DatasetUrl::parse(&text)?));
        let store = match store {
            Ok(store) => store,
            Err(error) => {
                let _ = fs::remove_dir_all(&scratch.path);
                return Err(error);
            }
        };
        let mut spill = Self {
            scratch,
            store,
            checkpoint: None,
        };
        if let Some(mark) = mark {
            spill.checkpoint = Some(Checkpoint::open(&spill.store, &mark, Durability::Process).await?);
        }
        Ok(spill)
    }

    /// The name of the directory, which no other one has.
    pub(crate) fn name(&self) -> String {
        let name = self.scratch.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.scratch.path
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch.path);
    }
}
