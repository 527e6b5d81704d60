//! The names that ids wear in this tier: ids of the scenario as in the core tier, all others counted per life.

use crate::draws::hash;
use crate::world::names;
use actors::{Clock, IdSource};
use lifecycle::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use uuid::Uuid;

use super::state::Stage;

tokio::task_local! {
    /// The id that whoever mints one in this scope is given: an instance, a project or a group of the scenario.
    static NAMED: Uuid;
}

/// Runs `future` with every id that it mints being `id`.
pub(super) async fn named<T>(id: Uuid, future: impl Future<Output = T>) -> T {
    NAMED.scope(id, future).await
}

/// Ids of one life: its number and a count, so that none is minted twice in a run.
pub(super) struct Counted {
    pub(super) life: u32,
    pub(super) next: AtomicU64,
    pub(super) seed: u64,
}

/// Most turns that others have before an actor looks at a message.
const TURNS_MAX: u64 = 3;

impl IdSource for Counted {
    fn uuid(&self) -> Uuid {
        NAMED
            .try_with(|id| *id)
            .unwrap_or_else(|_| names::minted(self.life, self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn dice(&self) -> u64 {
        hash(self.seed, "dice", self.life.into(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn turns(&self) -> u32 {
        let drawn = hash(self.seed, "turns", self.life.into(), self.next.fetch_add(1, Ordering::Relaxed));
        (drawn % (TURNS_MAX + 1)) as u32
    }
}

/// The control plane's wall clock, which jumps when the scenario says so.
pub(super) struct WallClock(pub(super) Weak<Stage>);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.0.upgrade().map_or_else(Timestamp::default, |stage: Arc<Stage>| stage.wall())
    }
}
