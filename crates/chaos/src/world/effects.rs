//! Effects: derived from state after every append and after every restart, sent, and sent again with backoff
//! until they are no longer derived. Deadlines likewise.

use super::instance_shell::{From, Waiting, What};
use super::network::{ReplyTo, ToSled};
use super::{Happening, WALL_START, World, names, wire};
use crate::coverage::Sometimes;
use crate::draws::within;
use crate::faults::EffectKind;
use lifecycle::{DeadlineKind, Effect, Input, Instance, InstanceId, Timestamp, saga::RETRY};
use sim_sled::machine::{Request, Response};
use sled_protocol::{
    MacAddr, MigrationId, OpId, PropolisId, RegisterVmm, RequestedState, SetState, SledError, VmmMetadata,
    VmmNetwork, VmmResources, VmmRuntime, Vni,
};
use std::collections::btree_map::Entry;
use std::net::IpAddr;

/// Most doublings of the wait between two attempts.
const DOUBLINGS_MAX: u32 = 20;

/// An effect that was sent and is still wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    attempt: u32,
}

/// A deadline that is armed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(super) start: Timestamp,
    at: u64,
}

/// The kind of an effect, as faults name it.
pub(crate) const fn kind_of(effect: Effect) -> EffectKind {
    match effect {
        Effect::Register { .. } => EffectKind::Register,
        Effect::SetRunning { .. } => EffectKind::SetRunning,
        Effect::Stop { .. } => EffectKind::Stop,
        Effect::Reboot { .. } => EffectKind::Reboot,
        Effect::Unregister { .. } => EffectKind::Unregister,
        Effect::MigrationTarget { .. } => EffectKind::MigrationTarget,
        Effect::MigrationCancel { .. } => EffectKind::MigrationCancel,
        Effect::Ask { .. } => EffectKind::Ask,
    }
}

impl World {
    /// Derives what should be true outside, sends what is not under way, forgets what is not wanted.
    pub(super) fn derive(&mut self, id: InstanceId) {
        if let Some(state) = self.shell(id).state.clone() {
            self.derive_from(id, &state);
            self.arm_deadlines(id, &state);
        }
    }

    pub(super) fn derive_from(&mut self, id: InstanceId, state: &Instance) {
        let mut wanted = lifecycle::effects(state);
        super::planted::spoil_effects(&mut wanted, state, self.scenario.bug);
        let shell = self.shell(id);
        shell.outstanding.retain(|effect, _| wanted.contains(effect));
        for effect in wanted {
            if !self.shell(id).outstanding.contains_key(&effect) {
                self.send_effect(id, state, effect, 0);
            }
        }
    }

    /// Deadlines count on the monotonic clock from what is left by the wall clock when they are armed. One of
    /// the same kind that begins anew is another one.
    fn arm_deadlines(&mut self, id: InstanceId, state: &Instance) {
        let (now, wall, incarnation) = (self.now, self.wall(), self.incarnation);
        let deadlines = lifecycle::deadlines(state, &self.scenario.policy());
        let is_forgetful = self.scenario.bug == Some(crate::bug::Bug::KeepTimers);
        let is_hasty = self.scenario.bug == Some(crate::bug::Bug::RestartTooSoon);
        let shell = self.shell(id);
        shell.armed.retain(|kind, armed| {
            is_forgetful
                || deadlines.iter().any(|deadline| deadline.kind == *kind && deadline.start == armed.start)
        });
        let mut fresh = Vec::new();
        for deadline in deadlines {
            if let Entry::Vacant(entry) = shell.armed.entry(deadline.kind) {
                let left = if is_hasty && deadline.kind == DeadlineKind::Restart {
                    0
                } else {
                    deadline.span.remaining(deadline.start, wall).micros()
                };
                entry.insert(Armed { start: deadline.start, at: now + left });
                fresh.push((now + left, deadline.kind));
            }
        }
        for (at, kind) in fresh {
            self.at(at, Happening::Deadline { incarnation, instance: id, kind });
        }
    }

    pub(super) fn deadline_passes(&mut self, incarnation: u32, id: InstanceId, kind: DeadlineKind) {
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        let armed = self.shell(id).armed.get(&kind).copied();
        if let Some(armed) = armed.filter(|armed| armed.at <= self.now) {
            if let DeadlineKind::Saga(_) = kind {
                self.note(Sometimes::DeadlinePassed);
            }
            self.give(id, Waiting { what: What::Deadline(kind, armed.start), from: From::Nobody });
        }
    }

    fn send_effect(&mut self, id: InstanceId, state: &Instance, effect: Effect, attempt: u32) {
        let entity = names::entity(id);
        self.shell(id).outstanding.insert(effect, Outstanding { attempt });
        let vmm = names::vmm_text(effect.vmm());
        let sled = names::sled_number(effect.sled());
        self.trace.line(
            self.now,
            "effect",
            &entity,
            format_args!("{} {vmm} s{sled} try {attempt}", effect.name()),
        );
        let incarnation = self.incarnation;
        let reply_to = ReplyTo::Effect { incarnation, instance: id, effect };
        if let Some(request) = self.request_of(state, effect) {
            self.send_to_sled(sled, ToSled::Request { request, reply_to });
        }
        let shortest = RETRY.first.micros().saturating_mul(1 << attempt.min(DOUBLINGS_MAX));
        let longest = shortest.min(RETRY.cap.micros());
        let drawn = self.draws.at(
            "retry",
            effect.vmm().uuid().as_u128() ^ kind_of(effect) as u128,
            u64::from(attempt),
        );
        let delay = within(drawn, longest / 2, longest);
        self.after(delay, Happening::EffectAgain { incarnation, instance: id, effect, attempt: attempt + 1 });
    }

