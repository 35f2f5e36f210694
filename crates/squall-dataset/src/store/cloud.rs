//! The stores of object_store, out of a URL, the environment and storage options.

use std::collections::BTreeMap;
use std::sync::Arc;
#[cfg(feature = "cloud")]
use std::time::Duration;

use object_store::ObjectStore;
#[cfg(feature = "cloud")]
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};
use squall_schema::{Error, Result};

use super::backend::Purpose;
use super::failure::shown;
#[cfg(feature = "cloud")]
use super::known;
use super::options::StoreOptions;
#[cfg(feature = "cloud")]
use super::reply::NotingConnector;
use crate::{DatasetUrl, Scheme};

/// The store whose root is the bucket of a URL, or `None` if this program was built without it.
pub(super) fn built(
    url: &DatasetUrl,
    options: &StoreOptions,
    purpose: Purpose,
) -> Result<Option<Arc<dyn ObjectStore>>> {
    let given = options.current()?;
    let settings = Settings {
        url,
        options,
        purpose,
        given: &given,
    };
    let built = match url.scheme() {
        #[cfg(feature = "s3")]
        Scheme::S3 => settings.s3(),
        #[cfg(feature = "gcs")]
        Scheme::Gcs => settings.gcs(),
        #[cfg(feature = "azure")]
        Scheme::Azure => settings.azure(),
        #[cfg(feature = "http")]
        Scheme::Http => settings.http(),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs => settings.hdfs(),
        _ => return Ok(None),
    };
    built.map(Some).map_err(|error| error.at("URL", url))
}

#[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "Hadoop has its own patience"))]
struct Settings<'a> {
    url: &'a DatasetUrl,
    options: &'a StoreOptions,
    purpose: Purpose,
    given: &'a BTreeMap<String, String>,
}

/// Gives a builder of object_store what all of them take: patience first, so that a storage option of the same meaning
/// comes last and holds.
#[cfg(feature = "cloud")]
macro_rules! configured {
    ($settings:expr, $builder:expr, $key:ty, $client:expr) => {{
        let settings: &Settings<'_> = $settings;
        let mut builder = $builder.with_retry(settings.retry());
        for (key, value) in settings.client() {
            builder = builder.with_config($client(key), value);
        }
        if settings.purpose == Purpose::Reads {
            builder = builder.with_http_connector(NotingConnector::default());
        }
        for (name, value) in settings.given {
            let key: $key = match name.to_ascii_lowercase().parse() {
                Ok(key) => key,
                Err(_) => return Err(known::unknown(settings.url.scheme(), name)),
            };
            builder = builder.with_config(key, value);
        }
        builder
    }};
}

