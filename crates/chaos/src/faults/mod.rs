//! What goes wrong, as data.
//!
//! A crash is named by what it interrupts (event kind, entity, window), never by an ordinal, so that it still
//! means the same when the rest of the scenario has been shrunk away. Everything else has a time, and a
//! duration where it lasts. Faults end when the safety phase does.
//!
//! Fault budget: only what the design claims to survive is here. Losing what was synced is not survivable on
//! one node, so nothing does it.

mod parts;

pub use parts::{Direction, EffectKind, Entity, LoseUnsynced, Mishap, Phase, Refused, Side, Victim, Window};
use serde::{Deserialize, Serialize};

/// One thing that goes wrong. Times and durations are milliseconds of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// The control plane dies the first time an event of this kind, of this entity, is in this window.
    CrashAt {
        /// Kind of event, as the journal names it (`StartBegan`), with a step or a part after a slash where
        /// one kind does much (`SagaAdvanced/MigrationTarget`).
        event: String,
        /// Whose event.
        entity: Entity,
        /// Where.
        window: Window,
        /// What is lost.
        lose: LoseUnsynced,
    },
    /// The control plane dies at a time.
    CrashTime {
        /// When.
        at: u64,
        /// What is lost.
        lose: LoseUnsynced,
    },
    /// The next append is refused for lack of space.
    DiskFull {
        /// From when on.
        at: u64,
    },
    /// The next sync fails: the log is poisoned, and the control plane stops and restarts.
    IoError {
        /// From when on.
        at: u64,
        /// What is lost.
        lose: LoseUnsynced,
    },
    /// Syncs take longer.
    DiskStall {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// How much longer each sync takes.
        by: u64,
    },
    /// A sled's host reboots: its VMMs and all it remembers are gone.
    SledReboot {
        /// When.
        at: u64,
        /// Which.
        sled: u16,
        /// How long it stays down.
        lasts: u64,
    },
    /// A sled's agent restarts; its VMMs live on.
    AgentRestart {
        /// When.
        at: u64,
        /// Which.
        sled: u16,
    },
    /// A sled answers late.
    SlowSled {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// Which.
        sled: u16,
        /// How much later everything it says comes.
        by: u64,
    },
    /// Nothing passes between a sled and the control plane.
    Partition {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// Which.
        sled: u16,
        /// Which way.
        direction: Direction,
    },
    /// Messages are lost.
    Drop {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// How many in a thousand.
        per_mille: u16,
    },
    /// Messages arrive twice.
    Duplicate {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// How many in a thousand.
        per_mille: u16,
    },
    /// Messages overtake each other.
    Reorder {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// Longest extra delay of any message.
        by: u64,
    },
    /// A few messages arrive very late.
    DelayTail {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// How many in a thousand.
        per_mille: u16,
        /// Longest extra delay of those.
        by: u64,
    },
    /// The control plane's wall clock jumps; nothing else does.
    ClockJump {
        /// When.
        at: u64,
        /// How far: forward, or back if negative.
        by: i64,
    },
    /// A request is sent once more, under the same id.
    DuplicateRequest {
        /// Which.
        request: u32,
        /// How long after the first time.
        after: u64,
        /// Whether it asks for something else this time.
        other_body: bool,
    },
    /// A sled refuses an effect for good although nothing is wrong.
    Refuse {
        /// Which effect.
        effect: EffectKind,
        /// Of which instance.
        instance: u16,
        /// Which attempt over the instance's life, from 0.
        nth: u32,
        /// What it says.
        refused: Refused,
        /// Whether every later attempt is refused too, until everything is healed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_lasting: bool,
    },
    /// A guest shuts itself down.
    GuestShutdown {
        /// When.
        at: u64,
        /// Of which instance.
        instance: u16,
    },
    /// A guest's VMM dies.
    GuestCrash {
        /// When.
        at: u64,
        /// Of which instance.
        instance: u16,
    },
    /// A guest ignores requests to stop from here on.
    GuestHang {
        /// When.
        at: u64,
        /// Of which instance.
        instance: u16,
    },
    /// Nothing passes between two sleds.
    PeerPartition {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
        /// One of them.
        one: u16,
        /// The other.
        other: u16,
    },
    /// An effect takes place and its answer is lost.
    LoseAnswer {
        /// Which effect.
        effect: EffectKind,
        /// Of which instance.
        instance: u16,
        /// Which attempt over the instance's life, from 0.
        nth: u32,
    },
    /// Something happens the first time that a migration of the instance is in a phase.
    AtMigration {
        /// Of which instance.
        instance: u16,
        /// In which phase.
        phase: Phase,
        /// To which side.
        side: Side,
        /// What.
        mishap: Mishap,
        /// How long it lasts, if it does.
        lasts: u64,
    },
    /// An actor panics while it appends an event of this kind, of this entity. Actors tier only, like all that
    /// follow.
    ActorPanic {
        /// Kind of event, as for a crash.
        event: String,
        /// Whose event.
        entity: Entity,
        /// Whether the event is durable by then; else it is never written.
        is_written: bool,
    },
    /// An actor is killed wherever it waits.
    ActorKill {
        /// When.
        at: u64,
        /// Which.
        victim: Victim,
    },
    /// Whoever appends an event of this kind, of this entity, is told that its outcome is unknown.
    UnknownAppend {
        /// Kind of event, as for a crash.
        event: String,
        /// Whose event.
        entity: Entity,
        /// Whether it is written.
        is_written: bool,
    },
    /// A client hangs up before it is answered, and comes back with the same request.
    ClientGone {
        /// Which request.
        request: u32,
        /// How many turns of the other tasks after it was sent.
        turns: u64,
    },
    /// An instance is asked for its state by so many at once.
    MailboxFlood {
        /// When.
        at: u64,
        /// Which.
        instance: u16,
        /// How many ask.
        count: u64,
    },
    /// The control plane stands still, as a process that was stopped, and then finds everything that came
    /// meanwhile at once, its own timers too. Core tier.
    Pause {
        /// When it begins.
        at: u64,
        /// How long it lasts.
        lasts: u64,
    },
}

