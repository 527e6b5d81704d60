//! Planted bugs: mistakes that a control plane could make, switched on by name to prove that the harness sees
//! them.
//!
//! Each is a few lines at the place where the mistake would be made. They live in the simulator; the rules in
//! `lifecycle` are never altered. Where a mistake is one of the rules' own, what the rules decided is changed
//! afterwards, in the live state, after a restart and in the checkers' fold alike, so that the harm must be seen
//! and not the difference.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A mistake to make on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
            /// Fails every run: shows that a failure turns the pipeline red.
            Canary,
        }

        impl Bug {
            /// Every bug that `prove` looks for.
            pub const PROVED: &'static [Self] = &[$(Self::$variant,)*];

            /// The bug of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::PROVED.iter().copied().find(|bug| bug.name() == name)
            }

            /// What people read.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Canary => "canary",
                }
            }
        }
    };
}

bugs! {
    /// Whoever follows the log misses a record now and then. Actors tier only, like the next.
    LoseFollowed = "lose_followed";
    /// Snapshots lack the newest events.
    StaleSnapshot = "stale_snapshot";
    /// Every call to a sled leaves something behind that waits for ever. Actors tier only, like the last.
    LingerAfterCalls = "linger_after_calls";
    /// A client is answered as soon as its events are written, before they are synced.
    AcknowledgeBeforeSync = "acknowledge_before_sync";
    /// Effects leave as soon as their events are written, before they are synced.
    EffectBeforeSync = "effect_before_sync";
    /// An undone start keeps its reservation and its charge.
    LeakOnUndo = "leak_on_undo";
    /// The requests that were carried out are not folded again after a restart.
    ForgetRequests = "forget_requests";
    /// Effects are not derived again after a restart.
    ForgetEffects = "forget_effects";
    /// A registration of another boot is believed without asking the sled.
    TrustRegistration = "trust_registration";
    /// Neither a start nor a migrate waits at its fence.
    OpenFence = "open_fence";
    /// An inventory counts as proof of absence whenever it was asked for.
    StaleInventory = "stale_inventory";
    /// A report counts whatever its generation.
    AcceptStaleReport = "accept_stale_report";
    /// Grants of an append that was refused are not dropped.
    LeakGrant = "leak_grant";
    /// Failing a VMM does not fail its side of a migration.
    SideOutlivesVmm = "side_outlives_vmm";
    /// A VMM that was declared failed lives again when it reports.
    BelieveTheDead = "believe_the_dead";
    /// A live VMM that nothing refers to is not told to stop.
    LeaveAbandoned = "leave_abandoned";
    /// An instance whose guest was lost under way reads stopped.
    LostReadsStopped = "lost_reads_stopped";
    /// A target whose source has failed is given up without being asked.
    ThrowGuestAway = "throw_guest_away";
    /// An undone start frees its reservation although its VMM may be there.
    FreeOnUndo = "free_on_undo";
    /// That a sled knows nothing of a VMM to be ended is no answer.
    UnknownIsNoAnswer = "unknown_is_no_answer";
    /// A stop makes a failure of its VMM's end.
    StopOverwritesEnd = "stop_overwrites_end";
    /// A refused delete turns automatic restarts off.
    RefusedLeavesTrace = "refused_leaves_trace";
    /// Cancelling a migration unregisters its target.
    CancelEndsTarget = "cancel_ends_target";
    /// A target that arrives after its migration was closed is made active.
    BelieveClosed = "believe_closed";
    /// The source's reservation is released as soon as the target has the guest.
    FreeSourceEarly = "free_source_early";
    /// A failed instance is restarted without waiting.
    RestartTooSoon = "restart_too_soon";
    /// VMMs are asserted dead that are alive.
    AssertLiving = "assert_living";
    /// VMMs of a sled that was taken out are not told.
    ForgetExpunge = "forget_expunge";
    /// A saga that was paused has forgotten what it did before when it is taken back.
    PauseForgetsUndo = "pause_forgets_undo";
    /// A saga that was paused stays so, whoever asks.
    NeverResume = "never_resume";
    /// The file of an archived instance lacks its newest events.
    LoseArchived = "lose_archived";
    /// Deadlines of what is over stay armed.
    KeepTimers = "keep_timers";
    /// A start writes what it finds anew.
    RewriteAtStart = "rewrite_at_start";
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
