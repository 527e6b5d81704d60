//! Real sockets: sizes, slow clients, shutdown. On the real clock, waiting for what the server does.

use crate::stack::Stack;
use api::{ApiConfig, serve, serve_sleds};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Served {
    stack: Stack,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<std::io::Result<()>>,
}

async fn served(config: ApiConfig) -> Served {
    let stack = Stack::start(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let done = tokio::spawn(serve(listener, stack.state.clone(), config, shutdown));
    Served { stack, address, stop, done }
}

/// Sends all of a request, then reads until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn body_of(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_in_an_answer_that_arrives() {
    let served = served(ApiConfig::default()).await;
    let durable = served.stack.durable();
    let size = 10 << 20;
    let head = format!(
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
    );
    let request = [head.as_bytes(), &vec![b' '; size]].concat();
    let answer = exchange(served.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let body = body_of(&answer);
    assert_eq!(body["error_code"], "InvalidRequest");
    assert_eq!(body["message"], "request body exceeds the maximum of 1048576 bytes; send a smaller one");

    // In chunks nothing is announced.
    let head =
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let request = [head.as_bytes(), &chunk.repeat(32), b"0\r\n\r\n"].concat();
    assert_eq!(body_of(&exchange(served.address, &request).await)["error_code"], "InvalidRequest");

    // One that asks first is told at once.
    let head = format!(
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {size}\r\n\r\n"
    );
    let answer = exchange(served.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(served.stack.durable(), durable, "nothing was written");
}

#[tokio::test]
async fn a_head_that_is_too_large_or_malformed_is_refused() {
    let served = served(ApiConfig::default()).await;
    let large = format!("GET /v1/ping HTTP/1.1\r\nhost: x\r\nx-pad: {}\r\n\r\n", "a".repeat(40 << 10));
    let many = format!("GET /v1/ping HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-pad: a\r\n".repeat(101));
    let garbage = "\u{1}\u{2}\u{3}\r\n\r\n".to_owned();
    for (request, status) in [(large, "431"), (many, "431"), (garbage, "400")] {
        let answer = exchange(served.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_or_half_of_it_is_hung_up_on() {
    // Short enough to be waited for, long enough for a whole request to come through a busy machine.
    let config = ApiConfig { head_time: Duration::from_millis(500), ..ApiConfig::default() };
    let served = served(config).await;
    for said in ["", "GET /v1/ping HTTP/1.1\r\nhos", "GET /v1/ping HTTP/1.1\r\nhost: x\r\n\r\n"] {
        // Reading to the end means that the server closed, idle after its answer included.
        let answer = exchange(served.address, said.as_bytes()).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), said.ends_with("\r\n\r\n"), "{said}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused_in_time() {
    let config = ApiConfig { body_time: Duration::from_millis(50), ..ApiConfig::default() };
    let served = served(config).await;
    let half = "POST /v1/projects HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"name\":";
    let answer = exchange(served.address, half.as_bytes()).await;
    assert_eq!(body_of(&answer)["message"], "the request body did not arrive within 0.05 seconds");
}

#[tokio::test]
async fn the_listener_for_sleds_takes_little_and_waits_for_nobody() {
    // As above: what is whole must be judged by what it is, not by how long it took.
    let short = Duration::from_millis(500);
    let config = ApiConfig { body_time: short, head_time: short, ..ApiConfig::default() }.for_sleds(2, 8);
    let stack = Stack::start(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve_sleds(listener, stack.state.clone(), config, std::future::pending()));
    // More of them than there are places: each gives its place back.
    for _ in 0..3 {
        let head = "POST /sleds/register HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        let large = format!("{head}content-length: 20000\r\n\r\n{}", " ".repeat(20_000));
        let answer = exchange(address, large.as_bytes()).await;
        let said = body_of(&answer)["message"].as_str().unwrap().to_owned();
        assert_eq!(said, "request body exceeds the maximum of 16384 bytes; send a smaller one");
        let slow = format!("{head}content-length: 100\r\n\r\n{{");
        assert!(exchange(address, slow.as_bytes()).await.starts_with("HTTP/1.1 400 "));
        let wide = format!("{head}x-pad: {}\r\n\r\n", "a".repeat(20 << 10));
        assert!(exchange(address, wide.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        assert!(!exchange(address, b"POST /sleds/regi").await.starts_with("HTTP/1.1 2"));
        assert_eq!(exchange(address, b"").await, "");
    }
    server.abort();
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_listener() {
    let served = served(ApiConfig::default()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /v1/ping HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    served.stop.send(()).unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    served.done.await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_request_under_way_is_answered_during_shutdown() {
    let served = served(ApiConfig::default()).await;
    let body = r#"{"name":"demo","description":""}"#;
    let size = body.len();
    let head = format!(
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {size}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    served.stop.send(()).unwrap();
    // The listener is gone once the shutdown has begun.
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    served.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let served = served(ApiConfig { connections_max: 1, ..ApiConfig::default() }).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    first.write_all(b"GET /v1/ping HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    first.read_exact(&mut status).await.unwrap();
    let second = exchange(served.address, b"GET /v1/ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut second = std::pin::pin!(second);
    // Whether it would have been answered shows only when it is: it is polled until the first has gone.
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert!(second.await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_reader_of_the_feed_that_takes_nothing_is_dropped_and_the_others_are_served() {
    let config = ApiConfig { write_stall: Duration::from_millis(200), ..ApiConfig::default() };
    let served = served(config).await;
    served.stack.project("demo").await;
    // More than what the system and the server hold for a connection.
    for nth in 0..3_000 {
        let mut body = crate::stack::new_instance(&format!("web-{nth}"));
        body["start"] = serde_json::json!(false);
        body["description"] = serde_json::json!("d".repeat(512));
        let created = served.stack.post("/v1/instances?project=demo", &body).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut slow = socket.connect(served.address).await.unwrap();
    slow.write_all(b"GET /ops/v1/events?after=0 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut begun = [0; 15];
    slow.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    let whole = b"GET /ops/v1/events?after=0&follow=false HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let all = exchange(served.address, whole).await;
    assert_eq!(all.matches("\ndata: ").count() as u64, served.stack.durable());
    let scrape = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for _ in 0..500 {
        if exchange(served.address, scrape).await.contains("musher_event_feeds_open 0\n") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the feed of a reader that takes nothing is still open");
}
