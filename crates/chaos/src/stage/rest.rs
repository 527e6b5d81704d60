//! Rest: what must hold once nothing goes wrong any more, by the durable log, the sleds' truth, the actors'
//! memory and the read model.

use super::state::Stage;
use crate::checks::FailureKind;
use crate::coverage::Sometimes;
use crate::world::names;
use actors::CommandError;
use actors::network::underlay_address;
use lifecycle::{Effect, Instance, Intent, RunState};
use projections::ReadModel;
use sled_protocol::{Producers, PropolisId, Switch};
use std::collections::BTreeSet;
use std::net::IpAddr;

type Restless = (&'static str, String);

impl Stage {
    /// What is not at rest, with the invariant that this breaks if it stays so; none if everything rests.
    pub(super) async fn restless(&self) -> Option<Restless> {
        let unanswered = self.lock().answered.iter().position(|is_answered| !is_answered);
        if let Some(nth) = unanswered {
            return Some(("I18", format!("r{} has no answer", self.scenario.requests[nth].id)));
        }
        if self.life().log().with_store(|store| store.unsynced()) > 0 {
            return Some(("I18", "appends are not synced".to_owned()));
        }
        let states: Vec<Instance> = self.lock().checks.log.instances.values().cloned().collect();
        if let Some(restless) = states.iter().find_map(|state| self.restless_instance(state)) {
            return Some(restless);
        }
        self.restless_sled().or_else(|| self.unreal(&states)).or(self.unpushed().await)
    }

    fn restless_instance(&self, state: &Instance) -> Option<Restless> {
        let entity = names::entity(state.id);
        if let Some(saga) = &state.saga {
            return Some(("I20", format!("{entity} has a saga at {:?}", saga.step)));
        }
        if let Some(migration) = state.migration {
            return Some(("I21", format!("{entity} is still in migration {migration}")));
        }
        if let Some(due) = lifecycle::restart::restart_due(state, &self.scenario.policy()) {
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
        // I5: no reservation without a live owner.
        let held = state.vmms.values().find(|vmm| vmm.reservation.is_some() && state.active != Some(vmm.id));
        held.map(|vmm| ("I5", format!("{} is reserved and nobody runs it", names::vmm_text(vmm.id))))
    }

    fn restless_sled(&self) -> Option<Restless> {
        let hosts: Vec<_> =
            self.lock().hosts.iter().map(|host| (host.sled.clone(), host.is_off, host.is_down)).collect();
        for (nth, (sled, is_off, is_down)) in hosts.into_iter().enumerate() {
            let is_done = sled.with_machine(|machine, _| {
                machine.host().is_expunged()
                    || (machine.host().lease_epoch().is_some()
                        && machine.vmms().all(|vmm| vmm.next_step().is_none())
                        && machine.pending_reports().next().is_none())
            });
            if !is_off && (is_down || is_done != Some(true)) {
                return Some(("I18", format!("s{nth} has something to say")));
            }
        }
        None
    }

    /// I19: each VMM on a sled is known, and each running record has its VMM.
    fn unreal(&self, states: &[Instance]) -> Option<Restless> {
        let seen = self.seen();
        for seen in seen.iter().filter(|seen| seen.is_live) {
            let state = states.iter().find(|state| state.id == seen.instance);
            if state.is_none_or(|state| state.active != Some(seen.vmm)) {
                let vmm = names::vmm_text(seen.vmm);
                return Some(("I19", format!("{vmm} lives on s{} and nobody knows", seen.sled)));
            }
        }
        for state in states {
            let entity = names::entity(state.id);
            let runs = seen.iter().find(|seen| seen.instance == state.id && seen.is_guest_running);
            let should_run = state.run_state() == RunState::Running;
            if should_run && state.intent != Intent::Running {
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
                let detail = format!("{entity} is {} and its guest runs in {runs:?}", state.run_state());
                return Some(("I19", detail));
            }
        }
        None
    }

    /// I35: sleds, switch and registry hold what the book says, and nothing else.
    async fn unpushed(&self) -> Option<Restless> {
        let (desired, wished) = {
            let state = self.lock();
            let book = &state.checks.log.book;
            let desired: BTreeSet<(IpAddr, IpAddr, u64)> = book
                .mappings()
                .filter_map(|((_, ip), mapping)| {
                    let host = IpAddr::V6(underlay_address(mapping.sled?));
                    Some((IpAddr::V4(ip), host, mapping.generation))
                })
                .collect();
            let producer =
                |production: lifecycle::network::Production| PropolisId::from_uuid(production.vmm.uuid());
            let wished: BTreeSet<PropolisId> = book.producers().map(producer).collect();
            (desired, wished)
        };
        for (nth, sled) in self.sleds().into_iter().enumerate() {
            let is_off = self.lock().hosts[nth].is_off;
            let held: Option<BTreeSet<(IpAddr, IpAddr, u64)>> = sled.with_machine(|machine, _| {
                machine.v2p().map(|it| (it.virtual_ip, it.physical_host_ip, it.generation.get())).collect()
            });
            if !is_off && held.as_ref() != Some(&desired) {
                return Some(("I35", format!("s{nth} maps {held:?}, desired {desired:?}")));
            }
        }
        let hosts: BTreeSet<(IpAddr, u64)> = desired.iter().map(|(_, host, nth)| (*host, *nth)).collect();
        let nat = self.outside.switch.list_nat().await.unwrap_or_default();
        let nat: BTreeSet<_> = nat.iter().map(|it| (it.physical_host_ip, it.generation.get())).collect();
        if nat != hosts {
            return Some(("I35", format!("the switch maps to {nat:?}, desired {hosts:?}")));
        }
        let producers = self.outside.producers.list_producers().await.unwrap_or_default();
        let producers: BTreeSet<PropolisId> = producers.iter().map(|it| it.propolis_id).collect();
        (producers != wished).then(|| ("I35", format!("producers are {producers:?}, desired {wished:?}")))
    }

    /// Everything is at rest: the live state and the read model against the fold, and what clients were told. An actor
    /// that is being restarted does not rest, and is waited for: answers whether everything could be looked at.
    pub(super) async fn check_rest(&self) -> bool {
        let life = self.life();
        let Some(up) = life.up() else {
            self.fail(FailureKind::Liveness, "I18", "the control plane is down at rest".to_owned());
            return true;
        };
        let states: Vec<Instance> = self.lock().checks.log.instances.values().cloned().collect();
        let living = states.iter().filter(|state| state.deleted.is_none()).count();
        if self.scenario.passivate_ms.is_some() && up.control.live_instances() < living {
            self.note(Sometimes::Passivated);
        }
        for (id, why) in up.control.quarantined() {
            let detail = format!("{} is quarantined: {why}", names::entity(id));
            self.fail(FailureKind::Invariant, "I9", detail);
        }
        for state in states.iter().filter(|state| state.deleted.is_none()) {
            let live = up.control.instance(state.id).await;
            if let Err(CommandError::Unavailable(_)) = live {
                self.must_not_rest_for_ever();
                return false;
            }
            let bytes = live.as_ref().ok().map(|live| journal::encode_snapshot(live));
            if bytes != Some(journal::encode_snapshot(state)) {
                let detail = format!("{}'s actor is not the fold of its stream", names::entity(state.id));
                self.fail(FailureKind::Invariant, "I9", format!("{detail}: {:?}", live.err()));
            }
        }
        let store = life.store();
        if let Err(stopped) = up.projections.wait_for(store.durable()).await {
            self.fail(FailureKind::Invariant, "I22", stopped.to_string());
        }
        let mut rebuilt = ReadModel::default();
        for record in store.records() {
            if let Err(error) = rebuilt.apply_record(record) {
                self.fail(FailureKind::Invariant, "I12", error.to_string());
                return true;
            }
        }
        let is_fold = |state: &Instance| {
            let bytes = rebuilt.instance_state(state.id).map(journal::encode_snapshot);
            bytes == Some(journal::encode_snapshot(state))
        };
        if let Some(state) = states.iter().find(|state| state.deleted.is_none() && !is_fold(state)) {
            let detail = format!("the read model has another {}", names::entity(state.id));
            self.fail(FailureKind::Invariant, "I22", detail);
        }
        if up.projections.read(|model| *model != rebuilt) {
            let detail = "the read model that is rebuilt is not the one that lived".to_owned();
            self.fail(FailureKind::Invariant, "I23", detail);
        }
        self.check(|checks, now| {
            checks.at_rest(now);
            checks.log_after_crash(now, &store);
        });
        self.check_shelf();
        self.look_at_guests();
        self.line("rest", &"", format_args!("p{:04}", store.durable().get()));
        true
    }
}
