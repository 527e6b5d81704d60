//! What a sled says about itself, and what it is told in return.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::addr;
use crate::error::{Invalid, check_range, check_text};
use crate::ids::{BootId, InstanceId, LeaseEpoch, PropolisId, SledId, StoreId};
use crate::limits;
use crate::state::SledVmmState;

/// What one sled has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SledResources {
    /// Hardware threads.
    pub threads: u32,
    /// Memory for VMMs, in bytes.
    pub memory: u64,
}

impl SledResources {
    /// Refuses a sled without threads or memory, or with more than any sled has.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_range("resources.threads", self.threads.into(), 1, limits::SLED_THREADS_MAX.into())?;
        check_range("resources.memory", self.memory, 1, limits::MEMORY_BYTES_MAX)
    }
}

/// A sled makes itself known after its boot, its agent's restart or a lapsed lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterSled {
    /// The sled.
    pub sled_id: SledId,
    /// Its name, for people.
    pub name: String,
    /// The boot of its host.
    pub boot_id: BootId,
    /// What it has to give.
    pub resources: SledResources,
    /// Migrations stay within one family.
    pub cpu_family: String,
    /// Where its agent listens, as `host:port`; also where its VMMs are migrated from. A sled in the control
    /// plane's own process, whose registration crosses no wire, gives its name.
    #[serde(deserialize_with = "addr::from_wire")]
    pub api_addr: String,
    /// The log of the control plane that it belongs to, once it does: another control plane must not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<StoreId>,
    /// The highest epoch that it has ever taken: what it is granted is never below, even by a log that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_epoch: Option<LeaseEpoch>,
}

impl RegisterSled {
    /// Refuses nil ids, texts that are empty, too long or hold control characters, absurd resources, and an epoch
    /// out of range.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.sled_id.validate("sled_id")?;
        self.boot_id.validate("boot_id")?;
        check_text("name", &self.name)?;
        check_text("cpu_family", &self.cpu_family)?;
        check_text("api_addr", &self.api_addr)?;
        if let Some(store) = self.store_id {
            store.validate("store_id")?;
        }
        if let Some(held) = self.held_epoch {
            held.validate("held_epoch")?;
        }
        self.resources.validate()
    }
}

/// Answer to a sled's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SledLease {
    /// The epoch that requests to the sled carry from here on.
    pub lease_epoch: LeaseEpoch,
    /// How long the sled may run VMMs without a renewal, in seconds; absent means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// The log of the control plane that answers; a sled that belongs to another one does not take the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<StoreId>,
}

impl SledLease {
    /// Refuses an epoch out of range, and a lease of zero or of more than a day.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.lease_epoch.validate("lease_epoch")?;
        if let Some(store) = self.store_id {
            store.validate("store_id")?;
        }
        match self.lease_seconds {
            None => Ok(()),
            Some(seconds) => check_range("lease_seconds", seconds, 1, limits::LEASE_SECONDS_MAX),
        }
    }
}

/// A sled renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewLease {
    /// The boot of its host.
    pub boot_id: BootId,
    /// The epoch it holds.
    pub lease_epoch: LeaseEpoch,
}

impl RenewLease {
    /// Refuses a nil boot and an epoch out of range.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.boot_id.validate("boot_id")?;
        self.lease_epoch.validate("lease_epoch")
    }
}

/// One VMM of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryVmm {
    /// The VMM.
    pub propolis_id: PropolisId,
    /// The instance it incarnates.
    pub instance_id: InstanceId,
    /// Its full picture.
    #[serde(flatten)]
    pub state: SledVmmState,
}

/// Everything a sled holds, in one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The sled.
    pub sled_id: SledId,
    /// The boot of its host.
    pub boot_id: BootId,
    /// The epoch it holds; absent until it has registered since its boot, or when its lease has lapsed.
    pub lease_epoch: Option<LeaseEpoch>,
    /// What it has in all.
    pub resources: SledResources,
    /// Its VMMs, ended ones included until their last report was accepted.
    pub vmms: Vec<InventoryVmm>,
}

impl Inventory {
    /// Refuses nil ids, absurd resources, more VMMs than a sled can hold, one VMM listed twice, and any VMM
    /// state that is itself refused.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.sled_id.validate("sled_id")?;
        self.boot_id.validate("boot_id")?;
        if let Some(epoch) = self.lease_epoch {
            epoch.validate("lease_epoch")?;
        }
        self.resources.validate()?;
        check_range("vmms", self.vmms.len() as u64, 0, limits::VMMS_MAX as u64)?;
        let mut seen = BTreeSet::new();
        for vmm in &self.vmms {
            vmm.propolis_id.validate("vmms.propolis_id")?;
            vmm.instance_id.validate("vmms.instance_id")?;
            vmm.state.validate()?;
            if !seen.insert(vmm.propolis_id) {
                return Err(Invalid::Twice { field: "vmms.propolis_id" });
            }
        }
        Ok(())
    }
}
