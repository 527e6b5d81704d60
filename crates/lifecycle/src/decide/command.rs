//! Commands: validated against the present state before anything is written. A refused one leaves no trace.

use super::{Decision, Policy, Purpose, RoomWanted, fact, room_to_start, start_began, unwound};
use crate::action::{Action, Permit, permit};
use crate::event::InstanceEvent;
use crate::ids::{InstanceId, SagaId, VmmId};
use crate::input::{Command, MigrateGrant, StartGrant};
use crate::instance::{Instance, Intent, PauseCause, SagaProgress, UnwindReason};
use crate::migration::{CancelReason, Outcome};
use crate::rejected::{Rejected, Shortage};
use crate::restart::is_wanted;
use crate::saga::{Origin, SagaKind, is_before_return};
use crate::spec::{Address, InstanceSpec, SpecChange, validate_reason};
use crate::visible::RunState;
use crate::vmm::FailureReason;

pub(super) fn events(
    state: Option<&Instance>,
    command: &Command,
    policy: &Policy,
) -> Result<Decision, Rejected> {
    if let Command::Create { id, spec, address, start } = command {
        return create(state, *id, spec, *address, start.as_ref(), policy).map(Decision::Events);
    }
    // The shell addresses an instance by its id; an empty stream is one that never was.
    let state = state.ok_or(Rejected::NoSuchVmm)?;
    if state.deleted.is_some() {
        return Err(Rejected::NoSuchInstance(state.id));
    }
    let events = match command {
        Command::Create { .. } => unreachable!("handled above"),
        Command::Start { .. }
        | Command::Stop { .. }
        | Command::Reboot { .. }
        | Command::Delete
        | Command::Migrate { .. } => return act(state, command, policy),
        Command::CancelMigration => cancel_migration(state)?,
        Command::CancelSaga { saga } => cancel_saga(state, *saga)?,
        Command::PauseSaga { saga } => pause_saga(state, *saga)?,
        Command::ResumeSaga { saga } => resume_saga(state, *saga)?,
        Command::RetrySaga { saga } => retry_saga(state, *saga)?,
        Command::ForceStop { assert_dead, reason } => force_stop(state, None, *assert_dead, reason)?,
        Command::ForceStopOf { vmm, assert_dead, reason } => {
            force_stop_of(state, *vmm, *assert_dead, reason)?
        }
        Command::Update { change } => reconfigure(state, change)?,
    };
    Ok(Decision::Events(events))
}

fn create(
    state: Option<&Instance>,
    id: InstanceId,
    spec: &InstanceSpec,
    address: Address,
    start: Option<&Result<StartGrant, Shortage>>,
    policy: &Policy,
) -> Result<Vec<InstanceEvent>, Rejected> {
    if state.is_some() {
        return Err(Rejected::IdTaken(id));
    }
    spec.validate()?;
    let intent = if matches!(start, Some(Ok(_))) { Intent::Running } else { Intent::Stopped };
    let mut events = vec![InstanceEvent::Created { id, spec: Box::new(spec.clone()), address, intent }];
    match start {
        None => {}
        Some(Ok(grant)) => events.push(start_began(grant, Origin::Creation, spec.size, policy)),
        Some(Err(short)) => {
            events.push(InstanceEvent::StartNotPlaced { origin: Origin::Creation, short: short.clone() });
        }
    }
    Ok(events)
}

