//! What operators ask of sleds: to take no new VMMs, to take them again, to be gone for good.
//!
//! Who takes a sled out vouches for its being gone, so it is switched off before the request is looked at, and
//! stays off at least until the log says that it is out.

use super::instance_shell::{From, Waiting, What};
use super::{SECOND, World, names};
use crate::bug::Bug;
use crate::verb::Verb;
use lifecycle::sled::SledCommand;
use lifecycle::{Evidence, Input, InstanceId, Rejected, SledEvent, SledId, VmmId};

/// One sled in so many that was taken out is switched on again all the same.
const RETURNS_ONE_IN: u64 = 2;

/// Shortest and longest time until then.
const RETURNS_US: (u64, u64) = (SECOND, 15 * SECOND);

impl World {
    /// An operator's request about a sled. Answers false if the door is shut.
    pub(super) fn sled_asked(&mut self, sled: u16, request: usize) -> bool {
        let id = names::sled(sled);
        let is_known = self.control().sleds.get(&id).is_some_and(|shell| shell.state.is_some());
        if is_known && matches!(self.clients.request(request).verb, Verb::Expunge { .. }) {
            self.switch_off(sled);
        }
        self.queue_sled_command(id, request)
    }

    /// The events that a request about a sled decides.
    pub(super) fn decide_sled(&mut self, id: SledId, request: usize) -> Result<Vec<SledEvent>, Rejected> {
        let reason = || "the scenario wants it so".to_owned();
        let command = match self.clients.request(request).verb {
            Verb::Cordon { .. } => SledCommand::Cordon(reason()),
            Verb::Drain { .. } => SledCommand::Drain(reason()),
            Verb::Uncordon { .. } => SledCommand::Uncordon(reason()),
            _ => SledCommand::Expunge(reason()),
        };
        let control = self.control.as_ref().expect("only what is up is asked");
        let state = control.sleds.get(&id).and_then(|shell| shell.state.as_ref());
        lifecycle::sled::decide(state.ok_or(Rejected::NoSuchSled(id))?, &command)
    }

    pub(super) fn is_expunged(&self, id: SledId) -> bool {
        let shell = self.control.as_ref().and_then(|control| control.sleds.get(&id));
        shell.and_then(|shell| shell.state.as_ref()).is_some_and(|sled| sled.expunged.is_some())
    }

    /// A sled is out: what was on it is gone. Derived from the fold at every start and every watch, so that a
    /// crash between the two loses nothing.
    pub(super) fn tell_of_expunge(&mut self, id: SledId) {
        if !self.is_expunged(id) || self.scenario.bug == Some(Bug::ForgetExpunge) {
            return;
        }
        let held: Vec<(VmmId, InstanceId)> = self.control().ledger.vmms_on(id).collect();
        for (vmm, instance) in held {
            let input = Input::Gone { vmm, evidence: Evidence::SledExpunged };
            self.give(instance, Waiting { what: What::Input(input), from: From::Nobody });
            if !self.is_up() {
                return;
            }
        }
    }

    /// The log says that a sled is out. Its host may be switched on again: it must learn that it is.
    pub(super) fn sled_was_expunged(&mut self, sled: u16) {
        self.note_expunged(sled);
        let returns = self.draws.at("returns", u128::from(sled), 0).is_multiple_of(RETURNS_ONE_IN);
        if returns && self.sleds[usize::from(sled)].is_off {
            let after = self.draws.next_within("returns_after", u128::from(sled), RETURNS_US.0, RETURNS_US.1);
            self.switch_on(sled, after);
        }
    }
}
