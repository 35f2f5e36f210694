//! An HTTP endpoint that Prometheus scrapes.

use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use squall_schema::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::io::Io;
use crate::metrics::exposition::{self, to_prometheus};
use crate::metrics::{Meter, Metrics};

/// Where metrics are, as Prometheus expects it.
const PATH: &str = "/metrics";

/// Connections at a time. A scraper needs one.
const CONNECTIONS: usize = 32;

/// How long a client may take for a request, and between two of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing is accepted when the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the metrics of readers at `http://ADDRESS/metrics`, in the text format of Prometheus 0.0.4, until it is dropped. Port 0
/// takes any port that is free.
///
/// Behind the feature `prometheus`. There is no encryption and nobody is asked who he is: listen on loopback, or on a network
/// of your own. What is told are numbers, and the URLs of the datasets without their secrets.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// let reader = squall_reader::make_batch_reader("/data/train").build()?;
/// let server = squall_reader::serve_metrics("127.0.0.1:9184")?;
/// server.register("train", reader.meter())?;
/// for batch in reader {
///     println!("{} rows", batch?.num_rows());
/// }
/// # Ok(())
/// # }
/// ```
pub fn serve_metrics(address: impl ToSocketAddrs + fmt::Display) -> Result<MetricsServer> {
    let at = |error: std::io::Error| {
        Error::new(ErrorKind::InvalidInput, "cannot listen for those who want metrics")
            .at("address", &address)
            .with_source(error)
    };
    let listener = std::net::TcpListener::bind(&address).map_err(at)?;
    listener.set_nonblocking(true).map_err(at)?;
    let address = listener.local_addr().map_err(at)?;
    let io = Io::new()?;
    let readers = Readers::default();
    let own = readers.clone();
    io.handle().spawn(async move {
        // The runtime that knows the socket is the one that it is used on.
        match TcpListener::from_std(listener) {
            Ok(listener) => accept(listener, own).await,
            Err(error) => tracing::warn!("cannot serve metrics: {error}"),
        }
    });
    Ok(MetricsServer {
        readers,
        address,
        _io: io,
    })
}

/// Serves metrics until it is dropped. Made by [`serve_metrics`].
#[must_use]
pub struct MetricsServer {
    readers: Readers,
    address: SocketAddr,
    // All that is served is a task on it, and ends with it.
    _io: Io,
}

/// The readers that are served, by name.
type Readers = Arc<Mutex<Vec<(String, Meter)>>>;

impl MetricsServer {
    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves a reader's or loader's metrics too, with this name in the label `reader`. A name that is taken is an error.
    pub fn register(&self, name: impl Into<String>, meter: Meter) -> Result<()> {
        let name = name.into();
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.iter().any(|(own, _)| *own == name) {
            return Err(Error::invalid(format!(
                "there are metrics of a reader {name:?} already"
            )));
        }
        readers.push((name, meter));
        Ok(())
    }

    /// Serves a reader's metrics no longer. Its counters are kept until then.
    pub fn unregister(&self, name: &str) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|(own, _)| own != name);
    }
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, readers: Readers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("cannot accept a connection for metrics: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let readers = readers.clone();
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(move |request| {
                let response = respond(&request, &readers);
                async { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = served.await {
                tracing::debug!("a connection for metrics failed: {error}");
            }
        });
    }
}

fn respond(request: &Request<Incoming>, readers: &Readers) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, format!("metrics are at {PATH}\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n".into());
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let readers = readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let metrics: Vec<(Option<&str>, Metrics)> = readers
        .iter()
        .map(|(name, meter)| (Some(name.as_str()), meter.metrics()))
        .collect();
    plain(StatusCode::OK, to_prometheus(&metrics))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
