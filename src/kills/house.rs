//! The processes: a daemon on one directory, at the same addresses in every life, and one sled beside it.

use super::Found;
use crate::exit::Failure;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest start: recovery of what little these rounds write, on a busy machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Longest wait for a process that must end by itself.
const END_MAX: Duration = Duration::from_mins(1);

/// See the module's head.
pub struct House {
    binary: PathBuf,
    data: PathBuf,
    sled_data: PathBuf,
    /// Addresses for clients and sleds, once known: `host:port`.
    addresses: Option<(String, String)>,
    daemon: Option<Child>,
    sled: Option<Child>,
    /// What clients speak.
    pub http: reqwest::Client,
}

impl House {
    /// Nothing runs yet.
    pub fn new(scratch: &Path) -> Result<Self, Failure> {
        let binary = std::env::current_exe().map_err(anyhow::Error::from)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build();
        Ok(Self {
            binary,
            data: scratch.join("data"),
            sled_data: scratch.join("sled"),
            addresses: None,
            daemon: None,
            sled: None,
            http: http.map_err(anyhow::Error::from)?,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for name in ["MUSHER_SERVER", "MUSHER_TOKEN", "OXIDE_HOST"] {
            command.env_remove(name);
        }
        command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command
    }

    fn serve(&self, listen: &str, sled_listen: &str) -> Command {
        let mut command = self.command();
        command.args(["serve", "--listen", listen, "--sled-listen", sled_listen, "--data"]).arg(&self.data);
        command
    }

    /// Where clients find the daemon.
    pub fn url(&self) -> String {
        self.addresses.as_ref().map(|(listen, _)| format!("http://{listen}")).unwrap_or_default()
    }

    /// Starts whatever does not run, and waits until it is ready.
    pub async fn start(&mut self) -> Result<(), Found> {
        if self.daemon.is_none() {
            let any = ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
            let (listen, sleds) = self.addresses.clone().unwrap_or(any);
            let mut command = self.serve(&listen, &sleds);
            let (child, ready) = until_ready(&mut command).await?;
            let said = |what: &str| {
                let rest = ready.split(what).nth(1)?;
                let address = rest.trim().split([' ', ')']).next()?;
                address.strip_prefix("http://").map(str::to_owned)
            };
            let (Some(listen), Some(sleds)) = (said("is ready on"), said("sleds:")) else {
                return Err(Found::new("I18", format!("the daemon does not say where it listens: {ready}")));
            };
            self.addresses = Some((listen, sleds));
            self.daemon = Some(child);
        }
        if self.sled.is_none() {
            let (_, sleds) = self.addresses.clone().unwrap_or_default();
            let mut command = self.command();
            command.args(["sled", "run", "--name", "outside", "--control-plane"]);
            command.arg(format!("http://{sleds}")).arg("--data").arg(&self.sled_data);
            self.sled = Some(until_ready(&mut command).await?.0);
        }
        Ok(())
    }

    /// SIGKILL to the daemon.
    pub async fn kill_daemon(&mut self) {
        kill(&mut self.daemon).await;
    }

    /// SIGKILL to the sled.
    pub async fn kill_sled(&mut self) {
        kill(&mut self.sled).await;
    }

    /// Stops the daemon where it is, and lets it go on after `span`: its timers come late, all at once.
    pub async fn pause(&self, span: Duration) -> Result<(), Found> {
        let Some(pid) = self.daemon.as_ref().and_then(Child::id) else { return Ok(()) };
        for (signal, then) in [("-STOP", span), ("-CONT", Duration::ZERO)] {
            let sent = Command::new("kill").args([signal, &pid.to_string()]).status().await;
            if !sent.is_ok_and(|status| status.success()) {
                return Err(Found::new("I18", format!("the daemon ended before kill {signal}")));
            }
            tokio::time::sleep(then).await;
        }
        Ok(())
    }

    /// A second daemon on the same directory must refuse, and disturb nothing.
    pub async fn second_is_refused(&self) -> Result<(), Found> {
        let mut second = self.serve("127.0.0.1:0", "127.0.0.1:0");
        let ended = match second.stderr(Stdio::null()).spawn() {
            Ok(mut child) => timeout(END_MAX, child.wait()).await,
            Err(error) => {
                return Err(Found::new("I18", format!("no second daemon could be started: {error}")));
            }
        };
        match ended {
            Ok(Ok(status)) if !status.success() => Ok(()),
            other => Err(Found::new("I13", format!("a second daemon on the same directory: {other:?}"))),
        }
    }

    /// The log offline: every byte, every decision.
    pub async fn verify(&self) -> Result<(), Found> {
        for verb in [["replay", "--verify"], ["log", "verify"]] {
            let said =
                self.command().args(verb).arg("--data").arg(&self.data).stdout(Stdio::piped()).output();
            let said = said.await.map_err(|error| Found::new("I27", error.to_string()))?;
            if !said.status.success() {
                let text = [said.stdout, said.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(Found::new("I27", format!("musher {}: {text}", verb.join(" "))));
            }
        }
        Ok(())
    }

    /// Ends what still runs.
    pub async fn end(&mut self) {
        self.kill_daemon().await;
        self.kill_sled().await;
    }
}

async fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself; the next start or check tells why that matters.
        let _ = child.kill().await;
    }
}

/// Starts a process and reads what it says until it is ready; what follows is read and forgotten, because a full pipe
/// would block it.
async fn until_ready(command: &mut Command) -> Result<(Child, String), Found> {
    let failed = |what: String| Found::new("I18", what);
    let mut child =
        command.stderr(Stdio::piped()).spawn().map_err(|error| failed(format!("no start: {error}")))?;
    let Some(stderr) = child.stderr.take() else { return Err(failed("it has no stderr".to_owned())) };
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    let read = timeout(START_MAX, async {
        while let Ok(Some(line)) = lines.next_line().await {
            let is_last = line.trim_start().starts_with("try ");
            said.push(line);
            if is_last {
                return true;
            }
        }
        false
    });
    if !read.await.unwrap_or(false) {
        return Err(failed(format!("it did not become ready: {}", said.join(" / "))));
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let ready = said.into_iter().find(|line| line.contains("is ready on"));
    Ok((child, ready.unwrap_or_default()))
}
