//! Registering and renewing: who the sled is, which boot it is in, and whether it may go on.

use super::Shell;
use super::calls::within;
use journal::{Actor as Who, Context};
use lifecycle::sled::{Registration, RegistrationRefused, Sled, needs_witness, register};
use lifecycle::{BootId, LeaseEpoch};
use ractor::ActorProcessingErr;
use sled_protocol::{self as wire, ControlPlaneError, SledLease};
use tokio::sync::oneshot;

impl Shell {
    /// The lease is answered once it is durable; registering again with nothing new writes nothing.
    pub(super) async fn on_register(
        &mut self,
        registration: &Registration,
        reply: oneshot::Sender<Result<SledLease, ControlPlaneError>>,
    ) -> Result<(), ActorProcessingErr> {
        let lease = self.env.limits.sled_lease.filter(|_| registration.properties.is_remote());
        let events = match register(self.state.as_ref(), registration, lease) {
            Ok(events) => events,
            Err(refused) => {
                // A sled that hung up registers again.
                let _ = reply.send(Err(match refused {
                    RegistrationRefused::Expunged => ControlPlaneError::Expunged,
                    RegistrationRefused::PastBoot => ControlPlaneError::StaleEpoch,
                }));
                return Ok(());
            }
        };
        if needs_witness(self.state.as_ref(), registration) && self.lives_elsewhere(registration).await {
            let address = &registration.properties.address;
            tracing::warn!(sled = %self.id, address, "another host registers with the id of a sled that lives");
            // A sled that hung up registers again.
            let _ = reply.send(Err(ControlPlaneError::Conflict));
            return Ok(());
        }
        if needs_witness(self.state.as_ref(), registration) && !self.is_in_boot(registration).await {
            // The sled repeats its registration; a message that was late is not repeated.
            let why = "the sled could not be asked whether it is in this boot".to_owned();
            let _ = reply.send(Err(ControlPlaneError::Unavailable(why)));
            return Ok(());
        }
        if let Err(error) = self.append(&events, &Context::of(Who::Sled(self.id))).await {
            let _ = reply.send(Err(ControlPlaneError::Unavailable(error.to_string())));
            return if error.ends_owner() { Err(error.into()) } else { Ok(()) };
        }
        self.connect();
        if !events.is_empty() {
            // The new epoch's lease may be shorter than what the timer was set for.
            self.lease = super::lease::Clock::default();
        }
        self.lease_renewed();
        self.heard();
        let epoch = self.epoch().expect("a registered sled has booted");
        // A sled that hung up registers again.
        let lease_seconds = self.state.as_ref().and_then(Sled::running_lease);
        let _ = reply.send(Ok(SledLease { lease_epoch: wire::LeaseEpoch::new(epoch.get()), lease_seconds }));
        self.tell_of_fence().await;
        self.ask_inventory();
        Ok(())
    }

    /// Whether the sled answers where the log has it, in the boot that the log has, while somebody registers
    /// with its id and another boot from elsewhere. A host that moved or is gone does not answer there.
    async fn lives_elsewhere(&self, registration: &Registration) -> bool {
        let known = self.state.as_ref().and_then(|sled| Some((&sled.properties.address, sled.boot?.0)));
        let Some((address, boot)) = known.filter(|(address, _)| **address != registration.properties.address)
        else {
            return false;
        };
        let Some(client) = self.env.connector.connect(self.id, address) else {
            return false;
        };
        let answer = within(self.env.limits.sled_call, client.inventory()).await;
        answer.is_ok_and(|inventory| {
            inventory.sled_id.as_uuid() == self.id.uuid() && inventory.boot_id.as_uuid() == boot.uuid()
        })
    }

    /// Asks the sled itself. Nothing else is journaled of it meanwhile: this actor is the only writer.
    async fn is_in_boot(&self, registration: &Registration) -> bool {
        let Some(client) = self.env.connector.connect(self.id, &registration.properties.address) else {
            return false;
        };
        match within(self.env.limits.sled_call, client.inventory()).await {
            Ok(inventory) => {
                inventory.sled_id.as_uuid() == self.id.uuid()
                    && inventory.boot_id.as_uuid() == registration.boot.uuid()
            }
            Err(_) => false,
        }
    }

    /// Extends the lease, if there is one; the answer says whether the sled is who it believes to be. A lease that
    /// was found expired stays so: the sled must register into the next epoch.
    pub(super) fn on_renew(&mut self, boot: BootId, epoch: LeaseEpoch) -> Result<(), ControlPlaneError> {
        let sled = self.state.as_ref().ok_or(ControlPlaneError::Unknown)?;
        if sled.expunged.is_some() {
            return Err(ControlPlaneError::Expunged);
        }
        if sled.boot.map(|(boot, _)| boot) != Some(boot) || sled.epoch() != Some(epoch) {
            return Err(ControlPlaneError::StaleEpoch);
        }
        self.lease_renewed();
        self.heard();
        Ok(())
    }
}
