//! What the control plane may ask, row by row of the tables in `docs/sled-protocol.md`.
//!
//! Invariants:
//! * Checks come in one order: power, form, epoch, tombstone, VMM, repeat, state. A refusal changes nothing.
//! * A request that changes the sled needs exactly the epoch the sled holds.

use serde::{Deserialize, Serialize};
use sled_protocol::{
    Inventory, InventoryVmm, LeaseEpoch, MigrationState, OpId, PropolisId, RegisterVmm, RequestedState,
    SerialData, SerialRange, SetState, SledError, SledVmmState, V2pMapping, VmmState, limits,
};

use super::migrate::{Peer, Question};
use super::steps::Then;
use super::vmm::{Step, Vmm};
use super::{Sled, V2pKey};

/// Most overlay mappings held: every instance of a large fleet.
const V2P_MAX: usize = 262_144;

/// A request to a sled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// PUT /vmms/{id}
    Register {
        /// The VMM.
        vmm: PropolisId,
        /// The body.
        body: RegisterVmm,
    },
    /// DELETE /vmms/{id}
    Unregister {
        /// The VMM.
        vmm: PropolisId,
        /// The epoch under which it is meant.
        lease_epoch: LeaseEpoch,
    },
    /// PUT /vmms/{id}/state
    SetState {
        /// The VMM.
        vmm: PropolisId,
        /// The body.
        body: SetState,
    },
    /// GET /vmms/{id}/state
    GetState {
        /// The VMM.
        vmm: PropolisId,
    },
    /// GET /inventory
    Inventory,
    /// PUT /v2p
    PutV2p {
        /// The epoch under which it is meant.
        lease_epoch: LeaseEpoch,
        /// The body.
        mappings: Vec<V2pMapping>,
    },
    /// DELETE /v2p
    DeleteV2p {
        /// The epoch under which it is meant.
        lease_epoch: LeaseEpoch,
        /// The body.
        mappings: Vec<V2pMapping>,
    },
    /// GET /v2p
    ListV2p,
    /// GET /vmms/{id}/serial
    Serial {
        /// The VMM.
        vmm: PropolisId,
        /// The query.
        range: SerialRange,
    },
}

/// The kinds of request, by which faults are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// PUT /vmms/{id}
    Register,
    /// DELETE /vmms/{id}
    Unregister,
    /// PUT /vmms/{id}/state, `running`
    SetRunning,
    /// PUT /vmms/{id}/state, `stopped`
    SetStopped,
    /// PUT /vmms/{id}/state, `reboot`
    Reboot,
    /// PUT /vmms/{id}/state, `migration_target`
    MigrationTarget,
    /// PUT /vmms/{id}/state, `migration_cancel`
    MigrationCancel,
    /// GET /vmms/{id}/state
    GetState,
    /// GET /inventory
    Inventory,
    /// PUT /v2p
    PutV2p,
    /// DELETE /v2p
    DeleteV2p,
    /// GET /v2p
    ListV2p,
    /// GET /vmms/{id}/serial
    Serial,
}

impl RequestKind {
    /// Its name, as draws are keyed by it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::SetRunning => "set running",
            Self::SetStopped => "set stopped",
            Self::Reboot => "reboot",
            Self::MigrationTarget => "migration target",
            Self::MigrationCancel => "migration cancel",
            Self::GetState => "get state",
            Self::Inventory => "inventory",
            Self::PutV2p => "put v2p",
            Self::DeleteV2p => "delete v2p",
            Self::ListV2p => "list v2p",
            Self::Serial => "serial",
        }
    }
}

