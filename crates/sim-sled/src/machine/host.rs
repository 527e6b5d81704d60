//! The sled itself: boot, power, agent, registration and lease.
//!
//! Invariants:
//! * The sled has an epoch only if it has registered since its boot, and its lease has not lapsed. A restart of
//!   the agent keeps it, so that requests under way are not refused, but the agent announces itself again.
//! * A lease counts from when its renewal was *sent*; when it lapses every VMM is failed, by time, in explicit
//!   mode too.
//! * A boot starts empty: no VMMs, no tombstones, no mappings, no epoch.
//! * No epoch is taken that is below one that was held, in this boot or an earlier one: what was sent under that one
//!   may still be on its way.

use serde::{Deserialize, Serialize};
use sled_protocol::{BootId, LeaseEpoch, PropolisId, RegisterSled, RenewLease, SledLease, VmmState};

use super::{Newest, Sled, Tombstones, Touched};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// A sled renews after this part of its lease, so that two renewals may be lost.
const RENEWALS_PER_LEASE: u64 = 3;

/// What a sled knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub(super) boot_id: BootId,
    pub(super) clock: u64,
    powered: bool,
    expunged: bool,
    /// Whether the agent has registered since it started.
    announced: bool,
    epoch: Option<LeaseEpoch>,
    lease: Option<Lease>,
    /// The highest epoch that was ever held.
    #[serde(default)]
    held: Option<LeaseEpoch>,
    /// When the last registration or renewal that was agreed to was sent.
    #[serde(default)]
    agreed_at: u64,
}

/// A lease outlives the agent that got it: until it is renewed, its VMMs may run to its end and no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    seconds: u64,
    sent_at: u64,
}

impl Lease {
    const fn lapses_at(self) -> u64 {
        self.sent_at.saturating_add(self.seconds.saturating_mul(MICROS_PER_SECOND))
    }
}

impl Host {
    pub(super) const fn booted(boot_id: BootId) -> Self {
        Self {
            boot_id,
            clock: 0,
            powered: true,
            expunged: false,
            announced: false,
            epoch: None,
            lease: None,
            held: None,
            agreed_at: 0,
        }
    }

    /// The boot of the host.
    pub const fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// The epoch that requests must carry; `None` until registered, or when the lease has lapsed.
    pub const fn lease_epoch(&self) -> Option<LeaseEpoch> {
        self.epoch
    }

    /// Whether the host is switched on.
    pub const fn is_powered(&self) -> bool {
        self.powered
    }

    /// Whether the control plane has removed the sled for good.
    pub const fn is_expunged(&self) -> bool {
        self.expunged
    }

    /// The highest epoch that was ever held, in this boot or an earlier one.
    pub fn held_epoch(&self) -> Option<LeaseEpoch> {
        // A state that an older agent wrote says only the one that is held now.
        self.held.max(self.epoch)
    }

    /// The length of the lease, in seconds; `None` without one.
    pub fn lease_seconds(&self) -> Option<u64> {
        self.lease.map(|lease| lease.seconds)
    }

    /// When the VMMs are killed unless the lease is renewed, in microseconds; `None` without a lease.
    pub fn lease_lapses_at(&self) -> Option<u64> {
        self.lease.map(Lease::lapses_at)
    }
}

impl Sled {
    /// What to register with, if the sled is on, not expunged, and has no epoch or an agent that restarted.
    pub fn registration(&self) -> Option<RegisterSled> {
        let host = &self.host;
        let is_due = host.epoch.is_none() || !host.announced;
        (host.powered && !host.expunged && is_due).then(|| RegisterSled {
            sled_id: self.config.sled_id,
            name: self.config.name.clone(),
            boot_id: host.boot_id,
            resources: self.config.resources,
            cpu_family: self.config.cpu_family.clone(),
            api_addr: self.config.api_addr.clone(),
            store_id: None,
            held_epoch: host.held_epoch(),
        })
    }

    /// What to renew with, and from when on, in microseconds; `None` without an epoch, or if there is neither a
    /// lease to renew nor a time to ask all the same.
    pub fn renewal(&self) -> Option<(u64, RenewLease)> {
        let lease_epoch = self.host.epoch?;
        let micros = |seconds: u64| seconds.saturating_mul(MICROS_PER_SECOND);
        let (since, after) = match self.host.lease {
            Some(lease) => (lease.sent_at, micros(lease.seconds) / RENEWALS_PER_LEASE),
            None => (self.host.agreed_at, micros(self.config.idle_renewal_seconds?.max(1))),
        };
        let request = RenewLease { boot_id: self.host.boot_id, lease_epoch };
        Some((since.saturating_add(after), request))
    }

