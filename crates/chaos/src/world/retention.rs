//! Retention: what was deleted some time ago is copied to where it outlives the control plane, and its own stream
//! says so.
//!
//! The shelf is a disk of its own, durable as soon as something is put there: what can go wrong between it and the
//! log are crashes, and those are aimed at the event.

use super::instance_shell::{From, Waiting, What};
use super::{Happening, MILLI, World, names};
use crate::checks::archive::{Shelf, described};
use lifecycle::{ArchiveFile, Input, InstanceId};

/// Pause between two looks for what is due.
const PERIOD_US: u64 = 700 * MILLI;

impl World {
    /// Looks for what is due from here on, in this life.
    pub(super) fn retention_begins(&mut self) {
        if self.scenario.retain_ms.is_some() {
            self.after(PERIOD_US, Happening::Retain { incarnation: self.incarnation });
        }
    }

    pub(super) fn retain(&mut self, incarnation: u32) {
        let Some(keep_ms) = self.scenario.retain_ms else { return };
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        let due_by = self.wall().micros().saturating_sub(keep_ms * MILLI);
        let is_due = |state: &lifecycle::Instance| {
            state.is_over()
                && state.archived.is_none()
                && state.deleted.is_some_and(|at| at.micros() <= due_by)
        };
        let shells = &self.control().instances;
        let due: Vec<InstanceId> = shells
            .iter()
            .filter(|(_, shell)| shell.is_idle() && shell.state.as_ref().is_some_and(is_due))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if !self.is_up() {
                return;
            }
            let file = self.keep(id);
            let what = What::Input(Input::Archived(file));
            self.give(id, Waiting { what, from: From::Nobody });
        }
        if self.is_up() {
            self.retention_begins();
        }
    }

    /// Copies the stream to the shelf, whatever was there of it.
    fn keep(&mut self, id: InstanceId) -> ArchiveFile {
        let records = Shelf::stream_of(&self.store, id);
        let file = described(id, &records);
        self.trace.line(self.now, "archive", &names::entity(id), format_args!("{} events", file.events));
        self.shelf.put(id, records, self.scenario.bug);
        file
    }
}
