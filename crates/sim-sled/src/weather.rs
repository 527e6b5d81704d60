//! A sled that is unreliable at random: which messages are lost, refused or late is drawn from a seed.
//!
//! Draws are keyed by the sled, the purpose and how many of that purpose came before, so that the same
//! messages in the same order meet the same weather.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, PropolisId, RegisterSled, RenewLease, SledError, SledId,
    SledLease, SledVmmState,
};

use crate::faults::Fault;
use crate::machine::{Dice, Span};

/// Draws are made in millionths.
const MILLION: u64 = 1_000_000;

/// How unreliable a sled is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    sled: SledId,
    dice: Dice,
    fails_per_million: u32,
    latency: Span,
}

impl Weather {
    /// Of a million messages, so many go wrong: a third of them are lost, a third take effect and lose their
    /// answer, a third are refused for the moment. All others take a time within `latency`.
    pub const fn new(sled: SledId, seed: u64, fails_per_million: u32, latency: Span) -> Self {
        Self { sled, dice: Dice::new(seed), fails_per_million, latency }
    }

    /// What befalls the message of this purpose that comes `nth`, counted from 0.
    pub fn strike(&self, purpose: &str, nth: u64) -> Option<Fault> {
        let draw = |what: &str| {
            self.dice.draw(what, self.sled.as_uuid(), self.dice.draw(purpose, self.sled.as_uuid(), nth))
        };
        if draw("fails") % MILLION < u64::from(self.fails_per_million) {
            return Some(match draw("how") % 3 {
                0 => Fault::LoseRequest,
                1 => Fault::LoseAnswer,
                _ => Fault::Answer(SledError::ChannelFull),
            });
        }
        let width = self.latency.longest() - self.latency.min_micros;
        let micros = self.latency.min_micros + draw("late") % width.saturating_add(1);
        (micros > 0).then_some(Fault::Slow(micros))
    }
}

/// A control plane seen through the weather.
pub struct Unreliable {
    control_plane: Arc<dyn ControlPlaneClient>,
    weather: Weather,
    sent: AtomicU64,
}

impl Unreliable {
    /// Whatever is sent to `control_plane` from here on meets this weather.
    pub const fn new(control_plane: Arc<dyn ControlPlaneClient>, weather: Weather) -> Self {
        Self { control_plane, weather, sent: AtomicU64::new(0) }
    }

    async fn send<T>(
        &self,
        call: impl Future<Output = Result<T, ControlPlaneError>>,
    ) -> Result<T, ControlPlaneError> {
        let lost = |what: &str| Err(ControlPlaneError::Unavailable(format!("{what} was lost on purpose")));
        match self.weather.strike("to the control plane", self.sent.fetch_add(1, Ordering::Relaxed)) {
            Some(Fault::LoseRequest | Fault::Answer(_)) => lost("the message"),
            Some(Fault::LoseAnswer) => {
                let _ = call.await;
                lost("the answer")
            }
            Some(Fault::Hang) => futures::future::pending().await,
            Some(Fault::Slow(micros)) => {
                tokio::time::sleep(Duration::from_micros(micros)).await;
                call.await
            }
            None => call.await,
        }
    }
}

impl ControlPlaneClient for Unreliable {
    fn report(
        &self,
        sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.send(self.control_plane.report(sled, vmm, state)).boxed()
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        self.send(self.control_plane.register(request)).boxed()
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.send(self.control_plane.renew(sled, request)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weather(fails_per_million: u32, latency: Span) -> Weather {
        Weather::new(SledId::from_uuid(uuid::Uuid::from_u128(9)), 7, fails_per_million, latency)
    }

    #[test]
    fn calm_weather_does_nothing_and_a_storm_lets_nothing_through() {
        let none = Span::millis(0, 0);
        assert!((0..1000).all(|nth| weather(0, none).strike("x", nth).is_none()));
        let storm: Vec<_> = (0..1000).map(|nth| weather(1_000_000, none).strike("x", nth)).collect();
        for fault in [Fault::LoseRequest, Fault::LoseAnswer, Fault::Answer(SledError::ChannelFull)] {
            assert!(storm.iter().filter(|struck| **struck == Some(fault.clone())).count() > 250);
        }
    }

    #[test]
    fn the_rate_is_kept_times_stay_within_their_span_and_the_seed_decides() {
        let stormy = weather(200_000, Span::millis(2, 4));
        let struck: Vec<_> = (0..5000).map(|nth| stormy.strike("x", nth)).collect();
        assert_eq!(struck, (0..5000).map(|nth| stormy.strike("x", nth)).collect::<Vec<_>>());
        let slow = struck.iter().filter(|fault| matches!(fault, Some(Fault::Slow(2000..=4000)))).count();
        assert!((3800..4200).contains(&slow), "{slow}");
        let other = (0..5000).map(|nth| stormy.strike("y", nth)).collect::<Vec<_>>();
        assert_ne!(struck, other);
    }
}
