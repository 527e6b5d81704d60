//! What two builds say to each other: one JSON document per line, first a greeting by the one that answers, then
//! question and answer in turns.
//!
//! Invariants:
//! * events and inputs travel as the bytes that were stored, in hex: their layouts are frozen, so that each build
//!   reads what it can, and says what it cannot;
//! * what is answered is what rules mean (events, what users see, what would be sent), never how a build keeps it;
//! * a line is bounded on both sides.

use eventlog::Record;
use lifecycle::restart::RestartPolicy;
use lifecycle::{InstanceId, Policy, Span};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::num::NonZeroU32;

/// Version of what is said. A build that says another is refused by name.
pub const PROTOCOL: u32 = 1;

/// Longest greeting, bytes.
pub const HELLO_BYTES_MAX: u64 = 4_096;

/// Longest question or answer, bytes: the most that one question holds, in hex, several times over.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// The first line that a build says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub musher_rules: u32,
    /// Its version.
    pub build: String,
}

/// Some appends, in order of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Each to be decided, then folded.
    pub appends: Vec<Asked>,
}

/// One append of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The instance.
    pub instance: InstanceId,
    /// Limits to decide under.
    pub limits: Limits,
    /// What was decided on, as stored, in hex; none if it was not kept.
    pub input: Option<String>,
    /// What was recorded.
    pub records: Vec<AskedRecord>,
}

/// One event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRecord {
    /// Version in the stream.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// Recorded time, microseconds since 1970.
    pub time_us: u64,
    /// Number of the event.
    pub kind: u16,
    /// Its layout.
    pub schema: u16,
    /// The codec of the payload.
    pub codec: u8,
    /// The payload, in hex.
    pub payload: String,
}

/// Limits that decisions use, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long a start may take.
    pub start_deadline: u64,
    /// How long a migration may take.
    pub migrate_deadline: u64,
    /// Wait before the second restart in a row.
    pub restart_base: u64,
    /// Longest wait.
    pub restart_cap: u64,
    /// Restarts in a row.
    pub restart_budget: u32,
    /// How long it must have run for the count to begin anew.
    pub restart_stable: u64,
    /// Failures of one step in a row after which a saga is paused; 0 for never.
    #[serde(default)]
    pub pause_after_failures: u32,
}

/// What rules make of an append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What the input decides to, over the state before.
    pub decided: Decided,
    /// What the recorded events lead to.
    pub then: Then,
}

/// What an input decides to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// None was kept.
    NoInput,
    /// These events.
    Events(Vec<Value>),
    /// It is refused.
    Refused(String),
    /// It asks for room first.
    AsksForRoom,
    /// This build does not know such an input.
    Unreadable(String),
    /// The rules give up on it.
    GivesUp(String),
}

/// What recorded events lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// A state.
    State {
        /// What users see.
        run_state: String,
        /// What would be sent.
        effects: Vec<Value>,
    },
    /// Nowhere: this build cannot read one of them, or cannot apply it.
    CannotFollow(String),
}

impl Limits {
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            start_deadline: policy.start_deadline.micros(),
            migrate_deadline: policy.migrate_deadline.micros(),
            restart_base: policy.restart.base.micros(),
            restart_cap: policy.restart.cap.micros(),
            restart_budget: policy.restart.budget,
            restart_stable: policy.restart.stable.micros(),
            pause_after_failures: policy.pause_after_failures.map_or(0, NonZeroU32::get),
        }
    }

    pub(super) fn policy(self) -> Policy {
        Policy {
            start_deadline: Span::from_micros(self.start_deadline),
            migrate_deadline: Span::from_micros(self.migrate_deadline),
            restart: RestartPolicy {
                base: Span::from_micros(self.restart_base),
                cap: Span::from_micros(self.restart_cap),
                budget: self.restart_budget,
                stable: Span::from_micros(self.restart_stable),
            },
            pause_after_failures: NonZeroU32::new(self.pause_after_failures),
        }
    }
}

impl AskedRecord {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            version: record.version.get(),
            position: record.position.get(),
            time_us: record.time_us,
            kind: record.kind,
            schema: record.schema,
            codec: record.codec.0,
            payload: hex(&record.payload),
        }
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that hex stands for.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_what_is_none_is_refused() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!(hex(&[0, 0xaf]), "00af");
        for text in ["0", "0g", "zz", "é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
