//! Switch and producer registry as one incarnation reaches them: what goes wrong with effects on sleds goes
//! wrong with pushes to them too.

use super::life::Life;
use super::plan::Fate;
use futures::FutureExt;
use futures::future::BoxFuture;
use sim_sled::network::{SimProducers, SimSwitch};
use sled_protocol::{Generation, NatEntry, Producer, Producers, PropolisId, PushError, Switch};
use std::sync::Arc;

pub(super) struct MortalSwitch {
    pub(super) life: Arc<Life>,
    pub(super) inner: Arc<SimSwitch>,
}

pub(super) struct MortalProducers {
    pub(super) life: Arc<Life>,
    pub(super) inner: Arc<SimProducers>,
}

/// One push, with the fate that the plan has for it; a question has no name and is not counted.
async fn push<T, F>(
    life: &Life,
    effect: Option<&'static str>,
    deliver: impl Fn() -> F,
) -> Result<T, PushError>
where
    F: Future<Output = Result<T, PushError>>,
{
    life.unless_dead(()).await;
    let fate = effect.map_or_else(|| life.plan.question(), |effect| life.plan.effect(effect));
    let answer = match fate {
        Fate::Refuse => {
            return Err(PushError::Refused { status: 403, message: "the scenario wants it so".to_owned() });
        }
        Fate::DieBefore => return life.end().await,
        Fate::Twice => {
            // Whatever the first delivery says, the second says it too, or that it was done.
            let _ = deliver().await;
            deliver().await
        }
        Fate::Pass | Fate::Lose | Fate::DieAfter => deliver().await,
    };
    match fate {
        Fate::DieAfter => life.end().await,
        Fate::Lose => Err(PushError::Unavailable("the answer was lost".to_owned())),
        _ => life.unless_dead(answer).await,
    }
}

impl Switch for MortalSwitch {
    fn put_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        async move { push(&self.life, Some("put_nat"), || self.inner.put_nat(entries.clone())).await }.boxed()
    }

    fn delete_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        async move { push(&self.life, Some("delete_nat"), || self.inner.delete_nat(entries.clone())).await }
            .boxed()
    }

    fn list_nat(&self) -> BoxFuture<'_, Result<Vec<NatEntry>, PushError>> {
        async move { push(&self.life, None, || self.inner.list_nat()).await }.boxed()
    }
}

impl Producers for MortalProducers {
    fn put_producer(&self, producer: Producer) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            push(&self.life, Some("put_producer"), || self.inner.put_producer(producer.clone())).await
        }
        .boxed()
    }

    fn delete_producer(
        &self,
        vmm: PropolisId,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            push(&self.life, Some("delete_producer"), || self.inner.delete_producer(vmm, generation)).await
        }
        .boxed()
    }

    fn list_producers(&self) -> BoxFuture<'_, Result<Vec<Producer>, PushError>> {
        async move { push(&self.life, None, || self.inner.list_producers()).await }.boxed()
    }
}
