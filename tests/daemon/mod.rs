//! The built binary as a process, on a directory of its own and on ports of its own.

#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub struct Daemon {
    child: Child,
    pub url: String,
    pub sled_url: String,
    pub http: reqwest::Client,
    /// What it said on stderr until it was ready.
    pub said: Vec<String>,
}

pub fn musher() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_musher"));
    command
        .env_remove("MUSHER_SERVER")
        .env_remove("MUSHER_TOKEN")
        .env_remove("OXIDE_HOST")
        .env("RUST_LOG", "error");
    command
}

/// `serve` on ports of its own; what it is to be started with may follow.
pub fn serve(data: &Path) -> Command {
    let mut command = musher();
    command.args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0", "--data"]).arg(data);
    command
}

/// A directory that goes away, unless the test fails: then it is the evidence.
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// The directory around the data directory.
    pub fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("the data directory is kept: {}", dir.keep().display());
        }
    }
}

pub fn scratch() -> (Scratch, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    (Scratch(Some(dir)), data)
}

impl Daemon {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, more: &[&str]) -> Self {
        let mut command = serve(data);
        command.args(more);
        Self::run(command)
    }

    /// With settings from the environment.
    pub fn start_where(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = serve(data);
        command.envs(settings.iter().copied());
        Self::run(command)
    }

    pub fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            let is_last = line.trim_start().starts_with("try ");
            said.push(line);
            if is_last {
                break;
            }
        }
        let ready = said.iter().find_map(|line| line.split("is ready on ").nth(1));
        let ready = ready.unwrap_or_else(|| panic!("not ready: {said:?}"));
        let url = ready.split_whitespace().next().unwrap().to_owned();
        let sled_url = ready.split("sleds: ").nth(1).unwrap().trim_end_matches(')').to_owned();
        // A full pipe would block it.
        drain(lines);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { child, url, sled_url, http, said }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.post(format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        answer(self.http.delete(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub async fn create(&self, name: &str, start: bool) -> String {
        let (status, body) = self.post("/v1/instances?project=demo", Some(instance_body(name, start))).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub async fn state(&self, id: &str) -> String {
        let (status, body) = self.get(&format!("/v1/instances/{id}")).await;
        assert_eq!(status, 200, "{body}");
        body["run_state"].as_str().unwrap().to_owned()
    }

    pub async fn until_state(&self, id: &str, wanted: &str) {
        for _ in 0..1_000 {
            if self.state(id).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} is {} after 20 s, not {wanted}", self.state(id).await);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal and waits for the end; answers the exit code.
    pub fn signal(mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for the end of one that was told to end.
    pub fn ends(&mut self) {
        self.child.wait().unwrap();
    }

    /// A client command against this daemon.
    pub fn cli(&self, args: &[&str]) -> Output {
        musher().args(args).env("MUSHER_SERVER", &self.url).output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a reader of a pipe outside of any simulation")]
fn drain(lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static) {
    std::thread::spawn(move || lines.for_each(drop));
}

pub async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub fn instance_body(name: &str, start: bool) -> Value {
    json!({
        "name": name, "description": "", "hostname": name, "ncpus": 2, "memory": 4_u64 << 30, "start": start,
    })
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
