//! What a scenario does to sleds, guests and wires, and the rest at the end.

use super::env::EPOCH_MICROS;
use super::net::Planned;
use super::world::{Diverged, World};
use actors::instance::Ask;
use lifecycle::migration::{Migration, Side, SideState};
use lifecycle::{Instance, InstanceId, SledId, VmmId};
use sim_sled::machine::{Question, Request, Sled, Step, Vmm};
use sled_protocol::{
    BootId, Generation, LeaseEpoch, MacAddr, MigrationState, OpId, PropolisId, RegisterVmm, RequestedState,
    SetState, SledError, VmmMetadata, VmmNetwork, VmmResources, VmmRuntime, VmmState, Vni,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// Steps that a migration takes at most.
const STEPS_MAX: usize = 400;

/// The two ends of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The instance.
    pub id: InstanceId,
    /// The source VMM.
    pub source: VmmId,
    /// Its sled.
    pub source_sled: SledId,
    /// The target VMM.
    pub target: VmmId,
    /// Its sled.
    pub target_sled: SledId,
}

/// How far a migration has come on the sleds, whatever the control plane has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Memory moves.
    InProgress,
    /// The source has given its guest away; the target may not know.
    HandedOver,
    /// The target has it.
    Arrived,
    /// The target says that its guest runs.
    Resumed,
}

pub(super) fn wire(vmm: VmmId) -> PropolisId {
    PropolisId::from_uuid(vmm.uuid())
}

impl World {
    /// Calls the machine of a sled.
    pub fn machine<T>(&self, sled: SledId, call: impl FnOnce(&mut Sled, u64) -> T) -> T {
        self.host_of(sled).sled.with_machine(call).expect("a sled of the stage is not shut down")
    }

    /// Looks at a VMM on its sled; none if the sled does not hold it.
    pub fn on_sled<T>(&self, sled: SledId, vmm: VmmId, look: impl FnOnce(&Vmm) -> T) -> Option<T> {
        self.machine(sled, |machine, _| machine.vmm(wire(vmm)).map(look))
    }

    /// What the VMM does next, if it does something by itself.
    pub fn next_step(&self, sled: SledId, vmm: VmmId) -> Option<Step> {
        self.on_sled(sled, vmm, Vmm::next_step).flatten()
    }

    /// The VMM takes its next step, if it has one.
    pub fn step(&self, sled: SledId, vmm: VmmId) {
        if self.next_step(sled, vmm).is_some() {
            self.machine(sled, |machine, now| machine.step(now, wire(vmm)));
        }
    }

