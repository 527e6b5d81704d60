//! Orders that are being sent, and states in which nothing is under way.

use super::{Owner, Writer};
use lifecycle::instance::Intent;
use lifecycle::restart::{is_wanted, restart_due};
use lifecycle::{RunState, VmmState};

impl Writer<'_> {
    pub(super) fn orders(&mut self) {
        let Some(active) = self.state.active_vmm() else {
            return;
        };
        let sled = self.sled(active);
        if let Some(stop) = &self.state.stop {
            let since = crate::time::rfc3339(stop.since);
            self.because(format!("somebody asked to stop it at {since}"));
            if self.state.saga.is_none() && self.state.migration.is_none() {
                self.own("the stop: it is sent until the sled acts");
                self.wait(active, "to stop the guest", None);
                self.then("the VMM is destroyed", "the instance is stopped");
                self.then(
                    format!("{sled} does not know the VMM"),
                    "the instance fails, and is not restarted",
                );
            }
            self.can("start");
        }
        if let Some(reboot) = &self.state.reboot {
            let since = crate::time::rfc3339(reboot.since);
            self.because(format!("somebody asked to reboot it at {since}"));
            if self.state.saga.is_none() && self.state.migration.is_none() {
                self.own("the reboot: it is sent until the sled answers");
                self.wait(active, "to accept the reboot", None);
            }
        }
    }

    fn own(&mut self, what: &str) {
        if self.found.owner == Owner::Nobody {
            self.found.owner = Owner::Instance { what: what.to_owned() };
        }
    }

    /// What the state itself says, if no saga and no migration has said it.
    pub(super) fn rest(&mut self) {
        if self.state.saga.is_some() || self.state.migration.is_some() {
            return;
        }
        match self.state.run_state() {
            RunState::Running => self.running(),
            RunState::Rebooting => {
                self.transitional("its guest reboots", "to report that the guest runs again");
            }
            RunState::Stopping => {
                self.transitional("its guest shuts down", "to report that the VMM has ended");
            }
            RunState::Starting | RunState::Migrating => {
                self.transitional("its VMM is under way", "to report what became of it");
            }
            RunState::Stopped => self.stopped(),
            RunState::Failed => self.failed(),
            RunState::Destroyed => {
                self.because("it was deleted; its history stays readable by its id");
                if let Some(file) = &self.state.archived {
                    self.because(format!("its history was archived in {}", file.file));
                }
                for vmm in self.state.vmms.values().filter(|vmm| vmm.gone.is_none()) {
                    self.wait(vmm, "to confirm that the VMM is gone", None);
                }
                self.found.can.push(format!("musher instance history {}", self.state.id));
            }
            RunState::Creating | RunState::Repairing => {}
        }
    }

    fn running(&mut self) {
        let Some(active) = self.state.active_vmm() else {
            return;
        };
        let sled = self.sled(active);
        self.because(format!("its VMM on {sled} reports it (generation {})", active.generation));
        if self.state.stop.is_none() {
            self.then("its guest shuts down", "stopped; it is not restarted");
            let failed = if is_wanted(self.state) { "failed, and restarted at once" } else { "failed" };
            self.then("its VMM fails", failed);
            for verb in ["stop", "reboot", "migrate"] {
                self.can(verb);
            }
        }
        self.can_with("force-stop", "--reason TEXT");
    }

    fn transitional(&mut self, why: &str, what: &str) {
        let Some(active) = self.state.active_vmm() else {
            return;
        };
        self.because(why);
        let sled = self.sled(active);
        self.own(&format!("what {sled} reports of its VMM"));
        if self.found.waits.is_empty() {
            self.wait(active, what, None);
        }
        let ends = matches!(active.state, VmmState::Stopping | VmmState::Stopped);
        if ends && self.state.stop.is_none() {
            self.then("the VMM is destroyed", "the instance is stopped");
        }
        self.then("an inventory does not list the VMM", "the instance fails");
        self.can_with("force-stop", "--reason TEXT");
    }

    fn stopped(&mut self) {
        self.because(match self.state.intent {
            Intent::GuestShutdown => "its guest shut itself down; it is not restarted",
            Intent::Running | Intent::Stopped | Intent::Destroyed => "nobody wants it to run",
        });
        self.then("somebody starts it", "it is placed on a sled that has room");
        for verb in ["start", "delete"] {
            self.can(verb);
        }
    }

    fn failed(&mut self) {
        match restart_due(self.state, self.policy) {
            Some(due) => {
                let at = due.start + due.wait;
                self.found.owner = Owner::RestartPolicy { attempt: due.attempt, at };
                self.at(at, format!("the restart policy's attempt number {}", due.attempt), "it is started");
            }
            None if is_wanted(self.state) => {
                self.because(format!(
                    "the restart policy has made its {} attempts in a row",
                    self.state.restarts.attempts
                ));
                self.then("somebody starts it", "the count begins anew");
            }
            None => {
                self.because(if self.state.spec.restarts() {
                    "nobody wants it to run: it is not restarted"
                } else {
                    "its restart policy is \"never\""
                });
                self.then("somebody starts it", "it is placed on a sled that has room");
            }
        }
        for verb in ["start", "stop", "delete"] {
            self.can(verb);
        }
    }
}
