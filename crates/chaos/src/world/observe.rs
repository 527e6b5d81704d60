//! What the checkers are shown, and what must hold when everything has come to rest.

use super::{World, names};
use crate::checks::guests::Seen;
use journal::StreamName;
use lifecycle::{Effect, InstanceId, Intent, RunState, VmmId};

impl World {
    /// Shows the checkers every VMM that a sled holds.
    pub(super) fn check_guests(&mut self) {
        let seen = self.seen();
        self.checks.guests(self.now, &seen);
    }

    fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (sled, machine) in self.machines() {
            let threads = machine.config().resources.threads;
            seen.extend(machine.vmms().map(|vmm| Seen {
                sled,
                instance: InstanceId::new(vmm.instance_id().as_uuid()),
                vmm: VmmId::new(vmm.propolis_id().as_uuid()),
                is_live: vmm.is_live(),
                is_guest_running: vmm.guest_running(),
                is_at_work: is_at_work(vmm),
                arrival: vmm.state().migration_in.clone(),
                departure: vmm.state().migration_out.clone(),
                ncpus: vmm.resources().ncpus,
                threads,
            }));
        }
        seen
    }

    /// I9, I11: the live state, the state after a restart, and the fold of the log are one, byte for byte.
    /// Streams that wait to become fact are skipped: their live state is older, as it should be.
    pub(super) fn compare_fold(&mut self, when: &str) {
        let Some(control) = &self.control else {
            return;
        };
        let mut broken = None;
        let mut is_all_fact = true;
        for (id, shell) in &control.instances {
            let folded = self.checks.log.instances.get(id);
            let (live, durable) = (
                shell.state.as_ref().map_or(0, |s| s.head.version),
                self.checks.log.version(StreamName::Instance(*id)),
            );
            if live < durable {
                is_all_fact = false;
                continue;
            }
            let bytes = |state: Option<&lifecycle::Instance>| state.map(journal::encode_snapshot);
            if bytes(shell.state.as_ref()) != bytes(folded) {
                broken = Some(format!("{} is not the fold of its stream {when}", names::entity(*id)));
            }
        }
        for (id, shell) in &control.sleds {
            let version = shell.state.as_ref().map_or(0, |sled| sled.version);
            if version < self.checks.log.version(StreamName::Sled(*id)) {
                is_all_fact = false;
            } else if shell.state.as_ref() != self.checks.log.sleds.get(id) {
                broken = Some(format!("s{} is not the fold of its stream {when}", names::sled_number(*id)));
            }
        }
        for (stream, shell) in &control.admins {
            if shell.version < self.checks.log.version(*stream) {
                is_all_fact = false;
            } else if shell.project.is_some() && shell.project != self.checks.log.project {
                broken = Some(format!("the project is not the fold of its stream {when}"));
            }
        }
        if is_all_fact && control.book != self.checks.log.book {
            broken = Some(format!("the network book is not the fold of the log {when}"));
        }
        if is_all_fact && control.ledger.without_grants() != self.checks.log.ledger.without_grants() {
            broken = Some(format!("the ledger is not the fold of the log {when}"));
        }
        if let Some(detail) = broken {
            self.checks.broken("I9", self.now, detail);
        }
    }

    /// What is not at rest, with the invariant that this breaks if it stays so; none if everything rests.
    pub(super) fn restless(&self) -> Option<(&'static str, String)> {
        let Some(control) = &self.control else {
            return Some(("I18", "the control plane is down".to_owned()));
        };
        if let Some(request) = self.clients.unanswered() {
            return Some(("I18", format!("r{} has no answer", request.id)));
        }
        if self.store.unsynced() > 0 {
            return Some(("I18", "appends are not synced".to_owned()));
        }
        if let Some((id, _)) = control.sleds.iter().find(|(_, shell)| !shell.is_idle()) {
            return Some(("I18", format!("s{} is being registered", names::sled_number(*id))));
        }
        if control.admins.values().any(|shell| !shell.is_idle()) {
            return Some(("I18", "the project or the system has inputs waiting".to_owned()));
        }
        let policy = self.scenario.policy();
        for (id, shell) in &control.instances {
            let entity = names::entity(*id);
            if !shell.is_idle() {
                return Some(("I18", format!("{entity} has inputs waiting")));
            }
            let Some(state) = &shell.state else { continue };
            if let Some(saga) = &state.saga {
                return Some(("I20", format!("{entity} has a saga at {:?}", saga.step)));
            }
            if let Some(migration) = state.migration {
                return Some(("I21", format!("{entity} is still in migration {migration}")));
            }
            if let Some(due) = lifecycle::restart::restart_due(state, &policy) {
                return Some(("I18", format!("{entity} is due for restart {}", due.attempt)));
            }
            if state.stop.is_some() || state.reboot.is_some() {
                return Some(("I18", format!("{entity} has an order that was not carried out")));
            }
            if !state.is_quiesced() {
                let about = |effect: Effect| format!("{} {}", effect.name(), names::vmm_text(effect.vmm()));
                let wanted: Vec<String> = lifecycle::effects(state).into_iter().map(about).collect();
                return Some(("I18", format!("{entity} is {} and wants {wanted:?}", state.run_state())));
            }
        }
        if let Some(sled) = self.sleds.iter().position(|host| !host.is_at_rest()) {
            return Some(("I18", format!("s{sled} has something to say")));
        }
        self.unowned().or_else(|| self.unreal())
    }

    /// I5: no reservation without a live owner.
    fn unowned(&self) -> Option<(&'static str, String)> {
        let control = self.control.as_ref()?;
        for (id, shell) in &control.instances {
            let (instance, vmms) = control.ledger.open_grants(*id);
            if instance || !vmms.is_empty() {
                return Some(("I5", format!("{} has grants that nobody will journal", names::entity(*id))));
            }
            let Some(state) = &shell.state else { continue };
            let held =
                state.vmms.values().find(|vmm| vmm.reservation.is_some() && state.active != Some(vmm.id));
            if let Some(vmm) = held {
                return Some(("I5", format!("{} is reserved and nobody runs it", names::vmm_text(vmm.id))));
            }
        }
        None
    }

    /// I19: each VMM on a sled is known, and each running record has its VMM.
    fn unreal(&self) -> Option<(&'static str, String)> {
        let control = self.control.as_ref()?;
        let seen = self.seen();
        for seen in seen.iter().filter(|seen| seen.is_live) {
            let state = control.instances.get(&seen.instance).and_then(|shell| shell.state.as_ref());
            let is_known = state.is_some_and(|state| state.active == Some(seen.vmm));
            if !is_known {
                return Some((
                    "I19",
                    format!("{} lives on s{} and nobody knows", names::vmm_text(seen.vmm), seen.sled),
                ));
            }
        }
        for (id, shell) in &control.instances {
            let Some(state) = &shell.state else { continue };
            let runs = seen.iter().find(|seen| seen.instance == *id && seen.is_guest_running);
            let should_run = state.run_state() == RunState::Running;
            if should_run && state.intent != Intent::Running {
                let entity = names::entity(*id);
                return Some(("I19", format!("{entity} runs although it shall be {:?}", state.intent)));
            }
            let is_right = match (should_run, runs) {
                (true, Some(seen)) => {
                    state.active_vmm().is_some_and(|vmm| vmm.sled == names::sled(seen.sled))
                }
                (false, None) => !state.run_state().is_transitional(),
                _ => false,
            };
            if !is_right {
                let runs = runs.map(|seen| names::vmm_text(seen.vmm));
                let entity = names::entity(*id);
                return Some((
                    "I19",
                    format!("{entity} is {} and its guest runs in {runs:?}", state.run_state()),
                ));
            }
        }
        None
    }

    /// Everything is at rest: the fold, and what clients were told, once more.
    pub(super) fn check_at_rest(&mut self) {
        self.compare_fold("at rest");
        self.checks.at_rest(self.now);
        self.checks.log_after_crash(self.now, &self.store);
        self.check_shelf();
        self.check_guests();
        let records = self.store.records().len();
        self.trace.line(self.now, "rest", &"", format_args!("p{records:04}"));
    }
}

/// Whether a VMM runs or has been told to: its guest runs, comes up, is between two VMMs, or goes down.
pub(crate) fn is_at_work(vmm: &sim_sled::machine::Vmm) -> bool {
    use sled_protocol::VmmState::{
        Destroyed, Failed, Migrating, Rebooting, Running, Starting, Stopped, Stopping,
    };
    match vmm.state().vmm_state.state {
        Running | Rebooting | Stopping | Stopped => true,
        Starting => vmm.next_step().is_some(),
        // A target that was not told to fetch its guest has nothing to do.
        Migrating => {
            let arrival = vmm.state().migration_in.as_ref().map(|side| side.state);
            arrival != Some(sled_protocol::MigrationState::Pending) || vmm.next_step().is_some()
        }
        Destroyed | Failed => false,
    }
}
