//! A bucket of an S3 server that all processes of a cluster reach.

use std::path::PathBuf;

use squall_testkit::S3Server;
use tempfile::TempDir;

/// A bucket. Credentials come from each process's environment, the rest may come with a conversion.
pub(crate) struct Bucket {
    root: TempDir,
    server: S3Server,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let root = TempDir::new().expect("a directory");
        std::fs::create_dir(root.path().join("bucket")).expect("a bucket");
        let server = S3Server::start(root.path());
        Self { root, server }
    }

    /// The directory behind it.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("bucket")
    }

    /// The credentials, as the environment of a process.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let secret = self.server.options().into_iter().filter(|(key, _)| key.contains("key"));
        secret.map(|(key, value)| (key.to_uppercase(), value)).collect()
    }

    /// All that it takes to reach it.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.server.options()
    }

    /// What a conversion may tell others, as flags.
    pub(crate) fn open_options(&self) -> Vec<String> {
        let open = self
            .server
            .options()
            .into_iter()
            .filter(|(key, _)| !key.contains("key"));
        flags(open)
    }

    /// All that it takes to reach it, as flags.
    pub(crate) fn options(&self) -> Vec<String> {
        flags(self.pairs())
    }
}

fn flags(options: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let flag = |(key, value)| ["--storage-option".to_owned(), format!("{key}={value}")];
    options.into_iter().flat_map(flag).collect()
}
