//! `musher demo`: a narrated minute. Instances come up, the daemon is killed -9 in the middle of a start and of a
//! migration, and a new one finishes both. Everything shown is asked of real daemons on a real disk.

use crate::cli::DemoArgs;
use crate::cli::ServerArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::line;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for a daemon, and for an instance.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the story.
pub async fn run(args: &DemoArgs) -> Outcome {
    let scratch = tempfile::tempdir().map_err(|error| failure(format!("no temporary directory: {error}")))?;
    let data = args.keep.clone().unwrap_or_else(|| scratch.path().join("data"));
    line("musher demo: three instances, a live migration, one kill -9, nothing lost");
    line("");
    line(format!("1. a daemon on an empty directory ({})", data.display()));
    let mut daemon = Daemon::start(&data).await?;
    line(format!("   ready in {} ms on {}", daemon.ready_ms, daemon.url));
    line("2. web-1 and web-2 are created and started");
    for name in ["web-1", "web-2"] {
        daemon.create(name).await?;
        let took = daemon.until(name, "running").await?;
        line(format!("   {name} runs after {took} ms"));
    }
    line("3. web-3 is created, web-1 begins to move to another sled, and the daemon is killed -9");
    daemon.create("web-3").await?;
    let web_1 = daemon.id("web-1").await?;
    let moved = daemon.post(&format!("/ops/v1/instances/{web_1}/migrate")).await?;
    let told = daemon.client.get(&format!("/ops/v1/instances/{web_1}/explain"), &[]).await?;
    let state = daemon.state("web-3").await?;
    daemon.kill().await?;
    line(format!("   acknowledged, then dead; web-3 was {state}, and of web-1 it had just said why:"));
    for said in crate::explained::text(&told).lines() {
        line(format!("   | {said}"));
    }
    line("4. a new daemon on the same directory");
    let mut daemon = Daemon::start(&data).await?;
    for said in daemon.said.iter().filter(|said| said.contains("data") || said.contains("resuming")) {
        line(format!("  {said}"));
    }
    let took = daemon.until("web-3", "running").await?;
    line(format!("   nobody asked again: web-3 runs {took} ms later"));
    daemon.until("web-1", "running").await?;
    let migration = moved["migration_id"].as_str().unwrap_or_default();
    let migration = daemon.client.get(&format!("/ops/v1/migrations/{migration}"), &[]).await?;
    line(format!(
        "   the migration {}; web-1 is {}, web-2 is {}",
        migration["outcome"].as_str().unwrap_or("is under way"),
        daemon.state("web-1").await?,
        daemon.state("web-2").await?
    ));
    line("5. web-2 is stopped and deleted; its name is free, its history stays");
    let id = daemon.id("web-2").await?;
    daemon.post(&format!("/v1/instances/{id}/stop")).await?;
    daemon.until("web-2", "stopped").await?;
    daemon.client.delete(&format!("/v1/instances/{id}"), &[]).await?;
    line("6. the history of web-1, across both daemons");
    let history = daemon.client.get(&format!("/ops/v1/instances/{web_1}/history"), &[]).await?;
    for entry in history["items"].as_array().into_iter().flatten() {
        line(format!("   #{:<3} {}", entry["version"], entry["summary"].as_str().unwrap_or_default()));
    }
    line("7. the daemon stops, and every decision in its log is made again");
    daemon.terminate().await?;
    let verified = own_binary()?
        .args(["replay", "--verify", "--data"])
        .arg(&data)
        .output()
        .await
        .map_err(|error| failure(format!("replay does not run: {error}")))?;
    for said in String::from_utf8_lossy(&verified.stdout).lines() {
        line(format!("   {said}"));
    }
    if !verified.status.success() {
        return Err(failure(String::from_utf8_lossy(&verified.stderr).into_owned()));
    }
    line("");
    line("next: `musher serve`, then `musher instance create web-1 --wait`");
    if args.keep.is_some() {
        line(format!("      `musher replay web-1 --history --data {}`", data.display()));
    }
    Ok(())
}

fn failure(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Refused, what)
}

fn own_binary() -> Result<Command, Failure> {
    let path =
        std::env::current_exe().map_err(|error| failure(format!("this program has no path: {error}")))?;
    let mut command = Command::new(path);
    command.kill_on_drop(true).stdin(Stdio::null());
    Ok(command)
}

/// A daemon in a process of its own.
struct Daemon {
    child: Child,
    client: Client,
    url: String,
    ready_ms: u128,
    /// What it said on stderr until it was ready.
    said: Vec<String>,
}

impl Daemon {
    async fn start(data: &Path) -> Result<Self, Failure> {
        let began = Instant::now();
        let mut command = own_binary()?;
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| failure(format!("the daemon does not start: {error}")))?;
        let stderr = child.stderr.take().ok_or_else(|| failure("the daemon has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let mut url = None;
        let greeting = async {
            while let Ok(Some(text)) = lines.next_line().await {
                if let Some(rest) = text.split("ready on ").nth(1) {
                    url = rest.split_whitespace().next().map(ToOwned::to_owned);
                }
                let is_last = text.trim_start().starts_with("try ");
                said.push(text);
                if is_last {
                    return;
                }
            }
        };
        let in_time = timeout(PATIENCE, greeting).await.is_ok();
        let ready_ms = began.elapsed().as_millis();
        let Some(url) = url.filter(|_| in_time) else {
            return Err(failure(format!("the daemon did not become ready: {}", said.join("\n"))));
        };
        // What it says from here on is not part of the story, but must not block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let client = Client::new(&ServerArgs { server: url.clone(), token: None, token_file: None })?;
        Ok(Self { child, client, url, ready_ms, said })
    }

    async fn create(&self, name: &str) -> Result<Value, Failure> {
        let body = json!({
            "name": name, "description": "", "hostname": name, "ncpus": 2, "memory": 4_u64 << 30, "start": true,
        });
        Ok(self.client.post("/v1/instances", &[("project", "demo")], Some(body)).await?)
    }

    async fn post(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.client.post(path, &[], None).await?)
    }

    async fn view(&self, name: &str) -> Result<Value, Failure> {
        Ok(self.client.get(&format!("/v1/instances/{name}"), &[("project", "demo")]).await?)
    }

    async fn state(&self, name: &str) -> Result<String, Failure> {
        Ok(self.view(name).await?["run_state"].as_str().unwrap_or_default().to_owned())
    }

    async fn id(&self, name: &str) -> Result<String, Failure> {
        Ok(self.view(name).await?["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for a state; answers how long that took, in ms.
    async fn until(&self, name: &str, wanted: &str) -> Result<u128, Failure> {
        let began = Instant::now();
        loop {
            let state = self.state(name).await?;
            if state == wanted {
                return Ok(began.elapsed().as_millis());
            }
            if began.elapsed() > PATIENCE {
                return Err(failure(format!("{name} is still {state}, not {wanted}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL: no chance to say goodbye.
    async fn kill(&mut self) -> Outcome {
        self.child.kill().await.map_err(|error| failure(format!("the daemon cannot be killed: {error}")))
    }

    /// SIGTERM, and its end.
    async fn terminate(&mut self) -> Outcome {
        let pid = self.child.id().ok_or_else(|| failure("the daemon has ended by itself"))?;
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
        sent.map_err(|error| failure(format!("the daemon cannot be told to stop: {error}")))?;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            other => Err(failure(format!("the daemon did not stop cleanly: {other:?}"))),
        }
    }
}
