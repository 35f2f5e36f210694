//! TLS and a token: the real server behind a proxy that ends TLS, as servers of Spark Connect are run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use squall::convert::Converter;
use squall::convert::spark::connect;

use super::server::{TOKEN, server};
use super::{convert, run};

/// Set where a test runs itself in another process, whose certificates are others.
const REMOTE: &str = "SQUALL_TEST_SECURE_REMOTE";
/// Ends TLS for one port, and passes on what comes to another.
const PROXY: &str = r#"
import socket, ssl, sys, threading
directory, to = sys.argv[1], int(sys.argv[2])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{directory}/certificate.pem", f"{directory}/key.pem")
context.set_alpn_protocols(["h2"])
def pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except (OSError, ssl.SSLError):
        return
    assert client.selected_alpn_protocol() == "h2"
    server = socket.create_connection(("127.0.0.1", to))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=lambda: sys.stdin.read() or __import__("os")._exit(0), daemon=True).start()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A proxy, which ends with the pipe to it.
struct Proxy {
    port: u16,
    _process: Child,
}

impl Proxy {
    fn start(directory: &Path) -> Self {
        let python = std::env::var_os("SQUALL_PYSPARK_PYTHON").expect("a Python");
        let mut process = Command::new(python)
            .args(["-c", PROXY])
            .arg(directory)
            .arg(server().port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let out = process.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        Self {
            port: line.trim().parse().expect("a port"),
            _process: process,
        }
    }
}

/// A certificate for this machine, which is also what vouches for it, and its key.
fn put_certificate(directory: &Path) {
    for (name, text) in [
        ("certificate.pem", include_str!("tls/certificate.pem")),
        ("key.pem", include_str!("tls/key.pem")),
    ] {
        std::fs::write(directory.join(name), text).expect("a file");
    }
}

#[test]
fn a_token_goes_over_tls() {
    if let Ok(wanted) = std::env::var(REMOTE) {
        return convert_securely(&wanted);
    }
    let directory = tempfile::tempdir().expect("a directory");
    put_certificate(directory.path());
    let proxy = Proxy::start(directory.path());
    // The client trusts what a variable of the environment names, which no process changes for itself while its threads
    // run.
    let output = Command::new(std::env::current_exe().expect("a program"))
        .args([
            "--exact",
            "with_spark_connect::secure::a_token_goes_over_tls",
            "--nocapture",
        ])
        .env(REMOTE, format!("localhost:{}", proxy.port))
        .env("SSL_CERT_FILE", directory.path().join("certificate.pem"))
        .env_remove("SSL_CERT_DIR")
        .env_remove("SPARK_CONNECT_AUTHENTICATE_TOKEN")
        .output()
        .expect("a process");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

fn convert_securely(place: &str) {
    let with = |parameters: &str| run(connect(&format!("sc://{place}/;{parameters}")));
    let spark = with(&format!("use_ssl=true;token={TOKEN}")).expect("a session");
    let directory = tempfile::tempdir().expect("a directory");
    let converter = Converter::new(directory.path().join("table").display().to_string());
    let rows = spark.sql("SELECT id FROM range(0, 100, 1, 2)").expect("rows");
    assert_eq!(convert(&rows, converter).expect("a conversion").rows(), 100);
    // The server itself asks for the token: without it, or with another, nothing is done.
    for parameters in ["use_ssl=true;token=another-token", "use_ssl=true"] {
        let error = with(parameters).map(|_| ()).expect_err("an error").to_string();
        assert!(
            error.contains("does not take the token") && !error.contains("another-token"),
            "{error}"
        );
    }
}
