//! The stores behind URLs, as far as this program was built with them.

use std::sync::Arc;

use object_store::ObjectStore;
use squall_schema::{Error, Result};

use super::options::StoreOptions;
use crate::DatasetUrl;

/// What a store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reading: Squall retries, and knows what is left to read. object_store does not: retries would multiply.
    Reads,
    /// All else: listing, writing, and reading by others. object_store retries.
    Rest,
}

/// The store whose root is the bucket of a URL.
#[cfg_attr(
    not(any(feature = "cloud", feature = "hdfs")),
    expect(unused_variables, reason = "there is no store to give them to")
)]
pub(super) fn build(url: &DatasetUrl, options: &StoreOptions, purpose: Purpose) -> Result<Arc<dyn ObjectStore>> {
    #[cfg(any(feature = "cloud", feature = "hdfs"))]
    if let Some(store) = super::cloud::built(url, options, purpose)? {
        return Ok(store);
    }
    let feature = url.scheme().feature().unwrap_or("none");
    Err(Error::unsupported(format!(
        "this program was built without the store of the URL: build it with the feature {feature}"
    ))
    .at("URL", url))
}
