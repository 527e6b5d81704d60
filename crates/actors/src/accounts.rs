//! Which sleds hold only what the log knows of. It matters while instances are quarantined: what these hold since
//! they lost a record, and where, the log cannot tell.
//!
//! Invariants:
//! * a sled takes a VMM only after an inventory of it has shown nothing of a quarantined instance that is unknown;
//! * nobody waits for the first such inventory longer than [`COUNTING_MAX`].

use lifecycle::SledId;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long room waits for sleds to say what they hold, once at the start of a daemon: an inventory takes a moment.
pub(crate) const COUNTING_MAX: Duration = Duration::from_secs(5);

/// What sleds have said.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Whether instances have lost records.
    is_damaged: bool,
    /// Whether nobody waits any longer for sleds to say it.
    is_late: bool,
    /// Sleds that hold only what is known.
    accounted: BTreeSet<SledId>,
    /// Sleds that hold what nobody can account for.
    unaccounted: BTreeSet<SledId>,
}

impl Accounts {
    /// Before any sled has said anything.
    pub(crate) const fn new(is_damaged: bool) -> Self {
        Self { is_damaged, is_late: false, accounted: BTreeSet::new(), unaccounted: BTreeSet::new() }
    }

    /// Whether what sleds hold is a question at all.
    pub(crate) const fn is_open(&self) -> bool {
        self.is_damaged
    }

    /// A sled has said what it holds.
    pub(crate) fn say(&mut self, sled: SledId, is_accounted: bool) {
        let (to, from) = if is_accounted {
            (&mut self.accounted, &mut self.unaccounted)
        } else {
            (&mut self.unaccounted, &mut self.accounted)
        };
        to.insert(sled);
        from.remove(&sled);
    }

    /// Sleds have had their time.
    pub(crate) const fn give_up(&mut self) {
        self.is_late = true;
    }

    /// Whether no sled has said yet that all it holds is known, and one of `sleds` may still say so.
    pub(crate) fn is_counting(
        &self,
        mut sleds: impl Iterator<Item = SledId>,
        unreachable: &BTreeSet<SledId>,
    ) -> bool {
        let is_open = self.is_damaged && !self.is_late && self.accounted.is_empty();
        is_open && sleds.any(|sled| !self.unaccounted.contains(&sled) && !unreachable.contains(&sled))
    }

    /// Which of `sleds` take no VMM.
    pub(crate) fn shut(&self, sleds: impl Iterator<Item = SledId>) -> BTreeSet<SledId> {
        sleds.filter(|sled| self.is_damaged && !self.accounted.contains(sled)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn sled(n: u128) -> SledId {
        SledId::new(Uuid::from_u128(n))
    }

    #[test]
    fn room_waits_for_the_first_sled_that_is_accounted_for_and_for_no_other() {
        let (both, nobody) = ([sled(1), sled(2)], BTreeSet::new());
        let sleds = || both.into_iter();
        let whole = Accounts::new(false);
        assert!(!whole.is_counting(sleds(), &nobody) && whole.shut(sleds()).is_empty());

        let mut accounts = Accounts::new(true);
        assert!(accounts.is_counting(sleds(), &nobody));
        assert_eq!(accounts.shut(sleds()), both.into());
        accounts.say(sled(1), false);
        assert!(accounts.is_counting(sleds(), &nobody), "the other may still say that it is");
        assert!(!accounts.is_counting(sleds(), &[sled(2)].into()), "it cannot at present");
        accounts.say(sled(2), true);
        assert!(!accounts.is_counting(sleds(), &nobody));
        assert_eq!(accounts.shut(sleds()), [sled(1)].into());
        accounts.say(sled(1), true);
        assert!(accounts.shut(sleds()).is_empty(), "the stray has ended");

        let mut late = Accounts::new(true);
        late.give_up();
        assert!(!late.is_counting(sleds(), &nobody), "nobody waits for ever");
        assert_eq!(late.shut(sleds()), both.into(), "and nothing is placed on what is not known");
    }
}
