//! Why a request failed, and what that means for the next one.

use std::error::Error as StdError;
use std::time::Duration;

use object_store::path::Path;
use squall_schema::{Error, ErrorKind};

use super::reply::Reply;
use super::version::ObjectVersion;
use crate::{DatasetUrl, Scheme};

/// The longest text of a store that an error repeats.
const MAX_TEXT: usize = 300;

/// The status of a request that may not be made.
const FORBIDDEN: u16 = 403;
/// Codes of S3, GCS and Azure for credentials that were good once.
const EXPIRED: [&str; 6] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidToken",
    "AuthenticationFailed",
    "RequestExpired",
];
/// Codes for asking less often, whatever the status.
const THROTTLED: [&str; 5] = [
    "SlowDown",
    "ServerBusy",
    "TooManyRequests",
    "Throttling",
    "RequestLimitExceeded",
];

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Throttled,
    Server,
    Timeout,
    Connection,
    Truncated,
    Expired,
    NoCredentials,
    Denied,
    Missing,
    Replaced,
    /// The range lies outside of the object.
    Outside,
    Unsupported,
    Other,
}

impl Cause {
    /// How often the request is made again, of as often as was asked for.
    pub(super) fn retries(self, most: u32) -> u32 {
        match self {
            Self::Throttled | Self::Server | Self::Timeout | Self::Connection | Self::Truncated => most,
            // New credentials take a moment to be known everywhere, and a machine without any should not take minutes to say so.
            Self::Expired | Self::NoCredentials => most.min(3),
            _ => 0,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Throttled => "the store asks for fewer requests",
            Self::Server => "the store failed",
            Self::Timeout => "no byte came in time",
            Self::Connection => "the connection failed",
            Self::Truncated => "the body was cut short",
            Self::Expired => "the credentials have expired",
            Self::NoCredentials => "no credentials were found",
            Self::Denied => "access is denied",
            Self::Missing => "no such file",
            Self::Replaced => "the file was replaced",
            Self::Outside => "the range lies outside of the file",
            Self::Unsupported => "the store does not support the request",
            Self::Other => "the request failed",
        }
    }
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// What the store or the system says of it, without secrets.
    pub(super) detail: String,
    /// How long the store asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// What was found in place of the version that was expected.
    pub(super) found: Option<ObjectVersion>,
}

impl Failure {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            retry_after: None,
            found: None,
        }
    }

    /// By what the store answered, and the error that object_store made of it.
    pub(super) fn of(error: &object_store::Error, reply: &Reply) -> Self {
        let text = error.to_string();
        let (code, message) = (element(&text, "Code"), element(&text, "Message"));
        let status = match reply.status() {
            0 => status_in(&text),
            status => status,
        };
        let expired = code.is_some_and(|code| EXPIRED.contains(&code));
        let throttled = code.is_some_and(|code| THROTTLED.contains(&code));
        let cause = match (error, status) {
            // Also where the body that says so broke off.
            (object_store::Error::NotFound { .. }, _) | (_, 404) => Cause::Missing,
            (object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. }, _) | (_, 412) => {
                Cause::Replaced
            }
            (object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. }, _) => {
                Cause::Unsupported
            }
            (_, 400 | 401 | 403) if expired => Cause::Expired,
            (_, 401) => Cause::Expired,
            (_, 429 | 503) => Cause::Throttled,
            (_, 400..) if throttled => Cause::Throttled,
            (_, FORBIDDEN) => Cause::Denied,
            (_, 408) => Cause::Timeout,
            (_, 400) if code == Some("RequestTimeout") => Cause::Timeout,
            (_, 416) => Cause::Outside,
            (_, 405 | 501) => Cause::Unsupported,
            (_, 500..) => Cause::Server,
            (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _) => {
                Cause::Denied
            }
            // No answer, or one whose body broke off.
            (_, 0 | 200..=299) => transport(error).unwrap_or_else(|| silent(&text)),
            _ => Cause::Other,
        };
        let detail = match (status, code) {
            (400.., Some(code)) => {
                let message = message.map(|message| format!(": {message}")).unwrap_or_default();
                format!("HTTP {status} {code}{message}")
            }
            (400.., None) => format!("HTTP {status}"),
            _ => innermost(error),
        };
        Self {
            cause,
            detail: shown(&detail),
            retry_after: reply.retry_after(),
            found: None,
        }
    }

    /// Whether access was refused without a reason.
    pub(super) fn is_silent_refusal(&self) -> bool {
        self.cause == Cause::Denied && self.detail == format!("HTTP {FORBIDDEN}")
    }

    /// The error for the one who asked. `known` is what is known of the file from before.
    pub(super) fn into_error(self, url: &DatasetUrl, path: &Path, known: Option<&ObjectVersion>) -> Error {
        let place = |error: Error| error.at("file", path).at("URL", url);
        let error = match (self.cause, known) {
            (Cause::Replaced, Some(known)) => return place(known.replaced(self.found.as_ref())),
            (Cause::Missing, Some(_)) => {
                return place(Error::new(
                    ErrorKind::NotFound,
                    "the file was deleted since the dataset was opened",
                ));
            }
            (Cause::Missing, None) => return place(Error::new(ErrorKind::NotFound, "no such file")),
            (Cause::Outside, _) => Error::corrupt("the file is shorter than its footer says"),
            (Cause::Expired, _) => Error::new(
                ErrorKind::Storage,
                format!(
                    "the credentials have expired, and reading them anew gave none that work: {}",
                    renew(url.scheme())
                ),
            ),
            (Cause::NoCredentials, _) => Error::new(
                ErrorKind::Storage,
                format!(
                    "no credentials were found: give them as storage options or in the environment, or skip_signature=true \
                     for anonymous access; {}",
                    renew(url.scheme())
                ),
            ),
            (Cause::Unsupported, _) => Error::unsupported(self.cause.text()),
            (cause, _) => Error::new(ErrorKind::Storage, cause.text()),
        };
        place(error).with_source(self.detail)
    }

    /// The text of it within another error.
    pub(super) fn text(&self) -> String {
        format!("{} ({})", self.cause.text(), self.detail)
    }
}

