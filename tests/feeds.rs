//! Two hundred clients follow the feed of a daemon's process, and one of them reads nothing: the others get every
//! event once and in order, and the daemon's memory stays as it is.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, scratch};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const READERS: usize = 199;

/// Instances that come and go while they follow: two events each.
const INSTANCES: usize = 150;

/// What two hundred feeds may cost: far more than they need, far less than what they would hold if one waited for all.
const GROWTH_MAX_KIB: u64 = 128 << 10;

/// Longest wait for anything: far above what it takes, so that a busy machine fails no test.
const LONG: Duration = Duration::from_mins(2);

/// Memory of the process, KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One that asks for the feed and takes nothing of it.
async fn sleeper(daemon: &Daemon) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let address = daemon.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"GET /ops/v1/events?after=0 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream
}

/// Reads events up to a position that is told later; answers the positions seen.
async fn reader(mut feed: reqwest::Response, mut until: tokio::sync::watch::Receiver<u64>) -> Vec<u64> {
    let (mut text, mut seen) = (String::new(), Vec::new());
    loop {
        let end = *until.borrow_and_update();
        if end > 0 && seen.last().is_some_and(|last| *last >= end) {
            return seen;
        }
        let piece = tokio::select! {
            biased;
            changed = until.changed() => {
                changed.unwrap();
                continue;
            }
            piece = feed.chunk() => piece.unwrap().expect("the feed goes on"),
        };
        text.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let id = block.lines().find_map(|line| line.strip_prefix("id: "));
            if block.contains("\ndata: ") {
                seen.extend(id.map(|id| id.parse::<u64>().unwrap()));
            }
            text = rest.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_that_reads_nothing_holds_up_nobody_and_costs_nothing() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let before = resident(&daemon);
    // A feed has no end: only its beginning is waited for.
    let http = reqwest::Client::builder().build().unwrap();
    let (tell, until) = tokio::sync::watch::channel(0);
    let asleep = sleeper(&daemon).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let feed = http.get(format!("{}/ops/v1/events?after=0", daemon.url)).send().await.unwrap();
        assert_eq!(feed.status(), 200);
        readers.push(tokio::spawn(reader(feed, until.clone())));
    }
    for n in 0..INSTANCES {
        let id = daemon.create(&format!("i{n}"), false).await;
        let (status, body) = daemon.delete(&format!("/v1/instances/{id}")).await;
        assert_eq!(status, 204, "{body}");
    }
    let (_, stats) = daemon.get("/ops/v1/log/stats").await;
    let durable = stats["durable"].as_u64().unwrap();
    tell.send(durable).unwrap();
    for reader in readers {
        let seen = timeout(LONG, reader).await.expect("nobody is held up").unwrap();
        let first = usize::try_from(durable).unwrap();
        assert_eq!(seen[..first], (1..=durable).collect::<Vec<_>>(), "every event once and in order");
    }
    let growth = resident(&daemon).saturating_sub(before);
    println!("{} feeds, {durable} events each, {growth} KiB more", READERS + 1);
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB for {} feeds", READERS + 1);
    drop(asleep);
}
