//! Upcasters: each lifts one released layout to the value of today, by pure conversion.
//!
//! When a kind gets schema n + 1, the mirror of schema n moves here from its table, with an arm that converts
//! it. What an older build could not record gets the value that it stood for then.

use crate::codec::{self, Malformed};
use crate::event::Event;
use crate::events::shared::{AddressV1, AutoRestartPolicyV1, EvidenceV1, IntentV1, SizeV1, VmmReportV1};
use crate::frozen::{Frozen, Id, layout};
use crate::inputs::{DeadlineKindV1, EffectResultV1, EffectV1, PlacementV1, StartGrantV1};
use lifecycle::{Command, Input, InstanceEvent, InstanceSpec};

/// The event of an older layout; none if this (kind, schema) was never released.
pub(crate) fn upcast(kind: u16, schema: u16, payload: &[u8]) -> Option<Result<Event, Malformed>> {
    match (kind, schema) {
        (100, 1) => Some(codec::decode::<CreatedV1>(payload).map(|created| created.lift().into())),
        // Numbers start at 1: whatever else comes here was never written by any release.
        (_, _) => None,
    }
}

layout! {
    struct InstanceSpecV1 {
        project: Id,
        name: String,
        description: String,
        hostname: String,
        size: SizeV1,
        auto_restart: Option<AutoRestartPolicyV1>,
    }
}

impl InstanceSpecV1 {
    fn lift(self) -> InstanceSpec {
        InstanceSpec {
            project: self.project.thaw(),
            name: self.name,
            description: self.description,
            hostname: self.hostname,
            size: self.size.thaw(),
            auto_restart: self.auto_restart.thaw(),
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        }
    }
}

layout! {
    struct CreatedV1 {
        id: Id,
        spec: Box<InstanceSpecV1>,
        address: AddressV1,
        intent: IntentV1,
    }
}

impl CreatedV1 {
    fn lift(self) -> InstanceEvent {
        InstanceEvent::Created {
            id: self.id.thaw(),
            spec: Box::new(self.spec.lift()),
            address: self.address.thaw(),
            intent: self.intent.thaw(),
        }
    }
}

layout! {
    enum CommandV1 {
        Create {
            id: Id,
            spec: Box<InstanceSpecV1>,
            address: AddressV1,
            start: Option<PlacementV1>,
        } = 1,
        Start { grant: Option<StartGrantV1> } = 2,
        Stop { op: Id } = 3,
        Reboot { op: Id } = 4,
        Delete = 5,
    }
}

impl CommandV1 {
    fn lift(self) -> Command {
        match self {
            Self::Create { id, spec, address, start } => Command::Create {
                id: id.thaw(),
                spec: Box::new(spec.lift()),
                address: address.thaw(),
                start: start.thaw(),
            },
            Self::Start { grant } => Command::Start { grant: grant.thaw() },
            Self::Stop { op } => Command::Stop { op: op.thaw() },
            Self::Reboot { op } => Command::Reboot { op: op.thaw() },
            Self::Delete => Command::Delete,
        }
    }
}

layout! {
    /// Inputs of schema 1: their instances had fewer properties.
    enum InputV1 {
        Command(command: CommandV1) = 1,
        Report { sled: Id, vmm: Id, report: VmmReportV1 } = 2,
        Outcome { effect: EffectV1, result: EffectResultV1 } = 3,
        Gone { vmm: Id, evidence: EvidenceV1 } = 4,
        Absent { vmm: Id, asked_at: u64, evidence: EvidenceV1 } = 5,
        Deadline(kind: DeadlineKindV1) = 6,
        Reconsider = 7,
    }
}

impl InputV1 {
    pub(crate) fn lift(self) -> Input {
        match self {
            Self::Command(command) => Input::Command(command.lift()),
            Self::Report { sled, vmm, report } => {
                Input::Report { sled: sled.thaw(), vmm: vmm.thaw(), report: report.thaw() }
            }
            Self::Outcome { effect, result } => {
                Input::Outcome { effect: effect.thaw(), result: result.thaw() }
            }
            Self::Gone { vmm, evidence } => Input::Gone { vmm: vmm.thaw(), evidence: evidence.thaw() },
            Self::Absent { vmm, asked_at, evidence } => {
                Input::Absent { vmm: vmm.thaw(), asked_at, evidence: evidence.thaw() }
            }
            Self::Deadline(kind) => Input::Deadline(kind.thaw()),
            Self::Reconsider => Input::Reconsider,
        }
    }
}
