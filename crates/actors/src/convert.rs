//! Between the core's words and the wire's: the same facts, other types, because the core knows no
//! protocol and the protocol no rules.

use crate::answer::SledFailure;
use lifecycle::input::{Refusal, SideReport, VmmReport};
use lifecycle::migration::SideState;
use lifecycle::{Effect, Generation, Instance, MigrationId, SledId, VmmId, VmmState};
use sled_protocol as wire;
use std::net::IpAddr;

/// A sled's report as the core takes it. Validated before.
pub(crate) fn report(state: &wire::SledVmmState) -> VmmReport {
    VmmReport {
        state: vmm_state(state.vmm_state.state),
        generation: Generation::new(state.vmm_state.generation.get()),
        migration_in: state.migration_in.as_ref().map(side),
        migration_out: state.migration_out.as_ref().map(side),
    }
}

const fn vmm_state(state: wire::VmmState) -> VmmState {
    match state {
        wire::VmmState::Starting => VmmState::Starting,
        wire::VmmState::Running => VmmState::Running,
        wire::VmmState::Stopping => VmmState::Stopping,
        wire::VmmState::Stopped => VmmState::Stopped,
        wire::VmmState::Rebooting => VmmState::Rebooting,
        wire::VmmState::Migrating => VmmState::Migrating,
        wire::VmmState::Failed => VmmState::Failed,
        wire::VmmState::Destroyed => VmmState::Destroyed,
    }
}

fn side(side: &wire::MigrationRuntime) -> SideReport {
    SideReport {
        migration: MigrationId::new(side.migration_id.as_uuid()),
        state: match side.state {
            wire::MigrationState::Pending => SideState::Pending,
            wire::MigrationState::InProgress => SideState::InProgress,
            wire::MigrationState::Completed => SideState::Completed,
            wire::MigrationState::Failed => SideState::Failed,
        },
        generation: Generation::new(side.generation.get()),
    }
}

/// The id of a VMM on the wire.
pub(crate) fn propolis(vmm: VmmId) -> wire::PropolisId {
    wire::PropolisId::from_uuid(vmm.uuid())
}

/// What a sled needs to be told of an instance to host its VMM.
#[derive(Clone, Debug)]
pub struct VmmRequest {
    /// What is wished.
    pub effect: Effect,
    /// The request to register it, without the epoch, which the sled's actor knows.
    register: wire::RegisterVmm,
    /// Where the guest is that a migration target takes over.
    pub(crate) source: Option<(VmmId, SledId)>,
    /// Log position at which the VMM was allocated: it belongs to the boot that its sled was in there.
    pub(crate) allocated_at: u64,
}

impl VmmRequest {
    /// From the instance's state.
    pub(crate) fn new(instance: &Instance, effect: Effect, now: lifecycle::Timestamp) -> Self {
        let size = instance.vmms.get(&effect.vmm()).map_or(instance.spec.size, |vmm| vmm.size);
        let into = instance.migrations.values().find(|migration| migration.target.vmm == effect.vmm());
        let source = into.and_then(|migration| instance.vmms.get(&migration.source.vmm));
        let register = wire::RegisterVmm {
            instance_id: wire::InstanceId::from_uuid(instance.id.uuid()),
            migration_id: into.map(|migration| wire::MigrationId::from_uuid(migration.id.uuid())),
            vmm_runtime: wire::VmmRuntime {
                state: if into.is_some() { wire::VmmState::Migrating } else { wire::VmmState::Starting },
                generation: wire::Generation::FIRST,
                time_updated: wire::Timestamp::from_micros(now.micros()),
            },
            resources: wire::VmmResources { ncpus: u32::from(size.ncpus), memory: size.memory },
            network: wire::VmmNetwork {
                virtual_ip: IpAddr::V4(instance.address.virtual_ip),
                mac: wire::MacAddr::new(instance.address.mac),
                vni: wire::Vni::new(instance.address.vni).expect("the ledger grants 24 bits"),
            },
            metadata: wire::VmmMetadata {
                project_id: wire::ProjectId::from_uuid(instance.spec.project.uuid()),
            },
            lease_epoch: wire::LeaseEpoch::FIRST,
        };
        let allocated_at = instance.vmms.get(&effect.vmm()).map_or(0, |vmm| vmm.allocated_at);
        Self { effect, register, source: source.map(|vmm| (vmm.id, vmm.sled)), allocated_at }
    }

    /// The register request under the sled's epoch.
    pub(crate) fn register(&self, epoch: wire::LeaseEpoch) -> wire::RegisterVmm {
        wire::RegisterVmm { lease_epoch: epoch, ..self.register.clone() }
    }
}

/// How a sled's error counts.
pub(crate) enum Verdict {
    /// It will not, for this reason.
    Refused(Refusal),
    /// Whether it did is not known.
    Unknown(SledFailure),
}

/// Sorts a sled's error into refusals and unknown outcomes.
pub(crate) fn verdict(error: &wire::SledError) -> Verdict {
    use wire::SledError;
    match error {
        SledError::NoSuchInstance => Verdict::Refused(Refusal::NoSuchVmm),
        SledError::Gone => Verdict::Refused(Refusal::Tombstoned),
        SledError::StaleEpoch => Verdict::Refused(Refusal::StaleEpoch),
        SledError::NoRoom => Verdict::Refused(Refusal::NoRoom),
        SledError::Conflict => Verdict::Refused(Refusal::OtherInstance),
        SledError::BadState(_) => Verdict::Refused(Refusal::NotPossible),
        SledError::Malformed(_) | SledError::Refused { .. } => Verdict::Refused(Refusal::Malformed),
        SledError::Timeout => Verdict::Unknown(SledFailure::Timeout),
        SledError::Transport(_) => Verdict::Unknown(SledFailure::Transport),
        SledError::NotSent(_) => Verdict::Unknown(SledFailure::NotSent),
        SledError::ChannelFull => Verdict::Unknown(SledFailure::Busy),
        SledError::ServerError { .. } | SledError::BadAnswer(_) => Verdict::Unknown(SledFailure::Server),
    }
}
