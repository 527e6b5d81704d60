//! The calls, as traits, so that a peer in the same process and one behind HTTP look alike.

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::control::{Inventory, RegisterSled, RenewLease, SledLease};
use crate::error::{ControlPlaneError, PushError, SledError};
use crate::ids::{Generation, LeaseEpoch, PropolisId, SledId};
use crate::listing::{InventoryTag, Listing};
use crate::network::{NatEntry, Producer, V2pMapping};
use crate::state::SledVmmState;
use crate::vmm::{RegisterVmm, SerialData, SerialRange, SetState};

/// What the control plane asks of one sled; one client speaks to one sled.
///
/// Every call may be repeated. Dropping the future leaves the outcome unknown.
pub trait SledClient: Send + Sync {
    /// Ensures that the VMM exists; answers its current state.
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>>;

    /// Kills and forgets the VMM; answers its last state, or `None` if there was no such VMM. Either way a
    /// late register of it is refused from here on.
    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>>;

    /// Asks the VMM to change its state; `None` means that the effect arrives as a report.
    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>>;

    /// The VMM's current state.
    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>>;

    /// Everything the sled holds.
    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>>;

    /// The same, unless it is still what the sled gave this tag; one that knows no tags answers in full.
    fn inventory_unless(&self, known: Option<InventoryTag>) -> BoxFuture<'_, Result<Listing, SledError>> {
        drop(known);
        async move { Ok(Listing::Whole(self.inventory().await?, None)) }.boxed()
    }

    /// Sets mappings; one that is older than what the sled holds for its key is ignored.
    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>>;

    /// Deletes mappings by key; a deletion that is older than what the sled holds for its key is ignored.
    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>>;

    /// The mappings the sled holds.
    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>>;

    /// A part of the VMM's serial output.
    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>>;
}

/// What a sled asks of the control plane.
pub trait ControlPlaneClient: Send + Sync {
    /// Delivers the full picture of one VMM; success means stored durably or no longer of interest.
    fn report(
        &self,
        sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>>;

    /// Makes the sled known; answers its epoch and, if leases are on, how long one lasts.
    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>>;

    /// Renews the sled's lease, counted by the sled from before the call.
    fn renew(&self, sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>>;
}

/// The switch that translates external addresses.
pub trait Switch: Send + Sync {
    /// Sets entries; one that is older than what the switch holds for its key is ignored.
    fn put_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>>;

    /// Deletes entries by key; an older deletion is ignored, a newer one leaves its generation behind.
    fn delete_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>>;

    /// The entries the switch holds.
    fn list_nat(&self) -> BoxFuture<'_, Result<Vec<NatEntry>, PushError>>;
}

/// The registry of metrics producers.
pub trait Producers: Send + Sync {
    /// Registers a producer; one that is older than what the registry holds is ignored.
    fn put_producer(&self, producer: Producer) -> BoxFuture<'_, Result<(), PushError>>;

    /// Removes a producer; an older deletion is ignored, a newer one leaves its generation behind.
    fn delete_producer(
        &self,
        vmm: PropolisId,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), PushError>>;

    /// The producers the registry holds.
    fn list_producers(&self) -> BoxFuture<'_, Result<Vec<Producer>, PushError>>;
}
