//! What may happen next: everything that has a reason, and everything the budget still allows.

use super::fold::Folds;
use super::sled::{Fetch, Guest};
use super::wishes::Wish;
use super::world::{Fate, Message, SLEDS, Step, World};
use lifecycle::DeadlineKind;

impl World {
    /// Every step that may be taken, in a fixed order. Some of them turn out to change nothing.
    pub fn steps(&self, folds: &Folds) -> Vec<Step> {
        let mut steps = Vec::new();
        self.wishes(&mut steps);
        self.calls(folds, &mut steps);
        self.arrivals(&mut steps);
        for guest in self.guests() {
            self.of_guest(guest, &mut steps);
        }
        self.of_sleds(folds, &mut steps);
        for &kind in &folds.get(self.fold).deadlines {
            if kind == DeadlineKind::Restart {
                steps.extend((0..SLEDS).map(Step::Restart));
            } else if self.left.allows(|left| &mut left.deadline) {
                steps.push(Step::Deadline(kind));
            }
        }
        if self.left.allows(|left| &mut left.restart) {
            steps.push(Step::RestartControlPlane);
        }
        steps
    }

    fn wishes(&self, steps: &mut Vec<Step>) {
        let left = &self.left;
        if left.allows(|left| &mut left.start) {
            // The sleds are alike until one of them has been used.
            let sleds = if self.allocated == 0 { 1 } else { SLEDS };
            steps.extend((0..sleds).map(|sled| Step::Ask(Wish::Start(sled))));
        }
        let is_nothing_there = self.guests().next().is_none()
            && !self.wire.iter().any(|late| matches!(late.message, Message::Request(_)));
        for (allowed, wish) in [
            (left.allows(|left| &mut left.stop), Wish::Stop),
            (left.allows(|left| &mut left.reboot), Wish::Reboot),
            (left.allows(|left| &mut left.delete), Wish::Delete),
            (left.allows(|left| &mut left.migrate), Wish::Migrate),
            (left.allows(|left| &mut left.cancel), Wish::CancelMigration),
            (left.allows(|left| &mut left.force_stop), Wish::ForceStop),
            (left.allows(|left| &mut left.force_stop) && is_nothing_there, Wish::AssertDead),
        ] {
            if allowed {
                steps.push(Step::Ask(wish));
            }
        }
    }

    fn calls(&self, folds: &Folds, steps: &mut Vec<Step>) {
        for &effect in &folds.get(self.fold).effects {
            steps.push(Step::Call(effect));
            if self.left.allows(|left| &mut left.late_request) {
                steps.push(Step::SendLate(effect));
            }
        }
    }

    fn arrivals(&self, steps: &mut Vec<Step>) {
        for (index, late) in self.wire.iter().enumerate() {
            let Message::Request(request) = &late.message else {
                steps.push(Step::Hear(index));
                continue;
            };
            steps.push(Step::Arrive(index, Fate::Lost));
            if !request.is_waited_for {
                continue;
            }
            steps.push(Step::Arrive(index, Fate::Heard));
            if self.left.allows(|left| &mut left.late_answer) {
                steps.push(Step::Arrive(index, Fate::Late));
            }
        }
    }

    /// Whether the target of a source's migration is still fetching its guest.
    fn has_target(&self, source: &Guest) -> bool {
        let is_of_source = |guest: &Guest| {
            guest.source == Some(source.id) && guest.is_arriving() && guest.fetch >= Fetch::Begun
        };
        self.guests().any(is_of_source)
    }

    fn of_guest(&self, guest: &Guest, steps: &mut Vec<Step>) {
        let (id, left) = (guest.id, &self.left);
        if !guest.is_settled {
            steps.push(Step::Report(id));
            if left.allows(|left| &mut left.late_report) {
                steps.push(Step::ReportLate(id));
            }
        }
        if guest.next().is_some() {
            steps.push(Step::Proceed(id));
        }
        if guest.is_departing() && !self.has_target(guest) {
            steps.push(Step::MissTarget(id));
        }
        let is_stopping = guest.state == lifecycle::VmmState::Stopping;
        if left.allows(|left| &mut left.shutdown) && guest.executes && !is_stopping {
            steps.push(Step::ShutDown(id));
        }
        if left.allows(|left| &mut left.crash) && guest.state.is_live() {
            steps.push(Step::Crash(id));
        }
        if left.allows(|left| &mut left.fail_migration) && (guest.is_departing() || guest.is_arriving()) {
            steps.push(Step::FailMigration(id));
        }
    }

    fn of_sleds(&self, folds: &Folds, steps: &mut Vec<Step>) {
        for (sled, known) in self.known.iter().enumerate() {
            if self.left.allows(|left| &mut left.sled_reboot) {
                steps.push(Step::RebootSled(sled));
            }
            if !self.sleds[sled].is_registered {
                steps.push(Step::RegisterSled(sled));
            }
            if !known.before_boot.is_empty() {
                steps.push(Step::TellOfBoot(sled));
            }
            if self.is_inventory_news(folds, sled) {
                steps.push(Step::Inventory(sled));
            }
            if self.left.allows(|left| &mut left.late_inventory) {
                steps.push(Step::InventoryLate(sled));
            }
        }
    }
}
