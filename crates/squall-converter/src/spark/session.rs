//! Connections to a Spark Connect server, and settings of a session that hold while a conversion runs.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_connect::SparkSession;
use spark_connect_core::channel::ChannelBuilder;
use squall_schema::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use super::error::spark_error;

/// How long a server may take to take a connection: the client itself would try for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to answer the first question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A session with the Spark Connect server at a URL: `sc://host:15002`, with `/;token=…;use_ssl=true` where the server asks for
/// it. A token goes over TLS only, or to this machine.
///
/// # Errors
///
/// If nothing answers there, or the token is not the server's. No error shows the URL's parameters.
///
/// # Cancel safety
///
/// Dropping the future leaves a session that the server forgets by itself.
pub async fn connect(url: &str) -> Result<SparkSession> {
    let own = url.to_owned();
    // A server that takes the connection and says nothing sensible is asked again and again by the client.
    match tokio::time::timeout(ANSWER_TIMEOUT, blocking(move || open(&own))).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::new(
            ErrorKind::Storage,
            format!(
                "no Spark Connect server answers within {} seconds: is it one, does it speak TLS as the URL says, and \
                 does this machine trust its certificate",
                ANSWER_TIMEOUT.as_secs()
            ),
        )),
    }
}

/// Runs what waits for Spark on a thread of its own. The end of a runtime does not wait for it, as it would for one of its blocking
/// threads.
///
/// # Cancel safety
///
/// Dropping the future leaves the thread to end by itself.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (send, receive) = oneshot::channel();
    let thread = std::thread::Builder::new().name("squall-spark".to_owned());
    let started = thread.spawn(move || send.send(work()).is_ok());
    started.map_err(|error| Error::internal("cannot start a thread that waits for Spark").with_source(error))?;
    let done = receive.await;
    done.map_err(|error| Error::internal("the thread that waits for Spark panicked").with_source(error))?
}

fn open(url: &str) -> Result<SparkSession> {
    // What the client says of a malformed URL shows it, token and all.
    let expected = "expected sc://host:15002, or sc://host:15002/;token=…;use_ssl=true";
    let parsed = ChannelBuilder::parse(url)
        .map_err(|_| Error::invalid(format!("not the URL of a Spark Connect server: {expected}")))?;
    let place = parsed.endpoint();
    let at = |error: Error| error.at("server", format!("sc://{place}"));
    if parsed.token().is_some() && !parsed.use_ssl() && !parsed.is_loopback() {
        return Err(at(Error::invalid(
            "a token would go unencrypted to another machine: add use_ssl=true to the URL",
        )));
    }
    reach(&place).map_err(at)?;
    let session = SparkSession::builder().remote(url).get_or_create();
    let session = session.map_err(|error| at(spark_error(error)))?;
    // The first request: it tells whether the server takes the token.
    session.version().map_err(|error| at(spark_error(error)))?;
    Ok(session)
}

fn reach(place: &str) -> Result<()> {
    let unreachable =
        |error: std::io::Error| Error::new(ErrorKind::Storage, "no Spark Connect server answers").with_source(error);
    let mut failure = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in place.to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(unreachable(failure))
}

/// What a session had before conversions changed it. It is locked while the server is asked, which may take long: by
/// session, so that a server that hangs holds up nobody else's conversions.
type Before = Arc<Mutex<Vec<(&'static str, Option<String>)>>>;

/// The sessions that conversions changed, and how many of them run in each.
static CHANGED: Mutex<BTreeMap<String, (usize, Before)>> = Mutex::new(BTreeMap::new());

/// Settings of a user's session that are given back when this is dropped.
///
/// Spark takes them from the session alone, and not from the options of a writer. Conversions that run side by side in one session
/// share them; the last one gives back what the first one found.
pub(super) struct Settings {
    session: SparkSession,
    before: Before,
}

impl Settings {
    pub(super) fn change(session: &SparkSession, wanted: &[(&'static str, String)]) -> Result<Self> {
        let before = {
            let mut changed = lock(&CHANGED);
            let (n, before) = changed.entry(session.session_id().to_owned()).or_default();
            *n += 1;
            before.clone()
        };
        let own = Self {
            session: session.clone(),
            before,
        };
        let conf = session.conf();
        let mut before = lock(&own.before);
        for (name, value) in wanted {
            if before.iter().all(|(known, _)| known != name) {
                before.push((name, conf.get_with_default(name, None).map_err(spark_error)?));
            }
            conf.set(name, value).map_err(spark_error)?;
        }
        drop(before);
        Ok(own)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // One that begins meanwhile waits here, and finds the session as it was.
        let mut before = lock(&self.before);
        let id = self.session.session_id();
        let is_last = lock(&CHANGED).get_mut(id).is_some_and(|(n, _)| {
            *n -= 1;
            *n == 0
        });
        if !is_last {
            return;
        }
        let conf = self.session.conf();
        for (name, value) in before.drain(..) {
            // A server that is gone has no session left to give anything back to.
            let _ = match value {
                Some(value) => conf.set(name, &value),
                None => conf.unset(name),
            };
        }
        let mut changed = lock(&CHANGED);
        if changed.get(id).is_some_and(|(n, _)| *n == 0) {
            changed.remove(id);
        }
    }
}

fn lock<T>(own: &Mutex<T>) -> MutexGuard<'_, T> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_server_that_hangs_holds_up_its_own_session_only() {
        // It takes connections and says nothing.
        let hanging = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("sc://{}", hanging.local_addr().expect("an address"));
        let session = || SparkSession::builder().remote(&url).get_or_create().expect("a session");
        let (one, other) = (session(), session());
        // Left to wait, as a conversion that is dropped leaves its thread.
        thread::spawn(move || Settings::change(&one, &[("a.setting", "x".to_owned())]).is_ok());
        let _asked = hanging.accept().expect("a question");
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            // Nothing is changed, so nothing is asked.
            drop(Settings::change(&other, &[]));
            send.send(()).is_ok()
        });
        let done = receive.recv_timeout(Duration::from_secs(60));
        assert!(done.is_ok(), "the other session waits too");
    }
}
