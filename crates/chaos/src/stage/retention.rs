//! The archive of the stage: the real timer finds what is due in the real read model, and what it keeps goes to a
//! shelf that outlives every life.

use super::life::Life;
use super::state::Stage;
use crate::checks::archive::{Shelf, described};
use crate::world::names;
use actors::Archive;
use futures::FutureExt;
use futures::future::BoxFuture;
use lifecycle::{ArchiveFile, InstanceId, Timestamp};
use projections::Projections;
use std::sync::{Arc, Weak};

/// The archive as one life reaches it.
pub(super) struct Keeper {
    pub(super) stage: Weak<Stage>,
    pub(super) life: Arc<Life>,
    pub(super) projections: Projections,
}

impl Archive for Keeper {
    fn due(&self, until: Timestamp, limit: usize) -> Vec<InstanceId> {
        self.projections.read(|model| model.ended_until(until, limit))
    }

    fn keep(&self, instance: InstanceId) -> BoxFuture<'static, Result<ArchiveFile, String>> {
        let (stage, life) = (self.stage.clone(), Arc::clone(&self.life));
        async move {
            let stage = stage.upgrade().expect("the stage outlives the runtime's tasks");
            stage.let_others_go_first("archive_turns", instance.uuid().as_u128()).await;
            life.unless_dead(()).await;
            let records = life.log().with_store(|store| Shelf::stream_of(store, instance));
            let file = described(instance, &records);
            stage.line("archive", &names::entity(instance), format_args!("{} events", file.events));
            let bug = stage.scenario.bug;
            stage.lock().shelf.put(instance, records, bug);
            stage.let_others_go_first("archive_turns", instance.uuid().as_u128()).await;
            life.unless_dead(Ok(file)).await
        }
        .boxed()
    }

    fn trim(&self) -> BoxFuture<'static, Result<u64, String>> {
        std::future::ready(Ok(0)).boxed()
    }
}