/// What holds credentials of a store.
fn renew(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "renew aws_access_key_id, aws_secret_access_key and aws_session_token, or the role or web identity token that \
             they come from"
        }
        Scheme::Gcs => "renew the service account key or the application default credentials",
        Scheme::Azure => "renew the account key, the SAS token or the client secret",
        Scheme::Http => "renew the user and password, or the signed query, of the URL",
        _ => "renew them",
    }
}

/// What broke below HTTP, if something did.
#[cfg(feature = "cloud")]
fn transport(error: &object_store::Error) -> Option<Cause> {
    use object_store::client::{HttpError, HttpErrorKind};

    let (mut found, mut next): (_, Option<&(dyn StdError + 'static)>) = (None, Some(error));
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            found = Some(match http.kind() {
                HttpErrorKind::Timeout => Cause::Timeout,
                _ => Cause::Connection,
            });
        }
        // What hyper says of a body that is shorter than its length.
        let system = error.downcast_ref::<std::io::Error>();
        if found.is_some() && system.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) {
            return Some(Cause::Truncated);
        }
        next = error.source();
    }
    found
}

#[cfg(not(feature = "cloud"))]
fn transport(_error: &object_store::Error) -> Option<Cause> {
    None
}

/// Where nothing was asked of the store itself: its credentials could not be had, or the file system of Hadoop failed.
fn silent(text: &str) -> Cause {
    const SOURCES: [&str; 5] = ["169.254.", "metadata", "credential", "token", "OAuth"];
    if SOURCES.iter().any(|source| text.contains(source)) {
        return Cause::NoCredentials;
    }
    Cause::Connection
}

/// The status that an error repeats, where no reply was kept; 0 if none.
fn status_in(text: &str) -> u16 {
    let status = text
        .split_once("non-2xx status code: ")
        .and_then(|(_, rest)| rest.get(..3));
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The text of an element of an XML body.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once('<')?;
    Some(value)
}

/// The last cause of an error: what stands above it repeats the address.
fn innermost(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// A text without the secrets that addresses carry: users, passwords and queries; and not too long.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_TEXT));
    let mut rest = text;
    while let Some(place) = rest.find("://") {
        let (before, behind) = rest.split_at(place + 3);
        shown += before;
        let end = behind.find(|c: char| c.is_whitespace() || "\"'<>)]".contains(c));
        let (address, after) = behind.split_at(end.unwrap_or(behind.len()));
        let plain = address.split(['?', '#']).next().unwrap_or_default();
        let host = plain.find('/').unwrap_or(plain.len());
        shown += &plain[plain[..host].rfind('@').map_or(0, |at| at + 1)..];
        rest = after;
    }
    shown += rest;
    if let Some((cut, _)) = shown.char_indices().nth(MAX_TEXT) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_their_secrets() {
        for (text, expected) in [
            (
                "error for url (https://u:p@h/a/b?sig=x&y) today",
                "error for url (https://h/a/b) today",
            ),
            ("GET http://h:1/a@b?x", "GET http://h:1/a@b"),
            ("two: s3://b/x, \"https://u@h?q\".", "two: s3://b/x, \"https://h\"."),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"ä".repeat(400)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn codes_say_what_a_status_does_not() {
        let failure = |status: u16, body: &str| {
            let reply = Reply::default();
            reply.set(status, None);
            let error = object_store::Error::Generic {
                store: "S3",
                source: format!("Server returned non-2xx status code: {status}: {body}").into(),
            };
            Failure::of(&error, &reply)
        };
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>why</Message><Sig>hunter2</Sig></Error>");
        for (status, code, cause) in [
            (400, "ExpiredToken", Cause::Expired),
            (403, "ExpiredToken", Cause::Expired),
            (403, "AccessDenied", Cause::Denied),
            (400, "RequestTimeout", Cause::Timeout),
            (503, "SlowDown", Cause::Throttled),
            (500, "InternalError", Cause::Server),
            (400, "Other", Cause::Other),
        ] {
            let failure = failure(status, &body(code));
            assert_eq!(failure.cause, cause, "{status} {code}");
            assert_eq!(failure.detail, format!("HTTP {status} {code}: why"));
        }
    }
}
