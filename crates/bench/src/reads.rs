//! What reading costs over HTTP: one instance, a list of a thousand, and feeds of which one is slow.
//!
//! The daemon is another process, named by its address, so that its work and the load's are told apart; on two
//! cores they share them all the same. The load speaks plain HTTP/1.1 on connections that stay open: a client
//! library would be measured too.

use crate::Failure;
use crate::args::ReadsOptions;
use crate::report::Report;
use crate::statistics::{count, percentile};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Creates under way at a time while the daemon is filled.
const FILLERS: usize = 64;

/// Largest answer that is read, bytes: a list of a thousand takes less than a fortieth.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How many lists are read, one after the other.
const LISTS: u32 = 50;

/// How long feeds have for the events of one round.
const FEED_TIME: Duration = Duration::from_mins(1);

/// Events that every feed must see.
const FEED_EVENTS: usize = 200;

/// One connection to the daemon.
struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    token: Option<String>,
}

impl Connection {
    async fn open(options: &ReadsOptions) -> Result<Self, Failure> {
        let host = options.server.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host, token: options.token.clone() })
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<(), Failure> {
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            token.unwrap_or_default(),
            body.len()
        );
        Ok(self.stream.get_mut().write_all(request.as_bytes()).await?)
    }

    /// Status and length of the body, if it has one that is announced.
    async fn head(&mut self) -> Result<(u16, Option<usize>), Failure> {
        let (mut status, mut length) = (0, None);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("the daemon closed the connection".into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok((status, length));
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next().unwrap_or_default().parse()?;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, Failure> {
        self.send(method, path, body).await?;
        let (status, length) = self.head().await?;
        let mut answer = vec![0; length.unwrap_or(0).min(ANSWER_BYTES_MAX)];
        self.stream.read_exact(&mut answer).await?;
        if status >= 300 {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer)).into());
        }
        Ok(answer)
    }
}

