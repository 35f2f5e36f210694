//! A directory of a store as text, which any process of a cluster opens again; and the registry by which DataFusion finds it.
//!
//! DataFusion knows stores by URLs. Ours carry all that a process needs to open the store: scheme `squall`, and as the host the
//! place in hexadecimal digits. What is secret does not travel: each process has its credentials from its own environment.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use squall_dataset::{DatasetUrl, Scheme, Store, StoreOptions};
use squall_schema::{Error, ErrorKind, Result};
use url::Url;

use super::hex;

/// The scheme of such URLs.
const SCHEME: &str = "squall";
/// What the names of storage options have in them whose values are secrets, or are nothing without one.
const SECRET: [&str; 8] = [
    "key",
    "secret",
    "token",
    "password",
    "credential",
    "sas",
    "bearer",
    "authorization",
];
/// Stores that are kept open; all are dropped when there are more.
const OPEN: usize = 64;

/// A directory of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    url: String,
    options: BTreeMap<String, String>,
}

impl Place {
    /// The place of a store that all processes of a cluster see.
    pub(crate) fn of(store: &Store, options: &StoreOptions) -> Result<Self> {
        let url = store.url();
        if url.scheme() == Scheme::Memory {
            return Err(Error::unsupported(
                "a cluster does not see the memory of this process: expected a store or a directory that all machines see",
            )
            .at("URL", url));
        }
        let text = url.to_string();
        let text = match store.only() {
            Some(_) => text
                .rsplit_once('/')
                .map_or(text.as_str(), |(parent, _)| parent)
                .to_owned(),
            None => text,
        };
        Ok(Self {
            url: text,
            options: without_secrets(options),
        })
    }

    /// The directory `path` below.
    pub(crate) fn below(&self, path: &str) -> Self {
        Self {
            url: format!("{}/{path}", self.url.trim_end_matches('/')),
            options: self.options.clone(),
        }
    }

    /// Opens it. A directory must be there: what has been taken away is not made anew.
    pub(crate) fn open(&self) -> Result<Store> {
        let url = DatasetUrl::parse(&self.url)?;
        if url.to_file_path().is_some_and(|path| !path.is_dir()) {
            let message = "no such directory on this machine: all machines of a cluster must see the same disk";
            return Err(Error::new(ErrorKind::NotFound, message).at("URL", &url));
        }
        self.make()
    }

    /// Opens it, and makes its directory.
    pub(crate) fn make(&self) -> Result<Store> {
        let url = DatasetUrl::parse(&self.url)?;
        Store::create_with(&url, &StoreOptions::default().with_options(self.options.clone()))
    }

    /// The URL by which DataFusion knows it.
    pub(crate) fn store_url(&self) -> Result<ObjectStoreUrl, DataFusionError> {
        let text = serde_json::to_vec(self).map_err(|error| DataFusionError::External(error.into()))?;
        ObjectStoreUrl::parse(format!("{SCHEME}://{}", hex::encode(&text)))
    }

    fn of_store_url(url: &Url) -> Option<Self> {
        let text = (url.scheme() == SCHEME).then(|| url.host_str()).flatten()?;
        serde_json::from_slice(&hex::decode(text)?).ok()
    }
}

/// The URL by which DataFusion knows a store here and on a cluster; none for one that no other process sees.
pub(crate) fn store_url(store: &Store, options: &StoreOptions) -> Option<Result<ObjectStoreUrl, DataFusionError>> {
    Some(Place::of(store, options).ok()?.store_url())
}

/// The plan with scans of files that other processes find: a session knows a store as `s3://bucket`, and how it is reached, which
/// no other process does.
pub(crate) fn seen_by_all(
    plan: Arc<dyn ExecutionPlan>,
    options: &BTreeMap<String, String>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let seen = plan.transform_up(|node| {
        let scan = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
        let Some(files) = scan.and_then(|scan| scan.downcast_ref::<FileScanConfig>()) else {
            return Ok(Transformed::no(node));
        };
        let url: &Url = files.object_store_url.as_ref();
        let external = |error: Error| DataFusionError::External(error.into());
        let place = match url.scheme() {
            "file" => return Ok(Transformed::no(node)),
            SCHEME if Place::of_store_url(url).is_some() => return Ok(Transformed::no(node)),
            SCHEME => None,
            _ => DatasetUrl::parse(url.as_str())
                .ok()
                .filter(|url| url.scheme() != Scheme::Memory),
        };
        let Some(place) = place else {
            let message =
                "a source is in a store that no other process sees: a cluster needs one that all machines see";
            return Err(external(Error::unsupported(message).at("URL", url)));
        };
        let place = Place {
            url: place.to_string(),
            options: options.clone(),
        };
        let mut files = files.clone();
        files.object_store_url = place.store_url()?;
        Ok(Transformed::yes(DataSourceExec::from_data_source(files)))
    })?;
    Ok(seen.data)
}

/// Options without those whose values are secrets. Whoever opens the store has these from its own environment, or goes without: a
/// proxy's address whose password was left out would take the place of a whole one.
pub(crate) fn without_secrets(options: &StoreOptions) -> BTreeMap<String, String> {
    let is_secret = |name: &str| SECRET.iter().any(|part| name.to_ascii_lowercase().contains(part));
    let open = options
        .options
        .iter()
        .filter(|(name, value)| !is_secret(name) && !is_signed(value));
    open.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a value is a URL with a user, a password or a query in it, as a SAS token is one.
fn is_signed(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else {
        return false;
    };
    match Url::parse(value) {
        Ok(url) => !url.username().is_empty() || url.password().is_some() || url.query().is_some(),
        // What is no URL here may be one elsewhere.
        Err(_) => rest.contains(['@', '?']),
    }
}

/// Opens the stores of [`Place`]s when they are asked for, and keeps them open.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    others: DefaultObjectStoreRegistry,
    open: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl ObjectStoreRegistry for Registry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.others.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, DataFusionError> {
        let Some(place) = Place::of_store_url(url) else {
            return self.others.get_store(url).map_err(|error| match url.scheme() {
                SCHEME => {
                    DataFusionError::External(Error::unsupported("a source is in the memory of another process").into())
                }
                _ => error,
            });
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(url.as_str()) {
            return Ok(store.clone());
        }
        let store = place.open().map_err(|error| DataFusionError::External(error.into()))?;
        if open.len() >= OPEN {
            open.clear();
        }
        open.insert(url.to_string(), store.objects().clone());
        Ok(store.objects().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_through_a_url_without_its_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = DatasetUrl::parse(directory.path().to_str().expect("UTF-8")).expect("a URL");
        let options = StoreOptions::default().with_options([
            ("region", "x"),
            ("endpoint", "http://127.0.0.1:9000"),
            ("aws_secret_access_key", "hush"),
            ("proxy_url", "http://user:hush@proxy:3128"),
            ("azure_endpoint", "https://account.blob.core.windows.net/?sig=hush"),
            ("proxy_excludes", "not a://u:hush@url"),
        ]);
        let place = Place::of(&Store::create(&url).expect("a store"), &options).expect("a place");
        let url = place.store_url().expect("a URL");
        let back = Place::of_store_url(url.as_ref()).expect("a place");
        assert_eq!(back, place);
        assert_eq!(back.options.keys().collect::<Vec<_>>(), ["endpoint", "region"]);
        assert!(Registry::default().get_store(url.as_ref()).is_ok());
    }
}