/// What the table of actions by visible state governs.
fn act(state: &Instance, command: &Command, policy: &Policy) -> Result<Decision, Rejected> {
    let action = match command {
        Command::Start { .. } => Action::Start,
        Command::Stop { .. } => Action::Stop,
        Command::Reboot { .. } => Action::Reboot,
        Command::Delete => Action::Delete,
        Command::Migrate { .. } => Action::Migrate,
        _ => unreachable!("governed by rules of their own"),
    };
    let run_state = state.run_state();
    let refuse = |state, is_conflict| Err(Rejected::NotPossible { action, state, is_conflict });
    match permit(action, run_state) {
        Permit::NotFound => return Err(Rejected::NoSuchInstance(state.id)),
        Permit::Invalid => return refuse(run_state, false),
        Permit::Conflict => return refuse(run_state, true),
        Permit::NoOp => return Ok(Decision::Events(change_of_mind(state, command))),
        Permit::Do => {}
    }
    Ok(Decision::Events(match command {
        Command::Start { grant: None } => return Ok(Decision::AskForRoom(room_to_start(state))),
        Command::Start { grant: Some(grant) } => {
            vec![start_began(grant, Origin::User, state.spec.size, policy)]
        }
        Command::Stop { .. } if state.stop.is_some() => Vec::new(),
        Command::Stop { op } => vec![InstanceEvent::StopRequested { op: *op }],
        // The stop is recorded and will be re-sent until it acts: a reboot would be dropped by it, and a
        // guest that is about to end need not move.
        Command::Reboot { .. } | Command::Migrate { .. } if state.stop.is_some() => {
            return refuse(RunState::Stopping, false);
        }
        Command::Reboot { .. } if state.reboot.is_some() => Vec::new(),
        Command::Reboot { op } => vec![InstanceEvent::RebootRequested { op: *op }],
        Command::Migrate { grant } => return Ok(migrate(state, grant.as_ref(), policy)),
        Command::Delete => vec![InstanceEvent::Deleted],
        _ => unreachable!("governed by rules of their own"),
    }))
}

/// What is already so, or already under way, changes nothing, except what is wanted. A start supersedes a stop
/// that is recorded and has not been seen to act. A stop of what is going down by itself is remembered: its
/// VMM may still fail, and must not be restarted then.
fn change_of_mind(state: &Instance, command: &Command) -> Vec<InstanceEvent> {
    match (command, state.stop) {
        (Command::Start { .. }, Some(stop)) => vec![InstanceEvent::StopWithdrawn { op: stop.op }],
        (Command::Stop { op }, None) if state.intent == Intent::Running => {
            vec![InstanceEvent::StopRequested { op: *op }]
        }
        _ => Vec::new(),
    }
}

fn migrate(state: &Instance, grant: Option<&MigrateGrant>, policy: &Policy) -> Decision {
    let source = state.active_vmm().expect("what runs has an active VMM");
    let Some(grant) = grant else {
        let purpose = Purpose::Migrate { source: source.sled };
        return Decision::AskForRoom(RoomWanted { size: source.size, purpose });
    };
    Decision::Events(vec![InstanceEvent::MigrateBegan {
        saga: grant.saga,
        migration: grant.migration,
        vmm: grant.vmm,
        sled: grant.sled,
        size: source.size,
        deadline: policy.migrate_deadline,
    }])
}

/// Too late, it changes nothing: the guest has moved, or only the target knows.
fn cancel_migration(state: &Instance) -> Result<Vec<InstanceEvent>, Rejected> {
    let migration = state.linked_migration().ok_or(Rejected::NoMigration)?;
    if let Some(saga) = &state.saga
        && is_before_return(saga.kind, saga.step)
    {
        return Ok(vec![unwound(saga, UnwindReason::Cancelled)]);
    }
    if migration.cancelled.is_some() || state.outcome_of(migration) != Outcome::UnderWay {
        return Ok(Vec::new());
    }
    let reason = CancelReason::Requested;
    Ok(vec![InstanceEvent::MigrationCancelled { migration: migration.id, reason }])
}

fn saga_under_way(state: &Instance, id: SagaId) -> Result<&SagaProgress, Rejected> {
    state.saga.as_ref().filter(|saga| saga.id == id).ok_or(Rejected::NoSuchSaga(id))
}

/// What is paused already is; what goes on already does.
fn pause_saga(state: &Instance, id: SagaId) -> Result<Vec<InstanceEvent>, Rejected> {
    let saga = saga_under_way(state, id)?;
    let paused = InstanceEvent::SagaPaused { saga: id, step: saga.step, cause: PauseCause::Requested };
    Ok(if saga.pause.is_none() { vec![paused] } else { Vec::new() })
}

