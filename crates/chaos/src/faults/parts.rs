//! What faults are made of: windows, entities, effects, phases.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where in the handling of an event the control plane dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Decided, not written.
    BeforeAppend,
    /// Written, not synced.
    AppendedUnsynced,
    /// Durable, and nobody knows.
    SyncedUnacknowledged,
    /// Folded, and none of its effects has been sent.
    EffectsUnsent,
    /// Its effects have been sent, and the caller has no answer.
    EffectSent,
    /// Being folded by the restart after another crash.
    DuringReplay,
}

impl Window {
    /// All of them, in the order in which an event passes through.
    pub const ALL: [Self; 6] = [
        Self::BeforeAppend,
        Self::AppendedUnsynced,
        Self::SyncedUnacknowledged,
        Self::EffectsUnsent,
        Self::EffectSent,
        Self::DuringReplay,
    ];

    /// What people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeAppend => "before_append",
            Self::AppendedUnsynced => "appended_unsynced",
            Self::SyncedUnacknowledged => "synced_unacknowledged",
            Self::EffectsUnsent => "effects_unsent",
            Self::EffectSent => "effect_sent",
            Self::DuringReplay => "during_replay",
        }
    }
}

/// What of the unsynced half of the log survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoseUnsynced {
    /// Nothing survives.
    #[default]
    All,
    /// Everything survives, as after a killed process on a living machine.
    None,
    /// So many appends survive.
    AfterPrefix(u16),
    /// So many appends survive, and a part of the next that recovery has to trim.
    Torn(u16),
}

/// Whom a crash interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entity {
    /// An instance, by its number in the scenario.
    Instance(u16),
    /// A sled, by its number in the scenario.
    Sled(u16),
    /// The project that owns every instance.
    Project,
    /// The system: quotas of silo and fleet.
    System,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(n) => write!(f, "i{n:02}"),
            Self::Sled(n) => write!(f, "s{n}"),
            Self::Project => f.write_str("proj"),
            Self::System => f.write_str("sys"),
        }
    }
}

/// Which way a partition cuts, as the control plane sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Nothing passes.
    Both,
    /// Nothing reaches the sled.
    ToSled,
    /// Nothing comes from the sled.
    FromSled,
}

/// The effects that a sled can be made to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Ensure a VMM.
    Register,
    /// Boot its guest.
    SetRunning,
    /// Shut its guest down.
    Stop,
    /// Restart its guest.
    Reboot,
    /// End it.
    Unregister,
    /// Make it take a guest over.
    MigrationTarget,
    /// Make it give its migration up.
    MigrationCancel,
    /// Ask how it is.
    Ask,
}

impl EffectKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Register,
        Self::SetRunning,
        Self::Stop,
        Self::Reboot,
        Self::Unregister,
        Self::MigrationTarget,
        Self::MigrationCancel,
        Self::Ask,
    ];
}

/// A definite refusal that a sled is made to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// 404.
    NoSuchVmm,
    /// 400 `BAD_STATE`.
    BadState,
    /// 409.
    Conflict,
    /// 410.
    Gone,
    /// 412.
    StaleEpoch,
    /// 507.
    NoRoom,
    /// 400.
    Malformed,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoSuchVmm,
        Self::BadState,
        Self::Conflict,
        Self::Gone,
        Self::StaleEpoch,
        Self::NoRoom,
        Self::Malformed,
    ];
}

/// How far a migration has come, by what its two sleds say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The target asks for the guest.
    Begin,
    /// Memory is copied while the guest runs.
    Copy,
    /// The guest is to be paused.
    Pause,
    /// The target asks whether the guest is its own.
    Finish,
    /// The source says that it is: the guest is under way.
    HandedOver,
    /// The target says that it has it.
    Arrived,
}

impl Phase {
    /// All of them, in the order in which a migration passes through.
    pub const ALL: [Self; 6] =
        [Self::Begin, Self::Copy, Self::Pause, Self::Finish, Self::HandedOver, Self::Arrived];
}

/// A side of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Where the guest comes from.
    Source,
    /// Where it goes.
    Target,
}

/// What happens to a side of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mishap {
    /// The migration fails there.
    Fail,
    /// The VMM dies.
    VmmCrash,
    /// The guest, if it is there, shuts itself down.
    GuestShutdown,
    /// The sled reboots.
    SledReboot,
    /// The sled's agent restarts.
    AgentRestart,
    /// Nothing passes between that sled and the control plane.
    Partition,
    /// Nothing passes between the two sleds.
    PeerPartition,
    /// The control plane dies, with what it had not synced.
    ControlPlaneCrash,
    /// The sled is cut off from the control plane and then reboots, so that what it had to say is lost; the
    /// other sled is cut off for longer, so that for a while nobody can say where the guest is.
    Vanish,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Fail,
        Self::VmmCrash,
        Self::GuestShutdown,
        Self::SledReboot,
        Self::AgentRestart,
        Self::Partition,
        Self::PeerPartition,
        Self::ControlPlaneCrash,
        Self::Vanish,
    ];
}

/// An actor that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// An instance's.
    Instance(u16),
    /// A sled's.
    Sled(u16),
    /// The supervisor of all instances.
    Instances,
    /// The supervisor of all sleds.
    Sleds,
    /// The ledger.
    Ledger,
    /// The projects' writer.
    Projects,
}
