//! Failpoints of a build that has them: named by the environment, behind a gate if one is named.
//!
//! `MUSHER_FAILPOINTS=batch.written=die@7` and `MUSHER_FAILPOINTS_GATE=FILE`; see docs/chaos.md.

use crate::exit::{Exit, Failure, Outcome};
use std::path::PathBuf;

/// Sets what the environment asks for. What is not understood is refused before anything is opened.
pub fn arm() -> Outcome {
    let Ok(rules) = std::env::var("MUSHER_FAILPOINTS") else { return Ok(()) };
    let gate = std::env::var_os("MUSHER_FAILPOINTS_GATE").map(PathBuf::from);
    eventlog::failpoints::arm(&rules, gate).map_err(|unclear| Failure::new(Exit::Usage, unclear.to_string()))
}
