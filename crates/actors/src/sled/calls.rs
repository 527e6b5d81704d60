//! One call to a sled's agent: bounded in number and time, answered to the instance that wished it.

use super::{Shell, SledMsg};
use crate::answer::SledFailure;
use crate::convert::{self, Verdict, VmmRequest};
use crate::instance::{Answer, InstanceMsg};
use crate::ledger::LedgerHandle;
use lifecycle::Effect;
use lifecycle::input::{EffectResult, Refusal};
use ractor::ActorRef;
use sled_protocol::{self as wire, RequestedState, SetState, SledClient, SledError, SledVmmState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

impl Shell {
    /// Starts the call in a task of its own; it waits for one of the sled's permits there. `span` lasts until it is
    /// answered.
    pub(super) fn call(&mut self, request: VmmRequest, asker: ActorRef<InstanceMsg>, span: Span) {
        let effect = request.effect;
        let (Some(client), Some(epoch)) = (self.client(), self.epoch()) else {
            let answer = Answer::Unknown(SledFailure::Transport);
            // The instance's actor may have ended.
            let _ = asker.cast(InstanceMsg::Answered { effect, answer });
            return;
        };
        if request.allocated_at < self.fenced_at {
            // The sled has booted or lost its lease since: under its present epoch the request could bring up what is known to
            // be gone. The instance hears of that too.
            let answer = Answer::Definite(EffectResult::Refused(Refusal::StaleEpoch));
            let _ = asker.cast(InstanceMsg::Answered { effect, answer });
            return;
        }
        let (permits, me, ledger) = (Arc::clone(&self.permits), self.me.clone(), self.ledger.clone());
        let epoch = wire::LeaseEpoch::new(epoch.get());
        let calling = async move {
            let source_addr = source_addr(&ledger, &request).await;
            let Ok(_permit) = permits.acquire_owned().await else {
                return;
            };
            let outcome = perform(client.as_ref(), epoch, &request, source_addr).await;
            if let Err(error) = &outcome {
                Span::current().record("error", tracing::field::display(error));
            }
            match &outcome {
                Err(error @ (SledError::Timeout | SledError::Transport(_))) => {
                    let _ = me.cast(SledMsg::NotHeard(error.to_string()));
                }
                // That nothing was sent says nothing of the sled.
                Err(SledError::NotSent(_)) => {}
                Ok(_) | Err(_) => drop(me.cast(SledMsg::Heard)),
            }
            let answer = match outcome {
                Ok(report) => {
                    Answer::Definite(EffectResult::Done(report.map(|state| convert::report(&state))))
                }
                Err(error) => match convert::verdict(&error) {
                    Verdict::Refused(refusal) => {
                        if refusal == Refusal::StaleEpoch {
                            // The sled has another epoch than we know: its inventory tells which boot it is in.
                            let _ = me.cast(SledMsg::Watch);
                        }
                        Answer::Definite(EffectResult::Refused(refusal))
                    }
                    Verdict::Unknown(failure) => Answer::Unknown(failure),
                },
            };
            let _ = asker.cast(InstanceMsg::Answered { effect, answer });
        };
        tokio::spawn(calling.instrument(span));
    }

    /// Reads what a VMM has written, in a task of its own.
    pub(super) fn serial(
        &mut self,
        vmm: wire::PropolisId,
        range: wire::SerialRange,
        reply: oneshot::Sender<Result<wire::SerialData, SledError>>,
    ) {
        let Some(client) = self.client() else {
            // Whoever asked may have gone.
            let _ = reply.send(Err(SledError::NotSent("it is not connected".to_owned())));
            return;
        };
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else {
                return;
            };
            let read = client.serial(vmm, range).await;
            let bad = |invalid: wire::Invalid| SledError::BadAnswer(invalid.to_string());
            let _ = reply.send(read.and_then(|data| data.validate().map(|()| data).map_err(bad)));
        });
    }

    /// Ends a VMM that no instance wants, in a task of its own; the next inventory shows whether it worked.
    pub(super) fn unregister(&mut self, vmm: wire::PropolisId) {
        let (Some(client), Some(epoch)) = (self.client(), self.epoch()) else {
            return;
        };
        let (permits, sled) = (Arc::clone(&self.permits), self.id);
        let epoch = wire::LeaseEpoch::new(epoch.get());
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else {
                return;
            };
            if let Err(error) = client.unregister(vmm, epoch).await {
                tracing::warn!(%sled, %vmm, %error, "orphan could not be unregistered");
            }
        });
    }
}

/// Bounds a call, whatever the client does.
pub(super) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, SledError>>,
) -> Result<T, SledError> {
    tokio::time::timeout(patience, call).await.unwrap_or(Err(SledError::Timeout))
}

/// What tells the order to give a migration up from the one to begin it, which goes by the migration's id. Wide,
/// so that it does not lead to a neighbour where ids are counted.
const CANCEL_TAG: u128 = 0x6361_6e63_656c;

/// Where the guest is that a target is told to take over.
async fn source_addr(ledger: &LedgerHandle, request: &VmmRequest) -> Option<String> {
    let (Effect::MigrationTarget { .. }, Some((_, sled))) = (request.effect, request.source) else {
        return None;
    };
    ledger.look(0, move |ledger| ledger.sled_address(sled).map(str::to_owned)).await.ok().flatten()
}

/// What a sled answers is validated before anything believes it.
async fn perform(
    client: &dyn SledClient,
    lease_epoch: wire::LeaseEpoch,
    request: &VmmRequest,
    source_addr: Option<String>,
) -> Result<Option<SledVmmState>, SledError> {
    let vmm = convert::propolis(request.effect.vmm());
    let set_state = |op: Uuid, state| SetState { op_id: wire::OpId::from_uuid(op), lease_epoch, state };
    let state = match request.effect {
        Effect::Register { .. } => Some(client.register(vmm, request.register(lease_epoch)).await?),
        Effect::Unregister { .. } => client.unregister(vmm, lease_epoch).await?,
        Effect::SetRunning { vmm: id, .. } => {
            client.set_state(vmm, set_state(id.uuid(), RequestedState::Running)).await?
        }
        Effect::Stop { op, .. } => {
            client.set_state(vmm, set_state(op.uuid(), RequestedState::Stopped)).await?
        }
        Effect::Reboot { op, .. } => {
            client.set_state(vmm, set_state(op.uuid(), RequestedState::Reboot)).await?
        }
        Effect::MigrationTarget { migration, .. } => {
            let (Some((source, _)), Some(src_addr)) = (request.source, source_addr) else {
                return Err(SledError::NotSent("the source's address is not known".to_owned()));
            };
            let src_propolis_id = convert::propolis(source);
            let wanted = RequestedState::MigrationTarget { src_propolis_id, src_addr };
            client.set_state(vmm, set_state(migration.uuid(), wanted)).await?
        }
        Effect::MigrationCancel { migration, .. } => {
            let op = Uuid::from_u128(migration.uuid().as_u128() ^ CANCEL_TAG);
            client.set_state(vmm, set_state(op, RequestedState::MigrationCancel)).await?
        }
        Effect::Ask { .. } => Some(client.get_state(vmm).await?),
    };
    if let Some(state) = &state {
        state.validate().map_err(|invalid| SledError::BadAnswer(invalid.to_string()))?;
    }
    Ok(state)
}
