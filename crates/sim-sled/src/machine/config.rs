//! What a simulated sled is like: its size, how it takes its time, and its dice.

use serde::{Deserialize, Serialize};
use sled_protocol::{SledId, SledResources};
use uuid::Uuid;

use super::memory::DirtyRate;

/// Shortest wait before a question to a migration peer is repeated, so that no configuration makes a busy
/// loop, in microseconds.
const PEER_RETRY_MICROS_MIN: u64 = 10_000;

/// One simulated sled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The sled.
    pub sled_id: SledId,
    /// Its name, for people.
    pub name: String,
    /// Migrations stay within one family.
    pub cpu_family: String,
    /// Where its agent is found, by the control plane and by migration peers.
    pub api_addr: String,
    /// What it has to give.
    pub resources: SledResources,
    /// Whether transitions happen by time or by hand.
    pub mode: Mode,
    /// How long things take in auto mode.
    pub timing: Timing,
    /// How fast its guests dirty their memory.
    #[serde(default)]
    pub dirty_rate: DirtyRate,
    /// How often a sled without a lease asks whether it is still who it believes to be, in seconds; never, if
    /// absent.
    #[serde(default)]
    pub idle_renewal_seconds: Option<u64>,
    /// How much faster than real time its clock runs, in millionths; negative is slower.
    #[serde(default)]
    pub clock_off_ppm: i32,
    /// Seed of every draw.
    pub seed: u64,
    /// Most ended VMMs remembered against late registers; the oldest are forgotten first.
    pub tombstones_max: usize,
}

impl Config {
    /// A sled of 64 threads and 256 GiB in auto mode, with default timing and 4096 tombstones, that
    /// renews nothing but leases.
    pub fn new(sled_id: SledId, name: &str, api_addr: &str, seed: u64) -> Self {
        Self {
            sled_id,
            name: name.to_owned(),
            cpu_family: "sim-x86".to_owned(),
            api_addr: api_addr.to_owned(),
            resources: SledResources { threads: 64, memory: 256 << 30 },
            mode: Mode::Auto,
            timing: Timing::default(),
            dirty_rate: DirtyRate::default(),
            idle_renewal_seconds: None,
            clock_off_ppm: 0,
            seed,
            tombstones_max: 4096,
        }
    }
}

/// Whether transitions happen by time or by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Transitions take drawn times.
    Auto,
    /// Transitions wait until `Sled::step` or `Sled::run_script`; only a lease still lapses by time.
    Explicit,
}

impl Config {
    /// What its clock shows after this much real time, in microseconds.
    pub(crate) fn shown(&self, real: u64) -> u64 {
        u64::try_from(u128::from(real) * u128::from(self.clock_rate()) / u128::from(MILLION))
            .unwrap_or(u64::MAX)
    }

    /// The real time that its clock takes to show this much, in microseconds, rounded up: woken a moment too
    /// early, the machine would have nothing due.
    pub(crate) fn real(&self, shown: u64) -> u64 {
        let rate = u128::from(self.clock_rate());
        u64::try_from((u128::from(shown) * u128::from(MILLION)).div_ceil(rate)).unwrap_or(u64::MAX)
    }

    /// In millionths of real time's; a clock never stands still.
    fn clock_rate(&self) -> u64 {
        u64::try_from(i64::from(self.clock_off_ppm).saturating_add_unsigned(MILLION)).unwrap_or(0).max(1)
    }
}

const MILLION: u64 = 1_000_000;

/// A range of durations in microseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Shortest.
    pub min_micros: u64,
    /// Longest; anything below `min_micros` counts as `min_micros`.
    pub max_micros: u64,
}

impl Span {
    /// From milliseconds.
    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min_micros: min.saturating_mul(1000), max_micros: max.saturating_mul(1000) }
    }

    /// The longest duration it can give, in microseconds.
    pub const fn longest(self) -> u64 {
        if self.max_micros > self.min_micros { self.max_micros } else { self.min_micros }
    }
}

