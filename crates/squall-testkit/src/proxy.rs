//! A proxy that does harm on purpose: what networks and stores do to those who read from them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::serve::Served;

/// The longest head of a request or a response.
const MAX_HEAD: usize = 64 * 1024;
/// Pieces that a slow body comes in, and the pause before each.
const SLOW_PIECES: usize = 6;
const SLOW_PAUSE: Duration = Duration::from_millis(15);

/// What the proxy does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 500 InternalError.
    Internal,
    /// 503 SlowDown.
    SlowDown,
    /// 429 with `Retry-After`.
    TooMany,
    /// The body comes in pieces, with pauses.
    Slow,
    /// The request is read and never answered.
    Hung,
    /// The connection ends in the middle of the body; `Content-Length` is that of all of it.
    Truncated,
    /// The connection is reset in the middle of the body.
    Reset,
    /// 403 ExpiredToken.
    Expired,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Internal,
        Self::SlowDown,
        Self::TooMany,
        Self::Slow,
        Self::Hung,
        Self::Truncated,
        Self::Reset,
        Self::Expired,
    ];
}

/// What becomes of requests.
#[derive(Debug, Clone, Default)]
pub struct FaultOptions {
    /// Which faults are chosen.
    pub seed: u64,
    /// The share of requests that each kind has; the rest pass.
    pub rates: Vec<(Fault, f64)>,
    /// Seconds that 429 asks to wait.
    pub retry_after: u64,
}

/// A TCP proxy in front of an HTTP server on loopback. It harms `GET` and `HEAD` only.
#[derive(Debug)]
pub struct FaultProxy {
    state: Arc<State>,
    served: Served,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    options: FaultOptions,
    next: Mutex<VecDeque<Option<Fault>>>,
    requests: AtomicU64,
    passed: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
}

impl FaultProxy {
    /// A proxy in front of `upstream`.
    pub fn start(upstream: SocketAddr, options: FaultOptions) -> Self {
        let total: f64 = options.rates.iter().map(|(_, rate)| rate).sum();
        assert!((0.0..=1.0).contains(&total), "rates add up to {total}");
        let state = Arc::new(State {
            upstream,
            options,
            next: Mutex::default(),
            requests: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            faults: Default::default(),
        });
        let own = state.clone();
        let served = Served::start(move |stream| {
            let state = own.clone();
            async move {
                // Whoever hangs up first ends the connection.
                let _ = state.serve(stream).await;
            }
        });
        Self { state, served }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Does this to the next requests, before what the rates choose; `None` lets one pass.
    pub fn next(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        let mut next = self.state.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.extend(faults);
    }

    /// Requests that came, harmed or not.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Requests that passed unharmed.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }

    /// Requests that met each kind of fault.
    pub fn faults(&self) -> Vec<(Fault, u64)> {
        let count = |(i, fault): (usize, &Fault)| (*fault, self.state.faults[i].load(Ordering::Relaxed));
        Fault::ALL.iter().enumerate().map(count).collect()
    }

    /// Requests that met this kind.
    pub fn count(&self, fault: Fault) -> u64 {
        self.state.faults[place(fault)].load(Ordering::Relaxed)
    }
}

fn place(fault: Fault) -> usize {
    Fault::ALL.iter().position(|other| *other == fault).expect("a kind")
}

/// A head of a message, and what was read behind it.
struct Head {
    text: String,
    rest: Vec<u8>,
}

impl Head {
    async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = bytes.split_off(end + 4);
                let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
                return Ok(Some(Self { text, rest }));
            }
            if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn length(&self) -> usize {
        let length = self.text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        length.unwrap_or(0)
    }

    /// The head with another value of `Connection`, or none.
    fn with_connection(&self, value: Option<&str>) -> String {
        let mut text = String::new();
        for line in self.text.lines() {
            let name = line.split(':').next().unwrap_or_default();
            if !name.eq_ignore_ascii_case("connection") {
                text += line;
                text += "\r\n";
            }
        }
        if let Some(value) = value {
            text += &format!("connection: {value}\r\n");
        }
        text + "\r\n"
    }
}

