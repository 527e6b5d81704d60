//! Stored layouts of the events of `instance/<id>`.

use super::shared::{
    AddressV1, ArchiveFileV1, CancelReasonV1, EvidenceV1, FailureReasonV1, InstanceSpecV2, IntentV1,
    OriginV1, PauseCauseV1, ShortageV1, SizeV1, SpecChangeV1, StepV1, UnwindReasonV1, UpdateV1, VmmReportV1,
};
use crate::frozen::{Id, stored_events};
use lifecycle::InstanceEvent;

stored_events! {
    InstanceEvent {
        (100, 2) Created as CreatedV2 {
            id: Id,
            spec: Box<InstanceSpecV2>,
            address: AddressV1,
            intent: IntentV1,
        };
        (101, 1) StartNotPlaced as StartNotPlacedV1 { origin: OriginV1, short: ShortageV1 };
        (102, 1) StartBegan as StartBeganV1 {
            saga: Id,
            origin: OriginV1,
            vmm: Id,
            sled: Id,
            size: SizeV1,
            deadline: u64,
        };
        (103, 1) SagaAdvanced as SagaAdvancedV1 { saga: Id, step: StepV1 };
        (104, 1) SagaUnwound as SagaUnwoundV1 {
            saga: Id,
            step: StepV1,
            reason: UnwindReasonV1,
            undone: Vec<StepV1>,
        };
        (105, 1) SagaEnded as SagaEndedV1 { saga: Id, done: bool };
        (106, 1) VmmReported as VmmReportedV1 { vmm: Id, report: VmmReportV1 };
        (107, 1) ReportAnomalous as ReportAnomalousV1 { vmm: Id, report: VmmReportV1 };
        (108, 1) VmmFailed as VmmFailedV1 { vmm: Id, reason: FailureReasonV1 };
        (109, 1) VmmGone as VmmGoneV1 { vmm: Id, evidence: EvidenceV1 };
        (110, 1) VmmReaped as VmmReapedV1 { vmm: Id };
        (111, 1) StopRequested as StopRequestedV1 { op: Id };
        (112, 1) StopWithdrawn as StopWithdrawnV1 { op: Id };
        (113, 1) RebootRequested as RebootRequestedV1 { op: Id };
        (114, 1) RebootAnswered as RebootAnsweredV1 { op: Id, accepted: bool };
        (115, 1) Updated as UpdatedV1 (update: UpdateV1);
        (116, 1) Deleted as DeletedV1;
        (117, 1) MigrateBegan as MigrateBeganV1 {
            saga: Id,
            migration: Id,
            vmm: Id,
            sled: Id,
            size: SizeV1,
            deadline: u64,
        };
        (118, 1) MigrationCancelled as MigrationCancelledV1 { migration: Id, reason: CancelReasonV1 };
        (119, 1) MigrationGivenUp as MigrationGivenUpV1 { migration: Id };
        (120, 1) RestartTried as RestartTriedV1 { attempt: u32 };
        (121, 1) ForceStopRequested as ForceStopRequestedV1 { assert_dead: bool, reason: String };
        (122, 1) Reconfigured as ReconfiguredV1 { change: Box<SpecChangeV1> };
        (123, 1) Archived as ArchivedV1 (file: ArchiveFileV1);
        (130, 1) SagaPaused as SagaPausedV1 { saga: Id, step: StepV1, cause: PauseCauseV1 };
        (131, 1) SagaResumed as SagaResumedV1 { saga: Id };
        (132, 1) SagaRetried as SagaRetriedV1 { saga: Id, step: StepV1 };
    }
}
