//! Connections: accepted within bounds, served with time limits, let go gracefully.
//!
//! Invariants:
//! * at most `connections_max` are open per listener, and each can be idle, or stuck, only so long;
//! * shutdown accepts nothing more, tells every connection to end after its request, and ends what is left
//!   after `shutdown_time`.

use crate::config::ApiConfig;
use crate::router::{router, sled_router};
use crate::state::ApiState;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use sled_protocol::StallLimit;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Pause after a failed accept: the usual cause is that there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failed accepts in a row after which the listener is given up: a minute of pauses.
const ACCEPT_FAILURES_MAX: u32 = 600;

/// Serves the external API until `shutdown` resolves; fails if the listener breaks for good.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router(state, config.clone());
    run(listener, router, &config, shutdown).await
}

/// Serves what sleds call until `shutdown` resolves; fails if the listener breaks for good.
pub async fn serve_sleds(
    listener: TcpListener,
    state: ApiState,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = sled_router(state, config.clone());
    run(listener, router, &config, shutdown).await
}

async fn run(
    listener: TcpListener,
    router: Router,
    config: &ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut connections = Connections {
        router,
        http: http(config),
        write_stall: config.write_stall,
        slots: Arc::new(Semaphore::new(config.connections_max)),
        graceful: GracefulShutdown::new(),
        tasks: JoinSet::new(),
    };
    let mut shutdown = pin!(shutdown);
    let accepted = tokio::select! {
        biased;
        () = &mut shutdown => Ok(()),
        broken = connections.accept_all(&listener) => Err(broken),
    };
    drop(listener);
    connections.end(config.shutdown_time).await;
    accepted
}

fn http(config: &ApiConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.head_time)
        .max_headers(config.headers_max)
        .max_header_size(config.head_bytes_max);
    http
}

struct Connections {
    router: Router,
    http: http1::Builder,
    write_stall: Duration,
    slots: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
}

impl Connections {
    /// Accepts for ever; ends with the error that made it give up.
    async fn accept_all(&mut self, listener: &TcpListener) -> io::Error {
        let mut failures = 0;
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("slots are never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    failures = 0;
                    self.serve(stream, slot);
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

    fn serve(&mut self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may be delayed");
        }
        let io = TokioIo::new(StallLimit::new(stream, self.write_stall));
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.graceful.watch(self.http.serve_connection(io, service));
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                // Clients hang up as they like.
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
