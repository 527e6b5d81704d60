//! The two listeners, for clients and for sleds: taken before anything is opened, opened once everything behind them
//! runs, closed before any of it ends.

use crate::config::Config;
use crate::exit::{Exit, Failure};
use api::{ApiConfig, ApiState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait for connections to finish at shutdown.
const CONNECTIONS_MAX: Duration = Duration::from_secs(5);

/// Both listeners, served.
pub struct Doors {
    /// Where clients connect, and where sleds do.
    pub addresses: (SocketAddr, SocketAddr),
    stop: watch::Sender<bool>,
    serving: [JoinHandle<io::Result<()>>; 2],
}

impl Doors {
    /// Serves from here on.
    pub fn open(
        config: &Config,
        (clients, sleds): (TcpListener, TcpListener),
        state: ApiState,
    ) -> Result<Self, Failure> {
        let addresses = (local(&clients)?, local(&sleds)?);
        let (stop, stopping) = watch::channel(false);
        let until = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone means the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let limits = limits(&config.limits);
        let of_sleds = limits.clone().for_sleds(config.sleds.connections_max, config.sleds.reports_max);
        let for_clients = tokio::spawn(api::serve(clients, state.clone(), limits, until(stopping.clone())));
        let for_sleds = tokio::spawn(api::serve_sleds(sleds, state, of_sleds, until(stopping)));
        Ok(Self { addresses, stop, serving: [for_clients, for_sleds] })
    }

    /// Lets what is under way finish, for a while.
    pub async fn close(self) {
        let _ = self.stop.send(true);
        let both = async {
            for serving in self.serving {
                let _ = serving.await;
            }
        };
        if tokio::time::timeout(CONNECTIONS_MAX, both).await.is_err() {
            tracing::warn!("connections were cut off");
        }
    }
}

/// Bounds of the listeners, as far as they are settings.
fn limits(limits: &crate::config::Limits) -> ApiConfig {
    ApiConfig {
        body_bytes_max: limits.body_bytes_max,
        uri_bytes_max: limits.uri_bytes_max,
        head_bytes_max: limits.head_bytes_max,
        headers_max: limits.headers_max,
        connections_max: limits.connections_max,
        requests_max: limits.requests_max,
        feeds_max: limits.feeds_max,
        head_time: Duration::from_secs(limits.head_s),
        body_time: Duration::from_secs(limits.body_s),
        request_time: Duration::from_secs(limits.request_s),
        write_stall: Duration::from_secs(limits.write_stall_s),
        fresh_wait: Duration::from_secs(limits.fresh_wait_s),
        ..ApiConfig::default()
    }
}

/// Takes an address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot listen on {address}: {error}"))
            .hint("is another daemon running? choose another address with --listen and --sled-listen")
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::new(Exit::Refused, format!("no address: {error}")))
}
