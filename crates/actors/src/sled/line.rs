//! The line to a sled: each request is bounded in time by its kind, and none is sent while nobody answers.
//!
//! ```text
//!   closed ── so many requests in a row without an answer ──▶ open: only inventories are sent
//!     ▲                                                         │
//!     └── anything heard of the sled: an answer, a report, ─────┘
//!         a renewal, a registration
//! ```
//!
//! The sled's watch is the only one that asks for inventories: one at a time, again and again, and sooner while the
//! circuit is open. It is the probe, and it changes nothing on the sled.
//!
//! Invariants:
//! * What is held back was never sent, and says so ([`SledError::NotSent`]); it comes again by its own clock, which is
//!   no slower than the probe's.
//! * A refusal is an answer.
//! * What was sent before the sled was last heard from, and fails after that, counts for nothing.

use super::SledMsg;
use super::calls::within;
use crate::env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use lifecycle::Timestamp;
use ractor::ActorRef;
use sled_protocol::{
    Inventory, InventoryTag, LeaseEpoch, Listing, PropolisId, RegisterVmm, SerialData, SerialRange, SetState,
    SledClient, SledError, SledVmmState, V2pMapping,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// That a sled is sent nothing but inventories, because it did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitStatus {
    /// Since when.
    pub since: Timestamp,
    /// Requests in a row that got no answer, the probes included.
    pub unanswered: u32,
    /// When the next inventory is asked for; none while one is being asked for.
    pub next_probe: Option<Timestamp>,
}

/// Whether a sled is sent anything. All lines to it share it, and so do its actor's successors.
#[derive(Default)]
pub(crate) struct Circuit {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often it was heard from.
    heard: u64,
    unanswered: u32,
    open_since: Option<Timestamp>,
    held_back: u64,
}

/// What a request does to an open circuit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is held back.
    Guarded,
    /// It goes out all the same, to see whether somebody answers.
    Probe,
}

impl Circuit {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts are whole whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request out; answers how often the sled had been heard from by then.
    fn admit(&self, way: Way) -> Result<u64, SledError> {
        let mut state = self.lock();
        if state.open_since.is_some() && way == Way::Guarded {
            state.held_back = state.held_back.saturating_add(1);
            let why = format!("{} requests in a row got no answer", state.unanswered);
            return Err(SledError::NotSent(why));
        }
        Ok(state.heard)
    }

    /// A request that was let out when the sled had been heard from so often got no answer. Answers whether the
    /// circuit has opened.
    fn unanswered(&self, heard: u64, now: Timestamp, most: u32) -> bool {
        let mut state = self.lock();
        if state.heard != heard {
            return false;
        }
        state.unanswered = state.unanswered.saturating_add(1);
        let opens = state.open_since.is_none() && state.unanswered >= most;
        if opens {
            state.open_since = Some(now);
        }
        opens
    }

    /// The sled was heard from. Answers whether the circuit was open.
    pub(super) fn heard(&self) -> bool {
        let mut state = self.lock();
        state.heard = state.heard.wrapping_add(1);
        state.unanswered = 0;
        state.open_since.take().is_some()
    }

    /// Requests that were not sent since this daemon started.
    pub(super) fn held_back(&self) -> u64 {
        self.lock().held_back
    }

    /// None while it is closed.
    pub(super) fn status(&self, next_probe: Option<Timestamp>) -> Option<CircuitStatus> {
        let state = self.lock();
        Some(CircuitStatus { since: state.open_since?, unanswered: state.unanswered, next_probe })
    }
}

/// A client of one sled that keeps to its circuit and to its kinds' times.
pub(super) struct Line {
    pub(super) client: Arc<dyn SledClient>,
    pub(super) circuit: Arc<Circuit>,
    pub(super) env: Arc<Env>,
    pub(super) actor: ActorRef<SledMsg>,
}

