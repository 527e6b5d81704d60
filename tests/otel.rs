//! Spans of a running daemon, as a collector gets them. Needs the feature `otel`.

#![cfg(feature = "otel")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, instance_body, scratch, serve};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ENDPOINT: &str = "MUSHER_TELEMETRY__OTLP__ENDPOINT";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Takes spans, as a collector does.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

impl Collector {
    async fn listen() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let kept = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(kept.clone().take(stream));
            }
        });
        (collector, url)
    }

    /// One connection: requests with a length, each answered with an empty success.
    async fn take(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            while let Some(head_len) = bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4) {
                let head = String::from_utf8_lossy(&bytes[..head_len]).to_lowercase();
                assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let whole = head_len + length.trim().parse::<usize>().unwrap();
                if bytes.len() < whole {
                    break;
                }
                let export: Value = serde_json::from_slice(&bytes[head_len..whole]).unwrap();
                bytes.drain(..whole);
                for of_service in export["resourceSpans"].as_array().unwrap() {
                    let spans = of_service["scopeSpans"][0]["spans"].as_array().unwrap().clone();
                    self.0.lock().unwrap().extend(spans);
                }
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    fn of_trace(&self, trace: &str) -> Vec<Value> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| span["traceId"] == trace).cloned().collect()
    }
}

fn attribute<'a>(span: &'a Value, name: &str) -> Option<&'a str> {
    let attributes = span["attributes"].as_array().unwrap();
    attributes.iter().find(|it| it["key"] == name).and_then(|it| it["value"]["stringValue"].as_str())
}

async fn create(daemon: &Daemon, name: &str, flags: &str) -> String {
    let request = daemon
        .http
        .post(format!("{}/v1/instances?project=demo", daemon.url))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"))
        .json(&instance_body(name, true));
    let (status, body) = daemon::answer(request.send().await.unwrap()).await;
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_str().unwrap().to_owned();
    daemon.until_state(&id, "running").await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_one_start_in_its_callers_trace() {
    let (collector, url) = Collector::listen().await;
    let (_dir, data) = scratch();
    let daemon = Daemon::start_where(&data, &[(ENDPOINT, &url)]);
    create(&daemon, "unsampled", "00").await;
    let id = create(&daemon, "web-1", "01").await;
    // The end of the daemon sends what is left.
    assert_eq!(daemon.signal("-TERM"), 0);
    let spans = collector.of_trace(TRACE);
    let by_id: BTreeMap<&str, &Value> =
        spans.iter().map(|span| (span["spanId"].as_str().unwrap(), span)).collect();
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    let [request] = named("request")[..] else { panic!("one request was sampled: {spans:#?}") };
    assert_eq!((&request["parentSpanId"], &request["kind"]), (&json!(CALLER), &json!(2)));
    let request_id = attribute(request, "musher.request_id").unwrap();
    for (name, at_least) in [("command", 1), ("saga", 1), ("sled call", 2), ("report", 1), ("append", 3)] {
        let found = named(name);
        assert!(found.len() >= at_least, "{name}: {spans:#?}");
        for span in found {
            assert_eq!(attribute(span, "musher.instance"), Some(id.as_str()), "{span}");
            assert_eq!(attribute(span, "musher.request_id"), Some(request_id), "{span}");
            let mut above = span;
            while above["spanId"] != request["spanId"] {
                let parent = above["parentSpanId"].as_str().unwrap();
                above = by_id.get(parent).unwrap_or_else(|| panic!("{parent} above {span} is missing"));
            }
        }
    }
    let ended = |span: &Value| span["endTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(
        ended(request) < ended(named("saga")[0]),
        "it was answered before the start was over: {spans:#?}"
    );
    let saga = attribute(named("saga")[0], "musher.saga").unwrap();
    for call in named("sled call") {
        assert_eq!(attribute(call, "musher.saga"), Some(saga), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_hurts_nothing_is_counted_and_is_said_once() {
    // An address where nobody listens.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (dir, data) = scratch();
    let said = dir.path().join("stderr");
    let mut command = serve(&data);
    command.env(ENDPOINT, format!("http://{gone}")).env("RUST_LOG", "warn").stdin(Stdio::null());
    let mut child = command.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let text = || std::fs::read_to_string(&said).unwrap();
    let mut url = None;
    for _ in 0..1_500 {
        url = text()
            .split("is ready on ")
            .nth(1)
            .and_then(|rest| rest.split_once(" (sleds"))
            .map(|(url, _)| url.to_owned());
        if url.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let url = url.unwrap_or_else(|| panic!("not ready: {}", text()));
    let http = reqwest::Client::new();
    let lost = async || {
        let page = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = page.lines().find(|line| line.starts_with("musher_spans_total{outcome=\"lost\"}"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // Several batches are not taken: each scrape is a span too.
    let (mut seen, mut grown) = (0, 0);
    for _ in 0..1_500 {
        let now = lost().await;
        grown += u32::from(now > seen);
        seen = now;
        if grown >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(grown >= 3, "{grown} batches, {seen} spans");
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(child.wait().unwrap().success());
    assert_eq!(text().matches("does not take spans").count(), 1, "{}", text());
}
