//! Rare states that a campaign must have met: a green result says nothing about what never happened.
//!
//! The table is declared, with the least number of seeds in a thousand that must meet each; a campaign that
//! leaves one below its minimum fails with exit code 13.

use std::collections::BTreeMap;

macro_rules! sometimes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $minimum:literal;)*) => {
        /// A state that should sometimes be met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Sometimes {
            $($(#[$doc])* $variant,)*
        }

        impl Sometimes {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What people read.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Least number of seeds, of a thousand of the default profile, that meet it.
            pub const fn minimum(self) -> u64 {
                match self { $(Self::$variant => $minimum,)* }
            }
        }
    };
}

sometimes! {
    /// An actor panicked in the middle of an append. Actors tier only, like the next eight.
    ActorPanicked = "actor panicked while appending", 0;
    /// An actor was killed where it waited.
    ActorKilled = "actor killed", 0;
    /// An actor without which the process must end was killed, and it did.
    CoreActorKilled = "core actor killed", 0;
    /// An append's writer was told that its outcome is unknown.
    OutcomeUnknown = "outcome of an append unknown", 0;
    /// A client hung up before its answer.
    ClientGone = "client gone before its answer", 0;
    /// Hundreds asked one instance at once.
    MailboxFlooded = "mailbox flooded", 0;
    /// A sled's lease ended because nobody renewed it.
    LeaseExpired = "lease expired", 0;
    /// A drain moved the last guest away.
    DrainEnded = "drain moved the last guest", 0;
    /// An instance that was left alone left memory.
    Passivated = "idle instance left memory", 0;
    /// A bound on what waits was reached, and somebody was turned away.
    TurnedAway = "turned away at the door", 0;
    /// The control plane stood still while it had something to do.
    PausedAtWork = "paused with work waiting", 50;
    /// An effect was refused again and again.
    RefusedForGood = "effect refused for good", 10;
    /// An operator had a sled's guests moved away.
    DrainBegan = "drain began", 30;
    /// A crash lost appends that were not synced.
    UnsyncedTailLost = "unsynced tail lost", 50;
    /// Recovery trimmed a torn append.
    TornTailTrimmed = "torn tail trimmed", 10;
    /// An append that was never acknowledged survived a crash.
    UnacknowledgedSurvived = "unacknowledged append survived", 20;
    /// A crash before an append.
    CrashBeforeAppend = "crash before append", 20;
    /// A crash between append and sync.
    CrashAppendedUnsynced = "crash appended, unsynced", 20;
    /// A crash between sync and fold.
    CrashSyncedUnacknowledged = "crash synced, unacknowledged", 20;
    /// A crash between fold and effects.
    CrashEffectsUnsent = "crash with effects unsent", 20;
    /// A crash between effects and answer.
    CrashEffectSent = "crash with effects sent", 20;
    /// A crash while the log was folded.
    CrashDuringReplay = "crash during replay", 10;
    /// A repeated request was answered from what the log says.
    DuplicateAnswered = "duplicate answered from the log", 50;
    /// A request id came back with something else.
    OtherBodyRefused = "request id with another body refused", 20;
    /// A report that was no news came in.
    StaleReportIgnored = "stale report ignored", 100;
    /// A sled refused a request of another epoch.
    EpochFenceRefused = "epoch fence refused", 50;
    /// A sled refused to register what had ended there.
    TombstoneRefused = "tombstone refused", 10;
    /// A start went back from its fence.
    UndoAtFence = "undo at the fence", 10;
    /// A start went back from its register step.
    UndoAtRegister = "undo at register", 100;
    /// A user's stop took a start back.
    StopUnwoundStart = "stop unwound a start", 20;
    /// A start passed its deadline.
    DeadlinePassed = "start deadline passed", 50;
    /// A start waited while another VMM might run.
    FenceWaited = "start waited at the fence", 40;
    /// No sled had room.
    NoCapacity = "no capacity", 20;
    /// Grants were taken back because their append was refused.
    GrantDropped = "grant dropped", 10;
    /// A sled rebooted under running guests.
    RebootUnderGuests = "sled rebooted under running guests", 50;
    /// An operation was proved over because its sled booted.
    GoneByReboot = "VMM gone by reboot", 50;
    /// A sync failed.
    Poisoned = "log poisoned", 50;
    /// An append was refused for lack of space.
    NoSpace = "append refused for space", 50;
    /// The wall clock went back.
    ClockWentBack = "clock went back", 50;
    /// A client sent a request again because it had no answer.
    RequestRetried = "request retried after an unknown outcome", 100;
    /// A VMM that the log does not know, or knows as gone, was ended.
    OrphanUnregistered = "orphan unregistered", 20;
    /// A VMM was proved absent by an inventory.
    AbsentByInventory = "VMM absent from inventory", 4;
    /// A guest's end was seen as its own doing.
    GuestEnded = "guest shut itself down", 20;
    /// A stop was taken back by a later start.
    StopWithdrawn = "stop withdrawn", 5;
    /// A VMM's grace period ended.
    StopGraceOver = "guest that ignored its stop was killed", 5;
    /// A guest moved.
    MigrationSucceeded = "migration succeeded", 50;
    /// The target's end was seen before the source's.
    TargetFirst = "migration succeeded, target first", 10;
    /// The source's end was seen before the target's.
    SourceFirst = "migration succeeded, source first", 30;
    /// The guest had left its source and was not yet seen in the target.
    HandedOverSeen = "handed over seen", 40;
    /// A migration failed before the target had spoken to the source.
    FailedUnbegun = "migration failed before it began", 4;
    /// A migration failed when the target had asked for the guest.
    FailedAtBegin = "migration failed at begin", 20;
    /// A migration failed while memory was copied.
    FailedAtCopy = "migration failed at copy", 40;
    /// A migration failed when the guest was to be paused.
    FailedAtPause = "migration failed at pause", 4;
    /// A migration failed when the guest was to be handed over.
    FailedAtFinish = "migration failed at finish", 3;
    /// A user cancelled a migration.
    CancelledByUser = "migration cancelled by a user", 15;
    /// A migration took too long.
    CancelledByDeadline = "migration cancelled by its deadline", 25;
    /// The target's sled refused to take the guest over.
    CancelledByRefusal = "migration cancelled by a refusal", 1;
    /// A stop came during a migration.
    CancelledByStop = "migration cancelled by a stop", 25;
    /// A source failed, its target was asked, and spoke.
    UndecidedTargetSpoke = "undecided: the target spoke", 4;
    /// A source failed and the guest was in the target.
    UndecidedArrived = "undecided: the guest had arrived", 1;
    /// A source failed and the target was silent for too long.
    UndecidedGivenUp = "undecided: given up", 1;
    /// A guest left its source and did not arrive.
    GuestLost = "guest lost under way", 2;
    /// A migrate waited while another VMM than the source might run.
    MigrateFenceWaited = "migrate waited at the fence", 1;
    /// A migrate went back from its fence.
    MigrateUndoAtFence = "migrate undone at the fence", 1;
    /// A migrate went back from its register step.
    MigrateUndoAtRegister = "migrate undone at register", 30;
    /// A user cancelled a saga.
    SagaCancelled = "saga cancelled", 15;
    /// A saga was held by an operator.
    SagaPaused = "saga paused", 100;
    /// A saga was held because its step had failed too often.
    PausedByFailures = "saga paused by failures", 10;
    /// A saga that was held went on.
    SagaResumed = "saga resumed", 80;
    /// A saga that was held was taken back.
    PausedUnwound = "paused saga taken back", 20;
    /// A saga that was held ended by what its VMM did.
    PausedEnded = "paused saga ended by its VMM", 10;
    /// What a saga waits for was sent at once because somebody asked.
    SagaRetried = "saga retried", 20;
    /// An operator forced one VMM of an instance to stop.
    ForceStoppedOne = "force-stop of one VMM", 20;
    /// An instance that was deleted was archived.
    Archived = "deleted instance archived", 50;
    /// The control plane died when an archive was to be recorded.
    CrashInRetention = "crash at an archive's event", 1;
    /// Everything rested, the control plane was stopped cleanly and started again.
    StoppedCleanly = "stopped cleanly and started", 900;
    /// An operator forced an instance to stop.
    ForceStopped = "force-stop", 100;
    /// An operator vouched for VMMs being dead.
    AssertedDead = "force-stop with assert-dead", 4;
    /// An instance was configured anew.
    Reconfigured = "reconfigured", 150;
    /// The control plane died at an event of a migration.
    CrashInMigration = "crash at a migration's event", 4;
    /// The control plane died at an automatic restart.
    CrashInRestart = "crash at a restart's event", 1;
    /// A failed instance was started again by the policy.
    RestartMade = "restart made", 100;
    /// A restart waited for its backoff.
    RestartBackedOff = "restart after backoff", 30;
    /// The last restart of a budget was made.
    RestartBudgetSpent = "restart budget spent", 30;
    /// A restart found no room.
    RestartNotPlaced = "restart not placed", 8;
    /// A quota refused a start.
    QuotaRefused = "quota refused", 25;
    /// A group that must be kept apart refused a placement.
    SpreadRefused = "hard spread refused", 8;
    /// No sled has the CPU family.
    FamilyRefused = "CPU family refused", 20;
    /// The sled that was named does not take the VMM.
    NamedSledUnfit = "named sled unfit", 60;
    /// A sled was taken out from under VMMs.
    ExpungedUnderVmm = "sled expunged under a VMM", 15;
    /// A VMM was known to be gone because its sled was taken out.
    GoneByExpunge = "VMM gone by expunge", 15;
}

