//! Where a sled stands, for whoever takes in what it says: read and written without its actor.
//!
//! The actor waits for the log with what it appends, a cordon for one, and a lease must not run out meanwhile. So a
//! renewal is answered from what the actor has published, and noted where the actor looks before it ends a lease.
//!
//! Invariants:
//! * A lease that is being ended is not renewed: from the look at the last renewal until the end is durable, or has not
//!   happened, renewals are put off. The sled counts on from its last one, which only ends its VMMs the sooner.
//! * Nothing is published by an actor that has not loaded its stream, and what one that ended has left behind grants
//!   no more than it would have: its end of a lease stays under way until a successor knows what became of it.

use super::line::Circuit;
use lifecycle::sled::Sled;
use lifecycle::{BootId, LeaseEpoch, Timestamp};
use sled_protocol::ControlPlaneError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Of one sled. Shared by its actor, the actor's successors, and whoever answers renewals.
#[derive(Default)]
pub(crate) struct Standing {
    state: Mutex<State>,
    circuit: Arc<Circuit>,
}

#[derive(Default)]
struct State {
    published: Option<Published>,
    /// Whether the end of the lease is being recorded.
    is_ending: bool,
    renewed: Option<(Instant, Timestamp)>,
}

/// What renewals are judged by.
#[derive(Clone, Copy)]
struct Published {
    boot: Option<BootId>,
    epoch: Option<LeaseEpoch>,
    is_expunged: bool,
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each write is whole whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the sled is sent anything.
    pub(super) fn circuit(&self) -> Arc<Circuit> {
        Arc::clone(&self.circuit)
    }

    /// The sled was heard from. Answers whether requests to it were held back until now.
    pub(crate) fn heard(&self) -> bool {
        self.circuit.heard()
    }

    /// What the log says of the sled, after all that was to be recorded of it has been.
    pub(super) fn publish(&self, sled: Option<&Sled>) {
        let published = sled.map(|sled| Published {
            boot: sled.boot.map(|(boot, _)| boot),
            epoch: sled.epoch(),
            is_expunged: sled.expunged.is_some(),
        });
        let mut state = self.lock();
        (state.published, state.is_ending) = (published, false);
    }

    /// The lease counts from here, by the actor's word.
    pub(super) fn count_from(&self, renewed: Option<(Instant, Timestamp)>) {
        self.lock().renewed = renewed;
    }

    /// When the lease was last renewed.
    pub(super) fn renewed(&self) -> Option<(Instant, Timestamp)> {
        self.lock().renewed
    }

    /// Answers a renewal, and counts the lease from `now` if it is agreed to; none if only the actor can.
    pub(crate) fn renew(
        &self,
        boot: BootId,
        epoch: LeaseEpoch,
        now: Timestamp,
    ) -> Option<Result<(), ControlPlaneError>> {
        let mut state = self.lock();
        let published = state.published?;
        if published.is_expunged {
            return Some(Err(ControlPlaneError::Expunged));
        }
        if published.boot != Some(boot) || published.epoch != Some(epoch) {
            return Some(Err(ControlPlaneError::StaleEpoch));
        }
        if state.is_ending {
            return Some(Err(ControlPlaneError::Unavailable(
                "the end of its lease is being recorded".to_owned(),
            )));
        }
        state.renewed = Some((Instant::now(), now));
        Some(Ok(()))
    }

    /// Puts renewals off, to end the lease; unless it was renewed less than `wait` ago: then answers what is left.
    pub(super) fn begin_end(&self, wait: Duration) -> Result<(), Duration> {
        let mut state = self.lock();
        let passed = state.renewed.map_or(Duration::ZERO, |(renewed, _)| renewed.elapsed());
        if let Some(left) = wait.checked_sub(passed).filter(|left| !left.is_zero()) {
            return Err(left);
        }
        state.is_ending = true;
        Ok(())
    }

    /// The lease was not ended after all: nothing was recorded.
    pub(super) fn end_refused(&self) {
        self.lock().is_ending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::SledId;
    use lifecycle::sled::SledProperties;
    use uuid::Uuid;

    fn sled(epoch: u64) -> Sled {
        let properties = SledProperties {
            name: "a".to_owned(),
            threads: 1,
            memory: 1,
            cpu_family: "sim".to_owned(),
            address: "192.0.2.1:7000".to_owned(),
        };
        Sled {
            id: SledId::new(Uuid::from_u128(1)),
            properties,
            boot: Some((boot(), LeaseEpoch::new(epoch))),
            lease: Some(10),
            lapsed: None,
            past_boots: Vec::new(),
            provisionable: true,
            draining: None,
            expunged: None,
            time_created: Timestamp::default(),
            time_modified: Timestamp::default(),
            version: 1,
        }
    }

    fn boot() -> BootId {
        BootId::new(Uuid::from_u128(7))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_being_ended_is_not_renewed_and_one_that_is_renewed_is_not_ended() {
        let standing = Standing::default();
        let renew = |epoch| standing.renew(boot(), LeaseEpoch::new(epoch), Timestamp::default());
        assert_eq!(renew(1), None, "nobody has loaded it");
        standing.publish(Some(&sled(1)));
        assert_eq!(renew(1), Some(Ok(())));
        assert_eq!(renew(2), Some(Err(ControlPlaneError::StaleEpoch)));
        let wait = Duration::from_secs(10);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(standing.begin_end(wait), Err(Duration::from_secs(1)));
        assert_eq!(renew(1), Some(Ok(())), "it goes on");
        tokio::time::advance(wait).await;
        assert_eq!(standing.begin_end(wait), Ok(()));
        assert!(matches!(renew(1), Some(Err(ControlPlaneError::Unavailable(_)))));
        standing.end_refused();
        assert_eq!(renew(1), Some(Ok(())), "nothing was recorded");
        tokio::time::advance(wait).await;
        assert_eq!(standing.begin_end(wait), Ok(()));
        let ended = Sled { lapsed: Some(Timestamp::default()), ..sled(1) };
        standing.publish(Some(&ended));
        assert_eq!(renew(1), Some(Err(ControlPlaneError::StaleEpoch)), "it is over");
        standing.publish(Some(&Sled { expunged: Some(Timestamp::default()), ..sled(1) }));
        assert_eq!(renew(1), Some(Err(ControlPlaneError::Expunged)));
    }
}
