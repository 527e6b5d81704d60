//! The rules of this process, and the gate that they may wait behind.

use super::Point;
use super::rules::{Action, Rules, Unclear};
use std::path::PathBuf;
use std::process::abort;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked whether the gate is there, milliseconds: short against what a round takes.
const GATE_EVERY_MS: u64 = 2;

static RULES: OnceLock<Rules> = OnceLock::new();
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Sets the rules of this process. With a gate they count from when that file is there. A second call changes
/// nothing.
pub fn arm(text: &str, gate: Option<PathBuf>) -> Result<(), Unclear> {
    let rules = Rules::parse(text)?;
    RULES.get_or_init(|| rules);
    let Some(gate) = gate else {
        IS_OPEN.store(true, Ordering::SeqCst);
        return Ok(());
    };
    let watch = move || {
        while !gate.exists() {
            stall(GATE_EVERY_MS);
        }
        IS_OPEN.store(true, Ordering::SeqCst);
    };
    let watching = std::thread::Builder::new().name("failpoints".to_owned()).spawn(watch);
    watching.map(drop).expect("a process under test can have one more thread");
    Ok(())
}

/// What a place does now, if any rule says something about it.
pub(super) fn strike(name: &str) -> Option<Action> {
    if !IS_OPEN.load(Ordering::SeqCst) {
        return None;
    }
    RULES.get()?.strike(name)
}

/// Passes a place: nothing, unless a rule says that it is the last or takes long.
pub fn pass(point: Point) {
    let name = point.name();
    match strike(name) {
        None => {}
        Some(Action::Stall(ms)) => stall(ms),
        Some(_) => die(name),
    }
}

/// Ends the process as a kill does: no destructor runs, no buffer is written.
pub(super) fn die(name: &str) -> ! {
    tracing::error!(name, "failpoint: dies");
    abort()
}

#[expect(clippy::disallowed_methods, reason = "a slow disk takes real time; only in builds with failpoints")]
pub(super) fn stall(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
