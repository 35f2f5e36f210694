//! The name of a dataset.

use std::fmt;
use std::path::{Path, PathBuf};

use object_store::path::Path as ObjectPath;
use squall_schema::{Error, Result};
use url::Url;

/// What a URL may begin with, for errors.
const KNOWN: &str = "file, s3, s3a, s3n, gs, gcs, az, abfs, abfss, azure, adl, hdfs, http, https or memory";

/// Hosts of `https` URLs that speak for a store of their own, as object_store knows them.
const AZURE_HOSTS: [&str; 4] = [
    ".dfs.core.windows.net",
    ".blob.core.windows.net",
    ".dfs.fabric.microsoft.com",
    ".blob.fabric.microsoft.com",
];

/// What kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// A local file system: `file:///data/train`, or a plain path.
    File,
    /// The memory of this process: `memory://name/train`. For tests and examples.
    Memory,
    /// Amazon S3 or what speaks its protocol: `s3://bucket/train`, also `s3a` and `s3n`.
    S3,
    /// Google Cloud Storage: `gs://bucket/train`, also `gcs`.
    Gcs,
    /// Azure Blob Storage: `az://container/train`, `abfss://container@account.dfs.core.windows.net/train`, also `abfs`,
    /// `azure` and `adl`.
    Azure,
    /// A web server, with WebDAV or without: `https://host/train`.
    Http,
    /// Hadoop's file system: `hdfs://nameservice/train`, or `hdfs:///train` for the default one.
    Hdfs,
}

impl Scheme {
    /// The feature of `squall-dataset`, and of `squall`, that brings the store. `None` where it is always there.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::File | Self::Memory => None,
            Self::S3 => Some("s3"),
            Self::Gcs => Some("gcs"),
            Self::Azure => Some("azure"),
            Self::Http => Some("http"),
            Self::Hdfs => Some("hdfs"),
        }
    }
}

/// A directory of Parquet files, or one such file.
///
/// It prints without user, password and query: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetUrl {
    scheme: Scheme,
    /// The path of the file system, or that in the bucket, unescaped and without slashes around it.
    path: String,
    /// What stands before the path when it is printed: `s3://bucket`, `https://host:8080`.
    root: String,
    /// The name of the memory store.
    host: String,
    secrets: Secrets,
}

