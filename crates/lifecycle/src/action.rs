//! What users may do in which visible state (`docs/lifecycle.md`, action by visible state): one table, no
//! default row.

use crate::visible::RunState;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something a user asks of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Bring it up.
    Start,
    /// Take it down.
    Stop,
    /// Reboot the guest.
    Reboot,
    /// End it.
    Delete,
    /// Move its guest to another sled.
    Migrate,
}

/// The table's cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Do it.
    Do,
    /// Already so, or already under way: accepted, nothing is written.
    NoOp,
    /// Not possible from here (400).
    Invalid,
    /// Not possible yet (409).
    Conflict,
    /// There is nothing to act on (404).
    NotFound,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
            Self::Migrate => "migrate",
        })
    }
}

/// Looks up the cell.
pub const fn permit(action: Action, state: RunState) -> Permit {
    use Permit::{Conflict, Do, Invalid, NoOp, NotFound};
    let row = match state {
        RunState::Creating => (Conflict, Invalid, Invalid, Invalid, Invalid),
        RunState::Starting => (NoOp, Do, Do, Invalid, Invalid),
        RunState::Running => (NoOp, Do, Do, Invalid, Do),
        RunState::Rebooting => (NoOp, Do, NoOp, Invalid, Invalid),
        RunState::Migrating => (NoOp, Do, Do, Invalid, Conflict),
        RunState::Repairing => (Conflict, Invalid, Invalid, Invalid, Invalid),
        RunState::Stopping => (Conflict, NoOp, Invalid, Invalid, Invalid),
        RunState::Stopped => (Do, NoOp, Invalid, Do, Invalid),
        RunState::Failed => (Do, Do, Invalid, Do, Invalid),
        RunState::Destroyed => (NotFound, NotFound, NotFound, NotFound, NotFound),
    };
    match action {
        Action::Start => row.0,
        Action::Stop => row.1,
        Action::Reboot => row.2,
        Action::Delete => row.3,
        Action::Migrate => row.4,
    }
}