/// Which states were met, and in how many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    met: BTreeMap<Sometimes, u64>,
}

impl Sometimes {
    /// What a campaign of the actors tier must have met, whatever its profile's minima.
    pub const OF_ACTORS: &'static [Self] = &[
        Self::ActorPanicked,
        Self::ActorKilled,
        Self::CoreActorKilled,
        Self::OutcomeUnknown,
        Self::ClientGone,
        Self::MailboxFlooded,
        Self::LeaseExpired,
        Self::TurnedAway,
        Self::SagaPaused,
        Self::SagaResumed,
        Self::PausedUnwound,
        Self::SagaRetried,
        Self::ForceStoppedOne,
        Self::Archived,
        Self::StoppedCleanly,
        Self::DrainBegan,
        Self::DrainEnded,
        Self::Passivated,
        Self::UnsyncedTailLost,
        Self::CrashBeforeAppend,
        Self::CrashAppendedUnsynced,
        Self::CrashSyncedUnacknowledged,
        Self::Poisoned,
        Self::DuplicateAnswered,
        Self::EpochFenceRefused,
    ];
}

impl Coverage {
    /// Notes a state; within a run it counts once.
    pub(crate) fn note(&mut self, state: Sometimes) {
        self.met.insert(state, 1);
    }

    /// Adds a run's coverage to a campaign's.
    pub(crate) fn add(&mut self, run: &Self) {
        for (state, count) in &run.met {
            *self.met.entry(*state).or_insert(0) += count;
        }
    }

    /// How many runs met it.
    pub fn count(&self, state: Sometimes) -> u64 {
        self.met.get(&state).copied().unwrap_or(0)
    }

    /// States that too few of `seeds` runs have met, with the least there should be. Rounds down, so that a
    /// short campaign asks for little.
    pub fn short(&self, seeds: u64) -> Vec<(Sometimes, u64)> {
        Sometimes::ALL
            .iter()
            .map(|&state| (state, state.minimum() * seeds / 1_000))
            .filter(|&(state, least)| self.count(state) < least)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_counts_once_a_run_and_a_short_campaign_asks_for_little() {
        let (mut run, mut campaign) = (Coverage::default(), Coverage::default());
        run.note(Sometimes::Poisoned);
        run.note(Sometimes::Poisoned);
        campaign.add(&run);
        campaign.add(&run);
        assert_eq!(campaign.count(Sometimes::Poisoned), 2);
        assert_eq!(Coverage::default().short(1), []);
        assert!(campaign.short(1_000).contains(&(Sometimes::Poisoned, Sometimes::Poisoned.minimum())));
        assert!(!campaign.short(40).iter().any(|(state, _)| *state == Sometimes::Poisoned));
    }
}