/// What a URL carries and nobody prints.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets {
    pub(crate) query: Option<String>,
    /// User and password of a web server.
    pub(crate) user: Option<(String, String)>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
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
        let scheme = scheme.to_ascii_lowercase();
        let malformed = |why: String| Error::invalid(format!("not a URL: {why}"));
        let url = Url::parse(text).map_err(|error| malformed(error.to_string()))?;
        if url.fragment().is_some() {
            return Err(malformed("a # in a path is written %23".into()));
        }
        match scheme.as_str() {
            "file" => {
                let path = url.to_file_path();
                Self::from_path(&path.map_err(|()| malformed("a file URL has no host: write file:///path".into()))?)
            }
            "memory" => Ok(Self {
                scheme: Scheme::Memory,
                path: url.path().trim_matches('/').to_owned(),
                root: format!("memory://{}", url.host_str().unwrap_or_default()),
                host: url.host_str().unwrap_or_default().to_owned(),
                secrets: Secrets::default(),
            }),
            "s3" | "s3a" | "s3n" => Self::in_bucket(Scheme::S3, &url),
            "gs" | "gcs" => Self::in_bucket(Scheme::Gcs, &url),
            "az" | "abfs" | "abfss" | "azure" | "adl" => Self::on_azure(&url),
            "hdfs" => Self::in_bucket(Scheme::Hdfs, &url),
            "http" | "https" => Self::on_the_web(&url),
            other => Err(Error::unsupported(format!(
                "no store for URLs that begin with {other}://: expected {KNOWN}, or a path"
            ))),
        }
    }

    /// The directory of this name below it, reached with the same credentials.
    pub fn join(&self, name: &str) -> Self {
        let path = match self.path.trim_end_matches('/') {
            "" if self.scheme != Scheme::File => name.to_owned(),
            path => format!("{path}/{name}"),
        };
        Self { path, ..self.clone() }
    }

    /// Whether another one lies below it, or is the same.
    pub fn contains(&self, other: &Self) -> bool {
        let path = self.path.trim_end_matches('/');
        let rest = other.path.strip_prefix(path);
        (self.scheme, &self.root) == (other.scheme, &other.root)
            && rest.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }

    fn from_path(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::invalid(format!("cannot make an absolute path of {path:?}")).with_source(error))?;
        let text = absolute.to_str();
        let text = text.ok_or_else(|| Error::unsupported(format!("the path {path:?} is not UTF-8")))?;
        Ok(Self {
            scheme: Scheme::File,
            path: text.to_owned(),
            root: String::new(),
            host: String::new(),
            secrets: Secrets::default(),
        })
    }

    /// `scheme://bucket/path`, and nothing else: credentials have places of their own.
    fn in_bucket(scheme: Scheme, url: &Url) -> Result<Self> {
        let (name, host) = (url.scheme(), url.host_str().unwrap_or_default());
        if host.is_empty() && scheme != Scheme::Hdfs {
            return Err(Error::invalid(format!(
                "not a URL: {name}:// is followed by the name of a bucket"
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid(format!(
                "a URL of {name} carries no credentials: give them as storage options or in the environment"
            )));
        }
        if url.query().is_some() {
            return Err(Error::invalid(format!(
                "a URL of {name} has no query: settings are storage options, and a ? in a path is written %3F"
            )));
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        // One name for what is one store, so that a cache knows it again.
        let name = match scheme {
            Scheme::S3 => "s3",
            Scheme::Gcs => "gs",
            _ => name,
        };
        Ok(Self {
            scheme,
            path: object_path(url.path())?,
            root: format!("{name}://{host}{port}"),
            host: String::new(),
            secrets: Secrets::default(),
        })
    }

    /// `az://container/path`, or with the account as Hadoop has it; the query is a SAS token.
    fn on_azure(url: &Url) -> Result<Self> {
        let (name, host) = (url.scheme(), url.host_str().unwrap_or_default());
        let container = url.username();
        if url.password().is_some() {
            return Err(Error::invalid(format!(
                "a URL of {name} carries no password: give credentials as storage options or in the environment"
            )));
        }
        let by_account = AZURE_HOSTS.iter().any(|suffix| host.ends_with(suffix));
        let fits = match container.is_empty() {
            true => !host.is_empty() && !host.contains('.'),
            false => by_account && matches!(name, "az" | "abfs" | "abfss") && !container.contains('.'),
        };
        if !fits {
            return Err(Error::invalid(format!(
                "not a URL of Azure: expected {name}://container/path, or \
                 abfss://container@account.dfs.core.windows.net/path"
            )));
        }
        let root = match container.is_empty() {
            true => format!("{name}://{host}"),
            false => format!("{name}://{container}@{host}"),
        };
        Ok(Self {
            scheme: Scheme::Azure,
            path: object_path(url.path())?,
            root,
            host: String::new(),
            secrets: Secrets {
                query: url.query().map(str::to_owned),
                user: None,
            },
        })
    }

    /// A web server; or a store whose objects have such addresses too, unless a query signs the request already.
    fn on_the_web(url: &Url) -> Result<Self> {
        let host = url.host_str().unwrap_or_default();
        let is_https = url.scheme() == "https";
        let inner = url.path().trim_start_matches('/').split_once('/');
        let container = inner.map_or(url.path().trim_matches('/'), |(container, _)| container);
        let below = inner.map_or("", |(_, below)| below);
        let plain = url.username().is_empty() && url.query().is_none() && url.port().is_none();
        let root = |with_container: bool| match with_container {
            true => format!("https://{host}/{container}"),
            false => format!("https://{host}"),
        };
        let of_store = |scheme, root, path| {
            Ok(Self {
                scheme,
                path: object_path(path)?,
                root,
                host: String::new(),
                secrets: Secrets::default(),
            })
        };
        if is_https && plain && AZURE_HOSTS.iter().any(|suffix| host.ends_with(suffix)) {
            return of_store(Scheme::Azure, root(true), below);
        }
        if is_https && plain && (host.ends_with(".amazonaws.com") || host.ends_with(".r2.cloudflarestorage.com")) {
            let by_path = host.starts_with("s3.") || host.ends_with(".r2.cloudflarestorage.com");
            return of_store(Scheme::S3, root(by_path), if by_path { below } else { url.path() });
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let user = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decode(url.username()), decode(url.password().unwrap_or_default())));
        Ok(Self {
            scheme: Scheme::Http,
            path: object_path(url.path())?,
            root: format!("{}://{host}{port}", url.scheme()),
            host: String::new(),
            secrets: Secrets {
                query: url.query().map(str::to_owned),
                user,
            },
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

    /// `scheme://bucket`, for the builder of a store.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    #[cfg_attr(
        not(any(feature = "azure", feature = "http")),
        allow(dead_code, reason = "only stores whose URLs carry secrets ask")
    )]
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// A path of objects from the escaped one of a URL.
fn object_path(escaped: &str) -> Result<String> {
    let path = ObjectPath::from_url_path(escaped);
    let path = path.map_err(|error| Error::invalid("not a path of objects").with_source(error))?;
    Ok(path.as_ref().to_owned())
}

impl fmt::Display for DatasetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::File => f.write_str(&self.path),
            _ => write!(f, "{}/{}", self.root, self.path),
        }
    }
}

#[cfg(test)]
mod tests;
