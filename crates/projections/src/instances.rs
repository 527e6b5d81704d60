//! Instances as they are read: a row of everything that users see, made from the fold.

use crate::sleds::SledLoad;
use lifecycle::instance::{Instance, Restarts};
use lifecycle::{
    Address, InstanceEvent, InstanceId, InstanceSpec, MigrationId, Origin, ProjectId, RunState, Size, SledId,
    Timestamp, VmmId,
};

/// An instance as users see it, at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// What the user configured.
    pub spec: InstanceSpec,
    /// Its place on the overlay network.
    pub address: Address,
    /// The visible state.
    pub run_state: RunState,
    /// When it was created.
    pub time_created: Timestamp,
    /// When its configuration last changed.
    pub time_modified: Timestamp,
    /// When its visible state last changed.
    pub time_run_state_updated: Timestamp,
    /// When it was last started without being asked.
    pub time_last_auto_restarted: Option<Timestamp>,
    /// Starts by the restart policy in a row.
    pub restarts: Restarts,
    /// When its guest was first seen running since the last start.
    pub running_since: Option<Timestamp>,
    /// VMM in the active slot.
    pub active_vmm: Option<VmmId>,
    /// The sled of that VMM.
    pub active_sled: Option<SledId>,
    /// The linked migration.
    pub migration: Option<MigrationId>,
    /// Version of its stream.
    pub version: u64,
    /// Position of its newest event.
    pub position: u64,
}

/// What is kept per instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceEntry {
    pub(crate) state: Instance,
    pub(crate) time_last_auto_restarted: Option<Timestamp>,
}

/// One thing that an index says of an instance.
#[derive(PartialEq)]
pub(crate) enum Indexed<'a> {
    Listed(ProjectId, &'a str),
    Guest(SledId),
    Held(SledId, SledLoad),
    Charged(ProjectId, Size),
}

impl InstanceEntry {
    /// Remembers what the fold of the rules does not.
    pub(crate) fn note(&mut self, event: &InstanceEvent, time: Timestamp) {
        if let InstanceEvent::StartBegan { origin: Origin::Automatic, .. } = event {
            self.time_last_auto_restarted = Some(time);
        }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.state.deleted.is_none()
    }

    /// The sled that its guest is on, while it is listed.
    pub(crate) fn active_sled(&self) -> Option<SledId> {
        self.state.active_vmm().filter(|_| self.is_listed()).map(|vmm| vmm.sled)
    }

    /// Everything that the model's indexes are made of.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = Indexed<'_>> {
        let spec = &self.state.spec;
        let place = self.is_listed().then_some(Indexed::Listed(spec.project, &spec.name));
        let guest = self.active_sled().map(Indexed::Guest);
        let held = SledLoad::held_by(&self.state).map(|(sled, load)| Indexed::Held(sled, load));
        let charged = self.state.charge.map(|size| Indexed::Charged(spec.project, size));
        place.into_iter().chain(guest).chain(held).chain(charged)
    }

    pub(crate) fn row(&self) -> InstanceRow {
        let state = &self.state;
        InstanceRow {
            id: state.id,
            spec: state.spec.clone(),
            address: state.address,
            run_state: state.run_state(),
            time_created: state.time_created,
            time_modified: state.time_modified,
            time_run_state_updated: state.time_run_state_updated,
            time_last_auto_restarted: self.time_last_auto_restarted,
            restarts: state.restarts,
            running_since: state.running_since,
            active_vmm: state.active,
            active_sled: self.active_sled(),
            migration: state.migration,
            version: state.head.version,
            position: state.head.position,
        }
    }
}
