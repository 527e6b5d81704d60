//! What an instance that nobody asks for costs the daemon's process: a guard with room for a build without
//! optimisation and for what an allocator keeps. `musher-bench fleet` measures.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, instance_body, scratch};

/// Idle instances before and after.
const FIRST: usize = 500;
const FURTHER: usize = 2_500;

/// Requests under way at once.
const TOGETHER: usize = 16;

/// Most bytes that one more may take: twice what it is measured to, and far below what one in memory takes.
const BYTES_MAX: u64 = 6 << 10;

/// No guest takes memory beside them, and what is kept of the log is bounded tightly: it would grow with every record.
/// One arena: how many threads happened to allocate at once would show otherwise.
const SETTINGS: [(&str, &str); 3] = [
    ("MUSHER_EMBEDDED_SLEDS__COUNT", "0"),
    ("MUSHER_LOG__RING_BYTES_MAX", "65536"),
    ("MALLOC_ARENA_MAX", "1"),
];

async fn create(daemon: &Daemon, numbers: std::ops::Range<usize>) {
    let mut makers = tokio::task::JoinSet::new();
    for maker in 0..TOGETHER {
        let mine: Vec<usize> = numbers.clone().skip(maker).step_by(TOGETHER).collect();
        let (http, url) = (daemon.http.clone(), format!("{}/v1/instances?project=demo", daemon.url));
        makers.spawn(async move {
            for n in mine {
                let body = instance_body(&format!("web-{n}"), false);
                let created = http.post(&url).json(&body).send().await.unwrap();
                assert_eq!(created.status().as_u16(), 201);
            }
        });
    }
    makers.join_all().await;
}

/// Bytes that a daemon holds that has just been started: no instance is in memory, nor what is left of one that was.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_nobody_asks_for_takes_little_memory() {
    let (_scratch, data) = scratch();
    let mut held = Vec::new();
    for numbers in [0..FIRST, FIRST..FIRST + FURTHER] {
        let daemon = Daemon::start_where(&data, &SETTINGS);
        create(&daemon, numbers).await;
        assert_eq!(daemon.signal("-TERM"), 0);
        let daemon = Daemon::start_where(&data, &SETTINGS);
        let live =
            daemon.http.get(format!("{}/metrics", daemon.url)).send().await.unwrap().text().await.unwrap();
        assert!(live.lines().any(|line| line == "musher_instances_live 0"));
        held.push(resident(&daemon));
    }
    let each = held[1].saturating_sub(held[0]) / FURTHER as u64;
    assert!(each <= BYTES_MAX, "{each} bytes for each further instance; at most {BYTES_MAX}");
}