    /// The VMM takes every step that it has until it rests.
    pub fn run_down(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| machine.run_script(now, wire(vmm)));
    }

    /// The guest shuts itself down, all the way.
    pub fn guest_shuts_down(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| machine.guest_shutdown(now, wire(vmm)));
        self.run_down(sled, vmm);
    }

    /// The VMM's process dies.
    pub fn crash_vmm(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| machine.guest_crash(now, wire(vmm)));
    }

    /// The VMM ends in order, by a request of nobody that musher knows.
    pub fn destroy_vmm(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| {
            let Some(lease_epoch) = machine.host().lease_epoch() else { return };
            let op_id = OpId::from_uuid(Uuid::from_u128(vmm.uuid().as_u128() ^ 0xdead));
            let body = SetState { op_id, lease_epoch, state: RequestedState::Stopped };
            // A VMM that is gone has ended already.
            let _ = machine.handle(now, Request::SetState { vmm: wire(vmm), body });
        });
        self.run_down(sled, vmm);
    }

    /// From here on the guest ignores requests to stop.
    pub fn ignore_stop(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, _| machine.guest_ignores_stop(wire(vmm)));
    }

    /// The grace period of a stop ends.
    pub fn grace_is_over(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| machine.step(now, wire(vmm)));
    }

    /// The sled ends and forgets the VMM without a word.
    pub fn forget_vmm(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| {
            let Some(lease_epoch) = machine.host().lease_epoch() else { return };
            // A VMM that is gone is forgotten already.
            let _ = machine.handle(now, Request::Unregister { vmm: wire(vmm), lease_epoch });
        });
    }

    /// The host loses power.
    pub fn power_off(&self, sled: SledId) {
        self.machine(sled, Sled::power_off);
    }

    /// The sled's agent starts anew while its VMMs live on.
    pub fn restart_agent(&self, sled: SledId) {
        self.machine(sled, Sled::agent_restart);
    }

    /// A VMM that no log knows appears on the sled.
    pub fn register_orphan(&self, sled: SledId, vmm: VmmId) {
        self.machine(sled, |machine, now| {
            let lease_epoch = machine.host().lease_epoch().expect("the sled has registered");
            let body = orphan(lease_epoch);
            machine.handle(now, Request::Register { vmm: wire(vmm), body }).expect("there is room");
        });
    }

    /// The host boots again; `boot` must be new.
    pub fn reboot_sled(&self, sled: SledId, boot: u128) {
        self.machine(sled, |machine, now| machine.reboot(now, BootId::from_uuid(Uuid::from_u128(boot))));
    }

    /// Reports of the VMM are held back from here on; an inventory shows it as it is now. One that its sled
    /// does not hold has nothing to report.
    pub fn hold(&self, sled: SledId, vmm: VmmId) {
        if let Some(known) = self.on_sled(sled, vmm, |vmm| vmm.state().clone()) {
            self.net.hold(vmm, known);
        }
    }

    /// They arrive again.
    pub fn release(&self, vmm: VmmId) {
        self.net.release(vmm);
    }

    /// The sled cannot be reached, nor reach anybody but its peers.
    pub fn cut(&self, sled: SledId) {
        self.net.cut(sled);
    }

    /// It can again.
    pub fn mend(&self, sled: SledId) {
        self.net.mend(sled);
    }

    /// The next `times` requests of this kind are refused for good.
    pub fn refuse(&self, kind: &'static str, times: usize) {
        self.net.plan(kind, Planned::Refuse, times);
    }

    /// The next `times` requests of this kind are answered with an error, and do nothing.
    pub fn answer(&self, kind: &'static str, error: SledError, times: usize) {
        self.net.plan(kind, Planned::Answer(error), times);
    }

    /// The next request of this kind is done, and answered once its sled has forgotten all its VMMs.
    pub fn answer_when_forgotten(&self, kind: &'static str) {
        self.net.plan(kind, Planned::Forget, 1);
    }

    /// Whichever actor next looks a sled up panics.
    pub fn rot_connections(&self) {
        self.net.rot();
    }

    /// Messages between the two ends are lost, both ways.
    pub fn sever(&self, pair: Pair) {
        let (source, target) = (self.host_of(pair.source_sled), self.host_of(pair.target_sled));
        self.fabric.sever(&source.addr, &target.addr);
        self.fabric.sever(&target.addr, &source.addr);
    }

    /// What the source says to the target is lost.
    pub fn mute_source(&self, pair: Pair) {
        let (source, target) = (self.host_of(pair.source_sled), self.host_of(pair.target_sled));
        self.fabric.sever(&source.addr, &target.addr);
    }

    /// The instance's active VMM and its sled.
    pub fn active(&self, id: InstanceId) -> Option<(SledId, VmmId)> {
        self.state(id).active_vmm().map(|vmm| (vmm.sled, vmm.id))
    }

    /// Asks for a migration as a client does, and waits until the target has been told; from here on the
    /// scenario moves the guests by hand.
    pub async fn migrate(&mut self, id: InstanceId) -> Result<Pair, Diverged> {
        self.manual();
        let known: BTreeSet<_> = self.state(id).migrations.keys().copied().collect();
        let is_new = |state: &Instance| state.migration.is_some_and(|id| !known.contains(&id));
        self.want(id, &Ask::Migrate { to: None }, is_new).await?;
        let told = |w: &Self| {
            let state = w.state(id);
            state
                .target_vmm()
                .is_some_and(|target| w.next_step(target.sled, target.id) == Some(Step::Ask(Question::Begin)))
        };
        self.until("the target was told to take the guest over", told).await?;
        let state = self.state(id);
        let migration = state.linked_migration().expect("it has a target");
        let (source, target) = (migration.source.vmm, migration.target.vmm);
        let sled = |vmm| state.vmms[&vmm].sled;
        let pair = Pair { id, source, source_sled: sled(source), target, target_sled: sled(target) };
        Ok(pair)
    }

    fn side(&self, sled: SledId, vmm: VmmId, is_in: bool) -> Option<MigrationState> {
        self.on_sled(sled, vmm, |vmm| {
            let state = vmm.state();
            let side = if is_in { &state.migration_in } else { &state.migration_out };
            side.as_ref().map(|side| side.state)
        })
        .flatten()
    }

    fn has_reached(&self, pair: Pair, phase: Phase) -> bool {
        let source = self.side(pair.source_sled, pair.source, false);
        let target = self.side(pair.target_sled, pair.target, true);
        match phase {
            Phase::InProgress => {
                source == Some(MigrationState::InProgress) && target == Some(MigrationState::InProgress)
            }
            Phase::HandedOver => source == Some(MigrationState::Completed),
            Phase::Arrived => target == Some(MigrationState::Completed),
            Phase::Resumed => self
                .on_sled(pair.target_sled, pair.target, |vmm| vmm.state().vmm_state.state)
                .is_some_and(|state| state == VmmState::Running),
        }
    }

    /// The target takes its steps until the migration has come so far on the sleds.
    pub async fn drive(&mut self, pair: Pair, phase: Phase) -> Result<(), Diverged> {
        for _ in 0..STEPS_MAX {
            self.tick().await;
            if let Some(broken) = self.broken() {
                return Err(Diverged(broken));
            }
            if self.has_reached(pair, phase) {
                return Ok(());
            }
            self.step(pair.target_sled, pair.target);
            self.tick().await;
            sleep(Duration::from_millis(5)).await;
        }
        Err(Diverged(format!("the migration did not come to {phase:?}")))
    }

    /// The target takes its steps until its next one is to ask for the guest itself.
    pub async fn drive_to_finish(&mut self, pair: Pair) -> Result<(), Diverged> {
        for _ in 0..STEPS_MAX {
            if self.next_step(pair.target_sled, pair.target) == Some(Step::Ask(Question::Finish)) {
                return Ok(());
            }
            self.step(pair.target_sled, pair.target);
            self.tick().await;
            sleep(Duration::from_millis(5)).await;
        }
        Err(Diverged("the migration did not come to its end".to_owned()))
    }

    /// The control plane has heard what the VMM says of its side.
    pub async fn heard(&mut self, pair: Pair, vmm: VmmId, side: SideState) -> Result<(), Diverged> {
        self.until(&format!("{vmm} is heard to be {side:?}"), |w| {
            let state = w.state(pair.id);
            state.migrations.values().any(|migration| side_of(migration, vmm).state == side)
        })
        .await
    }

    /// Both sides have been heard to be in progress.
    pub async fn both_in_progress(&mut self, pair: Pair) -> Result<(), Diverged> {
        self.drive(pair, Phase::InProgress).await?;
        self.heard(pair, pair.source, SideState::InProgress).await?;
        self.heard(pair, pair.target, SideState::InProgress).await
    }
}

fn side_of(migration: &Migration, vmm: VmmId) -> Side {
    if migration.source.vmm == vmm { migration.source } else { migration.target }
}

fn orphan(lease_epoch: LeaseEpoch) -> RegisterVmm {
    let nobody = Uuid::from_u128(0x0bad_0000);
    RegisterVmm {
        instance_id: sled_protocol::InstanceId::from_uuid(nobody),
        migration_id: None,
        vmm_runtime: VmmRuntime {
            state: VmmState::Starting,
            generation: Generation::FIRST,
            time_updated: sled_protocol::Timestamp::from_micros(EPOCH_MICROS),
        },
        resources: VmmResources { ncpus: 1, memory: 1 << 30 },
        network: VmmNetwork {
            virtual_ip: IpAddr::from([172, 16, 9, 9]),
            mac: MacAddr::new([2, 0, 0, 0, 9, 9]),
            vni: Vni::new(9).expect("it has 24 bits"),
        },
        metadata: VmmMetadata { project_id: sled_protocol::ProjectId::from_uuid(nobody) },
        lease_epoch,
    }
}
