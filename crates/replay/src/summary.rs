//! One plain sentence per event, for people.

use crate::names::{SledNames, short};
use lifecycle::event::Update;
use lifecycle::instance::{PauseCause, UnwindReason};
use lifecycle::migration::CancelReason;
use lifecycle::saga::{SagaKind, definition};
use lifecycle::{
    Command, Effect, Evidence, FailureReason, Input, InstanceEvent, Origin, SledId, SpecChange, Step, VmmId,
    VmmReport,
};
use serde::Serialize;
use std::fmt::Write as _;

/// The sentence. `input` is what the append was decided on, if it was kept: it may tell the sled.
pub(crate) fn sentence(event: &InstanceEvent, input: Option<&Input>, sleds: &mut SledNames<'_>) -> String {
    match event {
        InstanceEvent::Created { spec, address, .. } => format!(
            "created as \"{}\" with {} vCPU and {} GiB, at {}",
            spec.name,
            spec.size.ncpus,
            spec.size.memory >> 30,
            address.virtual_ip
        ),
        InstanceEvent::StartNotPlaced { short, .. } => format!("could not be started: {short}"),
        InstanceEvent::StartBegan { saga, origin, vmm, sled, .. } => format!(
            "{} began (saga {}): VMM {} on sled {}",
            start(*origin),
            short(saga),
            short(vmm),
            sleds.get(*sled)
        ),
        InstanceEvent::MigrateBegan { saga, vmm, sled, .. } => format!(
            "a migration began (saga {}): target VMM {} on sled {}",
            short(saga),
            short(vmm),
            sleds.get(*sled)
        ),
        InstanceEvent::MigrationCancelled { reason, .. } => {
            format!("its migration is given up because {}; both sides are told", given_up(*reason))
        }
        InstanceEvent::MigrationGivenUp { .. } => {
            "the target was asked in vain for the guest of a source that failed: the guest is lost".to_owned()
        }
        InstanceEvent::RestartTried { attempt } => {
            format!("the restart policy makes its attempt number {attempt}")
        }
        InstanceEvent::ForceStopRequested { assert_dead, reason } => {
            let vouched = if *assert_dead { ", and vouches for its VMMs being dead" } else { "" };
            format!("an operator forces it to stop{vouched}: \"{reason}\"")
        }
        InstanceEvent::Reconfigured { change } => reconfigured(change),
        InstanceEvent::SagaAdvanced { step, .. } => format!("saga is at its step \"{}\"", step_name(*step)),
        InstanceEvent::SagaUnwound { step, reason, undone, .. } => {
            // Every start undoes its network; a migration has none of its own.
            let kind = if undone.contains(&Step::Network) { SagaKind::Start } else { SagaKind::Migrate };
            let undone: Vec<&str> = undone.iter().map(|step| step_name_in(kind, *step)).collect();
            format!(
                "saga went back from its step \"{}\" because {}; undone: {}",
                step_name_in(kind, *step),
                because(*reason),
                if undone.is_empty() { "nothing".to_owned() } else { undone.join(", ") }
            )
        }
        InstanceEvent::SagaPaused { step, cause, .. } => {
            format!("saga is paused at its step \"{}\" because {}", step_name(*step), paused_because(*cause))
        }
        InstanceEvent::SagaResumed { .. } => "saga goes on, and has all of its time again".to_owned(),
        InstanceEvent::SagaRetried { step, .. } => {
            format!("what its step \"{}\" waits for is sent at once", step_name(*step))
        }
        InstanceEvent::SagaEnded { done: true, .. } => "saga reached its goal".to_owned(),
        InstanceEvent::SagaEnded { done: false, .. } => "saga ended short of its goal".to_owned(),
        InstanceEvent::VmmReported { vmm, report } => reported(*vmm, report, input, sleds),
        InstanceEvent::ReportAnomalous { vmm, report } => {
            format!("{}, which cannot follow and changes nothing", reported(*vmm, report, input, sleds))
        }
        InstanceEvent::VmmFailed { vmm, reason } => {
            format!("VMM {} was declared failed: {}", place(*vmm, input, sleds), failure(*reason))
        }
        InstanceEvent::VmmGone { vmm, evidence } => {
            let told = format!("VMM {} is gone: {}", place(*vmm, input, sleds), known_by(*evidence));
            match input {
                Some(Input::Command(Command::ForceStopOf { reason, .. })) => format!("{told} ({reason})"),
                _ => told,
            }
        }
        InstanceEvent::VmmReaped { vmm } => format!("VMM {} was forgotten", short(vmm)),
        InstanceEvent::StopRequested { .. } => "asked to stop".to_owned(),
        InstanceEvent::StopWithdrawn { .. } => "a later start withdrew the stop".to_owned(),
        InstanceEvent::RebootRequested { .. } => "asked to reboot".to_owned(),
        InstanceEvent::RebootAnswered { accepted: true, .. } => "the sled accepted the reboot".to_owned(),
        InstanceEvent::RebootAnswered { accepted: false, .. } => "the sled refused the reboot".to_owned(),
        InstanceEvent::Updated(update) => updated(update, sleds),
        InstanceEvent::Deleted => "deleted; its name is free".to_owned(),
        InstanceEvent::Archived(file) => {
            format!("its {} event(s) before this one were archived in {}", file.events, file.file)
        }
    }
}

const fn start(origin: Origin) -> &'static str {
    match origin {
        Origin::User => "a user's start",
        Origin::Creation => "the start asked for at creation",
        Origin::Automatic => "an automatic start",
    }
}

