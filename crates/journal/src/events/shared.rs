//! Stored layouts of the values inside events and inputs. A mirror that has been released is not edited:
//! a changed type gets a mirror with the next number, and so does every event that holds it.

use crate::frozen::{Id, mirror};
use lifecycle::event::Update;
use lifecycle::input::{Refusal, SideReport, VmmReport};
use lifecycle::instance::{Intent, PauseCause, UnwindReason};
use lifecycle::migration::{CancelReason, SideState};
use lifecycle::quota::QuotaResource;
use lifecycle::rejected::SledUnfit;
use lifecycle::spec::SpecChange;
use lifecycle::{
    Address, ArchiveFile, AutoRestartPolicy, Evidence, FailureReason, GroupPolicy, InstanceSpec, Origin,
    Quota, QuotaScope, Shortage, Size, Step, VmmState,
};

mirror! {
    struct SizeV1 for Size { ncpus: u16, memory: u64 }
}

mirror! {
    enum AutoRestartPolicyV1 for AutoRestartPolicy { Never = 1, BestEffort = 2 }
}

mirror! {
    struct InstanceSpecV2 for InstanceSpec {
        project: Id,
        name: String,
        description: String,
        hostname: String,
        size: SizeV1,
        auto_restart: Option<AutoRestartPolicyV1>,
        cpu_platform: Option<String>,
        boot_disk: Option<Id>,
        jumbo_frames: bool,
    }
}

mirror! {
    struct SpecChangeV1 for SpecChange {
        size: SizeV1,
        auto_restart: Option<AutoRestartPolicyV1>,
        cpu_platform: Option<String>,
        boot_disk: Option<Id>,
        jumbo_frames: bool,
    }
}

mirror! {
    struct AddressV1 for Address { virtual_ip: [u8; 4], mac: [u8; 6], vni: u32 }
}

mirror! {
    enum IntentV1 for Intent { Running = 1, Stopped = 2, GuestShutdown = 3, Destroyed = 4 }
}

mirror! {
    enum OriginV1 for Origin { User = 1, Creation = 2, Automatic = 3 }
}

mirror! {
    enum StepV1 for Step {
        Reserve = 1,
        Allocate = 2,
        Network = 3,
        Fence = 4,
        Register = 5,
        Producer = 6,
        SetRunning = 7,
        Journal = 8,
        Commit = 9,
        MigrationTarget = 10,
    }
}

mirror! {
    enum PauseCauseV1 for PauseCause { Requested = 1, Failures { count: u32 } = 2 }
}

mirror! {
    enum QuotaScopeV1 for QuotaScope { Project = 1, Silo = 2, Fleet = 3 }
}

mirror! {
    enum QuotaResourceV1 for QuotaResource { Cpus = 1, Memory = 2 }
}

mirror! {
    struct QuotaV1 for Quota { cpus: Option<u64>, memory: Option<u64> }
}

mirror! {
    enum GroupPolicyV1 for GroupPolicy { Allow = 1, Fail = 2 }
}

mirror! {
    enum SledUnfitV1 for SledUnfit {
        Unknown = 1,
        NotProvisionable = 2,
        IsSource = 3,
        CpuFamily = 4,
        Spread = 5,
        Room = 6,
        OtherFabric = 7,
    }
}

mirror! {
    enum ShortageV1 for Shortage {
        NoSled = 1,
        Room { wanted: SizeV1, threads_free_max: u32, memory_free_max: u64 } = 2,
        Addresses = 3,
        CpuFamily { wanted: String } = 4,
        Spread { group: String } = 5,
        NoOtherSled = 6,
        ThatSled { why: SledUnfitV1 } = 7,
        Quota { scope: QuotaScopeV1, resource: QuotaResourceV1, limit: u64, used: u64, wanted: u64 } = 8,
    }
}

mirror! {
    enum RefusalV1 for Refusal {
        NoSuchVmm = 1,
        Tombstoned = 2,
        StaleEpoch = 3,
        NoRoom = 4,
        OtherInstance = 5,
        NotPossible = 6,
        Malformed = 7,
    }
}

mirror! {
    enum UnwindReasonV1 for UnwindReason {
        Refused(refusal: RefusalV1) = 1,
        Deadline = 2,
        StopRequested = 3,
        VmmEnded = 4,
        Cancelled = 5,
    }
}

mirror! {
    enum VmmStateV1 for VmmState {
        Creating = 1,
        Starting = 2,
        Migrating = 3,
        Running = 4,
        Rebooting = 5,
        Stopping = 6,
        Stopped = 7,
        Destroyed = 8,
        Failed = 9,
        SagaUnwound = 10,
    }
}

mirror! {
    enum FailureReasonV1 for FailureReason {
        FromSled = 1,
        NoSuchVmm = 2,
        SledExpunged = 3,
        SledRebooted = 4,
        SledOff = 5,
        StartTimeout = 6,
        LeaseExpired = 7,
        Operator = 8,
    }
}

mirror! {
    enum EvidenceV1 for Evidence {
        Reported = 1,
        Unregistered = 2,
        AbsentFromInventory = 3,
        SledRebooted = 4,
        SledExpunged = 5,
        LeaseExpired = 6,
        NeverSent = 7,
        Asserted = 8,
    }
}

mirror! {
    enum SideStateV1 for SideState { Pending = 1, InProgress = 2, Completed = 3, Failed = 4 }
}

mirror! {
    enum CancelReasonV1 for CancelReason { Requested = 1, Deadline = 2, Refused = 3 }
}

mirror! {
    struct SideReportV1 for SideReport { migration: Id, state: SideStateV1, generation: u64 }
}

mirror! {
    struct VmmReportV1 for VmmReport {
        state: VmmStateV1,
        generation: u64,
        migration_in: Option<SideReportV1>,
        migration_out: Option<SideReportV1>,
    }
}

mirror! {
    struct ArchiveFileV1 for ArchiveFile {
        file: String,
        bytes: u64,
        checksum: u32,
        events: u64,
        first: u64,
        last: u64,
    }
}

mirror! {
    struct UpdateV1 for Update {
        active: Option<Id>,
        target: Option<Id>,
        migration: Option<Id>,
        intent: IntentV1,
        network: Option<Id>,
        failed: Option<(Id, FailureReasonV1)>,
        closed: Option<Id>,
    }
}
