//! Stored layouts of inputs: what was decided on, kept once per append, so that history can be decided
//! again. A schema number (`u16`, little-endian) comes first; one number covers the whole tree of inputs.

use crate::codec::{self, Malformed};
use crate::error::DecodeProblem;
use crate::events::shared::{
    AddressV1, ArchiveFileV1, EvidenceV1, InstanceSpecV2, RefusalV1, ShortageV1, SpecChangeV1, VmmReportV1,
};
use crate::frozen::{Frozen, Id, mirror};
use crate::upcast::InputV1;
use bytes::{BufMut, Bytes, BytesMut};
use lifecycle::input::{MigrateGrant, StartGrant};
use lifecycle::{Command, DeadlineKind, Effect, EffectResult, Input};

/// Newest schema of inputs.
const SCHEMA: u16 = 2;

type Placement = Result<StartGrant, lifecycle::Shortage>;

mirror! {
    struct StartGrantV1 for StartGrant { saga: Id, vmm: Id, sled: Id }
}

mirror! {
    enum PlacementV1 for Placement { Ok(grant: StartGrantV1) = 1, Err(short: ShortageV1) = 2 }
}

mirror! {
    struct MigrateGrantV1 for MigrateGrant { saga: Id, migration: Id, vmm: Id, sled: Id }
}

mirror! {
    enum CommandV2 for Command {
        Create {
            id: Id,
            spec: Box<InstanceSpecV2>,
            address: AddressV1,
            start: Option<PlacementV1>,
        } = 1,
        Start { grant: Option<StartGrantV1> } = 2,
        Stop { op: Id } = 3,
        Reboot { op: Id } = 4,
        Delete = 5,
        Migrate { grant: Option<MigrateGrantV1> } = 6,
        CancelMigration = 7,
        CancelSaga { saga: Id } = 8,
        ForceStop { assert_dead: bool, reason: String } = 9,
        Update { change: Box<SpecChangeV1> } = 10,
        ForceStopOf { vmm: Id, assert_dead: bool, reason: String } = 11,
        PauseSaga { saga: Id } = 20,
        ResumeSaga { saga: Id } = 21,
        RetrySaga { saga: Id } = 22,
    }
}

mirror! {
    enum EffectV1 for Effect {
        Register { vmm: Id, sled: Id } = 1,
        SetRunning { vmm: Id, sled: Id } = 2,
        Stop { vmm: Id, sled: Id, op: Id } = 3,
        Reboot { vmm: Id, sled: Id, op: Id } = 4,
        Unregister { vmm: Id, sled: Id } = 5,
        MigrationTarget { vmm: Id, sled: Id, migration: Id } = 6,
        MigrationCancel { vmm: Id, sled: Id, migration: Id } = 7,
        Ask { vmm: Id, sled: Id } = 8,
    }
}

mirror! {
    enum EffectResultV1 for EffectResult {
        Done(report: Option<VmmReportV1>) = 1,
        Refused(refusal: RefusalV1) = 2,
    }
}

mirror! {
    enum DeadlineKindV1 for DeadlineKind {
        Saga(saga: Id) = 1,
        Migration(migration: Id) = 2,
        Undecided(migration: Id) = 3,
        Restart = 4,
    }
}

mirror! {
    enum InputV2 for Input {
        Command(command: CommandV2) = 1,
        Report { sled: Id, vmm: Id, report: VmmReportV1 } = 2,
        Outcome { effect: EffectV1, result: EffectResultV1 } = 3,
        Gone { vmm: Id, evidence: EvidenceV1 } = 4,
        Absent { vmm: Id, asked_at: u64, evidence: EvidenceV1 } = 5,
        Deadline(kind: DeadlineKindV1) = 6,
        Reconsider = 7,
        Restart(placement: PlacementV1) = 8,
        Archived(file: ArchiveFileV1) = 9,
        StepFailed { effect: EffectV1, failures: u32 } = 20,
    }
}

/// The input in the newest layout, its schema number first.
pub fn encode_input(input: &Input) -> Bytes {
    let body = codec::encode(&InputV2::freeze(input));
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_u16_le(SCHEMA);
    bytes.put(body);
    bytes.freeze()
}

/// The input that these bytes are, whatever released schema they were written under.
pub fn decode_input(bytes: &[u8]) -> Result<Input, DecodeProblem> {
    let Some((schema, body)) = bytes.split_first_chunk() else {
        return Err(DecodeProblem::Malformed("the input is cut off before its schema number".to_owned()));
    };
    let decoded = match u16::from_le_bytes(*schema) {
        1 => codec::decode::<InputV1>(body).map(InputV1::lift),
        SCHEMA => codec::decode::<InputV2>(body).map(InputV2::thaw),
        0 => return Err(DecodeProblem::Malformed("input: schema 0 is never given out".to_owned())),
        _ => return Err(DecodeProblem::NewerSchema { known: SCHEMA }),
    };
    decoded.map_err(|malformed: Malformed| DecodeProblem::Malformed(format!("input: {malformed}")))
}