impl Request {
    /// The request's kind.
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Register { .. } => RequestKind::Register,
            Self::Unregister { .. } => RequestKind::Unregister,
            Self::SetState { body, .. } => match body.state {
                RequestedState::Running => RequestKind::SetRunning,
                RequestedState::Stopped => RequestKind::SetStopped,
                RequestedState::Reboot => RequestKind::Reboot,
                RequestedState::MigrationTarget { .. } => RequestKind::MigrationTarget,
                RequestedState::MigrationCancel => RequestKind::MigrationCancel,
            },
            Self::GetState { .. } => RequestKind::GetState,
            Self::Inventory => RequestKind::Inventory,
            Self::PutV2p { .. } => RequestKind::PutV2p,
            Self::DeleteV2p { .. } => RequestKind::DeleteV2p,
            Self::ListV2p => RequestKind::ListV2p,
            Self::Serial { .. } => RequestKind::Serial,
        }
    }
}

/// A sled's answer to a request it did not refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To register and get state.
    Vmm(SledVmmState),
    /// To unregister and set state.
    Updated(Option<SledVmmState>),
    /// To inventory.
    Inventory(Inventory),
    /// To changes of mappings.
    Done,
    /// To a list of mappings.
    V2p(Vec<V2pMapping>),
    /// To serial.
    Serial(SerialData),
}

/// What a sled says to a request.
pub type Response = Result<Answer, SledError>;

impl Sled {
    /// Answers a request; what was due by `now` has happened before.
    pub fn handle(&mut self, now: u64, request: Request) -> Response {
        if !self.host.is_powered() {
            return Err(SledError::Transport("the sled is switched off".to_owned()));
        }
        self.advance(now);
        let now = self.host.clock;
        match request {
            Request::Register { vmm, body } => self.register(vmm, body).map(Answer::Vmm),
            Request::Unregister { vmm, lease_epoch } => {
                self.check_epoch(lease_epoch)?;
                Ok(Answer::Updated(self.unregister(now, vmm)))
            }
            Request::SetState { vmm, body } => self.set_state(now, vmm, &body).map(Answer::Updated),
            Request::GetState { vmm } => Ok(Answer::Vmm(self.known(vmm)?.state().clone())),
            Request::Inventory => Ok(Answer::Inventory(self.inventory())),
            Request::PutV2p { lease_epoch, mappings } => self.put_v2p(lease_epoch, mappings),
            Request::DeleteV2p { lease_epoch, mappings } => self.delete_v2p(lease_epoch, &mappings),
            Request::ListV2p => Ok(Answer::V2p(self.v2p.values().cloned().collect())),
            Request::Serial { vmm, range } => Ok(Answer::Serial(self.known(vmm)?.serial.read(range))),
        }
    }

    /// Everything the sled holds.
    pub fn inventory(&self) -> Inventory {
        let listed = |vmm: &Vmm| InventoryVmm {
            propolis_id: vmm.propolis_id(),
            instance_id: vmm.instance_id(),
            state: vmm.state().clone(),
        };
        Inventory {
            sled_id: self.config.sled_id,
            boot_id: self.host.boot_id,
            lease_epoch: self.host.lease_epoch(),
            resources: self.config.resources,
            vmms: self.vmms.values().map(listed).collect(),
        }
    }

    fn register(&mut self, vmm: PropolisId, body: RegisterVmm) -> Result<SledVmmState, SledError> {
        vmm.validate("propolis_id")?;
        body.validate()?;
        self.check_epoch(body.lease_epoch)?;
        if self.tombstones.contains(vmm) {
            return Err(SledError::Gone);
        }
        if let Some(known) = self.vmms.get(&vmm) {
            let is_same = known.instance_id() == body.instance_id;
            return if is_same { Ok(known.state().clone()) } else { Err(SledError::Conflict) };
        }
        if !self.has_room_for(&body) {
            return Err(SledError::NoRoom);
        }
        let registered = Vmm::new(vmm, body);
        let state = registered.state().clone();
        self.vmms.insert(vmm, registered);
        self.touched.vmm(vmm);
        Ok(state)
    }

    fn has_room_for(&self, body: &RegisterVmm) -> bool {
        let live = || self.vmms.values().filter(|vmm| vmm.is_live()).map(Vmm::resources);
        let threads: u64 = live().map(|taken| u64::from(taken.ncpus)).sum();
        let memory: u64 = live().map(|taken| taken.memory).sum();
        let total = self.config.resources;
        threads + u64::from(body.resources.ncpus) <= u64::from(total.threads)
            && memory.saturating_add(body.resources.memory) <= total.memory
            && self.vmms.len() < limits::VMMS_MAX
    }