fn resume_saga(state: &Instance, id: SagaId) -> Result<Vec<InstanceEvent>, Rejected> {
    let saga = saga_under_way(state, id)?;
    Ok(if saga.pause.is_some() { vec![InstanceEvent::SagaResumed { saga: id }] } else { Vec::new() })
}

fn retry_saga(state: &Instance, id: SagaId) -> Result<Vec<InstanceEvent>, Rejected> {
    let saga = saga_under_way(state, id)?;
    Ok(vec![match saga.pause {
        Some(_) => InstanceEvent::SagaResumed { saga: id },
        None => InstanceEvent::SagaRetried { saga: id, step: saga.step },
    }])
}

fn cancel_saga(state: &Instance, id: SagaId) -> Result<Vec<InstanceEvent>, Rejected> {
    let saga = saga_under_way(state, id)?;
    match saga.kind {
        SagaKind::Migrate => cancel_migration(state),
        _ if is_before_return(saga.kind, saga.step) => Ok(vec![unwound(saga, UnwindReason::Cancelled)]),
        _ => Err(Rejected::PastReturn),
    }
}

/// Forces one VMM that an operator has looked at. Where a restart has brought up another since, that one is not
/// touched and goes on: nobody vouches for it, and the fence may have waited for just this.
fn force_stop_of(
    state: &Instance,
    vmm: VmmId,
    assert_dead: bool,
    reason: &str,
) -> Result<Vec<InstanceEvent>, Rejected> {
    if !state.vmms.contains_key(&vmm) {
        return Err(Rejected::OtherVmm { named: vmm, active: state.active });
    }
    let mut events = force_stop(state, Some(vmm), assert_dead, reason)?;
    let goes_on =
        |other: &crate::vmm::Vmm| other.id != vmm && other.state.is_live() && state.refers_to(other.id);
    // What the instance shall be is not changed by it where another VMM of it goes on.
    if !state.refers_to(vmm) || state.vmms.values().any(goes_on) {
        events.retain(|event| !matches!(event, InstanceEvent::ForceStopRequested { .. }));
    }
    Ok(events)
}

/// The one override: what its slots refer to is failed without being asked; if one is named, only that one.
/// What may still run stays behind the fence, unless the operator vouches for its being dead.
fn force_stop(
    state: &Instance,
    named: Option<VmmId>,
    assert_dead: bool,
    reason: &str,
) -> Result<Vec<InstanceEvent>, Rejected> {
    validate_reason(reason)?;
    let doomed = state.vmms.values().filter(|vmm| named.is_none_or(|named| named == vmm.id)).filter(|vmm| {
        let is_held = assert_dead && vmm.gone.is_none();
        is_held || (vmm.state.is_live() && state.refers_to(vmm.id))
    });
    let mut events: Vec<InstanceEvent> = doomed
        .flat_map(|vmm| {
            if assert_dead {
                fact::gone_events(state, vmm.id, crate::vmm::Evidence::Asserted)
            } else {
                vec![InstanceEvent::VmmFailed { vmm: vmm.id, reason: FailureReason::Operator }]
            }
        })
        .collect();
    // Without a VMM there is nothing to fail, but what was asked for must not be undone by a restart.
    if !events.is_empty() || is_wanted(state) {
        let reason = reason.to_owned();
        events.insert(0, InstanceEvent::ForceStopRequested { assert_dead, reason });
    }
    Ok(events)
}

/// Size and platform are those of its VMM while it has one.
fn reconfigure(state: &Instance, change: &SpecChange) -> Result<Vec<InstanceEvent>, Rejected> {
    change.validate()?;
    let now = state.spec.changeable();
    if *change == now {
        return Ok(Vec::new());
    }
    let is_of_vmm = change.size != now.size || change.cpu_platform != now.cpu_platform;
    if is_of_vmm && state.active.is_some() {
        return Err(Rejected::MustBeStopped);
    }
    Ok(vec![InstanceEvent::Reconfigured { change: Box::new(change.clone()) }])
}
