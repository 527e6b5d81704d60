//! One VMM as its sled holds it: what is reported, what is true, and what is due.
//!
//! Invariants:
//! * A generation grows in `set_state`, `set_in` and `set_out` and nowhere else, and only on change.
//! * Terminal states are absorbing: nothing leaves them, and `end` is the only way in.
//! * A VMM that ends fails its open migrations in the same change, stops its guest and has nothing due.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sled_protocol::{
    Generation, InstanceId, MigrationId, MigrationRuntime, MigrationState, OpId, ProjectId, PropolisId,
    RegisterVmm, SledVmmState, Timestamp, VmmNetwork, VmmResources, VmmState,
};

use super::memory::Copied;
use super::migrate::Question;
use super::serial::Serial;

/// Most operation ids remembered per VMM: a repeat arrives within a few requests of its original.
const RECENT_OPS_MAX: usize = 64;

/// What a VMM does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The guest comes up.
    Boot,
    /// The guest comes up again.
    Restart,
    /// The guest is down; still reported as stopping.
    Halt,
    /// The VMM is gone.
    Takedown,
    /// A migration target puts its next question to the source.
    Ask(Question),
    /// A migration target reports its guest as running.
    Resume,
    /// A migration source whose guest has left begins to stop.
    Depart,
}

/// What happens to a VMM if nothing else does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    /// The guest did not shut down: the VMM is killed.
    StopGrace,
    /// The other side of the migration is silent: this side gives up.
    PeerSilent,
}

/// Something due at a time in microseconds, or, in explicit mode, when poked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Due<T> {
    pub(crate) what: T,
    pub(crate) at: Option<u64>,
}

/// The other side of a VMM's open migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) migration_id: MigrationId,
    pub(crate) vmm: PropolisId,
    pub(crate) addr: String,
}

/// One VMM on a simulated sled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    propolis_id: PropolisId,
    instance_id: InstanceId,
    project_id: ProjectId,
    resources: VmmResources,
    network: VmmNetwork,
    state: SledVmmState,
    /// Whether the guest executes here. A rebooting guest counts; one paused by a migration does not.
    pub(crate) guest_running: bool,
    pub(crate) guest_ignores_stop: bool,
    /// The question of its migration at which this side is to fail.
    pub(crate) fails_at: Option<Question>,
    pub(crate) next: Option<Due<Step>>,
    pub(crate) deadline: Option<Due<Deadline>>,
    pub(crate) peer: Option<Peer>,
    /// Whether a target has asked for the guest, so that the source may have let it go.
    pub(crate) has_asked_finish: bool,
    /// Whether a target is to shut its guest down as soon as it has it.
    #[serde(default)]
    pub(crate) stops_on_arrival: bool,
    /// How far the copying of a source's memory has got.
    #[serde(default)]
    pub(crate) copied: Option<Copied>,
    /// The guest's own dirty rate, in thousandths, instead of the one drawn for it.
    #[serde(default)]
    pub(crate) dirty_per_mille: Option<u32>,
    pub(crate) serial: Serial,
    /// How many times this VMM has drawn dice.
    pub(crate) draws: u64,
    recent_ops: VecDeque<OpId>,
    /// Whether the control plane has answered a report of the current picture for good. Not stored: after a
    /// restart every picture is repeated.
    #[serde(skip)]
    pub(crate) is_settled: bool,
    /// Whether the current picture has left through `Sled::poll`.
    #[serde(skip)]
    pub(crate) is_emitted: bool,
}

impl Vmm {
    /// As registered. The answer to the register carries the picture, so there is nothing to report.
    pub(crate) fn new(propolis_id: PropolisId, request: RegisterVmm) -> Self {
        let RegisterVmm { instance_id, migration_id, vmm_runtime, resources, network, metadata, .. } =
            request;
        let migration_in = migration_id.map(|migration_id| MigrationRuntime {
            migration_id,
            state: MigrationState::Pending,
            generation: vmm_runtime.generation,
            time_updated: vmm_runtime.time_updated,
        });
        Self {
            propolis_id,
            instance_id,
            project_id: metadata.project_id,
            resources,
            network,
            state: SledVmmState { vmm_state: vmm_runtime, migration_in, migration_out: None },
            guest_running: false,
            guest_ignores_stop: false,
            fails_at: None,
            next: None,
            deadline: None,
            peer: None,
            has_asked_finish: false,
            stops_on_arrival: false,
            copied: None,
            dirty_per_mille: None,
            serial: Serial::default(),
            draws: 0,
            recent_ops: VecDeque::new(),
            is_settled: true,
            is_emitted: true,
        }
    }

    /// The VMM's id.
    pub const fn propolis_id(&self) -> PropolisId {
        self.propolis_id
    }

