//! What the ledger grants, and the commands that are made of it.

use super::instance_shell::Grants;
use super::{World, names};
use crate::bug::Bug;
use crate::coverage::Sometimes;
use crate::faults::Side;
use crate::verb::Verb;
use journal::StreamName;
use lifecycle::input::StartGrant;
use lifecycle::ledger::RoomAsk;
use lifecycle::project::Group;
use lifecycle::{
    AutoRestartPolicy, Command, GroupPolicy, Instance, InstanceEvent, InstanceId, InstanceSpec, Purpose,
    Rejected, RoomWanted, SagaId, Shortage, Size, SledId, VmmId, VmmState,
};
use sled_protocol::PropolisId;
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;

pub(crate) fn size_of(ncpus: u16) -> Size {
    Size { ncpus, memory: u64::from(ncpus) * GIB }
}

impl World {
    /// The next number of an instance; it counts over all lives, as real ids are never used twice.
    fn mint(&mut self, instance: u16) -> u64 {
        let minted = self.minted.entry(instance).or_insert(0);
        *minted += 1;
        *minted
    }

    /// Room for a VMM, held until it is journaled or dropped; with the number that its ids are made of.
    pub(super) fn grant_room(
        &mut self,
        id: InstanceId,
        wanted: &RoomWanted,
        to: Option<SledId>,
        grants: &mut Grants,
    ) -> Result<(u64, SledId), Shortage> {
        let instance = names::instance_number(id);
        let nth = self.mint(instance);
        let vmm = names::vmm(instance, nth);
        let dice = self.draws.at("place", vmm.uuid().as_u128(), 0);
        let none = BTreeSet::new();
        let (size, purpose) = (wanted.size, &wanted.purpose);
        let ask = RoomAsk { instance: id, vmm, size, purpose, to, dice, avoid: &none, shut: &none };
        let sled = self.control().ledger.grant_room(&ask)?;
        grants.vmm = Some(vmm);
        self.check_grant(id, wanted, sled);
        Ok((nth, sled))
    }

    /// I32: no grant exceeds a quota or brings members of a group together that must be kept apart, by what
    /// the instances and the project say themselves.
    fn check_grant(&mut self, id: InstanceId, wanted: &RoomWanted, sled: SledId) {
        let control = self.control.as_ref().expect("only what is up grants");
        let project = StreamName::Project(names::project());
        let Some(project) = control.admins.get(&project).and_then(|shell| shell.project.as_ref()) else {
            return;
        };
        let is_charging = matches!(wanted.purpose, Purpose::Start { .. });
        let states = control.instances.values().filter_map(|shell| shell.state.as_ref());
        let charged = states.filter_map(|state| state.charge);
        let written = control.instances.values().filter_map(|shell| shell.in_flight.as_ref());
        let promised = written.flat_map(|written| &written.events).filter_map(|event| match event {
            InstanceEvent::StartBegan { size, .. } => Some(*size),
            _ => None,
        });
        let cpus: u64 = charged.chain(promised).map(|size| u64::from(size.ncpus)).sum();
        let with_this = cpus + u64::from(wanted.size.ncpus);
        let is_over = is_charging && project.quota.cpus.is_some_and(|limit| with_this > limit);
        let exists = |id: &InstanceId| {
            let state = control.instances.get(id).and_then(|shell| shell.state.as_ref());
            state.is_some_and(|state| state.deleted.is_none())
        };
        let others_here = |group: &Group| {
            let is_member = |other: &InstanceId| group.members.contains(other) && exists(other);
            let mut here = control.ledger.vmms_on(sled).map(|(_, instance)| instance);
            group.policy == GroupPolicy::Fail
                && is_member(&id)
                && here.any(|other| other != id && is_member(&other))
        };
        let broken = if is_over {
            format!("{} would make {with_this} CPUs of {:?}", names::entity(id), project.quota)
        } else if project.groups.values().any(others_here) {
            format!("{} shares s{} with its group", names::entity(id), names::sled_number(sled))
        } else {
            return;
        };
        self.checks.broken("I32", self.now, broken);
    }

    /// What was granted and will not be journaled is free again; rooms before what holds them.
    pub(super) fn drop_grants(&mut self, grants: Grants) {
        if grants.vmm.is_none() && grants.instance.is_none() {
            return;
        }
        self.note(Sometimes::GrantDropped);
        let ledger = &mut self.control().ledger;
        if let Some(vmm) = grants.vmm {
            ledger.drop_room(vmm);
        }
        if let Some(instance) = grants.instance {
            ledger.drop_instance(instance);
        }
    }

    /// The sled that a migrate names.
    pub(super) fn destination(&self, request: usize) -> Option<SledId> {
        match self.clients.request(request).verb {
            Verb::Migrate { to } => to.map(names::sled),
            _ => None,
        }
    }

