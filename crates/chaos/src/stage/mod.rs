//! The actors tier: the real actors and the real read model, on a simulated log, with simulated sleds, on one
//! thread and a paused clock.
//!
//! ```text
//!  clients ──▶ ControlPlane (ractor) ──append──▶ MortalLog ──▶ SimLog
//!                 │      ▲                          │ synced
//!              Line     Net                         ▼
//!            (weather)  (weather)                 checks
//!                 ▼      │                          ▲
//!              the sleds' machines ──truth──────────┘
//! ```
//!
//! The core tier explores what the rules and their shell decide; this one asks whether the real shell is that
//! shell. It takes the same scenarios, and feeds the same checkers with what is durable and with what the sleds
//! hold, never with an actor's word alone.
//!
//! Invariants:
//! * nothing here wakes a task from another thread, so that a seed gives one trace, whatever ran before it in
//!   the process (`tests/actors_tier.rs`);
//! * a runtime of one thread knows one order of tasks: drawn yields before messages, appends and calls make
//!   others;
//! * a death shuts every way out for ever: what is left of its actors waits and can do nothing.

mod clients;
mod cloth;
mod devices;
mod ending;
mod faults;
mod host;
mod life;
mod line;
mod net;
mod outside;
mod panics;
mod rest;
mod retention;
mod revive;
mod state;
mod weather;

use crate::checks::FailureKind;
use crate::scenario::Scenario;
use crate::world::Outcome;
use state::Stage;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until};

/// Longest pause between two looks at whether everything is at rest.
const PROBE: Duration = Duration::from_millis(500);

/// How long everything may take to come to rest once the faults have ended: what the core tier grants, and the
/// longest periods of the reapers and pushers, which that tier does not have.
const QUIESCE_MAX: Duration = Duration::from_mins(20);

/// How long a drain may go on once the faults have ended: one whose guests cannot move tries again for ever, so that
/// somebody calls it off.
const DRAIN_MAX: Duration = Duration::from_mins(5);

/// Runs a scenario to its end. `is_traced` says whether the trace and the log are wanted as text.
///
/// # Panics
/// When the harness panics: the caller decides what that means. A panic of an actor is a failure of the run.
pub fn run(scenario: &Scenario, is_traced: bool) -> Outcome {
    panics::listen();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing that could be missing");
    let outcome = runtime.block_on(async {
        let stage = Arc::new(Stage::new(scenario.clone(), is_traced));
        play(&stage).await;
        stage.finish(is_traced)
    });
    // Everything that is still waiting ends here, as with a process.
    drop(runtime);
    outcome
}

async fn play(stage: &Arc<Stage>) {
    stage.begin().await;
    clients::send_all(stage);
    faults::plan(stage);
    let heal_at = stage.origin + Duration::from_millis(stage.scenario.safety_ms);
    let mut give_up_at = heal_at + QUIESCE_MAX;
    loop {
        if stage.has_failed() {
            return;
        }
        let life = stage.life();
        if life.is_dead() {
            stage.revive().await;
            continue;
        }
        let is_healed = stage.lock().is_healed;
        let next = if is_healed { Instant::now() + PROBE } else { heal_at };
        tokio::select! {
            biased;
            () = life.died() => {}
            why = life.fatal.raised() => stage.ended_by_itself(&life, &why),
            () = stage.failed() => return,
            () = sleep_until(next) => {
                if !is_healed {
                    stage.heal();
                    continue;
                }
                stage.attend_to_held();
                if Instant::now() > heal_at + DRAIN_MAX {
                    stage.calls_off_drains();
                }
                match stage.restless().await {
                    None => {
                        if stage.check_rest().await && stage.ends_at_rest().await {
                            return;
                        }
                        if stage.life().is_dead() {
                            give_up_at = Instant::now() + QUIESCE_MAX;
                        }
                    }
                    Some((invariant, detail)) if Instant::now() > give_up_at => {
                        stage.fail(FailureKind::Liveness, invariant, detail);
                        return;
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
