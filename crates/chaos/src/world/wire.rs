//! Between the rules' types and the sled protocol's.

use lifecycle::input::{EffectResult, Refusal, SideReport, VmmReport};
use lifecycle::migration::SideState;
use lifecycle::{Generation, VmmState};
use sim_sled::machine::{Answer, Response};
use sled_protocol::{MigrationRuntime, MigrationState, SledError, SledVmmState};

/// A sled's picture of a VMM as a report.
pub(crate) fn report(state: &SledVmmState) -> VmmReport {
    VmmReport {
        state: vmm_state(state.vmm_state.state),
        generation: Generation::new(state.vmm_state.generation.get()),
        migration_in: state.migration_in.as_ref().map(side),
        migration_out: state.migration_out.as_ref().map(side),
    }
}

fn side(side: &MigrationRuntime) -> SideReport {
    SideReport {
        migration: lifecycle::MigrationId::new(side.migration_id.as_uuid()),
        state: match side.state {
            MigrationState::Pending => SideState::Pending,
            MigrationState::InProgress => SideState::InProgress,
            MigrationState::Completed => SideState::Completed,
            MigrationState::Failed => SideState::Failed,
        },
        generation: Generation::new(side.generation.get()),
    }
}

pub(crate) const fn vmm_state(state: sled_protocol::VmmState) -> VmmState {
    match state {
        sled_protocol::VmmState::Starting => VmmState::Starting,
        sled_protocol::VmmState::Running => VmmState::Running,
        sled_protocol::VmmState::Stopping => VmmState::Stopping,
        sled_protocol::VmmState::Stopped => VmmState::Stopped,
        sled_protocol::VmmState::Rebooting => VmmState::Rebooting,
        sled_protocol::VmmState::Migrating => VmmState::Migrating,
        sled_protocol::VmmState::Failed => VmmState::Failed,
        sled_protocol::VmmState::Destroyed => VmmState::Destroyed,
    }
}

/// A sled's answer to an effect; none if its outcome is unknown.
pub(crate) fn outcome(response: &Response) -> Option<EffectResult> {
    let refusal = match response {
        Ok(Answer::Vmm(state)) => return Some(EffectResult::Done(Some(report(state)))),
        Ok(Answer::Updated(state)) => return Some(EffectResult::Done(state.as_ref().map(report))),
        Ok(Answer::Inventory(_) | Answer::Done | Answer::V2p(_) | Answer::Serial(_)) => return None,
        Err(error) if !error.is_definite() => return None,
        Err(SledError::BadState(_)) => Refusal::NotPossible,
        Err(SledError::NoSuchInstance) => Refusal::NoSuchVmm,
        Err(SledError::Conflict) => Refusal::OtherInstance,
        Err(SledError::Gone) => Refusal::Tombstoned,
        Err(SledError::StaleEpoch) => Refusal::StaleEpoch,
        Err(SledError::NoRoom) => Refusal::NoRoom,
        Err(_) => Refusal::Malformed,
    };
    Some(EffectResult::Refused(refusal))
}
