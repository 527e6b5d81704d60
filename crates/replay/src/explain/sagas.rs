//! Sagas and migrations: which step, whom it waits for, what each outcome leads to.

use super::{Owner, Writer};
use crate::summary::paused_because;
use lifecycle::instance::SagaProgress;
use lifecycle::migration::{Migration, Outcome};
use lifecycle::saga::{SagaKind, definition};
use lifecycle::{DeadlineKind, Origin, Step, Vmm};

impl Writer<'_> {
    pub(super) fn saga(&mut self) {
        let Some(saga) = &self.state.saga else {
            return;
        };
        let steps = definition(saga.kind).steps;
        let place = steps.iter().position(|step| step.step == saga.step).unwrap_or(0);
        self.found.owner = Owner::Saga {
            id: saga.id,
            name: definition(saga.kind).name,
            step: place + 1,
            steps: steps.len(),
            does: steps[place].name,
            since: saga.step_started,
        };
        if let Some(pause) = saga.pause {
            let (since, why) = (crate::time::rfc3339(pause.since), paused_because(pause.cause));
            self.because(format!("its saga is paused since {since}, because {why}: nothing is sent for it"));
            self.then("somebody resumes it", "its step is sent again, and it has all of its time again");
        }
        let origin = match (saga.kind, saga.origin) {
            (SagaKind::Migrate, _) => "somebody asked for a migration, or its sled drains",
            (_, Origin::User) => "somebody asked for a start",
            (_, Origin::Creation) => "its creation asked for a start",
            (_, Origin::Automatic) => "it failed, and the restart policy starts it again",
        };
        self.because(origin);
        let vmm = &self.state.vmms[&saga.vmm];
        let until = self.deadline(|kind| kind == DeadlineKind::Saga(saga.id));
        match saga.step {
            Step::Fence => self.fence(saga, until),
            Step::Register => {
                self.wait(vmm, "to register the VMM", until);
                self.then(
                    "registered",
                    if saga.kind == SagaKind::Migrate {
                        "the target is told to take the guest over"
                    } else {
                        "it is told to run"
                    },
                );
                self.then("refused", taken_back(saga));
            }
            Step::MigrationTarget => {
                self.wait(vmm, "to accept the guest", until);
                self.then("accepted", "both sides report how the migration goes");
                self.then("refused", "the migration is called off, and both sides say how it ended");
            }
            _ => {
                self.wait(vmm, "to report that the guest runs", until);
                self.then("running", "the start is done");
                self.then("the VMM ends or fails", "the instance is stopped or failed, by how it ended");
            }
        }
        if let Some(at) = until {
            let then = match saga.step {
                Step::SetRunning => "the VMM is declared failed, and told to end".to_owned(),
                Step::MigrationTarget => "the migration is called off".to_owned(),
                _ => taken_back(saga),
            };
            self.at(at, "it has not come so far by then", then);
        }
        let verbs: &[&str] = if saga.pause.is_some() { &["resume"] } else { &["retry", "pause"] };
        for verb in verbs {
            self.found.can.push(format!("musher saga {verb} {}", saga.id));
        }
        if lifecycle::saga::is_before_return(saga.kind, saga.step) {
            self.found.can.push(format!("musher saga cancel {}", saga.id));
        }
        self.can("stop");
        self.can_with("force-stop", "--reason TEXT");
    }

    fn fence(&mut self, saga: &SagaProgress, until: Option<lifecycle::Timestamp>) {
        if let Some(other) = self.state.blocks_fence(saga.vmm) {
            self.wait(other, "to confirm that an earlier VMM is gone: it may still run", until);
            let sled = self.sled(other);
            self.then(format!("{sled} confirms it"), "the VMM is registered");
        } else {
            // Only a saga that is paused stays at a fence that is open.
            self.wait(&self.state.vmms[&saga.vmm], "to be told anything: its saga is paused", None);
        }
    }

    pub(super) fn migration(&mut self) {
        let Some(migration) = self.state.linked_migration() else {
            return;
        };
        let (source, target) = (migration.source.vmm, migration.target.vmm);
        let (source, target) = (&self.state.vmms[&source], &self.state.vmms[&target]);
        let (from, to) = (self.sled(source), self.sled(target));
        self.because(format!("its guest moves from {from} to {to}"));
        if self.state.saga.is_none() {
            let what = format!("the migration from {from} to {to}, by what both sides report");
            self.found.owner = Owner::Instance { what };
        }
        match self.state.outcome_of(migration) {
            Outcome::UnderWay => self.under_way(migration, source, target),
            Outcome::HandedOver => {
                self.because("the source says that the guest has left");
                self.wait(target, "to report that the guest arrived", None);
                self.then("arrived", format!("it runs on {to}; the VMM on {from} is seen to its end"));
                self.then(
                    "the target ends without the guest",
                    "the instance fails, and its policy restarts it",
                );
            }
            Outcome::Undecided => {
                self.because(format!(
                    "the source on {from} failed; only {to} knows whether the guest arrived"
                ));
                let until = self.deadline(|kind| matches!(kind, DeadlineKind::Undecided(_)));
                self.wait(target, "to say whether it has the guest", until);
                self.then("it has", format!("it runs on {to}"));
                self.then("it has not", "the instance fails, and its policy restarts it");
                if let Some(at) = until {
                    self.at(at, "silent until then", "the guest is given up, and the target told to stop");
                }
            }
            Outcome::Succeeded | Outcome::Lost | Outcome::Failed => {}
        }
        if self.state.saga.is_none() {
            self.can("stop");
            self.can_with("force-stop", "--reason TEXT");
        }
    }

    fn under_way(&mut self, migration: &Migration, source: &Vmm, target: &Vmm) {
        if self.state.saga.is_some() {
            return;
        }
        let (from, to) = (self.sled(source), self.sled(target));
        let until = self.deadline(|kind| kind == DeadlineKind::Migration(migration.id));
        if migration.cancelled.is_some() || self.state.stop.is_some() {
            self.because("it was called off; both sides are told to give up");
            self.wait(source, "to say that the guest stays", None);
            self.wait(target, "to give up", None);
        } else {
            self.wait(target, "to report that the guest arrived", until);
        }
        self.then("the target completes", format!("it runs on {to}; the VMM on {from} is seen to its end"));
        self.then("either side fails", format!("it stays on {from}"));
        if let Some(at) = until {
            self.at(at, "not decided by then", "both sides are told to give up");
        }
        self.can_with("migrate", "--cancel");
    }
}

/// What undoing the saga leaves behind.
fn taken_back(saga: &SagaProgress) -> String {
    match (saga.kind, saga.origin) {
        (SagaKind::Migrate, _) => "the migration is taken back; the guest stays where it is".to_owned(),
        (_, Origin::Automatic) => "the start is taken back; it is tried again later".to_owned(),
        _ => "the start is taken back; the instance is stopped, with the reason".to_owned(),
    }
}
