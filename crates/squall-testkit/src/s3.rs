//! A real S3 server in this process, with a directory behind it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::sync::Mutex;

use crate::serve::Served;

/// The key that the server knows.
pub const ACCESS_KEY: &str = "AKIASQUALLTEST";
/// Its secret.
pub const SECRET_KEY: &str = "not-a-secret-of-anybody";

/// An S3 server on loopback. A directory below its root is a bucket, a file in it an object.
#[derive(Debug)]
pub struct S3Server {
    root: PathBuf,
    served: Served,
}

impl S3Server {
    /// Serves the directory to those who sign with [`ACCESS_KEY`].
    pub fn start(root: &Path) -> Self {
        Self::serve(root, Some(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY)))
    }

    /// Serves the directory to everybody, unsigned.
    pub fn start_anonymous(root: &Path) -> Self {
        Self::serve(root, None)
    }

    fn serve(root: &Path, auth: Option<SimpleAuth>) -> Self {
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root).expect("a directory"));
        if let Some(auth) = auth {
            builder.set_auth(auth);
        }
        let (service, own) = (builder.build(), root.to_owned());
        let conditions: Arc<Mutex<()>> = Arc::default();
        Self {
            root: root.to_owned(),
            served: Served::start(move |stream| {
                let (service, root, conditions) = (service.clone(), own.clone(), conditions.clone());
                async move {
                    let answer = service_fn(move |request| {
                        let (service, root, conditions) = (service.clone(), root.clone(), conditions.clone());
                        async move {
                            // S3 looks at a condition and writes in one step; s3s-fs takes two.
                            let headers = request.headers();
                            let is_conditional = headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH);
                            let _alone = match is_conditional && request.method() == hyper::Method::PUT {
                                true => Some(conditions.lock().await),
                                false => None,
                            };
                            answer(service, root, request).await
                        }
                    });
                    let connections = Builder::new(TokioExecutor::new());
                    // The client hangs up when it likes.
                    let _ = connections.serve_connection(TokioIo::new(stream), answer).await;
                }
            }),
        }
    }

    /// The directory with the buckets.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Storage options to reach it, signed.
    pub fn options(&self) -> Vec<(String, String)> {
        options(self.address())
    }
}

/// Storage options to reach a server of this key at an address: a proxy in front of it, say.
pub fn options(address: SocketAddr) -> Vec<(String, String)> {
    let pairs = [
        ("aws_access_key_id", ACCESS_KEY.to_owned()),
        ("aws_secret_access_key", SECRET_KEY.to_owned()),
        ("aws_region", "us-east-1".to_owned()),
        ("endpoint", format!("http://{address}")),
        ("allow_http", "true".to_owned()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// Asks s3s-fs, which does not look at `If-Match` of a read, and fails where an object has the name of a directory: S3 has
/// no directories.
async fn answer(
    service: S3Service,
    root: PathBuf,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, s3s::HttpError> {
    let wanted = request.headers().get(IF_MATCH).cloned();
    let is_read = request.method() == hyper::Method::GET || request.method() == hyper::Method::HEAD;
    if request.method() == hyper::Method::HEAD && root.join(request.uri().path().trim_start_matches('/')).is_dir() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let response = hyper::service::Service::call(&service, request).await?;
    match (wanted, response.headers().get(ETAG)) {
        (Some(wanted), Some(found)) if is_read && wanted != *found => {
            let body = Body::from(
                "<Error><Code>PreconditionFailed</Code><Message>the object is another</Message></Error>".to_owned(),
            );
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            Ok(response)
        }
        _ => Ok(response),
    }
}
