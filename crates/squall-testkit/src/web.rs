//! A plain web server of static files: ranges and ETags, no listing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;

use crate::serve::Served;

/// A server of the files of a directory.
#[derive(Debug)]
pub struct WebServer(Served);

/// What a client must send.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// The query of each request, as of a presigned URL.
    pub query: Option<String>,
    /// The value of the header `Authorization`.
    pub authorization: Option<String>,
}

impl WebServer {
    /// Serves the directory.
    pub fn start(root: &Path) -> Self {
        Self::start_gated(root, Gate::default())
    }

    /// Serves the directory to those who pass the gate.
    pub fn start_gated(root: &Path, gate: Gate) -> Self {
        let root = root.to_owned();
        Self(Served::start(move |stream| {
            let (root, gate) = (root.clone(), gate.clone());
            async move {
                let answer = service_fn(move |request| {
                    let response = answer(&root, &gate, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                // The client hangs up when it likes.
                let connections = Builder::new(TokioExecutor::new());
                let _ = connections.serve_connection(TokioIo::new(stream), answer).await;
            }
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn answer(root: &Path, gate: &Gate, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let passes = gate
        .query
        .as_deref()
        .is_none_or(|query| request.uri().query() == Some(query))
        && gate
            .authorization
            .as_deref()
            .is_none_or(|value| header(AUTHORIZATION) == Some(value));
    if !passes {
        return plain(StatusCode::FORBIDDEN);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let path: PathBuf = root.join(request.uri().path().trim_start_matches('/'));
    let (Ok(metadata), Ok(content)) = (path.metadata(), std::fs::read(&path)) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let tag = format!("\"{:x}-{:x}\"", content.len(), modified.unwrap_or_default().as_micros());
    if header(IF_MATCH).is_some_and(|wanted| wanted != tag) {
        return plain(StatusCode::PRECONDITION_FAILED);
    }
    let builder = Response::builder().header(ETAG, tag).header(ACCEPT_RANGES, "bytes");
    let total = content.len();
    let range = header(RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(start, end)| {
        let start: usize = start.parse().ok()?;
        let end = end.parse().map_or(total, |end: usize| end + 1);
        Some(start..end.min(total))
    });
    let response = match range {
        Some(range) if range.start >= range.end => return plain(StatusCode::RANGE_NOT_SATISFIABLE),
        Some(range) => builder
            .status(StatusCode::PARTIAL_CONTENT)
            .header(
                CONTENT_RANGE,
                format!("bytes {}-{}/{total}", range.start, range.end - 1),
            )
            .body(Full::new(Bytes::from(content).slice(range))),
        None if request.method() == Method::HEAD => builder.header(CONTENT_LENGTH, total).body(Full::default()),
        None => builder.body(Full::new(content.into())),
    };
    response.expect("a response")
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
