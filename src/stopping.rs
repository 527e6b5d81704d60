//! The end of a process that holds something: it takes its time, says what it waits for, and is never waited for in vain.
//!
//! Invariants:
//! * a second signal ends it at once, and so does [`STOP_MAX`]; one that comes right behind the first is the same;
//! * whatever is cut off here is what `kill -9` cuts off: nothing acknowledged is lost.

use crate::exit::{Exit, Failure, Outcome};
use crate::serve::Signals;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Longest stop: below what service managers wait before they kill.
const STOP_MAX: Duration = Duration::from_secs(45);

/// How often a stop says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Signals this soon after the first are echoes of it: a terminal and a wrapper around the process both send theirs.
const ECHO_MAX: Duration = Duration::from_millis(500);

/// What a stop waits for at present.
pub struct Stage(watch::Sender<&'static str>);

impl Stage {
    /// At the first thing.
    pub fn new(what: &'static str) -> Self {
        Self(watch::Sender::new(what))
    }

    /// From here on it is this.
    pub fn enter(&self, what: &'static str) {
        self.0.send_replace(what);
    }

    fn what(&self) -> &'static str {
        *self.0.borrow()
    }
}

/// Stops, unless another signal or the bound comes first; then says what was not waited for.
pub async fn in_time(signals: &mut Signals, stage: &Stage, stop: impl Future<Output = ()>) -> Outcome {
    let began = Instant::now();
    let again = async {
        loop {
            signals.any().await;
            if began.elapsed() > ECHO_MAX {
                return;
            }
        }
    };
    cut_off(again, stage, stop, STOP_MAX).await
}

async fn cut_off(
    again: impl Future<Output = ()>,
    stage: &Stage,
    stop: impl Future<Output = ()>,
    longest: Duration,
) -> Outcome {
    let (mut again, mut stop) = (std::pin::pin!(again), std::pin::pin!(stop));
    let end = Instant::now() + longest;
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            () = &mut again => {
                let what = format!("ended at once, while it waited for {}", stage.what());
                return Err(Failure::new(Exit::Interrupted, what).hint("nothing acknowledged is lost"));
            }
            () = sleep_until(end) => {
                let what = format!("{} did not end within {} s", stage.what(), longest.as_secs());
                return Err(Failure::new(Exit::TimedOut, what).hint("nothing acknowledged is lost"));
            }
            () = sleep(SAY_EVERY) => eprintln!("still waiting for {}; another Ctrl-C ends at once", stage.what()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test(start_paused = true)]
    async fn a_stop_that_hangs_ends_with_the_second_signal_or_with_its_time_and_says_what_it_waited_for() {
        let stage = Stage::new("the log");
        let hung = cut_off(ready(()), &stage, pending(), STOP_MAX).await.unwrap_err();
        assert_eq!(
            (hung.exit, hung.what.as_str()),
            (Exit::Interrupted, "ended at once, while it waited for the log")
        );
        stage.enter("the read model");
        let began = Instant::now();
        let late = cut_off(pending(), &stage, pending(), STOP_MAX).await.unwrap_err();
        assert_eq!(
            (late.exit, late.what.as_str()),
            (Exit::TimedOut, "the read model did not end within 45 s")
        );
        assert_eq!(began.elapsed(), STOP_MAX);
        assert!(
            cut_off(ready(()), &stage, ready(()), STOP_MAX).await.is_ok(),
            "what has ended is not cut off"
        );
    }
}