/// The step in the words of its saga.
pub(crate) fn step_name(step: Step) -> &'static str {
    [SagaKind::Start, SagaKind::Migrate, SagaKind::Create, SagaKind::Update, SagaKind::Delete]
        .into_iter()
        .flat_map(|kind| definition(kind).steps)
        .find(|def| def.step == step)
        .map_or("unnamed", |def| def.name)
}

/// The step in the words of this saga.
fn step_name_in(kind: SagaKind, step: Step) -> &'static str {
    let def = definition(kind).steps.iter().find(|def| def.step == step);
    def.map_or_else(|| step_name(step), |def| def.name)
}

/// Why a saga is held, as the end of a sentence.
pub fn paused_because(cause: PauseCause) -> String {
    match cause {
        PauseCause::Requested => "somebody asked for it".to_owned(),
        PauseCause::Failures { count } => format!("its step failed {count} times in a row"),
    }
}

pub(crate) fn because(reason: UnwindReason) -> String {
    match reason {
        UnwindReason::Refused(refusal) => format!("the sled refused ({})", word(&refusal)),
        UnwindReason::Deadline => "its deadline passed".to_owned(),
        UnwindReason::StopRequested => "it was asked to stop".to_owned(),
        UnwindReason::VmmEnded => "its VMM ended".to_owned(),
        UnwindReason::Cancelled => "it was cancelled".to_owned(),
    }
}

pub(crate) const fn given_up(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Requested => "somebody asked for it",
        CancelReason::Deadline => "its deadline passed",
        CancelReason::Refused => "the target's sled refused to take the guest over",
    }
}

fn reconfigured(change: &SpecChange) -> String {
    let mut text = format!(
        "configured anew: {} vCPU and {} GiB, restart policy {}",
        change.size.ncpus,
        change.size.memory >> 30,
        change.auto_restart.map_or_else(|| "by default".to_owned(), |policy| word(&policy))
    );
    if let Some(platform) = &change.cpu_platform {
        let _ = write!(text, ", on {platform} only");
    }
    if let Some(disk) = change.boot_disk {
        let _ = write!(text, ", boots from disk {disk}");
    }
    if change.jumbo_frames {
        text.push_str(", jumbo frames");
    }
    text
}

fn reported(vmm: VmmId, report: &VmmReport, input: Option<&Input>, sleds: &mut SledNames<'_>) -> String {
    let mut text = format!(
        "VMM {} reported {} (generation {})",
        place(vmm, input, sleds),
        word(&report.state),
        report.generation
    );
    for (side, part) in [("in", report.migration_in), ("out", report.migration_out)] {
        if let Some(part) = part {
            let _ = write!(text, ", migration {side} {}", word(&part.state));
        }
    }
    text
}

pub(crate) const fn failure(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::FromSled => "its sled says so",
        FailureReason::NoSuchVmm => "its sled does not know it",
        FailureReason::SledExpunged => "its sled was expunged",
        FailureReason::SledRebooted => "its sled has booted since",
        FailureReason::SledOff => "its sled is off",
        FailureReason::StartTimeout => "its guest did not run before the deadline",
        FailureReason::LeaseExpired => "the lease of its sled expired",
        FailureReason::Operator => "an operator forced it",
    }
}

const fn known_by(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Reported => "its own last report says so",
        Evidence::Unregistered => "its sled unregistered it",
        Evidence::AbsentFromInventory => "its sled does not list it",
        Evidence::SledRebooted => "its sled has booted since",
        Evidence::SledExpunged => "its sled was expunged",
        Evidence::LeaseExpired => "the lease of its sled expired",
        Evidence::NeverSent => "its sled was never told of it",
        Evidence::Asserted => "an operator vouched for it",
    }
}

fn updated(update: &Update, sleds: &mut SledNames<'_>) -> String {
    let mut text = match (update.active, update.network) {
        (Some(vmm), Some(sled)) => {
            format!("updated: VMM {} on sled {} is active", short(vmm), sleds.get(sled))
        }
        (Some(vmm), None) => format!("updated: VMM {} is active", short(vmm)),
        (None, _) => format!("updated: no VMM is left, intent {}", word(&update.intent)),
    };
    if let Some(closed) = update.closed {
        let _ = write!(text, "; migration {} is closed as failed", short(closed));
    }
    if let Some((vmm, reason)) = update.failed {
        let _ = write!(text, "; VMM {} had failed ({})", short(vmm), failure(reason));
    }
    text
}

/// The VMM, with its sled if the input names it.
fn place(vmm: VmmId, input: Option<&Input>, sleds: &mut SledNames<'_>) -> String {
    match input.and_then(|input| sled_of(input, vmm)) {
        Some(sled) => format!("{} on sled {}", short(vmm), sleds.get(sled)),
        None => short(vmm),
    }
}

fn sled_of(input: &Input, vmm: VmmId) -> Option<SledId> {
    match input {
        Input::Report { sled, vmm: reported, .. } => (*reported == vmm).then_some(*sled),
        Input::Outcome { effect, .. } | Input::StepFailed { effect, .. } => {
            (Effect::vmm(*effect) == vmm).then_some(effect.sled())
        }
        Input::Command(_)
        | Input::Gone { .. }
        | Input::Absent { .. }
        | Input::Deadline(_)
        | Input::Restart(_)
        | Input::Archived(_)
        | Input::Reconsider => None,
    }
}

/// The word that JSON has for a plain value.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => "unwritable".to_owned(),
    }
}