    /// The control plane has registered this boot, asked at `sent_at`. An answer to another boot, to an
    /// expunged sled, or below an epoch ever held is ignored, and so is one whose lease is already over.
    pub fn registered(&mut self, now: u64, sent_at: u64, boot_id: BootId, answer: SledLease) {
        self.advance(now);
        let host = &mut self.host;
        let is_stale = host.held_epoch().is_some_and(|held| held > answer.lease_epoch);
        if !host.powered || host.expunged || host.boot_id != boot_id || is_stale || answer.validate().is_err()
        {
            return;
        }
        let lease = answer.lease_seconds.map(|seconds| Lease { seconds, sent_at });
        if lease.is_some_and(|lease| lease.lapses_at() <= host.clock) {
            return;
        }
        host.epoch = Some(answer.lease_epoch);
        host.held = host.epoch;
        host.lease = lease;
        host.agreed_at = sent_at;
        host.announced = true;
        self.touched.host();
    }

    /// The control plane has renewed the lease of this epoch, asked at `sent_at`. A lease that has lapsed in
    /// between stays lapsed.
    pub fn renewed(&mut self, now: u64, sent_at: u64, lease_epoch: LeaseEpoch) {
        self.advance(now);
        if self.host.epoch != Some(lease_epoch) {
            return;
        }
        self.host.agreed_at = self.host.agreed_at.max(sent_at);
        if let Some(lease) = &mut self.host.lease {
            lease.sent_at = lease.sent_at.max(sent_at);
        }
        self.touched.host();
    }

    /// The control plane wants a new registration: the epoch is no longer its own. VMMs live on until the
    /// lease, if there is one, lapses.
    pub fn unregistered(&mut self, now: u64) {
        self.advance(now);
        self.host.epoch = None;
        self.touched.host();
    }

    /// The control plane has removed the sled for good: every VMM is killed.
    pub fn expunged(&mut self, now: u64) {
        self.advance(now);
        self.host.expunged = true;
        self.host.epoch = None;
        self.host.lease = None;
        self.touched.host();
        self.fail_all(self.host.clock);
    }

    /// The agent starts anew while the VMMs live on: it announces itself, and repeats every picture.
    pub fn agent_restart(&mut self, now: u64) {
        self.advance(now);
        self.host.announced = false;
        self.touched.host();
        self.outbox.clear();
        let ids: Vec<PropolisId> = self.vmms.keys().copied().collect();
        for id in ids {
            if let Some(vmm) = self.vmm_mut(id) {
                vmm.changed();
            }
        }
    }

    /// The host reboots: everything is gone but the sled's identity and whether it was expunged.
    pub fn reboot(&mut self, now: u64, boot_id: BootId) {
        self.wipe(now, boot_id);
        self.host.powered = true;
    }

    /// The host loses power: like a reboot that does not come up.
    pub fn power_off(&mut self, now: u64) {
        self.wipe(now, self.host.boot_id);
        self.host.powered = false;
    }

    fn wipe(&mut self, now: u64, boot_id: BootId) {
        self.host.clock = self.host.clock.max(now);
        self.host.boot_id = boot_id;
        self.host.announced = false;
        self.host.epoch = None;
        self.host.lease = None;
        self.vmms.clear();
        self.tombstones = Tombstones::default();
        self.v2p = Newest::default();
        self.outbox.clear();
        self.touched = Touched::all();
    }

    pub(super) fn lapse(&mut self, at: u64) {
        self.host.epoch = None;
        self.host.lease = None;
        self.touched.host();
        self.fail_all(at);
    }

    /// After a restart of the process: the clock is the caller's again, and nothing that was due before is
    /// farther ahead than it could be if it had just begun.
    pub(super) fn rearm(&mut self, now: u64) {
        let longest = self.config.timing.longest();
        let latest = now.saturating_add(longest);
        self.host.clock = now;
        if let Some(lease) = &mut self.host.lease {
            lease.sent_at = lease.sent_at.min(now);
        }
        self.host.agreed_at = self.host.agreed_at.min(now);
        for vmm in self.vmms.values_mut() {
            if let Some(at) = vmm.next.as_mut().and_then(|due| due.at.as_mut()) {
                *at = (*at).min(latest);
            }
            if let Some(at) = vmm.deadline.as_mut().and_then(|due| due.at.as_mut()) {
                *at = (*at).min(latest);
            }
        }
    }

    fn fail_all(&mut self, at: u64) {
        let live: Vec<PropolisId> =
            self.vmms.values().filter(|vmm| vmm.is_live()).map(super::Vmm::propolis_id).collect();
        for id in live {
            self.end_vmm(id, at, VmmState::Failed);
        }
    }
}
