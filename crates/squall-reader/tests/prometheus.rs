//! What Prometheus scrapes.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use squall_reader::{make_batch_reader, serve_metrics};
use squall_testkit::{Layout, Table};

/// A request over a connection of its own: the head and the body of the answer.
fn ask(address: SocketAddr, line: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time limit");
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// The samples of the text format 0.0.4, by metric and labels. Panics where the text breaks a rule of the format: each metric
/// stands once, behind its help and type; names, labels and numbers are what they may be; no sample stands twice.
fn parse(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with('\n'));
    let is_name = |name: &str| {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (mut samples, mut families) = (HashMap::new(), HashSet::new());
    let (mut helped, mut family, mut kind) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help");
            assert!(
                is_name(name) && !help.is_empty() && families.insert(name.to_owned()),
                "{line}"
            );
            helped = name.to_owned();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of) = typed.split_once(' ').expect("a type");
            assert!(name == helped && ["counter", "gauge"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').expect("labels");
            assert_eq!(name, family, "{line}");
            let mut labels = labels.strip_suffix('}').expect("the end of the labels");
            let mut names = HashSet::new();
            while !labels.is_empty() {
                let (label, rest) = labels.split_once("=\"").expect("a label");
                assert!(is_name(label) && names.insert(label), "{line}");
                let mut escaped = false;
                let end = rest.find(|c| match (escaped, c) {
                    (true, c) => {
                        assert!(['\\', '"', 'n'].contains(&c), "{line}");
                        escaped = false;
                        false
                    }
                    (false, '\\') => {
                        escaped = true;
                        false
                    }
                    (false, c) => c == '"',
                });
                let rest = &rest[end.expect("the end of a value") + 1..];
                labels = rest.strip_prefix(',').unwrap_or(rest);
                assert!(rest.is_empty() || rest.starts_with(','), "{line}");
            }
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && (kind != "counter" || value >= 0.0), "{line}");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "{line} stands twice"
            );
        }
    }
    samples
}

#[test]
fn metrics_are_served_to_whoever_asks() {
    let table = Table::write(&Layout::default());
    let build = |rank| {
        make_batch_reader(table.url())
            .rank(rank, 2)
            .batch_size(10)
            .build()
            .expect("a reader")
    };
    let (mut first, second) = (build(0), build(1));
    let server = serve_metrics("127.0.0.1:0").expect("a server");
    let address = server.local_addr();
    server.register("train \"a\"\\", first.meter()).expect("a name");
    server.register("valid", second.meter()).expect("a name");
    let error = server.register("valid", first.meter()).expect_err("an error");
    assert!(error.to_string().contains("\"valid\" already"), "{error}");

    assert_eq!(first.by_ref().take(3).filter(|batch| batch.is_ok()).count(), 3);
    let (head, body) = ask(address, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    let samples = parse(&body);
    let url = first.dataset().url();
    let of_first = |name: &str, labels: &str| {
        let series = format!("{name}{{reader=\"train \\\"a\\\"\\\\\",dataset=\"{url}\",rank=\"0\"{labels}}}");
        *samples
            .get(&series)
            .unwrap_or_else(|| panic!("{series} is not in {body}"))
    };
    assert_eq!(of_first("squall_rows_total", ""), 30.0);
    assert!(of_first("squall_stage_seconds_total", ",stage=\"build\",state=\"busy\"") > 0.0);
    // More may have been fetched ahead since.
    let fetched = of_first("squall_fetched_bytes_total", "");
    assert!(fetched > 0.0 && fetched <= first.bytes_fetched() as f64, "{fetched}");
    let limiting = samples
        .iter()
        .filter(|(series, _)| series.contains("squall_limiting_stage{reader=\"train"));
    assert_eq!(limiting.map(|(_, limits)| limits).sum::<f64>(), 1.0);
    let series = format!("squall_rows_total{{reader=\"valid\",dataset=\"{url}\",rank=\"1\"}}");
    assert_eq!(samples[&series], 0.0);

    // Counters only grow, and a reader that is gone is told of no more.
    assert_eq!(first.by_ref().count(), 3);
    server.unregister("valid");
    let (_, body) = ask(address, "GET /metrics");
    assert!(body.contains("rank=\"0\"} 60\n") && !body.contains("valid"), "{body}");

    assert!(ask(address, "HEAD /metrics").1.is_empty());
    assert!(ask(address, "GET /").0.starts_with("HTTP/1.1 404"));
    let (head, _) = ask(address, "POST /metrics");
    assert!(
        head.starts_with("HTTP/1.1 405") && head.contains("allow: GET, HEAD"),
        "{head}"
    );

    // The port is taken until the server is dropped, and free behind it.
    let error = serve_metrics(address.to_string()).expect_err("an error").to_string();
    assert!(
        error.contains("cannot listen") && error.contains(&address.to_string()),
        "{error}"
    );
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_snapshot_is_text_too() {
    let table = Table::write(&Layout::default());
    let mut reader = make_batch_reader(table.url()).build().expect("a reader");
    assert!(reader.by_ref().all(|batch| batch.is_ok()));
    let samples = parse(&reader.metrics().to_prometheus());
    let rows = samples
        .iter()
        .find(|(series, _)| series.starts_with("squall_rows_total{dataset="));
    assert_eq!(rows.map(|(_, rows)| *rows), Some(120.0));
    assert!(
        samples
            .keys()
            .any(|series| series.contains("stage=\"fetch\",state=\"starved\""))
    );
}
