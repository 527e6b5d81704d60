//! `--watch`: the same answer again and again, shown when it has changed.

use crate::exit::{Failure, Outcome};
use crate::output;
use std::io::IsTerminal as _;
use std::time::Duration;

/// How often a watched answer is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Moves to the top and clears what was there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows an answer; with `watch` until it is interrupted. A terminal shows the newest in place of the one before,
/// everything else gets one after the other.
pub async fn show(watch: bool, look: impl AsyncFn() -> Result<String, Failure>) -> Outcome {
    let mut shown: Option<String> = None;
    loop {
        let answer = look().await?;
        if shown.as_ref() != Some(&answer) {
            let clear = if watch && std::io::stdout().is_terminal() { CLEAR } else { "" };
            if !(answer.is_empty() && clear.is_empty()) {
                output::line(format!("{clear}{answer}"));
            }
            shown = Some(answer);
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
