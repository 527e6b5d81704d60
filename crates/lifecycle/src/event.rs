//! Facts: what has happened to an instance, a project, a sled, the system. Past tense; never changed.
//!
//! Few and whole rather than many and small: an event says everything that one decision did, so that a
//! history reads as a story and an append is short. Their stored layouts are frozen in the `journal`
//! crate.

use crate::archive::ArchiveFile;
use crate::group::GroupPolicy;
use crate::ids::{
    BootId, GroupId, InstanceId, LeaseEpoch, MigrationId, OpId, ProjectId, SagaId, SledId, VmmId,
};
use crate::input::VmmReport;
use crate::instance::{Intent, PauseCause, UnwindReason};
use crate::migration::CancelReason;
use crate::quota::{Quota, QuotaScope};
use crate::rejected::Shortage;
use crate::saga::{Origin, Step};
use crate::spec::{Address, InstanceSpec, Size, SpecChange};
use crate::time::{Span, Timestamp};
use crate::vmm::{Evidence, FailureReason};
use serde::{Deserialize, Serialize};

/// Place and time of an event, known once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMeta {
    /// Version in the stream.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// Recorded time.
    pub time: Timestamp,
}

/// Events of `instance/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum InstanceEvent {
    /// It exists.
    Created {
        /// Its id.
        id: InstanceId,
        /// What the user configured.
        spec: Box<InstanceSpec>,
        /// Its place on the overlay network.
        address: Address,
        /// `running` if it was to be started at once.
        intent: Intent,
    },
    /// A start could not be placed, and leaves the instance stopped.
    StartNotPlaced {
        /// Who asked.
        origin: Origin,
        /// What was short.
        short: Shortage,
    },
    /// A start saga began: provisioning charged, sled reserved, VMM allocated and linked, network desired,
    /// intent running.
    StartBegan {
        /// The saga.
        saga: SagaId,
        /// Who asked.
        origin: Origin,
        /// The new VMM.
        vmm: VmmId,
        /// The picked sled.
        sled: SledId,
        /// What is charged and reserved.
        size: Size,
        /// How long the saga may take.
        deadline: Span,
    },
    /// A migrate saga began: target sled reserved, VMM and migration allocated and linked.
    MigrateBegan {
        /// The saga.
        saga: SagaId,
        /// The migration.
        migration: MigrationId,
        /// The target VMM.
        vmm: VmmId,
        /// The picked sled.
        sled: SledId,
        /// What is reserved.
        size: Size,
        /// How long the saga, and after it the migration, may take.
        deadline: Span,
    },
    /// A migration is given up: both sides are told. Too late, it changes nothing.
    MigrationCancelled {
        /// The migration.
        migration: MigrationId,
        /// Why.
        reason: CancelReason,
    },
    /// A target was asked in vain for the guest of a source that has failed: the guest is lost.
    MigrationGivenUp {
        /// The migration.
        migration: MigrationId,
    },
    /// The restart policy makes an attempt: a start follows, or why there is none.
    RestartTried {
        /// Counted from 1 since it last ran for long, or was started by hand.
        attempt: u32,
    },
    /// An operator forced it to stop: its VMMs are failed, and told to die.
    ForceStopRequested {
        /// Whether the operator vouches for its VMMs being dead.
        assert_dead: bool,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Its configuration changed.
    Reconfigured {
        /// Everything that may change, as it is afterwards.
        change: Box<SpecChange>,
    },
    /// A saga completed every step before `step`.
    SagaAdvanced {
        /// The saga.
        saga: SagaId,
        /// The current step.
        step: Step,
    },
    /// A saga went all the way back.
    SagaUnwound {
        /// The saga.
        saga: SagaId,
        /// The step it was at.
        step: Step,
        /// Why.
        reason: UnwindReason,
        /// What was undone, newest first.
        undone: Vec<Step>,
    },
    /// A saga is held at its step: nothing more is sent for it, and its deadline does not count.
    SagaPaused {
        /// The saga.
        saga: SagaId,
        /// The step it is at.
        step: Step,
        /// Why.
        cause: PauseCause,
    },
    /// A saga that was paused goes on; its deadline begins anew.
    SagaResumed {
        /// The saga.
        saga: SagaId,
    },
    /// Somebody asked for what is being sent to be sent at once, whatever pause was due before that.
    SagaRetried {
        /// The saga.
        saga: SagaId,
        /// The step it is at.
        step: Step,
    },
    /// A saga is over: its goal was reached, or its VMM ended after the point of no return.
    SagaEnded {
        /// The saga.
        saga: SagaId,
        /// Whether the goal was reached.
        done: bool,
    },
    /// A sled reported something new.
    VmmReported {
        /// The VMM.
        vmm: VmmId,
        /// What it said.
        report: VmmReport,
    },
    /// A sled reported a state that cannot follow. Kept for diagnosis; changes nothing.
    ReportAnomalous {
        /// The VMM.
        vmm: VmmId,
        /// What it said.
        report: VmmReport,
    },
    /// A VMM was declared failed.
    VmmFailed {
        /// The VMM.
        vmm: VmmId,
        /// Why.
        reason: FailureReason,
    },
    /// A VMM is known to be gone from its sled; its reservation is free.
    VmmGone {
        /// The VMM.
        vmm: VmmId,
        /// How that is known.
        evidence: Evidence,
    },
    /// A VMM that nothing refers to was forgotten.
    VmmReaped {
        /// The VMM.
        vmm: VmmId,
    },
    /// Somebody asked to stop it.
    StopRequested {
        /// Makes repeats act once.
        op: OpId,
    },
    /// A later start superseded a stop that had not been seen to act.
    StopWithdrawn {
        /// The stop.
        op: OpId,
    },
    /// Somebody asked to reboot it.
    RebootRequested {
        /// Makes repeats act once.
        op: OpId,
    },
    /// The sled answered a reboot.
    RebootAnswered {
        /// The reboot.
        op: OpId,
        /// Whether it was accepted.
        accepted: bool,
    },
    /// The instance now matches what its VMMs and its migration have done.
    Updated(Update),
    /// It was deleted; its name is free.
    Deleted,
    /// Long after its end its events were copied into a file: read models forget it from here on.
    Archived(ArchiveFile),
}