    /// The instance it incarnates.
    pub const fn instance_id(&self) -> InstanceId {
        self.instance_id
    }

    /// The project that owns the instance.
    pub const fn project_id(&self) -> ProjectId {
        self.project_id
    }

    /// What it takes from the sled while it lives.
    pub const fn resources(&self) -> VmmResources {
        self.resources
    }

    /// Its network interface.
    pub const fn network(&self) -> VmmNetwork {
        self.network
    }

    /// The full picture as it is, reported or not.
    pub const fn state(&self) -> &SledVmmState {
        &self.state
    }

    /// Whether the guest executes here at this moment: the truth, for checkers.
    pub const fn guest_running(&self) -> bool {
        self.guest_running
    }

    /// What it does next by itself.
    pub fn next_step(&self) -> Option<Step> {
        self.next.map(|due| due.what)
    }

    /// Whether it has not ended.
    pub const fn is_live(&self) -> bool {
        !self.state.vmm_state.state.is_terminal()
    }

    pub(crate) const fn vmm_state(&self) -> VmmState {
        self.state.vmm_state.state
    }

    /// The state of the arriving migration, if the VMM is a target.
    pub(crate) fn arrival(&self) -> Option<MigrationState> {
        self.state.migration_in.as_ref().map(|side| side.state)
    }

    /// The state of the last departing migration, if the VMM was ever a source.
    pub(crate) fn departure(&self) -> Option<MigrationState> {
        self.state.migration_out.as_ref().map(|side| side.state)
    }

    pub(crate) fn is_arriving(&self) -> bool {
        self.arrival().is_some_and(|state| !state.is_terminal())
    }

    pub(crate) fn is_departing(&self) -> bool {
        self.departure().is_some_and(|state| !state.is_terminal())
    }

    pub(crate) fn set_state(&mut self, now: u64, state: VmmState) {
        let runtime = &mut self.state.vmm_state;
        if runtime.state == state {
            return;
        }
        assert!(!runtime.state.is_terminal(), "a VMM that has ended changes no more");
        runtime.state = state;
        runtime.generation = runtime.generation.next();
        runtime.time_updated = runtime.time_updated.max(Timestamp::from_micros(now));
        self.changed();
    }

    pub(crate) fn set_in(&mut self, now: u64, state: MigrationState) {
        if let Some(side) = &mut self.state.migration_in
            && advance_side(side, now, state)
        {
            self.changed();
        }
    }

    pub(crate) fn set_out(&mut self, now: u64, state: MigrationState) {
        if let Some(side) = &mut self.state.migration_out
            && advance_side(side, now, state)
        {
            self.changed();
        }
    }

    /// The VMM becomes the source of a migration.
    pub(crate) fn begin_departure(&mut self, now: u64, migration_id: MigrationId) {
        assert!(!self.is_departing(), "a guest leaves by one migration at a time");
        self.copied = None;
        self.state.migration_out = Some(MigrationRuntime {
            migration_id,
            state: MigrationState::Pending,
            generation: Generation::FIRST,
            time_updated: Timestamp::from_micros(now),
        });
        self.changed();
    }

    /// Ends the VMM; answers the peer of a migration that this has failed, who is to be told.
    pub(crate) fn end(&mut self, now: u64, state: VmmState) -> Option<Peer> {
        assert!(state.is_terminal(), "a VMM ends in a terminal state");
        if !self.is_live() {
            return None;
        }
        let had_open_migration = self.is_arriving() || self.is_departing();
        if self.is_arriving() {
            self.set_in(now, MigrationState::Failed);
        }
        if self.is_departing() {
            self.set_out(now, MigrationState::Failed);
        }
        self.set_state(now, state);
        self.guest_running = false;
        self.next = None;
        self.deadline = None;
        self.peer.take().filter(|_| had_open_migration)
    }

    /// Whether the operation is a repeat; remembers it otherwise only through `remember`.
    pub(crate) fn has_done(&self, op: OpId) -> bool {
        self.recent_ops.contains(&op)
    }

    pub(crate) fn remember(&mut self, op: OpId) {
        if self.recent_ops.len() == RECENT_OPS_MAX {
            self.recent_ops.pop_front();
        }
        self.recent_ops.push_back(op);
    }

    /// Reports of the picture are wanted, once more or for the first time.
    pub(crate) fn changed(&mut self) {
        self.is_settled = false;
        self.is_emitted = false;
    }
}

fn advance_side(side: &mut MigrationRuntime, now: u64, state: MigrationState) -> bool {
    if side.state == state {
        return false;
    }
    assert!(!side.state.is_terminal(), "a migration that has ended changes no more");
    side.state = state;
    side.generation = side.generation.next();
    side.time_updated = side.time_updated.max(Timestamp::from_micros(now));
    true
}