    /// The command that a request makes.
    pub(super) fn command(
        &mut self,
        id: InstanceId,
        request: usize,
        verb: &str,
        grants: &mut Grants,
    ) -> Result<Command, Rejected> {
        let asked = self.clients.request(request);
        let (op, asked) = (names::op(asked.id), asked.verb);
        Ok(match (verb, asked) {
            ("create", _) => self.create(id, asked, grants)?,
            ("start", _) => Command::Start { grant: None },
            ("stop", _) => Command::Stop { op },
            ("reboot", _) => Command::Reboot { op },
            ("migrate", _) => Command::Migrate { grant: None },
            ("cancel_migration", _) => Command::CancelMigration,
            ("cancel_saga", _) => Command::CancelSaga { saga: self.saga_of(id) },
            ("pause_saga", _) => Command::PauseSaga { saga: self.saga_of(id) },
            ("resume_saga", _) => Command::ResumeSaga { saga: self.saga_of(id) },
            ("retry_saga", _) => Command::RetrySaga { saga: self.saga_of(id) },
            ("force_stop", Verb::ForceStop { assert_dead }) => {
                let assert_dead =
                    assert_dead && (self.lies_about_dead() || self.are_dead_in_truth(id, |_| true));
                Command::ForceStop { assert_dead, reason: "the scenario wants it so".to_owned() }
            }
            ("force_stop", Verb::ForceStopOf { side, assert_dead }) => {
                let vmm = self.vmm_at(id, side);
                let assert_dead = assert_dead && self.are_dead_in_truth(id, |known| known.id == vmm);
                Command::ForceStopOf { vmm, assert_dead, reason: "the scenario wants it so".to_owned() }
            }
            ("update", Verb::Resize { ncpus }) => self.update(id, |change| change.size = size_of(ncpus))?,
            ("update", Verb::SetRestarts { on }) => {
                self.update(id, |change| change.auto_restart = Some(policy(on)))?
            }
            _ => Command::Delete,
        })
    }

    fn lies_about_dead(&self) -> bool {
        self.scenario.bug == Some(Bug::AssertLiving)
    }

    /// The saga under way, or one that there never was.
    fn saga_of(&mut self, id: InstanceId) -> SagaId {
        let under_way = self.shell(id).state.as_ref().and_then(|state| state.saga.as_ref());
        under_way.map_or(names::saga(names::instance_number(id), 0), |saga| saga.id)
    }

    /// The VMM in a slot, or one that there never was.
    fn vmm_at(&mut self, id: InstanceId, side: Side) -> VmmId {
        let state = self.shell(id).state.as_ref();
        let vmm = state.and_then(|state| match side {
            Side::Source => state.active,
            Side::Target => state.target,
        });
        vmm.unwrap_or_else(|| names::vmm(names::instance_number(id), 0))
    }

    /// Whether none of these VMMs of the instance lives or can come to live, by the sleds' own truth: an operator who
    /// vouches for more is outside what is claimed to be survived.
    fn are_dead_in_truth(&self, id: InstanceId, which: impl Fn(&lifecycle::vmm::Vmm) -> bool) -> bool {
        let state: Option<&Instance> =
            self.control.as_ref().and_then(|control| control.instances.get(&id)?.state.as_ref());
        let Some(state) = state else {
            return false;
        };
        state.vmms.values().filter(|vmm| vmm.gone.is_none() && which(vmm)).all(|vmm| {
            let host = &self.sleds[usize::from(names::sled_number(vmm.sled))];
            let propolis = PropolisId::from_uuid(vmm.id.uuid());
            let has_ended = host.machine.is_tombstoned(propolis)
                || host.machine.vmm(propolis).is_some_and(|vmm| !vmm.is_live());
            // What is on its way to a host that is down is of its last boot; only a register that is sent
            // again could bring up what was vouched for.
            has_ended || (host.is_down && vmm.state != VmmState::Creating)
        })
    }

    fn update(
        &mut self,
        id: InstanceId,
        change_it: impl FnOnce(&mut lifecycle::SpecChange),
    ) -> Result<Command, Rejected> {
        let spec = self.shell(id).state.as_ref().map(|state| &state.spec).ok_or(Rejected::NoSuchVmm)?;
        let mut change = spec.changeable();
        change_it(&mut change);
        Ok(Command::Update { change: Box::new(change) })
    }

    fn create(&mut self, id: InstanceId, verb: Verb, grants: &mut Grants) -> Result<Command, Rejected> {
        let (start, ncpus) = match verb {
            Verb::Create { start, ncpus } => (start, ncpus),
            _ => (false, 1),
        };
        if self.shell(id).state.is_some() {
            return Err(Rejected::IdTaken(id));
        }
        let size = size_of(ncpus);
        size.validate()?;
        let spec = InstanceSpec {
            project: names::project(),
            name: names::entity(id).to_string(),
            description: String::new(),
            hostname: names::entity(id).to_string(),
            size,
            auto_restart: self.scenario.restart.is_none().then(|| policy(false)),
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        };
        let address = self.control().ledger.grant_instance(id, names::project(), &spec.name)?;
        grants.instance = Some(id);
        let start = start.then(|| {
            let wanted = RoomWanted { size, purpose: Purpose::Start { cpu_family: None } };
            let (nth, sled) = self.grant_room(id, &wanted, None, grants)?;
            let instance = names::instance_number(id);
            Ok(StartGrant { saga: names::saga(instance, nth), vmm: names::vmm(instance, nth), sled })
        });
        Ok(Command::Create { id, spec: Box::new(spec), address, start })
    }
}

pub(crate) const fn policy(on: bool) -> AutoRestartPolicy {
    if on { AutoRestartPolicy::BestEffort } else { AutoRestartPolicy::Never }
}
