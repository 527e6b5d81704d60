//! The daemon as a process: started on ports that the system chooses, killed at the end.

use crate::Failure;
use crate::machine::processor_nanoseconds;
use crate::stack::http::Connection;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lines of its start that are read at most while waiting for it to be ready.
const LINES_MAX: usize = 1_000;

/// What differs from the defaults: simulated sleds answer at once and have room for everybody, nothing leaves
/// memory, and no sled is asked for an inventory while reports are made in its name.
const SETTINGS: [(&str, &str); 5] = [
    ("MUSHER_EMBEDDED_SLEDS__BOOT_MS", "[0,0]"),
    ("MUSHER_EMBEDDED_SLEDS__HALT_MS", "[0,0]"),
    ("MUSHER_EMBEDDED_SLEDS__THREADS", "65536"),
    ("MUSHER_EMBEDDED_SLEDS__MEMORY_GIB", "65536"),
    ("MUSHER_SLEDS__INVENTORY_S", "3600"),
];

/// A running daemon.
pub struct Daemon {
    child: Child,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where sleds connect.
    pub sleds: SocketAddr,
}

/// The daemon's program: the one that was named, or the one beside this program.
pub fn program(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let beside = std::env::current_exe()?.with_file_name("musher");
    if beside.is_file() {
        return Ok(beside);
    }
    let path = beside.display();
    Err(format!("there is no {path}: build it with `cargo build --release`, or name one with --musher")
        .into())
}

impl Daemon {
    /// Starts the daemon and waits until it is ready.
    pub fn start(named: Option<&Path>, data: &Path) -> Result<Self, Failure> {
        let program = program(named)?;
        let mut command = Command::new(&program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0", "--data"])
            .arg(data);
        command.envs(SETTINGS).env("RUST_LOG", "error");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("the daemon has no stderr")?);
        let mut said = String::new();
        for _ in 0..LINES_MAX {
            let from = said.len();
            if lines.read_line(&mut said)? == 0 {
                break;
            }
            if let Some((clients, sleds)) = addresses(&said[from..]) {
                // It has said all that it has to say; a full pipe would block it.
                std::thread::Builder::new().spawn(move || std::io::copy(&mut lines, &mut std::io::sink()))?;
                return Ok(Self { child, clients, sleds });
            }
        }
        child.kill()?;
        child.wait()?;
        let said = if said.is_empty() { "it said nothing" } else { said.trim_end() };
        Err(format!("{} did not become ready: {said}", program.display()).into())
    }

    /// Processor time that the daemon has used so far, nanoseconds. `None` where the system does not tell.
    pub fn processor_nanoseconds(&self) -> Option<u64> {
        processor_nanoseconds(&self.child.id().to_string())
    }

    /// A number of its metrics; zero if it has none of this name.
    pub async fn metric(&self, name: &str) -> Result<f64, Failure> {
        let mut connection = Connection::open(self.clients).await?;
        let reply = connection.send("GET", "/metrics", &[], b"").await?;
        let text = String::from_utf8(reply.success()?)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0.0))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its directory goes with it; one that has ended already is what was wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the line says that announces readiness: where clients and sleds connect.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (clients, sleds) = line.split_once(" is ready on http://")?.1.split_once(" (sleds: http://")?;
    Some((clients.parse().ok()?, sleds.trim_end().strip_suffix(')')?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_stand_in_the_line_that_announces_readiness() {
        let line = "musher 0.1.0 is ready on http://127.0.0.1:35419 (sleds: http://127.0.0.1:33761)\n";
        let (clients, sleds) = addresses(line).unwrap();
        assert_eq!((clients.port(), sleds.port()), (35_419, 33_761));
        assert_eq!(addresses("  data      d (new)\n"), None);
    }
}
