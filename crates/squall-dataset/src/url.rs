//! The name of a dataset.

use std::fmt;
use std::path::{Path, PathBuf};

use squall_schema::{Error, Result};

/// What kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A local file system: `file:///data/train`, or a plain path.
    File,
    /// The memory of this process: `memory://name/train`. For tests and examples.
    Memory,
}

/// A directory of Parquet files, or one such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetUrl {
    scheme: Scheme,
    /// The file system path, or the path in the memory store of the host's name.
    path: String,
    /// The name of the memory store.
    host: String,
}

impl DatasetUrl {
    /// Reads a URL or a file system path. A relative path is taken from the current directory.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("the dataset's URL is empty"));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return Self::from_path(Path::new(text));
        };
        let malformed = |why: String| Error::invalid(format!("not a URL: {why}"));
        let url = ::url::Url::parse(text).map_err(|error| malformed(error.to_string()))?;
        match scheme {
            "file" => {
                let path = url.to_file_path();
                Self::from_path(&path.map_err(|()| malformed("a file URL has no host: write file:///path".into()))?)
            }
            "memory" => Ok(Self {
                scheme: Scheme::Memory,
                path: url.path().trim_matches('/').to_owned(),
                host: url.host_str().unwrap_or_default().to_owned(),
            }),
            other => Err(Error::unsupported(format!(
                "no store for URLs that begin with {other}://: expected file:// or a path"
            ))),
        }
    }

    fn from_path(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::invalid(format!("cannot make an absolute path of {path:?}")).with_source(error))?;
        let text = absolute.to_str();
        let text = text.ok_or_else(|| Error::unsupported(format!("the path {path:?} is not UTF-8")))?;
        Ok(Self {
            scheme: Scheme::File,
            path: text.to_owned(),
            host: String::new(),
        })
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The path on the local file system, if it is there.
    pub fn to_file_path(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::File).then(|| PathBuf::from(&self.path))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for DatasetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::File => f.write_str(&self.path),
            Scheme::Memory => write!(f, "memory://{}/{}", self.host, self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use squall_schema::ErrorKind;

    use super::*;

    #[test]
    fn paths_and_file_urls_are_the_same() {
        let path = DatasetUrl::parse("/data/a b").expect("path");
        assert_eq!(DatasetUrl::parse("file:///data/a%20b").expect("url"), path);
        assert_eq!(path.to_string(), "/data/a b");
        assert_eq!(
            DatasetUrl::parse("memory://x/y/").expect("url").to_string(),
            "memory://x/y"
        );
    }

    #[test]
    fn other_schemes_are_refused_without_their_secrets() {
        let error = DatasetUrl::parse("s4://user:secret@bucket/key").expect_err("unknown scheme");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