    fn unregister(&mut self, now: u64, vmm: PropolisId) -> Option<SledVmmState> {
        self.end_vmm(vmm, now, VmmState::Failed);
        let last = self.vmms.get(&vmm).map(|known| known.state().clone());
        if last.is_some() {
            self.forget(vmm);
        } else {
            self.bury(vmm);
        }
        last
    }

    fn set_state(
        &mut self,
        now: u64,
        vmm: PropolisId,
        body: &SetState,
    ) -> Result<Option<SledVmmState>, SledError> {
        body.validate()?;
        self.check_epoch(body.lease_epoch)?;
        if !self.known(vmm)?.has_done(body.op_id) {
            match &body.state {
                RequestedState::Running => self.set_running(now, vmm),
                RequestedState::Stopped => self.set_stopped(now, vmm),
                RequestedState::Reboot => self.set_rebooting(now, vmm),
                RequestedState::MigrationTarget { src_propolis_id, src_addr } => {
                    self.set_migration_target(now, vmm, *src_propolis_id, src_addr)
                }
                RequestedState::MigrationCancel => self.cancel_migration(now, vmm),
            }?;
            self.remember(vmm, body.op_id);
        }
        // Running and migration_target are acknowledged only; their effect arrives as a report.
        let is_report_only =
            matches!(body.state, RequestedState::Running | RequestedState::MigrationTarget { .. });
        Ok(self.vmms.get(&vmm).map(|known| known.state().clone()).filter(|_| !is_report_only))
    }

    fn set_running(&mut self, now: u64, id: PropolisId) -> Result<(), SledError> {
        let vmm = self.known(id)?;
        match vmm.vmm_state() {
            VmmState::Starting => {
                if vmm.next.is_none() {
                    self.write_serial(id, "musher: boot\r\n");
                    self.schedule(id, now, Then::boot());
                }
                Ok(())
            }
            VmmState::Running | VmmState::Rebooting | VmmState::Migrating => Ok(()),
            state @ (VmmState::Stopping | VmmState::Stopped | VmmState::Failed | VmmState::Destroyed) => {
                Err(bad_state("run", state))
            }
        }
    }

    fn set_stopped(&mut self, now: u64, id: PropolisId) -> Result<(), SledError> {
        let vmm = self.known(id)?;
        match vmm.vmm_state() {
            VmmState::Starting => self.end_vmm(id, now, VmmState::Destroyed),
            VmmState::Running | VmmState::Rebooting => self.begin_stop(id, now),
            // The source may have let the guest go: it is shut down as soon as it is here.
            VmmState::Migrating if vmm.is_arriving() && vmm.has_asked_finish => {
                if let Some(vmm) = self.vmm_mut(id) {
                    vmm.stops_on_arrival = true;
                }
            }
            // A target whose guest has not arrived has nothing to shut down.
            VmmState::Migrating if vmm.is_arriving() => self.end_vmm(id, now, VmmState::Destroyed),
            // A source that has not let its guest go gives up the migration and shuts the guest down.
            VmmState::Migrating if vmm.is_departing() => {
                self.fail_departure(id, now);
                self.begin_stop(id, now);
            }
            // A source whose guest has left is about to stop by itself.
            VmmState::Migrating if vmm.next_step() == Some(Step::Depart) => {}
            VmmState::Migrating => match vmm.arrival() {
                // A target whose guest has arrived is as good as running.
                Some(MigrationState::Completed) => self.begin_stop(id, now),
                _ => self.end_vmm(id, now, VmmState::Destroyed),
            },
            VmmState::Stopping | VmmState::Stopped | VmmState::Failed | VmmState::Destroyed => {}
        }
        Ok(())
    }

