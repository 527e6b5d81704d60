//! The processes: a daemon on one directory, at the same addresses in every life, and one sled beside it.

use super::Found;
use crate::exit::Failure;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest start: recovery of what little these rounds write, on a busy machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Longest wait for a process that must end by itself.
const END_MAX: Duration = Duration::from_mins(1);

/// Exit code of a process whose first thread panicked.
const PANICKED: i32 = 101;
/// Most lines of a daemon's errors that are remembered.
const SAID_MAX: usize = 1_000;

/// Settings that bring what is rare in a short life: full segments, checkpoints, compressed segments.
const BUSY: [(&str, &str); 4] = [
    ("MUSHER_LOG__SEGMENT_BYTES", "1048576"),
    ("MUSHER_LOG__COMPACT_EVERY_S", "1"),
    ("MUSHER_CHECKPOINT__EVENTS", "256"),
    ("MUSHER_CHECKPOINT__PAUSE_S", "0"),
];
/// The same for a disk of 64 MiB.
const BUSY_SMALL: (&str, &str) = ("MUSHER_LOG__SEGMENT_BYTES", "4194304");

/// Rules for one life of the daemon, and whether they wait for [`House::open_gate`].
pub type Rules = Option<(String, bool)>;

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It is ready.
    Ready,
    /// It ended on the way, as its rules said it might.
    Ended,
}

/// What came of a limit on open files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limited {
    /// It is set.
    Done,
    /// This process may not set it, for this reason.
    NotPermitted(String),
}

/// See the module's head.
pub struct House {
    binary: PathBuf,
    under_test: PathBuf,
    data: PathBuf,
    gate: PathBuf,
    is_small: bool,
    sled_data: PathBuf,
    /// Addresses for clients and sleds, once known: `host:port`.
    addresses: Option<(String, String)>,
    daemon: Option<Child>,
    sled: Option<Child>,
    /// What the daemon of this life has said since it was ready: its errors.
    said: Arc<Mutex<Vec<String>>>,
    /// What clients speak.
    pub http: reqwest::Client,
}

impl House {
    /// Nothing runs yet. `under_test` is the daemon's binary; its data lies on `disk`, the rest in `beside`.
    pub fn new(under_test: &Path, disk: &Path, beside: &Path, is_small: bool) -> Result<Self, Failure> {
        let binary = std::env::current_exe().map_err(anyhow::Error::from)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build();
        Ok(Self {
            binary,
            under_test: under_test.to_owned(),
            data: disk.join("data"),
            gate: beside.join("gate"),
            is_small,
            sled_data: beside.join("sled"),
            addresses: None,
            daemon: None,
            sled: None,
            said: Arc::default(),
            http: http.map_err(anyhow::Error::from)?,
        })
    }

    fn serve(&self, listen: &str, sled_listen: &str) -> Command {
        let mut command = command_of(&self.under_test);
        command.args(["serve", "--listen", listen, "--sled-listen", sled_listen, "--data"]).arg(&self.data);
        command.envs(BUSY).envs(self.is_small.then_some(BUSY_SMALL));
        command
    }

    /// Where clients find the daemon.
    pub fn url(&self) -> String {
        self.addresses.as_ref().map(|(listen, _)| format!("http://{listen}")).unwrap_or_default()
    }