    pub(super) fn effect_again(&mut self, incarnation: u32, id: InstanceId, effect: Effect, attempt: u32) {
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        let shell = self.shell(id);
        let is_next = shell.outstanding.get(&effect).is_some_and(|sent| sent.attempt + 1 == attempt);
        let (true, Some(state)) = (is_next, shell.state.clone()) else { return };
        self.send_effect(id, &state, effect, attempt);
        if self.scenario.pause_after_failures.is_some() {
            let failed = Input::StepFailed { effect, failures: attempt };
            self.give(id, Waiting { what: What::Input(failed), from: From::Nobody });
        }
    }

    fn request_of(&mut self, state: &Instance, effect: Effect) -> Option<Request> {
        let lease_epoch = sled_protocol::LeaseEpoch::new(self.control().epoch_of(effect.sled())?.get());
        let booted_at = self.control().sleds.get(&effect.sled()).map_or(0, |sled| sled.booted_at);
        if state.vmms.get(&effect.vmm()).is_some_and(|vmm| vmm.allocated_at < booted_at) {
            // The sled has booted since: nothing of the VMM is sent under its present epoch.
            return None;
        }
        let vmm = PropolisId::from_uuid(effect.vmm().uuid());
        let set = |op: lifecycle::OpId, state| {
            let body = SetState { op_id: OpId::from_uuid(op.uuid()), lease_epoch, state };
            Request::SetState { vmm, body }
        };
        Some(match effect {
            Effect::Register { .. } => {
                Request::Register { vmm, body: register_body(state, effect, lease_epoch)? }
            }
            Effect::SetRunning { vmm, .. } => set(names::run_op(vmm), RequestedState::Running),
            Effect::Stop { op, .. } => set(op, RequestedState::Stopped),
            Effect::Reboot { op, .. } => set(op, RequestedState::Reboot),
            Effect::Unregister { .. } => Request::Unregister { vmm, lease_epoch },
            Effect::MigrationTarget { migration, .. } => {
                let source = state.vmms.get(&state.migrations.get(&migration)?.source.vmm)?;
                let src_addr = self.control().ledger.sled_address(source.sled)?.to_owned();
                let src_propolis_id = PropolisId::from_uuid(source.id.uuid());
                let target = RequestedState::MigrationTarget { src_propolis_id, src_addr };
                set(names::migration_ops(migration).0, target)
            }
            Effect::MigrationCancel { migration, .. } => {
                set(names::migration_ops(migration).1, RequestedState::MigrationCancel)
            }
            Effect::Ask { .. } => Request::GetState { vmm },
        })
    }

    /// A sled's answer to an effect reaches the life that asked, or nobody.
    pub(super) fn effect_answered(
        &mut self,
        incarnation: u32,
        id: InstanceId,
        effect: Effect,
        response: &Response,
    ) {
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        match response {
            Err(SledError::StaleEpoch) => self.note(Sometimes::EpochFenceRefused),
            Err(SledError::Gone) => self.note(Sometimes::TombstoneRefused),
            _ => {}
        }
        if let Some(result) = super::planted::spoil_answer(effect, wire::outcome(response), self.scenario.bug)
        {
            let input = Input::Outcome { effect, result };
            self.give(id, Waiting { what: What::Input(input), from: From::Nobody });
        }
    }
}

fn register_body(
    state: &Instance,
    effect: Effect,
    lease_epoch: sled_protocol::LeaseEpoch,
) -> Option<RegisterVmm> {
    let vmm = state.vmms.get(&effect.vmm())?;
    let arriving = state.linked_migration().filter(|migration| migration.target.vmm == vmm.id);
    let comes_up_as = match arriving {
        Some(_) => sled_protocol::VmmState::Migrating,
        None => sled_protocol::VmmState::Starting,
    };
    Some(RegisterVmm {
        instance_id: sled_protocol::InstanceId::from_uuid(state.id.uuid()),
        migration_id: arriving.map(|migration| MigrationId::from_uuid(migration.id.uuid())),
        vmm_runtime: VmmRuntime {
            state: comes_up_as,
            generation: sled_protocol::Generation::FIRST,
            time_updated: sled_protocol::Timestamp::from_micros(WALL_START),
        },
        resources: VmmResources { ncpus: u32::from(vmm.size.ncpus), memory: vmm.size.memory },
        network: VmmNetwork {
            virtual_ip: IpAddr::V4(state.address.virtual_ip),
            mac: MacAddr::new(state.address.mac),
            vni: Vni::new(state.address.vni).ok()?,
        },
        metadata: VmmMetadata { project_id: sled_protocol::ProjectId::from_uuid(state.spec.project.uuid()) },
        lease_epoch,
    })
}
