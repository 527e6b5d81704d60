//! Which reports the control plane still owes an answer for.
//!
//! A report is identified by its whole picture, so that an answer to an older one settles nothing.

use sled_protocol::{PropolisId, SledVmmState};

use super::Sled;

impl Sled {
    /// The pictures the control plane has not answered for good, each the newest of its VMM, in order of VMM.
    /// A shell repeats them for ever, one at a time per VMM.
    pub fn pending_reports(&self) -> impl Iterator<Item = (PropolisId, &SledVmmState)> {
        self.vmms.values().filter(|vmm| !vmm.is_settled).map(|vmm| (vmm.propolis_id(), vmm.state()))
    }

    /// The control plane has this picture. If it is the newest and terminal, the VMM is forgotten and leaves
    /// a tombstone.
    pub fn report_accepted(&mut self, now: u64, propolis_id: PropolisId, state: &SledVmmState) {
        self.advance(now);
        let Some(vmm) = self.vmms.get(&propolis_id) else { return };
        if vmm.state() != state {
            return;
        }
        if vmm.is_live() {
            self.settle(propolis_id);
        } else {
            self.forget(propolis_id);
        }
    }

    /// The control plane refuses this picture for good (400, 404). It is not repeated, but the VMM is kept,
    /// ended or not, until a change or an unregister.
    pub fn report_refused(&mut self, now: u64, propolis_id: PropolisId, state: &SledVmmState) {
        self.advance(now);
        if self.vmms.get(&propolis_id).is_some_and(|vmm| vmm.state() == state) {
            self.settle(propolis_id);
        }
    }

    fn settle(&mut self, propolis_id: PropolisId) {
        if let Some(vmm) = self.vmms.get_mut(&propolis_id) {
            vmm.is_settled = true;
            vmm.is_emitted = true;
        }
    }
}
