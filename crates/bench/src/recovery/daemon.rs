//! A daemon as a process: from its start to its first answer.

use crate::Failure;
use crate::clock::now;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Events after which a checkpoint is due while checkpoints are measured: the first stop makes one.
const EVENTS: &str = "65536";

/// A daemon that has answered.
pub struct Started {
    child: Child,
    /// Kept open: a daemon that cannot say what it does does not end cleanly.
    _said: BufReader<ChildStderr>,
    /// From the start of the process until it said that it is ready, milliseconds.
    pub ready_ms: f64,
    /// Until a client had an answer, milliseconds.
    pub answer_ms: f64,
    /// Whether it used a checkpoint.
    pub is_from_checkpoint: bool,
}

/// Starts a daemon and asks it for a list.
pub fn start(musher: &Path, data: &Path, with_checkpoints: bool) -> Result<Started, Failure> {
    let began = now();
    let checkpoints = data.join("checkpoints");
    let aside = data.with_extension("checkpoints");
    if !with_checkpoints && checkpoints.exists() {
        std::fs::rename(&checkpoints, &aside)?;
    }
    let mut child = Command::new(musher)
        .args([
            "serve",
            "--no-embedded-sleds",
            "--listen",
            "127.0.0.1:0",
            "--sled-listen",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data)
        .env("MUSHER_CHECKPOINT__EVENTS", if with_checkpoints { EVENTS } else { "0" })
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stderr.take().ok_or("the daemon has no stderr")?);
    let (mut address, mut ready_ms, mut is_from_checkpoint, mut line) =
        (String::new(), 0.0, false, String::new());
    while !line.trim_start().starts_with("try ") {
        line.clear();
        if said.read_line(&mut line)? == 0 {
            return Err("the daemon ended before it was ready".into());
        }
        if let Some(rest) = line.split("is ready on http://").nth(1) {
            ready_ms = began.elapsed().as_secs_f64() * 1_000.0;
            rest.split_whitespace().next().unwrap_or_default().clone_into(&mut address);
        }
        is_from_checkpoint |= line.contains("from the checkpoint at position");
    }
    ask(&address)?;
    let answer_ms = began.elapsed().as_secs_f64() * 1_000.0;
    if !with_checkpoints && aside.exists() {
        std::fs::rename(&aside, &checkpoints)?;
    }
    Ok(Started { child, _said: said, ready_ms, answer_ms, is_from_checkpoint })
}

fn ask(address: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /v1/instances?project=bench&limit=10 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") && answer.contains("vm-") {
        return Ok(());
    }
    Err(format!("the daemon answered {}", answer.lines().next().unwrap_or("nothing")).into())
}

impl Started {
    /// SIGKILL.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the clean end.
    pub fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if self.child.wait()?.success() { Ok(()) } else { Err("the daemon did not end cleanly".into()) }
    }
}
