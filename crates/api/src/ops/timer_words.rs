//! Why each reaper is there, who runs it, what its finds mean, and what can be done: in words, one page per timer.

use actors::TimerName;

/// What there is to say of a timer besides how it is doing.
pub(super) struct Words {
    /// Why there is one.
    pub(super) because: &'static str,
    /// Who runs it, and what it waits for.
    pub(super) owner: &'static str,
    /// The setting of its period.
    pub(super) setting: &'static str,
    /// What is found, and what follows.
    pub(super) next: &'static [(&'static str, &'static str)],
    /// Commands that help, besides running it.
    pub(super) can: &'static [&'static str],
}

/// The page of one.
pub(super) const fn of(name: TimerName) -> Words {
    match name {
        TimerName::SledWatch => Words {
            because: "reports can be lost and sleds can boot: what a sled lists is compared with what the log says of it",
            owner: "each sled's own actor, which waits for its sled's answer: once a period, at once on reconnect or boot, every sleds.probe_s while it cannot be reached",
            setting: "sleds.inventory_s",
            next: &[
                ("a VMM is listed and says something new", "it counts as a report"),
                (
                    "a VMM is listed that the log does not know, or knows to be over",
                    "it is unregistered, unless its instance is quarantined",
                ),
                ("a VMM is known and not listed", "its instance is told that it is gone"),
                ("nothing differs", "nothing is written"),
            ],
            can: &["musher sled list", "musher sled show NAME"],
        },
        TimerName::InstanceUpdater => Words {
            because: "every decision settles what follows from it; this looks for what was left unsettled all the same",
            owner: "the daemon, over its read model; it waits for nobody",
            setting: "timers.instance_updater_s",
            next: &[
                (
                    "an instance needs an update and has not had it",
                    "it looks again and settles; the daemon's log warns, because that is a defect",
                ),
                ("none does", "nothing is written"),
            ],
            can: &["musher instance explain NAME", "musher replay --verify --live"],
        },
        TimerName::VmmReaper => Words {
            because: "a VMM that no instance refers to must end, and be seen to be gone, before its room is free",
            owner: "the daemon, over its read model; the instances that it wakes wait for their sleds",
            setting: "timers.vmm_reaper_s",
            next: &[
                (
                    "a VMM is left over",
                    "its instance asks the sled to unregister it until the sled confirms that it is gone",
                ),
                ("none is", "nothing is written"),
            ],
            can: &["musher instance explain NAME", "musher instance force-stop NAME --vmm ID --reason TEXT"],
        },
        TimerName::Reincarnation => Words {
            because: "an instance that failed is started again when its restart policy says so, even if it has left memory",
            owner: "the daemon, over its read model; an instance in memory has a deadline of its own",
            setting: "timers.reincarnation_s",
            next: &[
                ("a restart is due, and there is room", "a start begins, and counts as an attempt"),
                (
                    "a restart is due, and there is no room",
                    "that counts as an attempt too; the next waits twice as long",
                ),
                ("none is due", "nothing is written"),
            ],
            can: &["musher instance explain NAME", "musher instance start NAME", "musher instance stop NAME"],
        },
        TimerName::StuckSaga => Words {
            because: "a saga ends itself at its deadline; this looks for one that is past it and not paused",
            owner: "the daemon, over its read model; it waits for nobody",
            setting: "timers.stuck_saga_s",
            next: &[
                (
                    "a saga is past its deadline",
                    "its instance looks again and ends it; the daemon's log warns, because that is a defect unless the daemon has just started",
                ),
                ("none is", "nothing is written"),
            ],
            can: &["musher saga list --under-way", "musher saga cancel ID"],
        },
        TimerName::SledDrain => Words {
            because: "guests leave a sled that is being drained, a few at a time, whenever one can move",
            owner: "the actor of each sled that drains, which waits for the migrations that it has asked for",
            setting: "timers.sled_drain_s",
            next: &[
                ("a guest can move", "its migration begins, with the drain as who asked"),
                ("a guest cannot move", "the sled names it with the reason, and it is tried again"),
                (
                    "no guest is left",
                    "the drain is done; the sled stays without new instances until it is uncordoned",
                ),
            ],
            can: &["musher sled show NAME", "musher sled uncordon NAME"],
        },
        TimerName::Passivation => Words {
            because: "an instance that nobody asks for, and that has nothing under way, need not be in memory",
            owner: "the daemon, which waits for nobody; who is asked for comes back by itself",
            setting: "timers.passivation_s",
            next: &[
                (
                    "an instance was left alone for instances.passivate_after_s",
                    "it leaves memory; nothing is written",
                ),
                ("it is asked for in the meantime", "it stays"),
            ],
            can: &["musher instance list"],
        },
        TimerName::Retention => Words {
            because: "the histories of instances that were deleted retention.deleted_s ago move into files of their own",
            owner: "the daemon, which waits for the archive's disk",
            setting: "retention.period_s",
            next: &[
                (
                    "an instance is over for that long",
                    "its stream is copied, read back, and recorded as archived; read models forget it, its history stays",
                ),
                ("one cannot be archived", "it is named here as trouble, and holds up no other"),
                ("none is", "nothing is written"),
            ],
            can: &["musher instance history ID", "musher doctor"],
        },
    }
}
