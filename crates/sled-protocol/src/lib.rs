//! What control plane and sleds say to each other: wire types, client traits, HTTP clients, validation.
//!
//! The page `docs/sled-protocol.md` is the contract; this crate is its Rust form. Invariants:
//! * One trait per direction ([`SledClient`], [`ControlPlaneClient`]): whoever calls a sled cannot tell a
//!   simulated one in the same process from one behind HTTP.
//! * Every error says whether its outcome is definite ([`SledError::is_definite`]): a definite refusal changed
//!   nothing on the sled, anything else may have happened.
//! * Nothing that arrives is trusted: each type that crosses the wire has `validate`, and both HTTP clients
//!   bound and validate what they receive.
//! * Every request that changes a sled carries the lease epoch under which it was meant.
//! * Where there is a secret, every request carries a token of its sender, good for one direction ([`SledKey`]).

mod addr;
mod client;
mod control;
mod error;
mod http;
mod ids;
mod listing;
mod network;
mod secret;
mod stall;
mod state;
mod time;
mod traffic;
mod vmm;

pub use addr::AgentAddr;
pub use client::{ControlPlaneClient, Producers, SledClient, Switch};
pub use control::{Inventory, InventoryVmm, RegisterSled, RenewLease, SledLease, SledResources};
pub use error::{ControlPlaneError, ErrorBody, Invalid, OTHER_STORE, PushError, SledError};
pub use http::{HttpControlPlaneClient, HttpSledClient, HttpTimeouts, HttpTransport};
pub use ids::{
    BootId, Generation, InstanceId, LeaseEpoch, MigrationId, OpId, ProjectId, PropolisId, SledId, StoreId,
};
pub use listing::{InventoryTag, Listing};
pub use network::{MacAddr, NatEntry, Producer, V2pKey, V2pMapping, Vni};
pub use secret::{FleetSecret, Presented, SledKey, Token};
pub use stall::StallLimit;
pub use state::{MigrationRuntime, MigrationState, SledVmmState, VmmRuntime, VmmState};
pub use time::Timestamp;
pub use traffic::{CallCount, CallKind};
pub use vmm::{
    RegisterVmm, RequestedState, SerialData, SerialRange, SetState, UpdatedRuntime, VmmMetadata, VmmNetwork,
    VmmResources,
};

/// Bounds on what may cross the wire, each named so that both sides refuse the same things.
pub mod limits {
    /// Longest name, CPU family or address, in bytes: a DNS name with a port fits.
    pub const TEXT_BYTES_MAX: usize = 261;
    /// Largest generation or epoch: exact in every JSON reader, and far from overflow when one is added.
    pub const COUNTER_MAX: u64 = (1 << 53) - 1;
    /// Most mappings in one V2P or NAT request: 4096 of them are about half a mebibyte of JSON.
    pub const MAPPINGS_MAX: usize = 4096;
    /// Most requests that one list of mappings is read with: four million of them.
    pub const MAPPING_PAGES_MAX: usize = 1024;
    /// Most VMMs on one sled: sixteen times what the largest machines of the field hold.
    pub const VMMS_MAX: usize = 4096;
    /// Most virtual CPUs of one VMM.
    pub const VMM_NCPUS_MAX: u32 = 1024;
    /// Most memory of one VMM or one sled, in bytes: 64 TiB.
    pub const MEMORY_BYTES_MAX: u64 = 1 << 46;
    /// Most hardware threads of one sled.
    pub const SLED_THREADS_MAX: u32 = 65_536;
    /// Most serial bytes in one answer.
    pub const SERIAL_BYTES_MAX: u64 = 1 << 20;
    /// Longest lease, in seconds: a day.
    pub const LEASE_SECONDS_MAX: u64 = 86_400;
    /// Largest body either HTTP client reads, in bytes: a full inventory or serial answer fits.
    pub const BODY_BYTES_MAX: usize = 16 << 20;
    /// Longest error text kept from a peer, in bytes.
    pub const MESSAGE_BYTES_MAX: usize = 1024;
}

/// Query parameter that carries the lease epoch of requests whose body has no room for it.
pub const LEASE_EPOCH_QUERY: &str = "lease_epoch";

/// Query parameters of a list of mappings: how many at most, and after which.
pub const LIMIT_QUERY: &str = "limit";
/// See [`LIMIT_QUERY`].
pub const AFTER_QUERY: &str = "after";

/// Header in which a sled names itself when it reports a VMM.
pub const SLED_ID_HEADER: &str = "x-sled-id";
