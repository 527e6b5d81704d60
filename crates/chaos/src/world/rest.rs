//! The end of a run: rest, and a clean stop and start on top of it, which must find everything as it was.

use super::network::{ReplyTo, ToControl, ToSled};
use super::{Happening, MILLI, PROBE_US, QUIESCE_MAX_US, World, names};
use crate::checks::FailureKind;
use crate::coverage::Sometimes;
use journal::Event;
use lifecycle::InstanceEvent;
use std::collections::BTreeSet;

impl World {
    /// Looks whether everything has come to rest. Then the control plane is stopped cleanly and started, and when
    /// everything rests again the run is over.
    pub(super) fn probe(&mut self) {
        self.attend_to_held();
        let healed_at = self.scenario.safety_ms * MILLI;
        match self.restless().or_else(|| self.under_way()) {
            None => {
                self.check_at_rest();
                self.nothing_waits();
                match self.stopped_at {
                    None => {
                        self.stop_cleanly();
                        self.after(PROBE_US, Happening::Probe);
                    }
                    Some(end) => {
                        self.nothing_was_written_since(end);
                        self.is_over = true;
                    }
                }
            }
            Some((invariant, detail)) if self.now > healed_at + QUIESCE_MAX_US => {
                self.checks.fail(FailureKind::Liveness, invariant, self.now, detail);
            }
            Some(_) => self.after(PROBE_US, Happening::Probe),
        }
    }

    /// What is still on its way to somebody who may write for it: requests that come again, reports, what sleds say to
    /// each other. Inventories come and go for ever.
    fn under_way(&self) -> Option<(&'static str, String)> {
        let matters = |happening: &&Happening| match happening {
            Happening::Send { .. } | Happening::Asked { .. } | Happening::ToPeer { .. } => true,
            Happening::ToControl { message, .. } => {
                matches!(message, ToControl::Report { .. } | ToControl::Register { .. })
            }
            Happening::ToSled { message, .. } => {
                matches!(message, ToSled::Request { reply_to: ReplyTo::Effect { .. }, .. })
            }
            _ => false,
        };
        let found = self.queue.values().find(matters);
        found.map(|happening| ("I18", format!("a message is under way: {happening:?}")))
    }

    /// A clean stop has nothing to lose: everything is durable, and nothing is under way.
    fn stop_cleanly(&mut self) {
        self.note(Sometimes::StoppedCleanly);
        self.stopped_at = Some(self.store.records().len());
        self.trace.line(self.now, "stop", &"", format_args!("p{:04}", self.store.durable().get()));
        self.control = None;
        self.recover();
    }

    /// I28: a clean stop and a start are a no-op on the log. What was due to be archived in between is not theirs.
    fn nothing_was_written_since(&mut self, end: usize) {
        let is_retention = |event: &Event| matches!(event, Event::Instance(InstanceEvent::Archived(_)));
        let written = self.store.records()[end..].iter().filter_map(|record| journal::read(record).ok());
        let extra = written.filter(|recorded| !is_retention(&recorded.event)).map(|recorded| {
            let (what, whose) = (journal::event_name(&recorded.event), recorded.stream);
            format!("{what} of {whose} at p{}", recorded.meta.position)
        });
        let extra: Vec<String> = extra.collect();
        if !extra.is_empty() {
            let detail = format!("a clean stop and a start at rest wrote {extra:?}");
            self.checks.broken("I28", self.now, detail);
        }
    }

    /// I25: at rest nothing waits for what is over: no deadline is armed that is not derived, nothing is sent, and
    /// what is remembered is bounded by what the rules keep.
    fn nothing_waits(&mut self) {
        let Some(control) = &self.control else { return };
        let policy = self.scenario.policy();
        let mut broken = None;
        for (id, shell) in &control.instances {
            let state = shell.state.as_ref();
            let derived: BTreeSet<_> = state
                .map(|state| lifecycle::deadlines(state, &policy))
                .unwrap_or_default()
                .into_iter()
                .map(|deadline| (deadline.kind, deadline.start))
                .collect();
            let stale = shell.armed.iter().find(|(kind, armed)| !derived.contains(&(**kind, armed.start)));
            if let Some((kind, _)) = stale {
                broken = Some(format!("{} still waits for {kind:?}, which is over", names::entity(*id)));
            }
            if !shell.outstanding.is_empty() {
                let count = shell.outstanding.len();
                broken = Some(format!("{} rests, and {count} effects are being sent", names::entity(*id)));
            }
        }
        if let Some(detail) = broken {
            self.checks.broken("I25", self.now, detail);
        }
    }

    /// I36: what is archived answers.
    pub(super) fn check_shelf(&mut self) {
        let states = self.checks.log.instances.values();
        let found = self.shelf.answers(states, &self.store);
        self.checks.note(self.now, found);
    }
}
