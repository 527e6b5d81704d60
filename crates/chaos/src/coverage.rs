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
    UndoAtFence = "undo at the fence", 1;
    /// A start went back from its register step.
    UndoAtRegister = "undo at register", 100;
    /// A user's stop took a start back.
    StopUnwoundStart = "stop unwound a start", 20;
    /// A start passed its deadline.
    DeadlinePassed = "start deadline passed", 1;
    /// A start waited while another VMM might run.
    FenceWaited = "start waited at the fence", 5;
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
    OrphanUnregistered = "orphan unregistered", 0;
    /// A VMM was proved absent by an inventory.
    AbsentByInventory = "VMM absent from inventory", 0;
    /// A guest's end was seen as its own doing.
    GuestEnded = "guest shut itself down", 20;
    /// A stop was taken back by a later start.
    StopWithdrawn = "stop withdrawn", 5;
    /// A VMM's grace period ended.
    StopGraceOver = "guest that ignored its stop was killed", 5;
}

/// Which states were met, and in how many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    met: BTreeMap<Sometimes, u64>,
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