impl Settings<'_> {
    #[cfg(feature = "s3")]
    fn s3(&self) -> Result<Arc<dyn ObjectStore>> {
        use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};

        let builder = AmazonS3Builder::from_env().with_url(self.url.root());
        let builder = configured!(self, builder, Key, Key::Client);
        let endpoint = [Key::S3Endpoint, Key::Endpoint]
            .into_iter()
            .find_map(|key| builder.get_config_value(&key));
        let allowed = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
        self.check_endpoint(endpoint, allowed)?;
        Ok(Arc::new(builder.build().map_err(|error| self.refused(error))?))
    }

    #[cfg(feature = "gcs")]
    fn gcs(&self) -> Result<Arc<dyn ObjectStore>> {
        use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};

        let builder = GoogleCloudStorageBuilder::from_env().with_url(self.url.root());
        let builder = configured!(self, builder, Key, Key::Client);
        let endpoint = builder.get_config_value(&Key::BaseUrl);
        let allowed = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
        self.check_endpoint(endpoint, allowed)?;
        Ok(Arc::new(builder.build().map_err(|error| self.refused(error))?))
    }

    #[cfg(feature = "azure")]
    fn azure(&self) -> Result<Arc<dyn ObjectStore>> {
        use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

        let mut builder = MicrosoftAzureBuilder::from_env().with_url(self.url.root());
        if let Some(token) = &self.url.secrets().query {
            builder = builder.with_config(Key::SasKey, token);
        }
        let builder = configured!(self, builder, Key, Key::Client);
        let endpoint = builder.get_config_value(&Key::Endpoint);
        let allowed = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
        self.check_endpoint(endpoint, allowed)?;
        Ok(Arc::new(builder.build().map_err(|error| self.refused(error))?))
    }

    #[cfg(feature = "http")]
    fn http(&self) -> Result<Arc<dyn ObjectStore>> {
        use base64::Engine;
        use base64::prelude::BASE64_STANDARD;
        use object_store::http::HttpBuilder;
        use object_store::{ClientOptions, HeaderMap, HeaderValue};

        let secrets = self.url.secrets();
        let mut client = ClientOptions::new().with_allow_http(self.url.root().starts_with("http://"));
        if let Some((user, password)) = &secrets.user {
            let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
            let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
                .map_err(|_| Error::invalid("user and password cannot be sent"))?;
            value.set_sensitive(true);
            client = client.with_default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
        }
        let query = secrets
            .query
            .as_ref()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let builder = HttpBuilder::new()
            .with_client_options(client)
            .with_url(format!("{}/{query}", self.url.root()));
        let builder = configured!(self, builder, ClientConfigKey, std::convert::identity);
        Ok(Arc::new(builder.build().map_err(|error| self.refused(error))?))
    }

    #[cfg(feature = "hdfs")]
    fn hdfs(&self) -> Result<Arc<dyn ObjectStore>> {
        use hdfs_native_object_store::HdfsObjectStoreBuilder;

        // Hadoop's own configuration, which the client reads, has the name services; options are keys of it.
        let builder = HdfsObjectStoreBuilder::new()
            .with_url(format!("{}/", self.url.root()))
            .with_config(self.given);
        Ok(Arc::new(builder.build().map_err(|error| self.refused(error))?))
    }

    /// The patience of object_store itself.
    #[cfg(feature = "cloud")]
    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.options.backoff,
                max_backoff: self.options.max_backoff,
                base: 2.0,
            },
            max_retries: match self.purpose {
                Purpose::Reads => 0,
                Purpose::Rest => self.options.retries as usize,
            },
            retry_timeout: self.options.total_timeout,
        }
    }

    /// The patience of its HTTP client.
    #[cfg(feature = "cloud")]
    fn client(&self) -> Vec<(ClientConfigKey, String)> {
        let text = |time: Duration| format!("{}ms", time.as_millis());
        let mut options = vec![(ClientConfigKey::ConnectTimeout, text(self.options.connect_timeout))];
        if self.purpose == Purpose::Reads {
            // Reads have a limit for no progress and one for all: a large body on a thin line may take its time.
            options.push((ClientConfigKey::Timeout, text(self.options.total_timeout)));
        }
        options
    }

    /// object_store would say "builder error for url".
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    fn check_endpoint(&self, endpoint: Option<String>, allow_http: Option<String>) -> Result<()> {
        let plain = endpoint
            .as_deref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        if plain && allow_http.as_deref() != Some("true") {
            return Err(Error::invalid(format!(
                "the endpoint {} is not encrypted: the storage option allow_http=true allows it",
                shown(&endpoint.unwrap_or_default())
            )));
        }
        Ok(())
    }

    /// What the builder of a store says, without the values of options that are secrets.
    fn refused(&self, error: object_store::Error) -> Error {
        let mut text = shown(&error.to_string());
        for (name, value) in self.given {
            if is_secret(name) && !value.is_empty() {
                text = text.replace(value, "…");
            }
        }
        Error::invalid("cannot reach the store with these settings").with_source(text)
    }
}

/// Whether the value of an option may be a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "secret", "token", "sas", "password"]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(feature = "http")]
const AUTHORIZATION: http::HeaderName = http::header::AUTHORIZATION;
