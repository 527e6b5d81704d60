//! The watch: one batched inventory per period and after every reconnect, compared with the log.
//!
//! Listed and known: its state counts like a report. Listed and unknown, or known to be over: it is told to
//! end, every period, until it is absent. Known and not listed: evidence that it is gone, if it was
//! registered before the inventory was asked for.
//!
//! A sled whose inventory is what it was says only that. If the log expects nothing else of it there is nothing to do;
//! if it does, all of it is asked for. So what is sent per period grows with the sleds, and not with their VMMs.

use super::{Shell, SledMsg};
use crate::convert;
use crate::instance::{InstanceMsg, Timer};
use crate::timers::TimerName;
use journal::StreamName;
use lifecycle::input::Input;
use lifecycle::vmm::Evidence;
use lifecycle::{BootId, InstanceId, Timestamp, VmmId};
use sled_protocol::{Inventory, InventoryTag, InventoryVmm, Listing, SledError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How soon a sled that could not be found is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a sled listed last, as far as it tells whether the log expects the same.
pub(super) struct Listed {
    tag: InventoryTag,
    /// Each VMM, with the fingerprint of what was said of it.
    vmms: Vec<(VmmId, u64)>,
    boot: BootId,
}

impl Listed {
    fn new(tag: InventoryTag, inventory: &Inventory) -> Self {
        let said = |vmm: &InventoryVmm| {
            (VmmId::new(vmm.propolis_id.as_uuid()), convert::report(&vmm.state).fingerprint())
        };
        let vmms = inventory.vmms.iter().map(said).collect();
        Self { tag, vmms, boot: BootId::new(inventory.boot_id.as_uuid()) }
    }
}

impl Shell {
    /// Plans the next look: sooner at a sled that does not answer.
    pub(super) fn plan_watch(&mut self) {
        let limits = &self.env.limits;
        let period = if self.status.unreachable.is_some() {
            limits.sled_probe.min(limits.inventory_period)
        } else {
            limits.inventory_period
        };
        self.watch_after(self.env.jittered(period));
    }

    fn watch_after(&mut self, pause: Duration) {
        let due = self.me.send_after(pause, || SledMsg::Watch).abort_handle();
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let at = Timestamp::from_micros(self.env.clock.now().micros().saturating_add(micros));
        self.watch = Some((Timer::new(due), at));
    }

    /// Asks, unless an answer is under way; plans the next time.
    pub(super) fn ask_inventory(&mut self) {
        self.plan_watch();
        if self.state.as_ref().is_some_and(|sled| sled.expunged.is_some()) {
            // It is never contacted again; the period goes on, for what is placed on it at the last moment.
            return;
        }
        let Some(client) = self.client() else {
            if std::mem::replace(&mut self.is_missed, true) {
                self.not_heard("its agent's address leads nowhere".to_owned());
            } else {
                // A sled in this process registers a moment before it can be found.
                self.watch_after(LOOK_AGAIN);
            }
            return;
        };
        self.is_missed = false;
        if self.is_asking {
            return;
        }
        self.is_asking = true;
        let (me, permits) = (self.me.clone(), Arc::clone(&self.permits));
        let asked_at = self.env.log.durable().get();
        let known = self.listed.as_ref().map(|listed| listed.tag.clone());
        tokio::spawn(async move {
            let result = match permits.acquire_owned().await {
                Ok(_permit) => client.inventory_unless(known).await,
                Err(_) => Err(SledError::Timeout),
            };
            // The actor may have ended.
            let _ = me.cast(SledMsg::Inventoried { asked_at, result });
        });
    }

    pub(super) async fn on_inventory(&mut self, asked_at: u64, result: Result<Listing, SledError>) {
        self.is_asking = false;
        let (inventory, tag) = match result {
            Ok(Listing::Whole(inventory, tag)) => (inventory, tag),
            Ok(Listing::Unchanged) => return self.on_unchanged().await,
            Err(error) => {
                self.not_heard(error.to_string());
                return;
            }
        };
        self.listed = None;
        self.heard();
        if let Err(invalid) = inventory.validate() {
            tracing::warn!(sled = %self.id, %invalid, "inventory refused");
            return;
        }
        let known_boot = self.state.as_ref().and_then(|sled| sled.boot).map(|(boot, _)| boot.uuid());
        if inventory.sled_id.as_uuid() != self.id.uuid() || Some(inventory.boot_id.as_uuid()) != known_boot {
            // It has booted and not registered yet, or it is somebody else: it says nothing about our VMMs.
            tracing::warn!(sled = %self.id, boot = %inventory.boot_id, "inventory of another boot");
            return;
        }
        self.tell_network();
        self.listed = tag.map(|tag| Listed::new(tag, &inventory));
        if let Some(found) = self.reconcile(asked_at, inventory).await {
            self.boards.ran(TimerName::SledWatch, found, None);
        }
    }

    /// It lists what it listed: that is looked at again only if the log expects something else of it by now.
    async fn on_unchanged(&mut self) {
        let listed = self.listed.take();
        self.heard();
        if let Some(listed) = listed
            && Some(listed.boot) == self.state.as_ref().and_then(|sled| sled.boot).map(|(boot, _)| boot)
        {
            self.tell_network();
            if self.expects(&listed).await {
                self.listed = Some(listed);
                self.boards.ran(TimerName::SledWatch, 0, None);
                return;
            }
        }
        self.ask_inventory();
    }

    /// Whether the log holds the same VMMs on the sled, each with what was said of it last.
    async fn expects(&self, listed: &Listed) -> bool {
        let (id, vmms) = (self.id, listed.vmms.clone());
        let look = self.ledger.look(self.env.log.durable().get(), move |ledger| {
            let is_expected = |(vmm, said): &(VmmId, u64)| {
                ledger
                    .vmm(*vmm)
                    .is_some_and(|place| place.sled == id && place.is_held && place.heard == *said)
            };
            vmms.iter().all(is_expected) && ledger.vmms_on(id).count() == vmms.len()
        });
        look.await.unwrap_or(false)
    }

    /// Answers how many VMMs were not as the log says; none if that could not be looked up.
    async fn reconcile(&mut self, asked_at: u64, inventory: Inventory) -> Option<usize> {
        let id = self.id;
        let listed: BTreeSet<VmmId> =
            inventory.vmms.iter().map(|vmm| VmmId::new(vmm.propolis_id.as_uuid())).collect();
        // What was registered since the question was asked is no orphan: look at everything durable by now.
        let look = self.ledger.look(self.env.log.durable().get(), {
            let listed = listed.clone();
            move |ledger| {
                let places: Vec<_> = listed.iter().map(|vmm| ledger.vmm(*vmm)).collect();
                (places, ledger.vmms_on(id).collect::<Vec<_>>())
            }
        });
        let (places, held) = look.await.ok()?;
        let mut found = 0;
        let mut vmms = inventory.vmms;
        vmms.sort_by_key(|vmm| vmm.propolis_id);
        let mut is_accounted = true;
        for (vmm, place) in vmms.iter().zip(places) {
            let ours = place.filter(|place| place.sled == id && place.is_held);
            let Some(place) = ours else {
                if self.is_quarantined(vmm) {
                    is_accounted = false;
                    // Its history cannot be read: whether it is an orphan is not known, and a guest may be in it.
                    tracing::warn!(sled = %id, vmm = %vmm.propolis_id, instance = %vmm.instance_id, "VMM of a quarantined instance is left alone");
                    continue;
                }
                tracing::warn!(sled = %id, vmm = %vmm.propolis_id, instance = %vmm.instance_id, "orphan is unregistered");
                self.unregister(vmm.propolis_id);
                found += 1;
                continue;
            };
            let report = convert::report(&vmm.state);
            if report.fingerprint() == place.heard {
                // Nothing new: an instance that is left alone stays out of memory.
                continue;
            }
            found += 1;
            let message = InstanceMsg::Report {
                sled: id,
                vmm: VmmId::new(vmm.propolis_id.as_uuid()),
                report,
                ticket: None,
                reply: None,
            };
            // An instance that restarts hears of it at the next inventory.
            let _ = self.instances.send(place.instance, message);
        }
        if !self.env.log.quarantined().is_empty() {
            self.ledger.accounted(id, is_accounted);
        }
        for (vmm, instance) in held {
            if !listed.contains(&vmm) {
                found += 1;
                for (asked_at, evidence) in
                    [(asked_at, Evidence::AbsentFromInventory), (self.fenced_at, self.fence)]
                {
                    let input = Input::Absent { vmm, asked_at, evidence };
                    let _ = self.instances.send(instance, InstanceMsg::Learned(input));
                }
            }
        }
        Some(found)
    }

    fn is_quarantined(&self, vmm: &InventoryVmm) -> bool {
        let stream = StreamName::Instance(InstanceId::new(vmm.instance_id.as_uuid())).id();
        self.env.log.quarantined().iter().any(|(quarantined, _)| *quarantined == stream)
    }
}
