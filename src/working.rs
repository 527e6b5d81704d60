//! Signs of life of commands that take longer than a second: on a terminal, on stderr, in one line that goes away.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two signs, and before the first: what is done sooner says nothing.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// Work under way. Dropping it takes the line away.
pub struct Working {
    said: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Working {
    /// Says what is being done, for how long, and how many bytes there are at the place that grows with it.
    pub fn on(doing: &'static str, grows: Option<&Path>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { said: None };
        }
        let grows = grows.map(Path::to_owned);
        let (done, wait) = mpsc::channel();
        Self { said: Some((done, signs(doing, grows, wait))) }
    }
}

#[expect(clippy::disallowed_methods, reason = "tells people that a command works; nothing waits for it")]
fn signs(doing: &'static str, grows: Option<PathBuf>, wait: mpsc::Receiver<()>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut seconds = 0;
        while wait.recv_timeout(SIGN_EVERY) == Err(RecvTimeoutError::Timeout) {
            seconds += 1;
            say(&format!("\r{}\x1b[K", sign(doing, seconds, grows.as_deref().map(bytes_at))));
        }
        if seconds > 0 {
            say("\r\x1b[K");
        }
    })
}

/// Nobody reads it who could miss it.
fn say(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn sign(doing: &str, seconds: u64, bytes: Option<u64>) -> String {
    let size = bytes.map_or_else(String::new, |bytes| format!(", {} MiB", bytes >> 20));
    format!("{doing}: {seconds} s{size}")
}

/// Bytes of a file, or of the files of a directory; zero if nothing is there yet.
fn bytes_at(place: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(place) else {
        return std::fs::metadata(place).map_or(0, |found| found.len());
    };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|found| found.len()).sum()
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.said.take() {
            drop(done);
            // A sign that could not be given is no reason to fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_says_what_for_how_long_and_how_much() {
        assert_eq!(sign("verifying", 3, None), "verifying: 3 s");
        assert_eq!(sign("exporting", 61, Some(5 << 20)), "exporting: 61 s, 5 MiB");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(bytes_at(&dir.path().join("nothing")), 0);
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), [0; 10]).unwrap();
        }
        assert_eq!((bytes_at(dir.path()), bytes_at(&dir.path().join("a"))), (20, 10));
    }

    #[test]
    fn without_a_terminal_nothing_is_said() {
        // Tests have none, or one that shows a line for less than it takes to see it.
        let working = Working::on("testing", None);
        assert_eq!(working.said.is_some(), std::io::stderr().is_terminal());
    }
}
