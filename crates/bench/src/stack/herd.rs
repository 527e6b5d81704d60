//! Simulated sleds in a process of their own, each with a listener, a directory and connections of its own.

use crate::Failure;
use crate::stack::daemon::{Daemon, program};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often the daemon is asked whether it has all of them, and how often at most: ten minutes in all.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS_MAX: usize = 3_000;

/// Running sleds.
pub struct Herd {
    child: Child,
}

impl Herd {
    /// Starts so many sleds of this daemon and waits until all are in service.
    pub async fn start(
        named: Option<&Path>,
        daemon: &Daemon,
        count: u32,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(program(named)?);
        command.args(["sled", "run", "--name", "s", "--threads", "4096", "--ram", "4096", "--count"]);
        command.arg(count.to_string()).args(["--control-plane", &format!("http://{}", daemon.sleds)]);
        command.arg("--data").arg(dir).env("RUST_LOG", "error");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut herd = Self { child };
        for _ in 0..LOOKS_MAX {
            if daemon.metric("musher_sleds{reachable=\"true\"}").await? >= f64::from(count) {
                return Ok(herd);
            }
            if let Some(ended) = herd.child.try_wait()? {
                return Err(format!("the sleds' process ended: {ended}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(format!("{count} sleds did not get into service").into())
    }

    /// Its process.
    pub fn process(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        // One that has ended already is what was wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
