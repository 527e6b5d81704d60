//! The sled's way to its control plane: tells people what became of registering, and keeps it with one control plane.
//!
//! A control plane ends what it does not know. A sled that is pointed at another one by mistake would lose its guests, so
//! it remembers the log of the one that took it, and neither side takes the other without.

use super::identity::Identity;
use super::stored;
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, LeaseEpoch, PropolisId, RegisterSled, RenewLease, SledId,
    SledLease, SledVmmState, StoreId,
};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlPlaneError>> + Send + 'a>>;

/// Tells people what became of registering, whenever that changes; and belongs to whoever took it first.
pub(super) struct Announced {
    control_plane: Arc<dyn ControlPlaneClient>,
    name: String,
    said: Mutex<String>,
    /// Never held across an await.
    identity: Mutex<Identity>,
    dir: PathBuf,
}

impl Announced {
    /// On behalf of the sled of this name, whose identity is kept in `dir`.
    pub(super) fn new(
        control_plane: Arc<dyn ControlPlaneClient>,
        name: &str,
        identity: Identity,
        dir: PathBuf,
    ) -> Self {
        let (said, identity) = (Mutex::default(), Mutex::new(identity));
        Self { control_plane, name: name.to_owned(), said, identity, dir }
    }

    /// Whose it is, and the highest epoch that it has taken.
    fn known(&self) -> (Option<StoreId>, Option<LeaseEpoch>) {
        // An identity is whole whatever panicked elsewhere.
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        (identity.store_id, identity.epoch)
    }

    /// Takes the answer of the control plane that it belongs to. The first that takes it, and each epoch, is
    /// remembered before the answer counts.
    async fn belongs(&self, lease: SledLease) -> Result<SledLease, ControlPlaneError> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(own), Some(store)) = (identity.store_id, lease.store_id)
            && own != store
        {
            return Err(ControlPlaneError::OtherStore);
        }
        if identity.epoch > Some(lease.lease_epoch) {
            let why = format!("it grants epoch {}, and an earlier one was higher", lease.lease_epoch);
            return Err(ControlPlaneError::Unavailable(why));
        }
        let store_id = identity.store_id.or(lease.store_id);
        let epoch = identity.epoch.max(Some(lease.lease_epoch));
        if (store_id, epoch) != (identity.store_id, identity.epoch) {
            // A sled registers once at a time: nobody else writes it meanwhile.
            let mut bound = identity;
            (bound.store_id, bound.epoch) = (store_id, epoch);
            let bound = match stored(bound, self.dir.clone()).await {
                Ok(stored) => stored.map_err(|failure| ControlPlaneError::Unavailable(failure.what))?,
                Err(error) => return Err(ControlPlaneError::Unavailable(error.to_string())),
            };
            *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = bound;
        }
        Ok(lease)
    }

    fn say(&self, outcome: &Result<SledLease, ControlPlaneError>) {
        let text = match outcome {
            Ok(lease) => format!("registered; lease epoch {}", lease.lease_epoch),
            Err(error) => format!("not registered, trying again: {error}"),
        };
        // A text is whole whatever panicked elsewhere.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != text {
            if outcome.is_ok() {
                tracing::info!(sled = self.name, "{text}");
            } else {
                tracing::warn!(sled = self.name, "{text}");
            }
            *said = text;
        }
    }
}

impl ControlPlaneClient for Announced {
    fn report(&self, sled: SledId, vmm: PropolisId, state: SledVmmState) -> Call<'_, ()> {
        self.control_plane.report(sled, vmm, state)
    }

    fn register(&self, request: RegisterSled) -> Call<'_, SledLease> {
        Box::pin(async move {
            let (store_id, epoch) = self.known();
            let held_epoch = request.held_epoch.max(epoch);
            let request = RegisterSled { store_id, held_epoch, ..request };
            let outcome = match self.control_plane.register(request).await {
                Ok(lease) => self.belongs(lease).await,
                Err(error) => Err(error),
            };
            self.say(&outcome);
            outcome
        })
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> Call<'_, ()> {
        self.control_plane.renew(sled, request)
    }
}