impl Line {
    async fn ask<'a, T>(
        &'a self,
        way: Way,
        patience: Duration,
        call: impl FnOnce() -> BoxFuture<'a, Result<T, SledError>>,
    ) -> Result<T, SledError> {
        let heard = self.circuit.admit(way)?;
        let outcome = within(patience, call()).await;
        match &outcome {
            Err(SledError::Timeout | SledError::Transport(_)) => {
                let limits = &self.env.limits;
                if self.circuit.unanswered(heard, self.env.clock.now(), limits.sled_unanswered_max) {
                    // The first probe goes out at once: where only some kinds of calls fail, it closes the circuit.
                    // If the actor has ended, its successor asks as it begins.
                    let _ = self.actor.cast(SledMsg::Watch);
                }
            }
            Err(SledError::NotSent(_)) => {}
            Ok(_) | Err(_) => {
                if self.circuit.heard() {
                    let _ = self.actor.cast(SledMsg::Heard);
                }
            }
        }
        outcome
    }
}

impl SledClient for Line {
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        let patience = self.env.limits.sled_call.ensure;
        self.ask(Way::Guarded, patience, move || self.client.register(vmm, request)).boxed()
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        let patience = self.env.limits.sled_call.destroy;
        self.ask(Way::Guarded, patience, move || self.client.unregister(vmm, lease_epoch)).boxed()
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        let patience = self.env.limits.sled_call.set_state;
        self.ask(Way::Guarded, patience, move || self.client.set_state(vmm, request)).boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        let patience = self.env.limits.sled_call.get_state;
        self.ask(Way::Guarded, patience, move || self.client.get_state(vmm)).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        let patience = self.env.limits.sled_call.inventory;
        self.ask(Way::Probe, patience, || self.client.inventory()).boxed()
    }

    fn inventory_unless(&self, known: Option<InventoryTag>) -> BoxFuture<'_, Result<Listing, SledError>> {
        let patience = self.env.limits.sled_call.inventory;
        self.ask(Way::Probe, patience, move || self.client.inventory_unless(known)).boxed()
    }

    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        let patience = self.env.limits.sled_call.network;
        self.ask(Way::Guarded, patience, move || self.client.put_v2p(lease_epoch, mappings)).boxed()
    }

    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        let patience = self.env.limits.sled_call.network;
        self.ask(Way::Guarded, patience, move || self.client.delete_v2p(lease_epoch, mappings)).boxed()
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        let patience = self.env.limits.sled_call.network;
        self.ask(Way::Guarded, patience, || self.client.list_v2p()).boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        let patience = self.env.limits.sled_call.serial;
        self.ask(Way::Guarded, patience, move || self.client.serial(vmm, range)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn a_circuit_opens_after_so_many_in_a_row_and_closes_with_whatever_is_heard() {
        let circuit = Circuit::default();
        let first = circuit.admit(Way::Guarded).unwrap();
        assert!(!circuit.unanswered(first, at(1), 3) && !circuit.unanswered(first, at(2), 3));
        assert!(!circuit.heard(), "it was not open");
        let second = circuit.admit(Way::Guarded).unwrap();
        let opened: Vec<bool> =
            (3..=6).map(|second_of| circuit.unanswered(second, at(second_of), 3)).collect();
        assert_eq!(opened, [false, false, true, false], "the count began anew, and it opens once");
        assert!(matches!(circuit.admit(Way::Guarded), Err(SledError::NotSent(_))));
        assert_eq!(circuit.admit(Way::Probe), Ok(second), "a probe goes out");
        let status = circuit.status(Some(at(9))).unwrap();
        assert_eq!((status.since, status.unanswered, status.next_probe), (at(5), 4, Some(at(9))));
        assert_eq!(circuit.held_back(), 1);
        assert!(circuit.heard());
        assert_eq!((circuit.status(None), circuit.admit(Way::Guarded).is_ok()), (None, true));
    }

    #[test]
    fn what_was_sent_before_the_sled_was_heard_from_counts_for_nothing_when_it_fails() {
        let circuit = Circuit::default();
        let sent = circuit.admit(Way::Guarded).unwrap();
        circuit.heard();
        for second in 0..100 {
            assert!(!circuit.unanswered(sent, at(second), 3));
        }
        assert_eq!(circuit.status(None), None);
    }
}
