//! A sled's agent on the network: what `docs/sled-protocol.md` says a sled serves, over HTTP.
//!
//! ```text
//!   connection ─▶ head ─▶ body ─▶ permit ─▶ route ─▶ `EmbeddedSled` ─▶ answer
//! ```
//!
//! Invariants:
//! * At most `connections_max` connections are open; each may be idle, or stuck in either direction, only so
//!   long. Others wait in the system's backlog.
//! * At most `requests_max` requests are worked on; one more is answered 503. A request waits for its body
//!   without a permit, so that slow senders keep nobody else out.
//! * With a key, a request without the right token is answered 401 or 403 before its body is read: the control
//!   plane's for everything but migration messages, and the peers' for those.
//! * What the machine leaves unknown stays unknown: a lost request or answer is a connection that breaks, never
//!   a status.
//! * Shutdown accepts nothing more, lets requests finish, and cuts off what is left after `shutdown_time`.

mod answer;
mod query;
mod routes;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::embedded::EmbeddedSled;
use routes::Agent;
use sled_protocol::{SledKey, StallLimit};

/// Pause after a failed accept: the usual cause is that there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failed accepts in a row after which the listener is given up: a minute of pauses.
const ACCEPT_FAILURES_MAX: u32 = 600;

/// Bounds of an agent's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Most open connections: the control plane's calls and a peer for each migration.
    pub connections_max: usize,
    /// Most requests worked on at once.
    pub requests_max: usize,
    /// Largest request body, bytes: the most mappings of one request take half of it.
    pub body_bytes_max: usize,
    /// Largest request head, bytes; answered 431 above it.
    pub head_bytes_max: usize,
    /// How long a head may take to arrive, and how long a connection may stay idle.
    pub head_time: Duration,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How long a request may be worked on.
    pub request_time: Duration,
    /// How long a client may refuse to take more of an answer.
    pub write_stall: Duration,
    /// How long requests under way may take once the server shuts down.
    pub shutdown_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            requests_max: 64,
            body_bytes_max: 1 << 20,
            head_bytes_max: 16 << 10,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            shutdown_time: Duration::from_secs(2),
        }
    }
}

/// Serves the sled until `shutdown` resolves, to whoever proves to know its key if there is one; fails if the listener breaks for good.
pub async fn serve(
    listener: TcpListener,
    sled: EmbeddedSled,
    limits: ServerLimits,
    key: Option<SledKey>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes_max);
    let mut connections = Connections {
        http,
        slots: Arc::new(Semaphore::new(limits.connections_max)),
        write_stall: limits.write_stall,
        graceful: GracefulShutdown::new(),
        tasks: JoinSet::new(),
    };
    let patience = limits.shutdown_time;
    let agent = Arc::new(Agent::new(sled, limits, key.as_ref()));
    let mut shutdown = pin!(shutdown);
    let accepted = tokio::select! {
        biased;
        () = &mut shutdown => Ok(()),
        broken = connections.accept_all(&listener, &agent) => Err(broken),
    };
    drop(listener);
    connections.end(patience).await;
    accepted
}

struct Connections {
    http: http1::Builder,
    slots: Arc<Semaphore>,
    write_stall: Duration,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
}

impl Connections {
    /// Accepts for ever; ends with the error that made it give up.
    async fn accept_all(&mut self, listener: &TcpListener, agent: &Arc<Agent>) -> io::Error {
        let mut failures = 0;
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("slots are never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    failures = 0;
                    self.serve(stream, slot, Arc::clone(agent));
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "a connection could not be accepted");
                    if failures >= ACCEPT_FAILURES_MAX {
                        return error;
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn serve(&mut self, stream: TcpStream, slot: OwnedSemaphorePermit, agent: Arc<Agent>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may be delayed");
        }
        let io = TokioIo::new(StallLimit::new(stream, self.write_stall));
        let service = service_fn(move |request| {
            let agent = Arc::clone(&agent);
            async move { agent.answer(request).await }
        });
        let connection = self.graceful.watch(self.http.serve_connection(io, service));
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                // Clients hang up as they like, and some requests are lost on purpose.
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }

    async fn end(mut self, patience: Duration) {
        if timeout(patience, self.graceful.shutdown()).await.is_err() {
            tracing::warn!(open = self.tasks.len(), "requests are cut off by the shutdown");
        }
        self.tasks.shutdown().await;
    }
}