/// The update: everything that changes, in one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Active slot afterwards.
    pub active: Option<VmmId>,
    /// Target slot afterwards.
    pub target: Option<VmmId>,
    /// Linked migration afterwards.
    pub migration: Option<MigrationId>,
    /// Intent afterwards.
    pub intent: Intent,
    /// Sled that the network shall point at afterwards; none means delete.
    pub network: Option<SledId>,
    /// Failure of the VMM that held the guest, if the instance is `failed` afterwards.
    pub failed: Option<(VmmId, FailureReason)>,
    /// A migration whose target side is closed as failed, so that a late `completed` changes nothing.
    pub closed: Option<MigrationId>,
}

/// Events of `project/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ProjectEvent {
    /// It exists.
    Created {
        /// Its id.
        id: ProjectId,
        /// Name, unique among projects.
        name: String,
        /// Free text.
        description: String,
        /// Its virtual network identifier.
        vni: u32,
    },
    /// Name or description changed.
    Changed {
        /// Name afterwards.
        name: String,
        /// Description afterwards.
        description: String,
    },
    /// What its instances may be charged together changed.
    QuotaSet {
        /// The limits afterwards.
        quota: Quota,
    },
    /// An anti-affinity group exists.
    GroupCreated {
        /// Its id.
        group: GroupId,
        /// Name, unique among the project's groups.
        name: String,
        /// Free text.
        description: String,
        /// What happens if its members cannot be kept apart.
        policy: GroupPolicy,
    },
    /// An instance joined a group: from its next placement on it is kept apart from the others.
    GroupJoined {
        /// The group.
        group: GroupId,
        /// The instance.
        instance: InstanceId,
    },
    /// An instance left a group.
    GroupLeft {
        /// The group.
        group: GroupId,
        /// The instance.
        instance: InstanceId,
    },
    /// A group was deleted; its name is free.
    GroupDeleted {
        /// The group.
        group: GroupId,
    },
    /// It was deleted; its name is free.
    Deleted,
}

/// Events of `sled/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum SledEvent {
    /// It registered for the first time, or with other properties.
    Registered {
        /// Its id.
        id: SledId,
        /// Its name.
        name: String,
        /// Hardware threads for guests.
        threads: u32,
        /// Memory for guests, bytes.
        memory: u64,
        /// CPU family, for live migration.
        cpu_family: String,
        /// Where its agent listens; empty if it lives in the daemon.
        address: String,
    },
    /// It booted: everything that ran under another boot id is gone.
    Booted {
        /// The boot.
        boot: BootId,
        /// The lease epoch from here on.
        epoch: LeaseEpoch,
    },
    /// From here on its VMMs run on a lease, or on none: it has booted, or registered again after a lease that
    /// expired.
    LeaseBegan {
        /// The lease epoch from here on.
        epoch: LeaseEpoch,
        /// How long it may go without a renewal before it kills its VMMs, in seconds; none means for ever.
        seconds: Option<u64>,
    },
    /// It has not renewed its lease in time: everything that ran in this epoch is dead by the sled's own hand,
    /// and nothing of it is believed or sent any more.
    LeaseExpired {
        /// The lease epoch that is over.
        epoch: LeaseEpoch,
    },
    /// Whether new VMMs may be placed on it changed.
    ProvisionableChanged {
        /// Whether they may.
        provisionable: bool,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Its guests are to be moved away.
    DrainBegan {
        /// Why, in the operator's words.
        reason: String,
    },
    /// The drain is over.
    DrainEnded {
        /// Whether every guest is away; else it was called off.
        done: bool,
    },
    /// An operator took it out for good: its VMMs are gone.
    Expunged {
        /// Why, in the operator's words.
        reason: String,
    },
}

/// Events of `system`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum SystemEvent {
    /// A daemon opened the log and serves.
    DaemonStarted {
        /// Its build.
        build: String,
        /// Whether the one before it ended cleanly.
        after_clean_stop: bool,
    },
    /// A daemon stopped cleanly.
    DaemonStopped,
    /// What all instances of the silo, or of the fleet, may be charged together changed.
    QuotaSet {
        /// Of what.
        scope: QuotaScope,
        /// The limits afterwards.
        quota: Quota,
    },
    /// An operator let the log open although durable records were gone.
    LossAccepted {
        /// Last position that had been durable.
        durable: u64,
        /// Last position that was found.
        found: u64,
        /// Lost positions before that of which nobody knows the stream.
        nameless: u64,
    },
}