    fn set_rebooting(&mut self, now: u64, id: PropolisId) -> Result<(), SledError> {
        match self.known(id)?.vmm_state() {
            VmmState::Starting | VmmState::Running => {
                if let Some(vmm) = self.vmm_mut(id) {
                    vmm.guest_running = true;
                    vmm.set_state(now, VmmState::Rebooting);
                }
                self.write_serial(id, "musher: reboot\r\n");
                self.schedule(id, now, Then::restart());
                Ok(())
            }
            VmmState::Rebooting => Ok(()),
            state @ (VmmState::Migrating
            | VmmState::Stopping
            | VmmState::Stopped
            | VmmState::Failed
            | VmmState::Destroyed) => Err(bad_state("reboot", state)),
        }
    }

    fn set_migration_target(
        &mut self,
        now: u64,
        id: PropolisId,
        source: PropolisId,
        source_addr: &str,
    ) -> Result<(), SledError> {
        let vmm = self.known(id)?;
        let Some(arrival) = vmm.state().migration_in.as_ref() else {
            return Err(SledError::BadState("the VMM was not registered as a migration target".to_owned()));
        };
        if let Some(peer) = &vmm.peer
            && vmm.is_arriving()
        {
            let is_same = peer.vmm == source && peer.addr == source_addr;
            return if is_same {
                Ok(())
            } else {
                Err(SledError::BadState("the VMM already fetches its guest from another source".to_owned()))
            };
        }
        if arrival.state != MigrationState::Pending || vmm.vmm_state() != VmmState::Migrating {
            return Err(bad_state("become a migration target", vmm.vmm_state()));
        }
        if source == id {
            return Err(SledError::BadState("a VMM cannot be its own source".to_owned()));
        }
        let peer = Peer { migration_id: arrival.migration_id, vmm: source, addr: source_addr.to_owned() };
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.peer = Some(peer);
        }
        self.schedule(id, now, Then::ask_first(Question::Begin));
        Ok(())
    }

    fn remember(&mut self, id: PropolisId, op: OpId) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.remember(op);
        }
    }

    fn put_v2p(&mut self, lease_epoch: LeaseEpoch, mappings: Vec<V2pMapping>) -> Response {
        self.check_mappings(lease_epoch, &mappings)?;
        if self.v2p.len() + mappings.len() > V2P_MAX {
            return Err(SledError::NoRoom);
        }
        for mapping in mappings {
            let key = v2p_key(&mapping);
            if self.v2p.put(key, mapping.generation, mapping) {
                self.touched.v2p(key);
            }
        }
        Ok(Answer::Done)
    }

    fn delete_v2p(&mut self, lease_epoch: LeaseEpoch, mappings: &[V2pMapping]) -> Response {
        self.check_mappings(lease_epoch, mappings)?;
        for mapping in mappings {
            let key = v2p_key(mapping);
            if self.v2p.delete(key, mapping.generation) {
                self.touched.v2p(key);
            }
        }
        Ok(Answer::Done)
    }

    fn check_mappings(&self, lease_epoch: LeaseEpoch, mappings: &[V2pMapping]) -> Result<(), SledError> {
        if mappings.len() > limits::MAPPINGS_MAX {
            let text = format!("{} mappings; send at most {}", mappings.len(), limits::MAPPINGS_MAX);
            return Err(SledError::Malformed(text));
        }
        mappings.iter().try_for_each(V2pMapping::validate)?;
        self.check_epoch(lease_epoch)
    }

    fn check_epoch(&self, lease_epoch: LeaseEpoch) -> Result<(), SledError> {
        if self.host.lease_epoch() == Some(lease_epoch) { Ok(()) } else { Err(SledError::StaleEpoch) }
    }

    fn known(&self, id: PropolisId) -> Result<&Vmm, SledError> {
        self.vmms.get(&id).ok_or(SledError::NoSuchInstance)
    }
}

const fn v2p_key(mapping: &V2pMapping) -> V2pKey {
    (mapping.vni, mapping.virtual_ip)
}

pub(super) fn bad_state(verb: &str, state: VmmState) -> SledError {
    SledError::BadState(format!("a VMM that is {state:?} cannot {verb}").to_lowercase())
}
