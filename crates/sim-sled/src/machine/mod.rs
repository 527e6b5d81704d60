//! Every rule a sled keeps, as one pure state machine.
//!
//! ```text
//!              running            reboot
//!   starting ─────────▶ running ◀────────▶ rebooting
//!      │ stopped           │ stopped, guest shutdown, grace over
//!      ▼                   ▼
//!   destroyed ◀──────── stopping         any live state ──▶ failed
//!
//!   migrating (target) ──▶ running       running ──▶ migrating (source) ──▶ stopping, or back to running
//! ```
//!
//! The machine has no clock, no I/O and no randomness of its own: every call carries the time in microseconds
//! since the Unix epoch, draws are keyed by the seed, ids come in. What it wants to say comes out of
//! [`Sled::poll`]; when it wants to be polled is [`Sled::next_wake`].
//!
//! Invariants:
//! * Time never runs backwards: an earlier `now` counts as the latest seen. What was due before a call has
//!   happened before it.
//! * Generations grow on every change and on change only; terminal states are absorbing (`vmm.rs`).
//! * The resources of live VMMs never exceed the sled's.
//! * A VMM that ended is forgotten only when its last report was accepted, or by unregister, or with its host;
//!   the first two leave a tombstone.
//! * A source's guest never resumes after the source completed, and a target's never runs before it knows
//!   that, so that no migration runs its guest twice (`migrate.rs`).
//! * Same configuration, same calls, same answers.

mod changes;
mod config;
mod host;
mod memory;
mod migrate;
mod reports;
mod requests;
mod serial;
mod steps;
mod tombstones;
mod vmm;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sled_protocol::{BootId, PropolisId, SledVmmState, V2pMapping, Vni};

pub use changes::Change;
pub use config::{Config, Dice, Mode, Span, Timing};
pub use host::Host;
pub use memory::DirtyRate;
pub use migrate::{PeerBody, PeerMessage, Question};
pub use requests::{Answer, Request, RequestKind, Response};
pub use vmm::{Deadline, Step, Vmm};

use crate::newest::Newest;
pub use crate::newest::Slot;
use changes::Touched;
use tombstones::Tombstones;

/// Key of an overlay mapping.
pub type V2pKey = (Vni, IpAddr);

/// One simulated sled; see the module's head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sled {
    config: Config,
    host: Host,
    vmms: BTreeMap<PropolisId, Vmm>,
    tombstones: Tombstones,
    v2p: Newest<V2pKey, V2pMapping>,
    /// Messages to migration peers; lost with the process, because the target asks again.
    #[serde(skip)]
    outbox: Vec<PeerMessage>,
    /// What `take_changes` has not handed out.
    #[serde(skip)]
    touched: Touched,
}

/// What the machine wants to leave the sled.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The full picture of a VMM has changed. A shell that repeats reports uses `Sled::pending_reports`.
    Report {
        /// The VMM.
        propolis_id: PropolisId,
        /// Its full picture.
        state: SledVmmState,
    },
    /// A message to the sled at `PeerMessage::to_addr`; it may be lost, repeated or reordered.
    Peer(PeerMessage),
}

impl Sled {
    /// A sled just booted, empty and not registered.
    pub fn new(config: Config, boot_id: BootId) -> Self {
        Self {
            config,
            host: Host::booted(boot_id),
            vmms: BTreeMap::new(),
            tombstones: Tombstones::default(),
            v2p: Newest::default(),
            outbox: Vec::new(),
            touched: Touched::all(),
        }
    }

    /// Takes up a stored machine under a configuration that may have changed. With the boot id of its last
    /// life its VMMs live on and what was due stays due, at most as far ahead as the configuration allows;
    /// with another one the host has rebooted.
    #[must_use]
    pub fn reopened(mut self, config: Config, boot_id: BootId, now: u64) -> Self {
        self.config = config;
        self.touched = Touched::all();
        if self.host.boot_id != boot_id {
            self.host.clock = now;
            self.reboot(now, boot_id);
            return self;
        }
        self.rearm(now);
        self.agent_restart(now);
        self
    }

    /// What is due happens, then everything to be said is handed out, reports in order of VMM.
    pub fn poll(&mut self, now: u64) -> Vec<Output> {
        self.advance(now);
        let mut outputs: Vec<Output> =
            std::mem::take(&mut self.outbox).into_iter().map(Output::Peer).collect();
        let unsaid: Vec<PropolisId> =
            self.vmms.values().filter(|vmm| !vmm.is_emitted).map(Vmm::propolis_id).collect();
        for propolis_id in unsaid {
            let Some(vmm) = self.vmms.get_mut(&propolis_id) else { continue };
            vmm.is_emitted = true;
            outputs.push(Output::Report { propolis_id, state: vmm.state().clone() });
        }
        outputs
    }

    /// When `poll` is to be called next at the latest, in microseconds; `None` if only a call can change
    /// anything. A time already past means at once.
    pub fn next_wake(&self) -> Option<u64> {
        if !self.outbox.is_empty() || self.vmms.values().any(|vmm| !vmm.is_emitted) {
            return Some(self.host.clock);
        }
        self.next_due().map(|(at, _)| at)
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What the sled knows of itself.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Every VMM held, ended ones included until forgotten: the truth, for checkers.
    pub fn vmms(&self) -> impl Iterator<Item = &Vmm> {
        self.vmms.values()
    }

    /// One VMM, if it is held.
    pub fn vmm(&self, propolis_id: PropolisId) -> Option<&Vmm> {
        self.vmms.get(&propolis_id)
    }

    /// Whether a register of this VMM would be refused because it ended here.
    pub fn is_tombstoned(&self, propolis_id: PropolisId) -> bool {
        self.tombstones.contains(propolis_id)
    }

    /// How many ended VMMs are remembered.
    pub fn tombstones_len(&self) -> usize {
        self.tombstones.len()
    }

    /// The overlay mappings held.
    pub fn v2p(&self) -> impl Iterator<Item = &V2pMapping> {
        self.v2p.values()
    }

    fn vmm_mut(&mut self, propolis_id: PropolisId) -> Option<&mut Vmm> {
        let vmm = self.vmms.get_mut(&propolis_id)?;
        self.touched.vmm(propolis_id);
        Some(vmm)
    }

    /// Drops the VMM and remembers that it ended here.
    fn forget(&mut self, propolis_id: PropolisId) {
        self.vmms.remove(&propolis_id);
        self.touched.vmm(propolis_id);
        self.bury(propolis_id);
    }

    fn bury(&mut self, propolis_id: PropolisId) {
        if !self.tombstones.contains(propolis_id) {
            self.tombstones.insert(propolis_id, self.config.tombstones_max);
            self.touched.tombstone(propolis_id);
        }
    }
}
