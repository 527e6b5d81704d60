//! What the service manager is told (`sd_notify`): that the daemon is ready, reloads, stops, and is alive.
//!
//! Nobody else is told anything: without `NOTIFY_SOCKET` in the environment all of this does nothing.

use actors::ControlPlane;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's socket, if there is one.
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub fn from_env() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // The variables are inherited by children; the process id says for whom they are meant.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| is_ours && *us > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// It serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// It reads its tokens again; `ready` follows.
    pub fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// It ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// Says for ever that the daemon is alive, as often as the service manager wants it twice: but only while the
    /// ledger answers, through which everything goes.
    pub async fn keep_alive(&self, control: &ControlPlane) {
        let Some(period) = self.watchdog.map(|limit| limit / 2) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(period / 2).await;
            let answer = tokio::time::timeout(period, control.quotas()).await;
            if matches!(answer, Ok(Ok(_))) {
                self.tell("WATCHDOG=1");
            } else {
                tracing::error!("the watchdog is not told that all is well: the ledger does not answer");
            }
        }
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

/// A path, or with `@` in front a name without a file.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().split_first()? {
        (b'@', name) => SocketAddr::from_abstract_name(name).ok(),
        (b'/', _) => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let socket = Some((UnixDatagram::unbound().unwrap(), address(path.as_os_str()).unwrap()));
        let manager = Manager { socket, watchdog: None };
        let heard = || {
            let mut bytes = [0; 128];
            let count = listener.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        manager.ready();
        assert!(heard().starts_with("READY=1\n"));
        manager.stopping();
        assert!(heard().starts_with("STOPPING=1\n"));
        assert!(address(OsStr::new("@name")).is_some());
        assert!(address(OsStr::new("relative")).is_none() && address(OsStr::new("")).is_none());
        Manager { socket: None, watchdog: None }.ready();
    }
}
