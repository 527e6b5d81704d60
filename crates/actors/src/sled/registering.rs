//! Registering and renewing: who the sled is, which boot it is in, and whether it may go on.
//!
//! A boot that the log does not know needs the sled's own word, and that can take as long as a call. The question is a
//! task of its own, so that renewals are answered meanwhile. Its answer counts only if nothing was recorded of the sled
//! since it was asked: then it is as if the sled had been asked and nothing else had happened.
//!
//! Renewals do not come here but while the actor loads: see [`super::standing`].

use super::calls::within;
use super::{Shell, SledMsg};
use crate::env::Env;
use journal::{Actor as Who, Context};
use lifecycle::event::SledEvent;
use lifecycle::sled::{Registration, RegistrationRefused, Sled, needs_witness, register};
use lifecycle::{BootId, LeaseEpoch, SledId};
use ractor::ActorProcessingErr;
use sled_protocol::{self as wire, ControlPlaneError, SledLease};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Questions to one sled under way at a time: its own registration, a repeat of it, and somebody else's with its id.
pub(super) const QUESTIONS_MAX: usize = 4;

type Reply = oneshot::Sender<Result<SledLease, ControlPlaneError>>;

/// What became of asking a sled whether it is in the boot that it registers with.
pub(crate) struct Witnessed {
    registration: Registration,
    reply: Reply,
    /// How much was recorded of the sled when it was asked.
    version: u64,
    word: Word,
}

/// What the sled, or whoever has its id, said.
enum Word {
    /// It is in this boot.
    Confirmed,
    /// The sled that the log has lives at its old address, in its old boot.
    LivesElsewhere,
    /// Nothing, or another boot.
    Silent,
}

impl Shell {
    /// The lease is answered once it is durable; registering again with nothing new writes nothing.
    pub(super) async fn on_register(
        &mut self,
        registration: Registration,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        match self.decided(&registration) {
            // A sled that hung up registers again.
            Err(refused) => drop(reply.send(Err(refused))),
            Ok(_) if needs_witness(self.state.as_ref(), &registration) => {
                self.ask_witness(registration, reply);
            }
            Ok(events) => return self.registered(&events, reply).await,
        }
        Ok(())
    }

    fn decided(&self, registration: &Registration) -> Result<Vec<SledEvent>, ControlPlaneError> {
        let lease = self.env.limits.sled_lease.filter(|_| registration.properties.is_remote());
        register(self.state.as_ref(), registration, lease).map_err(|refused| match refused {
            RegistrationRefused::Expunged => ControlPlaneError::Expunged,
            RegistrationRefused::PastBoot => ControlPlaneError::StaleEpoch,
            RegistrationRefused::EpochOutOfReach => ControlPlaneError::Malformed(refused.to_string()),
        })
    }

    /// Records what is new of it, and answers its lease.
    async fn registered(&mut self, events: &[SledEvent], reply: Reply) -> Result<(), ActorProcessingErr> {
        if let Err(error) = self.append(events, &Context::of(Who::Sled(self.id))).await {
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
        let lease_epoch = wire::LeaseEpoch::new(epoch.get());
        // Which store this is, whoever carries the answer over the wire knows.
        let _ = reply.send(Ok(SledLease { lease_epoch, lease_seconds, store_id: None }));
        self.tell_of_fence().await;
        self.ask_inventory();
        Ok(())
    }

    /// Asks in a task of its own.
    fn ask_witness(&mut self, registration: Registration, reply: Reply) {
        let Ok(question) = Arc::clone(&self.questions).try_acquire_owned() else {
            let why = "it is being asked about earlier registrations".to_owned();
            let _ = reply.send(Err(ControlPlaneError::Unavailable(why)));
            return;
        };
        let known =
            self.state.as_ref().and_then(|sled| Some((sled.properties.address.clone(), sled.boot?.0)));
        let (env, id, me, version) = (Arc::clone(&self.env), self.id, self.me.clone(), self.version());
        tokio::spawn(async move {
            let word = match known {
                Some((address, boot))
                    if address != registration.properties.address
                        && answers(&env, id, &address, boot).await =>
                {
                    Word::LivesElsewhere
                }
                _ if answers(&env, id, &registration.properties.address, registration.boot).await => {
                    Word::Confirmed
                }
                _ => Word::Silent,
            };
            // The actor may have ended: the sled registers again.
            let _ = me.cast(SledMsg::Witnessed(Witnessed { registration, reply, version, word }));
            drop(question);
        });
    }

    pub(super) async fn on_witnessed(&mut self, witnessed: Witnessed) -> Result<(), ActorProcessingErr> {
        let Witnessed { registration, reply, version, word } = witnessed;
        let refused = match word {
            Word::LivesElsewhere => {
                let address = &registration.properties.address;
                tracing::warn!(sled = %self.id, address, "another host registers with the id of a sled that lives");
                ControlPlaneError::Conflict
            }
            // The sled repeats its registration; a message that was late is not repeated.
            Word::Silent => ControlPlaneError::Unavailable(
                "the sled could not be asked whether it is in this boot".to_owned(),
            ),
            Word::Confirmed if version != self.version() => ControlPlaneError::Unavailable(
                "something else was recorded of the sled while it was asked".to_owned(),
            ),
            Word::Confirmed => match self.decided(&registration) {
                Ok(events) => return self.registered(&events, reply).await,
                Err(refused) => refused,
            },
        };
        // A sled that hung up registers again.
        let _ = reply.send(Err(refused));
        Ok(())
    }

    /// How much was recorded of the sled.
    fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |sled| sled.version)
    }

    /// A renewal that came before this actor had loaded its stream. By now it is answered as any other is.
    pub(super) fn on_renew(&mut self, boot: BootId, epoch: LeaseEpoch) -> Result<(), ControlPlaneError> {
        let answer = self.standing.renew(boot, epoch, self.env.clock.now());
        let answer = answer.unwrap_or(Err(ControlPlaneError::Unknown));
        if answer.is_ok() {
            self.heard();
        }
        answer
    }
}

/// Whether the sled answers at this address, in this boot. A host that moved or is gone does not answer where it was.
async fn answers(env: &Env, sled: SledId, address: &str, boot: BootId) -> bool {
    let Some(client) = env.connector.connect(sled, address) else {
        return false;
    };
    let answer = within(env.limits.sled_call.inventory, client.inventory()).await;
    answer.is_ok_and(|inventory| {
        inventory.sled_id.as_uuid() == sled.uuid() && inventory.boot_id.as_uuid() == boot.uuid()
    })
}