impl Fault {
    /// Names of all kinds, in the order of the enum.
    pub const KINDS: [&'static str; 28] = [
        "crash_at",
        "crash_time",
        "disk_full",
        "io_error",
        "disk_stall",
        "sled_reboot",
        "agent_restart",
        "slow_sled",
        "partition",
        "drop",
        "duplicate",
        "reorder",
        "delay_tail",
        "clock_jump",
        "duplicate_request",
        "refuse",
        "guest_shutdown",
        "guest_crash",
        "guest_hang",
        "peer_partition",
        "lose_answer",
        "at_migration",
        "actor_panic",
        "actor_kill",
        "unknown_append",
        "client_gone",
        "mailbox_flood",
        "pause",
    ];

    /// Those of [`Self::KINDS`] that are about actors.
    const ACTOR_KINDS: [&'static str; 5] =
        ["actor_panic", "actor_kill", "unknown_append", "client_gone", "mailbox_flood"];

    /// Those of [`Self::KINDS`] that the core tier knows.
    pub fn core_kinds() -> impl Iterator<Item = &'static str> {
        Self::KINDS.into_iter().filter(|kind| !Self::ACTOR_KINDS.contains(kind))
    }

    /// The kind's name.
    pub const fn kind(&self) -> &'static str {
        let nth = match self {
            Self::CrashAt { .. } => 0,
            Self::CrashTime { .. } => 1,
            Self::DiskFull { .. } => 2,
            Self::IoError { .. } => 3,
            Self::DiskStall { .. } => 4,
            Self::SledReboot { .. } => 5,
            Self::AgentRestart { .. } => 6,
            Self::SlowSled { .. } => 7,
            Self::Partition { .. } => 8,
            Self::Drop { .. } => 9,
            Self::Duplicate { .. } => 10,
            Self::Reorder { .. } => 11,
            Self::DelayTail { .. } => 12,
            Self::ClockJump { .. } => 13,
            Self::DuplicateRequest { .. } => 14,
            Self::Refuse { .. } => 15,
            Self::GuestShutdown { .. } => 16,
            Self::GuestCrash { .. } => 17,
            Self::GuestHang { .. } => 18,
            Self::PeerPartition { .. } => 19,
            Self::LoseAnswer { .. } => 20,
            Self::AtMigration { .. } => 21,
            Self::ActorPanic { .. } => 22,
            Self::ActorKill { .. } => 23,
            Self::UnknownAppend { .. } => 24,
            Self::ClientGone { .. } => 25,
            Self::MailboxFlood { .. } => 26,
            Self::Pause { .. } => 27,
        };
        Self::KINDS[nth]
    }

    /// When it begins, in milliseconds; none for what waits for something to happen.
    pub const fn at(&self) -> Option<u64> {
        match self {
            Self::CrashAt { .. }
            | Self::DuplicateRequest { .. }
            | Self::Refuse { .. }
            | Self::LoseAnswer { .. }
            | Self::ActorPanic { .. }
            | Self::UnknownAppend { .. }
            | Self::ClientGone { .. }
            | Self::AtMigration { .. } => None,
            Self::CrashTime { at, .. }
            | Self::DiskFull { at }
            | Self::IoError { at, .. }
            | Self::DiskStall { at, .. }
            | Self::SledReboot { at, .. }
            | Self::AgentRestart { at, .. }
            | Self::SlowSled { at, .. }
            | Self::Partition { at, .. }
            | Self::Drop { at, .. }
            | Self::Duplicate { at, .. }
            | Self::Reorder { at, .. }
            | Self::DelayTail { at, .. }
            | Self::ClockJump { at, .. }
            | Self::GuestShutdown { at, .. }
            | Self::GuestCrash { at, .. }
            | Self::GuestHang { at, .. }
            | Self::PeerPartition { at, .. }
            | Self::ActorKill { at, .. }
            | Self::MailboxFlood { at, .. }
            | Self::Pause { at, .. } => Some(*at),
        }
    }

    /// How long it lasts and how strong it is, to be halved by the shrinker.
    pub(crate) fn durations_mut(&mut self) -> Vec<&mut u64> {
        match self {
            Self::SledReboot { lasts, .. }
            | Self::Partition { lasts, .. }
            | Self::Drop { lasts, .. }
            | Self::Duplicate { lasts, .. }
            | Self::PeerPartition { lasts, .. }
            | Self::Pause { lasts, .. }
            | Self::AtMigration { lasts, .. } => vec![lasts],
            Self::DiskStall { lasts, by, .. }
            | Self::SlowSled { lasts, by, .. }
            | Self::Reorder { lasts, by, .. }
            | Self::DelayTail { lasts, by, .. } => vec![lasts, by],
            Self::DuplicateRequest { after, .. } => vec![after],
            Self::ClientGone { turns, .. } => vec![turns],
            Self::MailboxFlood { count, .. } => vec![count],
            Self::CrashAt { .. }
            | Self::CrashTime { .. }
            | Self::DiskFull { .. }
            | Self::IoError { .. }
            | Self::AgentRestart { .. }
            | Self::ClockJump { .. }
            | Self::Refuse { .. }
            | Self::LoseAnswer { .. }
            | Self::GuestShutdown { .. }
            | Self::GuestCrash { .. }
            | Self::ActorPanic { .. }
            | Self::ActorKill { .. }
            | Self::UnknownAppend { .. }
            | Self::GuestHang { .. } => Vec::new(),
        }
    }

    /// One short line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::CrashAt { event, entity, window, lose } => {
                format!("{event} {entity} {} lose {lose:?}", window.name())
            }
            other => {
                let text = format!("{other:?}");
                text.split_once('{')
                    .map_or(String::new(), |(_, rest)| rest.trim_end_matches('}').trim().to_owned())
            }
        }
    }
}
