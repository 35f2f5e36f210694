//! What object_store's errors leave out of an answer.

#[cfg(feature = "cloud")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "cloud")]
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// The status of an answer, and how long it asks to wait. It travels with the request as an extension.
#[derive(Debug, Default)]
pub(super) struct Reply {
    status: AtomicU16,
    /// Milliseconds and one.
    retry_after: AtomicU64,
}

impl Reply {
    /// The status of the last answer; 0 if none came.
    pub(super) fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        let wait = self.retry_after.load(Ordering::Relaxed).checked_sub(1);
        wait.map(Duration::from_millis)
    }

    #[cfg_attr(not(any(test, feature = "cloud")), expect(dead_code, reason = "nothing answers"))]
    pub(super) fn set(&self, status: u16, retry_after: Option<Duration>) {
        let wait = retry_after.map_or(0, |wait| {
            u64::try_from(wait.as_millis()).map_or(u64::MAX, |n| n.saturating_add(1))
        });
        self.status.store(status, Ordering::Relaxed);
        self.retry_after.store(wait, Ordering::Relaxed);
    }
}

/// Makes clients that fill in the [`Reply`] of a request that has one.
#[cfg(feature = "cloud")]
#[derive(Debug, Default)]
pub(super) struct NotingConnector(ReqwestConnector);

#[cfg(feature = "cloud")]
impl HttpConnector for NotingConnector {
    fn connect(&self, options: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Noting(self.0.connect(options)?)))
    }
}

#[cfg(feature = "cloud")]
#[derive(Debug)]
struct Noting(HttpClient);

#[cfg(feature = "cloud")]
#[async_trait::async_trait]
impl HttpService for Noting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reply = request.extensions().get::<Arc<Reply>>().cloned();
        let response = self.0.execute(request).await?;
        if let Some(reply) = reply {
            let asked = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok());
            reply.set(response.status().as_u16(), asked.and_then(wait));
        }
        Ok(response)
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date.
#[cfg(feature = "cloud")]
fn wait(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    let then = u64::try_from(date.timestamp()).ok().map(Duration::from_secs)?;
    Some(then.saturating_sub(now))
}

#[cfg(all(test, feature = "cloud"))]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let far = wait("Tue, 31 Dec 2999 23:59:59 GMT").expect("a date");
        assert!(far > Duration::from_secs(1 << 30));
        assert_eq!(wait("soon"), None);
    }
}
