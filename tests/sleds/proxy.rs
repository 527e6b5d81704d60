//! A bad network between two processes: a proxy that knows where an HTTP request begins and ends, and delays, loses,
//! repeats, halves and cuts whole requests, drawn from a seed.
//!
//! Every answer of the protocol says how long it is, so one connection of a client is a row of requests, each of which
//! is carried over a connection of its own.

use super::socket;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Longest that one request waits for its answer here: longer than any client does.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What befalls one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Carried,
    Late,
    /// It goes nowhere, and the client is left waiting.
    Lost,
    CutBefore,
    /// It arrives, and its answer does not.
    CutAfter,
    Twice,
    /// It arrives, is answered, and arrives again when nobody thinks of it any more.
    AgainLater,
    /// The first half arrives, and then the end.
    Half,
}

const FATES: [Fate; 7] =
    [Fate::Late, Fate::Lost, Fate::CutBefore, Fate::CutAfter, Fate::Twice, Fate::AgainLater, Fate::Half];

/// One way from whoever connects to one listener.
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

struct State {
    to: Mutex<Option<SocketAddr>>,
    seed: u64,
    /// Requests of a hundred that something befalls.
    share: AtomicU64,
    is_cut: AtomicBool,
    requests: AtomicU64,
    struck: [AtomicUsize; FATES.len()],
}

/// One step of splitmix64.
const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Proxy {
    /// Listens; whom it leads to is said later. Nothing befalls anybody yet.
    pub async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            to: Mutex::default(),
            seed,
            share: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            struck: Default::default(),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry_all(client, Arc::clone(&serving)));
            }
        });
        Self { url, state }
    }

    pub fn turn_to(&self, url: &str) {
        *self.state.to.lock().unwrap() = Some(socket(url));
    }

    /// From here on something befalls so many of a hundred requests.
    pub fn storm(&self, share: u64) {
        self.state.share.store(share, Ordering::Relaxed);
    }

    /// From here on every request is lost, or none is.
    pub fn cut(&self, is_cut: bool) {
        self.state.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// How many sorts of misfortune have befallen somebody.
    pub fn sorts_struck(&self) -> usize {
        self.state.struck.iter().filter(|struck| struck.load(Ordering::Relaxed) > 0).count()
    }
}

impl State {
    fn fate(&self) -> (Fate, u64) {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        let drawn = mix(self.seed ^ mix(nth));
        if self.is_cut.load(Ordering::Relaxed) {
            return (Fate::Lost, drawn);
        }
        if drawn % 100 >= self.share.load(Ordering::Relaxed) {
            return (Fate::Carried, drawn);
        }
        let sort = usize::try_from((drawn >> 32) % FATES.len() as u64).unwrap();
        self.struck[sort].fetch_add(1, Ordering::Relaxed);
        (FATES[sort], drawn)
    }
}

async fn carry_all(mut client: TcpStream, state: Arc<State>) -> Option<()> {
    let mut rest = Vec::new();
    while let Some(request) = message(&mut client, &mut rest).await {
        let to = (*state.to.lock().unwrap())?;
        let (fate, drawn) = state.fate();
        let pause = Duration::from_millis(drawn >> 40 & 0x1ff);
        let answer = match fate {
            Fate::Carried => exchange(to, &request).await?,
            Fate::Late => {
                sleep(pause).await;
                exchange(to, &request).await?
            }
            Fate::Lost => {
                // Until the client gives up.
                let _ = timeout(ANSWER_MAX, client.read(&mut [0; 1])).await;
                return None;
            }
            Fate::CutBefore => return None,
            Fate::CutAfter => {
                exchange(to, &request).await?;
                return None;
            }
            Fate::Twice => {
                exchange(to, &request).await?;
                exchange(to, &request).await?
            }
            Fate::AgainLater => {
                let answer = exchange(to, &request).await?;
                tokio::spawn(async move {
                    sleep(pause * 8).await;
                    exchange(to, &request).await
                });
                answer
            }
            Fate::Half => {
                let mut server = TcpStream::connect(to).await.ok()?;
                server.write_all(&request[..request.len() / 2]).await.ok()?;
                server.shutdown().await.ok()?;
                let _ = timeout(ANSWER_MAX, server.read(&mut [0; 1])).await;
                return None;
            }
        };
        client.write_all(&answer).await.ok()?;
    }
    Some(())
}

async fn exchange(to: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let asked = async {
        let mut server = TcpStream::connect(to).await.ok()?;
        server.write_all(request).await.ok()?;
        message(&mut server, &mut Vec::new()).await
    };
    timeout(ANSWER_MAX, asked).await.ok()?
}

/// One request or answer, whole; none at the end of the connection. What follows it stays in `rest`.
async fn message(stream: &mut TcpStream, rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(head) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&rest[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let end = head + 4 + length.unwrap_or(0);
            if rest.len() >= end {
                let after = rest.split_off(end);
                return Some(std::mem::replace(rest, after));
            }
        }
        let mut chunk = vec![0; 16 << 10];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        rest.extend_from_slice(&chunk[..count]);
    }
}
