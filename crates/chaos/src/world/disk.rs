//! The disk: appends wait for a sync that takes its time, and share it.

use super::{Happening, MILLI, World};
use crate::coverage::Sometimes;
use crate::faults::{Fault, LoseUnsynced};
use eventlog::{Append, AppendOutcome, Position, Unavailable};

/// What the disk is doing.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    is_syncing: bool,
    /// What a sync that fails loses, once one is to fail.
    pub(super) fails_with: Option<LoseUnsynced>,
}

impl Disk {
    /// What was under way ends with the control plane that asked for it.
    pub(super) fn forget(&mut self) {
        self.is_syncing = false;
        self.fails_with = None;
    }
}

impl World {
    /// Writes an append and sees to it that a sync follows. The outcome says where it lies, not that it is
    /// durable.
    pub(super) fn append(&mut self, append: Append) -> AppendOutcome {
        let (stream, expected) = (append.stream, append.expected);
        let head = self.store.written_head(stream);
        let outcome = self.store.append(append);
        match &outcome {
            AppendOutcome::Appended { first, last, .. } => {
                self.checks.appended(self.now, stream, expected, head.version, (*first, *last));
                self.sync_begins();
            }
            AppendOutcome::Unavailable(Unavailable::NoSpace(_)) => self.note(Sometimes::NoSpace),
            AppendOutcome::Conflict { .. }
            | AppendOutcome::Fenced { .. }
            | AppendOutcome::Unknown
            | AppendOutcome::Unavailable(_) => {}
        }
        outcome
    }

    fn sync_begins(&mut self) {
        if self.disk.is_syncing {
            return;
        }
        self.disk.is_syncing = true;
        let (min, max) = self.scenario.sync_us;
        let first = u128::from(self.store.durable().get());
        let mut delay = self.draws.next_within("sync", first, min, max);
        for fault in &self.scenario.faults {
            if let Fault::DiskStall { at, lasts, by } = fault
                && self.is_active(*at, *lasts)
            {
                delay += by * MILLI;
            }
        }
        self.after(delay, Happening::Sync { incarnation: self.incarnation });
    }

    /// A sync ends: what is written is durable, and whoever waited for that goes on. After a failed one what
    /// is on disk is unknown: the control plane stops, and never tries a sync again.
    pub(super) fn sync_ends(&mut self, incarnation: u32) {
        if incarnation != self.incarnation || self.control.is_none() {
            return;
        }
        self.disk.is_syncing = false;
        if let Some(lose) = self.disk.fails_with.take() {
            self.store.fail_next_sync("injected");
            let refused = self.store.sync();
            assert!(matches!(refused, Err(Unavailable::Poisoned(_))), "an injected failure poisons");
            self.note(Sometimes::Poisoned);
            self.trace.line(self.now, "poison", &"", format_args!("a sync failed"));
            self.crash(lose);
            return;
        }
        let before = self.store.durable();
        let durable = self.store.sync().expect("nothing but an injected failure poisons");
        self.became_durable(before);
        self.trace.line(self.now, "sync", &"", format_args!("p{:04}", durable.get()));
        self.commit_up_to(durable);
    }

    /// Shows the checks what is durable since `before`.
    pub(super) fn became_durable(&mut self, before: Position) {
        self.checks.durable(self.now, &self.store.records()[before.get() as usize..]);
    }
}