impl State {
    fn choose(&self) -> Option<Fault> {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        let scripted = self.next.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(fault) = scripted {
            return fault;
        }
        let random = mix(self.options.seed ^ mix(n));
        let mut point = (random >> 11) as f64 / (1u64 << 53) as f64;
        for (fault, rate) in &self.options.rates {
            if point < *rate {
                return Some(*fault);
            }
            point -= rate;
        }
        None
    }

    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        while let Some(request) = Head::read(&mut client).await? {
            let method = request.text.split(' ').next().unwrap_or_default();
            let fault = match method {
                "GET" | "HEAD" => self.choose(),
                _ => None,
            };
            match fault {
                Some(fault) => self.faults[place(fault)].fetch_add(1, Ordering::Relaxed),
                None => self.passed.fetch_add(1, Ordering::Relaxed),
            };
            let (status, code, extra) = match fault {
                Some(Fault::Internal) => ("500 Internal Server Error", "InternalError", String::new()),
                Some(Fault::SlowDown) => ("503 Service Unavailable", "SlowDown", String::new()),
                Some(Fault::Expired) => ("403 Forbidden", "ExpiredToken", String::new()),
                Some(Fault::TooMany) => {
                    let wait = format!("retry-after: {}\r\n", self.options.retry_after);
                    ("429 Too Many Requests", "TooManyRequests", wait)
                }
                Some(Fault::Hung) => {
                    // Until the client gives up.
                    while client.read(&mut [0; 1024]).await? > 0 {}
                    return Ok(());
                }
                harm => {
                    if !self.relay(&mut client, &request, harm).await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            let body = match method {
                "HEAD" => String::new(),
                _ => format!("<Error><Code>{code}</Code><Message>harm on purpose</Message></Error>"),
            };
            let head = format!("HTTP/1.1 {status}\r\n{extra}content-length: {}\r\n\r\n", body.len());
            client.write_all((head + &body).as_bytes()).await?;
        }
        Ok(())
    }

    /// Passes a request on and its response back. False if the connection is at its end.
    async fn relay(&self, client: &mut TcpStream, request: &Head, harm: Option<Fault>) -> std::io::Result<bool> {
        let mut upstream = TcpStream::connect(self.upstream).await?;
        upstream.set_nodelay(true)?;
        // The end of the connection is the end of the response, however it says its length.
        upstream
            .write_all(request.with_connection(Some("close")).as_bytes())
            .await?;
        upstream.write_all(&request.rest).await?;
        let mut missing = request.length().saturating_sub(request.rest.len());
        let mut piece = [0; 16 * 1024];
        while missing > 0 {
            let n = missing.min(piece.len());
            let n = client.read(&mut piece[..n]).await?;
            if n == 0 {
                return Ok(false);
            }
            upstream.write_all(&piece[..n]).await?;
            missing -= n;
        }
        let Some(response) = Head::read(&mut upstream).await? else {
            return Ok(false);
        };
        let mut body = response.rest.clone();
        upstream.read_to_end(&mut body).await?;
        client.write_all(response.with_connection(None).as_bytes()).await?;
        match harm {
            Some(Fault::Slow) => {
                for piece in body.chunks(body.len().div_ceil(SLOW_PIECES).max(1)) {
                    tokio::time::sleep(SLOW_PAUSE).await;
                    client.write_all(piece).await?;
                }
            }
            Some(Fault::Truncated) => {
                client.write_all(&body[..body.len() / 2]).await?;
                client.shutdown().await?;
                return Ok(false);
            }
            Some(Fault::Reset) => {
                client.write_all(&body[..body.len() / 2]).await?;
                client.set_zero_linger()?;
                return Ok(false);
            }
            _ => client.write_all(&body).await?,
        }
        Ok(true)
    }
}

/// SplitMix64's mixer.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
