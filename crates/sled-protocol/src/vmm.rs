//! Requests about one VMM, and their answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Invalid, check_range, check_text};
use crate::ids::{InstanceId, LeaseEpoch, MigrationId, OpId, ProjectId, PropolisId};
use crate::limits;
use crate::network::{MacAddr, Vni};
use crate::state::{SledVmmState, VmmRuntime, VmmState};

/// What one VMM takes from its sled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmResources {
    /// Virtual CPUs; each takes one hardware thread.
    pub ncpus: u32,
    /// Memory in bytes.
    pub memory: u64,
}

/// The VMM's one network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmNetwork {
    /// Address within the virtual network.
    pub virtual_ip: IpAddr,
    /// Ethernet address.
    pub mac: MacAddr,
    /// The virtual network.
    pub vni: Vni,
}

/// What a sled needs to know of a VMM only to label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmMetadata {
    /// The project that owns the instance.
    pub project_id: ProjectId,
}

/// Ensures that a VMM exists on a sled; repeated, it answers the VMM's current state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterVmm {
    /// The instance that the VMM incarnates.
    pub instance_id: InstanceId,
    /// The migration whose target the VMM is.
    #[serde(default)]
    pub migration_id: Option<MigrationId>,
    /// `starting`, or `migrating` for a target; its generation is the one to count from.
    pub vmm_runtime: VmmRuntime,
    /// What the VMM takes.
    pub resources: VmmResources,
    /// Its network interface.
    pub network: VmmNetwork,
    /// Labels.
    pub metadata: VmmMetadata,
    /// The epoch under which the request is meant.
    pub lease_epoch: LeaseEpoch,
}

impl RegisterVmm {
    /// Refuses nil ids, resources out of range, and a first state that is not one, or that does not fit
    /// whether there is a migration.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.instance_id.validate("instance_id")?;
        self.metadata.project_id.validate("metadata.project_id")?;
        self.vmm_runtime.generation.validate("vmm_runtime.gen")?;
        self.lease_epoch.validate("lease_epoch")?;
        let ncpus = u64::from(self.resources.ncpus);
        check_range("resources.ncpus", ncpus, 1, limits::VMM_NCPUS_MAX.into())?;
        check_range("resources.memory", self.resources.memory, 1, limits::MEMORY_BYTES_MAX)?;
        match (self.vmm_runtime.state, self.migration_id) {
            (VmmState::Starting, None) => Ok(()),
            (VmmState::Migrating, Some(migration)) => migration.validate("migration_id"),
            _ => Err(Invalid::Malformed {
                field: "vmm_runtime.state",
                expected: "`starting` without a migration, or `migrating` with one",
            }),
        }
    }
}

/// What a VMM is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum RequestedState {
    /// Boot the guest.
    Running,
    /// Shut the guest down, and kill it when the grace period ends.
    Stopped,
    /// Restart the guest within the same VMM.
    Reboot,
    /// Fetch the guest from its source.
    MigrationTarget {
        /// The VMM that holds the guest.
        src_propolis_id: PropolisId,
        /// The address of the sled that holds that VMM.
        src_addr: String,
    },
    /// Give up the migration that the VMM takes part in.
    MigrationCancel,
}

/// Asks a VMM to change its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetState {
    /// Repeated with the same id, the request acts once.
    pub op_id: OpId,
    /// The epoch under which the request is meant.
    pub lease_epoch: LeaseEpoch,
    /// What to do.
    pub state: RequestedState,
}

impl SetState {
    /// Refuses nil ids and a source address that is empty or too long.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.op_id.validate("op_id")?;
        self.lease_epoch.validate("lease_epoch")?;
        if let RequestedState::MigrationTarget { src_propolis_id, src_addr } = &self.state {
            src_propolis_id.validate("src_propolis_id")?;
            check_text("src_addr", src_addr)?;
        }
        Ok(())
    }
}

/// Answer to a change of state: the state after it, or null when the effect arrives as a report only, or
/// when the sled knows no such VMM (unregister).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatedRuntime {
    /// The VMM's state, if it is known at once.
    pub updated_runtime: Option<SledVmmState>,
}

/// Which part of a VMM's serial output is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialRange {
    /// First byte wanted, counted from the VMM's first; output already discarded is skipped.
    #[serde(default)]
    pub from_start: u64,
    /// Most bytes wanted; absent means as many as are kept, never above `limits::SERIAL_BYTES_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// A part of a VMM's serial output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialData {
    /// The bytes.
    pub data: Vec<u8>,
    /// Offset just behind the last byte of `data`, counted from the VMM's first.
    pub last_byte_offset: u64,
}

impl SerialData {
    /// Refuses more bytes than were to be had, and an offset before the end of the data.
    pub fn validate(&self) -> Result<(), Invalid> {
        let bytes = self.data.len() as u64;
        check_range("data", bytes, 0, limits::SERIAL_BYTES_MAX)?;
        check_range("last_byte_offset", self.last_byte_offset, bytes, limits::COUNTER_MAX)
    }
}
