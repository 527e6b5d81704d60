//! A sled's process, and waiting for what it does.

use crate::daemon::{answer, musher};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for anything: far above what it takes, so that a busy machine fails no test.
pub const LONG: Duration = Duration::from_mins(3);

/// A sled's process.
pub struct Sled {
    child: Child,
    pub name: String,
    pub url: String,
    /// Reads what it says until it ends: a full pipe would block it.
    _said: std::thread::JoinHandle<()>,
}

pub fn sled_command(dir: &Path, name: &str, control_plane: &str) -> Command {
    let mut command = musher();
    command
        .args(["sled", "run", "--name", name, "--control-plane", control_plane, "--data"])
        .arg(dir.join(name));
    command
}

impl Sled {
    pub fn start(dir: &Path, name: &str, control_plane: &str, more: &[&str]) -> Self {
        let mut command = sled_command(dir, name, control_plane);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            said.push(line.unwrap());
            if said.last().is_some_and(|line| line.trim_start().starts_with("try ")) {
                break;
            }
        }
        let ready = said.iter().find_map(|line| line.split("is ready on ").nth(1));
        let ready = ready.unwrap_or_else(|| panic!("not ready: {said:?}"));
        let url = ready.split_whitespace().next().unwrap().to_owned();
        Self { child, name: name.to_owned(), url, _said: drain(lines) }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal that it outlives.
    pub fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Sends a signal and waits for the end; answers the exit code.
    pub fn signal(mut self, signal: &str) -> Option<i32> {
        self.send(signal);
        self.child.wait().unwrap().code()
    }

    pub async fn get(&self, http: &reqwest::Client, path: &str) -> Value {
        let (status, body) = answer(http.get(format!("{}{path}", self.url)).send().await.unwrap()).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits until it has had an answer to its registration: until then it refuses what it is asked.
    pub async fn until_it_knows_its_epoch(&self, http: &reqwest::Client) {
        until(&format!("{} knows its epoch", self.name), async || {
            // One that loses messages may lose this one.
            let answered = http.get(format!("{}/inventory", self.url)).send().await.ok()?;
            answer(answered).await.1["lease_epoch"].as_u64()
        })
        .await;
    }

    /// Instance and VMM of every VMM that it holds alive.
    pub async fn held(&self, http: &reqwest::Client) -> BTreeMap<String, String> {
        let inventory = self.get(http, "/inventory").await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let is_live =
            |vmm: &&Value| !matches!(vmm["vmm_state"]["state"].as_str(), Some("destroyed" | "failed"));
        let vmms = inventory["vmms"].as_array().unwrap().iter().filter(is_live);
        vmms.map(|vmm| (text(&vmm["instance_id"]), text(&vmm["propolis_id"]))).collect()
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a reader of a pipe outside of any simulation")]
fn drain(
    lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || lines.for_each(drop))
}

/// Asks again and again until the answer is there.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
