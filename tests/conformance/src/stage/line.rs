//! The line from one control plane to one sled: where effects are refused, lost, doubled, and where the
//! process dies around them.

use super::life::Life;
use super::net::{Net, Planned};
use super::plan::Fate;
use actors::SledConnector;
use futures::FutureExt;
use futures::future::BoxFuture;
use lifecycle::{SledId, VmmId};
use sim_sled::embedded::EmbeddedSled;
use sled_protocol::{
    Inventory, LeaseEpoch, PropolisId, RegisterVmm, RequestedState, SerialData, SerialRange, SetState,
    SledClient, SledError, SledVmmState, V2pMapping,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// Where the sleds are found.
pub(super) struct Switchboard {
    pub(super) life: Arc<Life>,
    pub(super) net: Arc<Net>,
    pub(super) sleds: Arc<Mutex<BTreeMap<SledId, EmbeddedSled>>>,
}

impl SledConnector for Switchboard {
    fn connect(&self, sled: SledId, _: &str) -> Option<Arc<dyn SledClient>> {
        assert!(!self.net.takes_rot(), "the scenario wants this actor to panic");
        let inner = self.sleds.lock().unwrap_or_else(PoisonError::into_inner).get(&sled).cloned()?;
        let (life, net) = (Arc::clone(&self.life), Arc::clone(&self.net));
        Some(Arc::new(Line { life, net, sled, inner }))
    }
}

struct Line {
    life: Arc<Life>,
    net: Arc<Net>,
    sled: SledId,
    inner: EmbeddedSled,
}

/// A refusal that no state of the sled explains.
fn refused() -> SledError {
    SledError::Refused { status: 403, message: "the scenario wants it so".to_owned() }
}

fn not_possible() -> SledError {
    SledError::BadState("the scenario wants it so".to_owned())
}

/// How often a sled is looked at that is to forget.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Line {
    fn holds_any(&self) -> bool {
        self.inner.with_machine(|machine, _| machine.vmms().next().is_some()).unwrap_or(false)
    }

    /// One call, with the fate that the plan has for it. Effects are counted, questions are not.
    async fn call<T, F>(
        &self,
        effect: Option<&'static str>,
        refusal: SledError,
        deliver: impl Fn() -> F,
    ) -> Result<T, SledError>
    where
        F: Future<Output = Result<T, SledError>>,
    {
        self.life.unless_dead(()).await;
        if self.net.is_cut(self.sled) {
            return Err(SledError::Transport("the wire is cut".to_owned()));
        }
        match effect.and_then(|effect| self.net.planned(effect)) {
            Some(Planned::Refuse) => return Err(refusal),
            Some(Planned::Answer(error)) => return Err(error),
            Some(Planned::Forget) => {
                let _ = deliver().await;
                while self.holds_any() && !self.life.is_dead() {
                    sleep(LOOK_AGAIN).await;
                }
                return self.life.unless_dead(Err(SledError::NoSuchInstance)).await;
            }
            None => {}
        }
        let fate = effect.map_or_else(|| self.life.plan.question(), |effect| self.life.plan.effect(effect));
        let answer = match fate {
            Fate::Refuse => return Err(refusal),
            Fate::DieBefore => return self.life.end().await,
            Fate::Twice => {
                // Whatever the first delivery says, the second says it too, or that it was done.
                let _ = deliver().await;
                deliver().await
            }
            Fate::Pass | Fate::Lose | Fate::DieAfter => deliver().await,
        };
        match fate {
            Fate::DieAfter => self.life.end().await,
            Fate::Lose => Err(SledError::Timeout),
            _ => self.life.unless_dead(answer).await,
        }
    }
}

const fn name_of(state: &RequestedState) -> &'static str {
    match state {
        RequestedState::Running => "set_running",
        RequestedState::Stopped => "stop",
        RequestedState::Reboot => "reboot",
        RequestedState::MigrationTarget { .. } => "migration_target",
        RequestedState::MigrationCancel => "migration_cancel",
    }
}

impl SledClient for Line {
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            self.call(Some("register"), SledError::NoRoom, || self.inner.register(vmm, request.clone())).await
        }
        .boxed()
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            self.call(Some("unregister"), refused(), || self.inner.unregister(vmm, lease_epoch)).await
        }
        .boxed()
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            let name = name_of(&request.state);
            self.call(Some(name), not_possible(), || self.inner.set_state(vmm, request.clone())).await
        }
        .boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move { self.call(Some("ask"), refused(), || self.inner.get_state(vmm)).await }.boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        async move {
            let mut inventory = self.call(None, refused(), || self.inner.inventory()).await?;
            for vmm in &mut inventory.vmms {
                if let Some(known) = self.net.held(VmmId::new(vmm.propolis_id.as_uuid())) {
                    vmm.state = known;
                }
            }
            Ok(inventory)
        }
        .boxed()
    }

    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move {
            self.call(Some("put_v2p"), refused(), || self.inner.put_v2p(lease_epoch, mappings.clone())).await
        }
        .boxed()
    }

    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move {
            self.call(Some("delete_v2p"), refused(), || self.inner.delete_v2p(lease_epoch, mappings.clone()))
                .await
        }
        .boxed()
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        async move { self.call(None, refused(), || self.inner.list_v2p()).await }.boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        async move { self.call(None, refused(), || self.inner.serial(vmm, range)).await }.boxed()
    }
}
