//! What sleds answer over HTTP, counted: how often, and how many bytes, by what they were asked.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a sled is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// To ensure a VMM.
    Register,
    /// To end a VMM.
    Unregister,
    /// To change a VMM's state.
    SetState,
    /// For a VMM's state.
    GetState,
    /// For everything it holds.
    Inventory,
    /// About mappings.
    V2p,
    /// For serial output.
    Serial,
}

impl CallKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Register,
        Self::Unregister,
        Self::SetState,
        Self::GetState,
        Self::Inventory,
        Self::V2p,
        Self::Serial,
    ];

    /// Its name, for labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::SetState => "set_state",
            Self::GetState => "get_state",
            Self::Inventory => "inventory",
            Self::V2p => "v2p",
            Self::Serial => "serial",
        }
    }
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// What was asked.
    pub kind: CallKind,
    /// Answers that came, refusals included.
    pub answers: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The counters. They only rise.
#[derive(Debug, Default)]
pub(crate) struct Traffic([(AtomicU64, AtomicU64); CallKind::ALL.len()]);

impl Traffic {
    pub(crate) fn note(&self, kind: CallKind, bytes: usize) {
        let (answers, sum) = &self.0[kind as usize];
        answers.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Vec<CallCount> {
        let count = |kind: CallKind| {
            let (answers, bytes) = &self.0[kind as usize];
            CallCount { kind, answers: answers.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
        };
        CallKind::ALL.into_iter().map(count).collect()
    }
}