    /// Starts whatever does not run, and waits until it is ready. With rules that wait for nothing the daemon may end
    /// instead, and no sled is started.
    pub async fn start(&mut self, rules: &Rules) -> Result<Started, Found> {
        let may_end = rules.as_ref().is_some_and(|(_, is_gated)| !is_gated);
        if self.daemon.is_none() {
            let any = ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
            let (listen, sleds) = self.addresses.clone().unwrap_or(any);
            let mut command = self.serve(&listen, &sleds);
            // Left by the life before.
            let _ = std::fs::remove_file(&self.gate);
            if let Some((rules, is_gated)) = rules {
                command.env("MUSHER_FAILPOINTS", rules);
                if *is_gated {
                    command.env("MUSHER_FAILPOINTS_GATE", &self.gate);
                }
            }
            self.said = Arc::default();
            let (child, ready) = match until_ready(&mut command, &self.said).await {
                Ok(ready) => ready,
                Err(_) if may_end => return Ok(Started::Ended),
                Err(found) => return Err(found),
            };
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
        // A sled that is started beside a daemon that ends would wait for it in vain.
        if self.sled.is_none() && !may_end {
            let (_, sleds) = self.addresses.clone().unwrap_or_default();
            let mut command = command_of(&self.binary);
            command.args(["sled", "run", "--name", "outside", "--control-plane"]);
            command.arg(format!("http://{sleds}")).arg("--data").arg(&self.sled_data);
            self.sled = Some(until_ready(&mut command, &Arc::default()).await?.0);
        }
        Ok(Started::Ready)
    }

    /// From here on the rules of this life count.
    pub fn open_gate(&self) -> Result<(), Found> {
        std::fs::write(&self.gate, "").map_err(|error| Found::new("I18", format!("no gate: {error}")))
    }

    /// Waits for the daemon to end by itself, and how it did; none if it has not by then.
    pub async fn wait_end(&mut self, patience: Duration) -> Result<Option<ExitStatus>, Found> {
        let Some(daemon) = &mut self.daemon else { return Ok(None) };
        let Ok(Ok(status)) = timeout(patience, daemon.wait()).await else { return Ok(None) };
        if status.code() == Some(PANICKED) {
            return Err(Found::new("panic", self.words().join(" / ")));
        }
        Ok(Some(status))
    }

    /// Whether the daemon's rules have struck a file operation in this life.
    pub fn has_struck(&self) -> bool {
        self.words().iter().any(|line| line.contains("failpoint: "))
    }

    /// A panic of any part of the daemon in this life.
    pub fn must_not_have_panicked(&self) -> Result<(), Found> {
        match self.words().iter().find(|line| line.contains("panicked")) {
            Some(line) => Err(Found::new("panic", line.clone())),
            None => Ok(()),
        }
    }

    fn words(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon's process, while it has not been seen to end.
    fn pid(&self) -> Option<Pid> {
        let id = self.daemon.as_ref().and_then(Child::id)?;
        i32::try_from(id).ok().and_then(Pid::from_raw)
    }

    /// Lets the daemon have so many more open files than it has, and no others.
    pub fn limit_files(&self, more: u64) -> Result<Limited, Found> {
        let failed =
            |what: String| Found::new("I18", format!("the limit on open files cannot be set: {what}"));
        let Some(pid) = self.pid() else { return Ok(Limited::Done) };
        let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
        let open = open.map_err(|error| failed(error.to_string()))?;
        let current = open.count() as u64 + more;
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        match prlimit(Some(pid), Resource::Nofile, limit) {
            Ok(_) => Ok(Limited::Done),
            Err(Errno::PERM) => Ok(Limited::NotPermitted(
                "this process may not limit another (prlimit: not permitted); run as the daemon's user, without a \
                 sandbox that forbids it"
                    .to_owned(),
            )),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// SIGKILL to the daemon, if it has not ended by itself.
    pub async fn kill_daemon(&mut self) {
        kill(&mut self.daemon).await;
    }

    /// SIGTERM to the daemon, which must end well.
    pub async fn stop_daemon(&mut self) -> Result<(), Found> {
        let Some(pid) = self.pid() else { return Ok(()) };
        kill_process(pid, Signal::TERM)
            .map_err(|error| Found::new("I18", format!("the daemon cannot be sent SIGTERM: {error}")))?;
        let ended = self.wait_end(END_MAX).await?;
        if ended.is_some_and(|status| status.success()) {
            self.daemon = None;
            return Ok(());
        }
        Err(Found::new("I18", format!("after SIGTERM at rest the daemon ended with {ended:?}")))
    }

    /// What the log of the stopped daemon holds, in numbers.
    pub async fn stats(&self) -> Result<String, Found> {
        let mut stats = command_of(&self.under_test);
        stats.args(["log", "stats", "--data"]).arg(&self.data).stdout(Stdio::piped());
        let said = stats.output().await.map_err(|error| Found::new("I27", error.to_string()))?;
        if said.status.success() {
            return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
        }
        Err(Found::new("I27", format!("musher log stats: {}", String::from_utf8_lossy(&said.stderr))))
    }

    /// SIGKILL to the sled.
    pub async fn kill_sled(&mut self) {
        kill(&mut self.sled).await;
    }

    /// Stops the daemon where it is, and lets it go on after `span`: its timers come late, all at once.
    pub async fn pause(&self, span: Duration) -> Result<(), Found> {
        let Some(pid) = self.pid() else { return Ok(()) };
        for (signal, then) in [(Signal::STOP, span), (Signal::CONT, Duration::ZERO)] {
            kill_process(pid, signal).map_err(|error| {
                Found::new("I18", format!("the daemon cannot be sent {signal:?}: {error}"))
            })?;
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
            let said = command_of(&self.under_test)
                .args(verb)
                .arg("--data")
                .arg(&self.data)
                .stdout(Stdio::piped())
                .output();
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

fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for name in ["MUSHER_SERVER", "MUSHER_TOKEN", "OXIDE_HOST", "MUSHER_FAILPOINTS"] {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

async fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself; the next start or check tells why that matters.
        let _ = child.kill().await;
    }
}

/// Starts a process and reads what it says until it is ready; what follows is read all the same, because a full
/// pipe would block it, and remembered.
async fn until_ready(
    command: &mut Command,
    remembered: &Arc<Mutex<Vec<String>>>,
) -> Result<(Child, String), Found> {
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
    let is_ready = read.await.unwrap_or(false);
    remembered.lock().unwrap_or_else(PoisonError::into_inner).extend(said.iter().cloned());
    if !is_ready {
        return Err(failed(format!("it did not become ready: {}", said.join(" / "))));
    }
    let remembered = Arc::clone(remembered);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let mut remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() < SAID_MAX {
                remembered.push(line);
            }
        }
    });
    let ready = said.into_iter().find(|line| line.contains("is ready on"));
    Ok((child, ready.unwrap_or_default()))
}

/// Names of the places where this build of the daemon can be made to die or fail; none if it has none.
pub fn failpoints(under_test: &Path) -> Result<Vec<String>, Failure> {
    let mut list = std::process::Command::new(under_test);
    list.args(["chaos", "list"]).stdin(Stdio::null());
    let output = list.output().map_err(|error| {
        Failure::new(crate::exit::Exit::Usage, format!("{} cannot be run: {error}", under_test.display()))
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed = text.lines().skip_while(|line| *line != "failpoints").skip(1);
    Ok(listed.take_while(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect())
}