/// How long things take in auto mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From `running` requested to the guest running.
    pub boot: Span,
    /// From a shutdown to the guest being down.
    pub halt: Span,
    /// From the guest being down, or having left, to the VMM being gone.
    pub takedown: Span,
    /// From `rebooting` to `running`.
    pub reboot: Span,
    /// From `migration_target` to the first word to the source.
    pub contact: Span,
    /// Copying the whole memory once while the guest runs; a round of less takes less.
    pub copy_round: Span,
    /// From the guest being paused to the last of its state being copied.
    pub transfer: Span,
    /// From the guest having arrived to it being reported as running.
    pub resume: Span,
    /// How long a guest may take to shut down before its VMM is killed.
    pub stop_grace: Span,
    /// How long a migration target waits before it repeats a question.
    pub peer_retry: Span,
    /// How long either side of a migration waits for the other before it gives up.
    pub peer_silence: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            boot: Span::millis(200, 800),
            halt: Span::millis(100, 400),
            takedown: Span::millis(20, 100),
            reboot: Span::millis(200, 600),
            contact: Span::millis(5, 20),
            copy_round: Span::millis(50, 200),
            transfer: Span::millis(20, 80),
            resume: Span::millis(1, 5),
            stop_grace: Span::millis(600_000, 600_000),
            peer_retry: Span::millis(500, 1000),
            peer_silence: Span::millis(10_000, 10_000),
        }
    }
}

impl Timing {
    /// The longest wait that a VMM can have before it, in microseconds.
    pub(crate) fn longest(&self) -> u64 {
        [
            self.boot,
            self.halt,
            self.takedown,
            self.reboot,
            self.contact,
            self.copy_round,
            self.transfer,
            self.resume,
            self.stop_grace,
            self.retry(),
            self.peer_silence,
        ]
        .into_iter()
        .map(Span::longest)
        .max()
        .unwrap_or(0)
    }

    pub(crate) fn retry(&self) -> Span {
        let min_micros = self.peer_retry.min_micros.max(PEER_RETRY_MICROS_MIN);
        Span { min_micros, max_micros: self.peer_retry.max_micros.max(min_micros) }
    }
}

/// Draws keyed by what they decide, so that leaving one out changes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dice {
    seed: u64,
}

impl Dice {
    /// Dice of one seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number that depends on the seed and the key alone.
    pub fn draw(self, purpose: &str, id: Uuid, nth: u64) -> u64 {
        let (high, low) = id.as_u64_pair();
        let named = purpose.bytes().fold(self.seed, |hash, byte| mix(hash ^ u64::from(byte)));
        [high, low, nth].into_iter().fold(named, |hash, word| mix(hash ^ word))
    }

    /// A duration within the span, in microseconds.
    pub fn within(self, span: Span, purpose: &str, id: Uuid, nth: u64) -> u64 {
        let width = span.longest() - span.min_micros;
        let draw = self.draw(purpose, id, nth);
        span.min_micros + width.checked_add(1).map_or(draw, |choices| draw % choices)
    }
}

/// One step of splitmix64, our own so that no library's next release changes a seed's meaning.
const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_shows_and_takes_what_its_rate_says() {
        let mut config = Config::new(SledId::from_uuid(Uuid::from_u128(1)), "s", "s", 1);
        for (off, shown) in [(0, 1_000_000), (10_000, 1_010_000), (-10_000, 990_000), (i32::MIN, 1)] {
            config.clock_off_ppm = off;
            assert_eq!(config.shown(1_000_000), shown, "{off}");
            assert_eq!(config.real(shown), 1_000_000, "{off}");
        }
        assert_eq!(config.real(u64::MAX), u64::MAX, "never, not soon");
    }

    #[test]
    fn draws_stay_within_their_span_and_depend_on_every_part_of_the_key() {
        let dice = Dice::new(7);
        let id = Uuid::from_u128(1);
        for nth in 0..1000 {
            let drawn = dice.within(Span::millis(2, 5), "boot", id, nth);
            assert!((2000..=5000).contains(&drawn), "{drawn}");
        }
        let all = Span { min_micros: 0, max_micros: u64::MAX };
        let drawn = dice.within(all, "boot", id, 0);
        for other in [
            Dice::new(8).within(all, "boot", id, 0),
            dice.within(all, "halt", id, 0),
            dice.within(all, "boot", Uuid::from_u128(2), 0),
            dice.within(all, "boot", id, 1),
        ] {
            assert_ne!(drawn, other);
        }
        assert_eq!(dice.within(Span { min_micros: 9, max_micros: 3 }, "boot", id, 0), 9);
    }
}