/// Fills the daemon, measures, prints.
pub fn run(options: ReadsOptions) -> Result<(), Failure> {
    if options.instances == 0 || options.connections == 0 || options.feeds < 2 {
        return Err("there must be an instance, a connection and two feeds at least".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &ReadsOptions) -> Result<(), Failure> {
    let mut report = Report::new(options.json);
    let ids = fill(options).await?;
    instances(options, &ids, &mut report).await?;
    lists(options, &mut report).await?;
    feeds(options, &mut report).await
}

/// Ids of as many instances as are wanted; what is missing is created, stopped.
async fn fill(options: &ReadsOptions) -> Result<Vec<String>, Failure> {
    let mut there = all(options).await?;
    let missing = options.instances.saturating_sub(there.len());
    let mut work = JoinSet::new();
    for filler in 0..FILLERS.min(missing) {
        let options = options.clone();
        work.spawn(async move {
            let mut connection = Connection::open(&options).await?;
            let mut made = Vec::new();
            for nth in (filler..missing).step_by(FILLERS) {
                let body = json!({
                    "name": format!("read-{nth}"), "description": "", "hostname": "h", "ncpus": 2,
                    "memory": 2_u64 << 30, "start": false,
                });
                let path = format!("/v1/instances?project={}", options.project);
                let answer = connection.ask("POST", &path, &body.to_string()).await?;
                let created: Value = serde_json::from_slice(&answer)?;
                made.extend(created["id"].as_str().map(str::to_owned));
            }
            Ok::<_, Failure>(made)
        });
    }
    while let Some(made) = work.join_next().await {
        there.extend(made??);
    }
    Ok(there)
}

async fn all(options: &ReadsOptions) -> Result<Vec<String>, Failure> {
    let mut connection = Connection::open(options).await?;
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/instances?project={}&limit=1000{token}", options.project);
        let page: Value = serde_json::from_slice(&connection.ask("GET", &path, "").await?)?;
        let items = page["items"].as_array().into_iter().flatten();
        ids.extend(items.filter_map(|item| item["id"].as_str().map(str::to_owned)));
        match page["next_page"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return Ok(ids),
        }
    }
}

/// GET of one instance after another, on every connection at once.
async fn instances(options: &ReadsOptions, ids: &[String], report: &mut Report) -> Result<(), Failure> {
    let (began, mut work) = (crate::clock::now(), JoinSet::new());
    let until = began + Duration::from_secs(options.seconds);
    for first in 0..options.connections {
        let (options, ids) = (options.clone(), ids.to_vec());
        work.spawn(async move {
            let mut connection = Connection::open(&options).await?;
            let (mut took_us, mut nth) = (Vec::new(), first * 7_919);
            while crate::clock::now() < until {
                let asked = crate::clock::now();
                connection.ask("GET", &format!("/v1/instances/{}", ids[nth % ids.len()]), "").await?;
                took_us.push(u32::try_from(asked.elapsed().as_micros())?);
                nth += 1;
            }
            Ok::<_, Failure>(took_us)
        });
    }
    let mut took_us = Vec::new();
    while let Some(of_one) = work.join_next().await {
        took_us.extend(of_one??);
    }
    let per_second = count(took_us.len() as u64) / began.elapsed().as_secs_f64();
    report.row(&json!({
        "bench": "read one instance", "instances": ids.len(), "connections": options.connections,
        "per_second": per_second.round(), "p50_us": percentile(&mut took_us, 500),
        "p99_us": percentile(&mut took_us, 990),
    }));
    Ok(())
}

/// Lists of a thousand, one after the other.
async fn lists(options: &ReadsOptions, report: &mut Report) -> Result<(), Failure> {
    let mut connection = Connection::open(options).await?;
    let path = format!("/v1/instances?project={}&limit=1000", options.project);
    let (mut took_us, mut bytes) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let asked = crate::clock::now();
        bytes = connection.ask("GET", &path, "").await?.len();
        took_us.push(u32::try_from(asked.elapsed().as_micros())?);
    }
    report.row(&json!({
        "bench": "list a thousand", "bytes": bytes, "p50_us": percentile(&mut took_us, 500),
        "p99_us": percentile(&mut took_us, 990),
    }));
    Ok(())
}

/// Feeds that follow while projects are changed; one of them takes nothing. How long until every other has seen all.
async fn feeds(options: &ReadsOptions, report: &mut Report) -> Result<(), Failure> {
    let mut slow = Connection::open(options).await?;
    slow.send("GET", "/ops/v1/events", "").await?;
    let mut work = JoinSet::new();
    for _ in 1..options.feeds {
        let mut connection = Connection::open(options).await?;
        connection.send("GET", "/ops/v1/events?kind=Changed", "").await?;
        connection.head().await?;
        work.spawn(async move {
            let (mut seen, mut line) = (0, String::new());
            while seen < FEED_EVENTS {
                line.clear();
                if connection.stream.read_line(&mut line).await? == 0 {
                    return Err("a feed ended".into());
                }
                seen += usize::from(line.starts_with("data:"));
            }
            Ok::<_, Failure>(())
        });
    }
    let mut writer = Connection::open(options).await?;
    let began = crate::clock::now();
    let path = format!("/v1/projects/{}", options.project);
    for nth in 0..FEED_EVENTS {
        let body = json!({"description": format!("round {nth} of {:?}", began)});
        writer.ask("PUT", &path, &body.to_string()).await?;
    }
    let wrote = began.elapsed();
    let all_seen = async {
        while let Some(seen) = work.join_next().await {
            seen??;
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(FEED_TIME, all_seen).await.map_err(|_| "feeds fell behind")??;
    let behind = began.elapsed().saturating_sub(wrote);
    report.row(&json!({
        "bench": "follow the feed", "feeds": options.feeds, "of_them_slow": 1, "events": FEED_EVENTS,
        "wrote_ms": u64::try_from(wrote.as_millis())?, "all_seen_after_ms": u64::try_from(behind.as_millis())?,
    }));
    Ok(())
}
