//! Switch and producer registry as one life reaches them: a dead one does not.

use super::life::Life;
use super::state::Stage;
use futures::FutureExt;
use futures::future::BoxFuture;
use sim_sled::network::{SimProducers, SimSwitch};
use sled_protocol::{Generation, NatEntry, Producer, Producers, PropolisId, PushError, Switch};
use std::sync::{Arc, Weak};

/// The line of one life to a device.
pub(super) struct Wire<D> {
    pub(super) stage: Weak<Stage>,
    pub(super) life: Arc<Life>,
    pub(super) device: Arc<D>,
}

impl<D> Wire<D> {
    async fn push<T, F>(&self, call: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T>,
    {
        if let Some(stage) = self.stage.upgrade() {
            stage.let_others_go_first("push_turns", 0).await;
        }
        self.life.unless_dead(()).await;
        let answer = call().await;
        self.life.unless_dead(answer).await
    }
}

impl Switch for Wire<SimSwitch> {
    fn put_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        self.push(move || self.device.put_nat(entries)).boxed()
    }

    fn delete_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        self.push(move || self.device.delete_nat(entries)).boxed()
    }

    fn list_nat(&self) -> BoxFuture<'_, Result<Vec<NatEntry>, PushError>> {
        self.push(|| self.device.list_nat()).boxed()
    }
}

impl Producers for Wire<SimProducers> {
    fn put_producer(&self, producer: Producer) -> BoxFuture<'_, Result<(), PushError>> {
        self.push(move || self.device.put_producer(producer)).boxed()
    }

    fn delete_producer(
        &self,
        vmm: PropolisId,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), PushError>> {
        self.push(move || self.device.delete_producer(vmm, generation)).boxed()
    }

    fn list_producers(&self) -> BoxFuture<'_, Result<Vec<Producer>, PushError>> {
        self.push(|| self.device.list_producers()).boxed()
    }
}
