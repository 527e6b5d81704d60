//! Migrations, by the log: each ends exactly once, and then its loser is gone.

use super::Broken;
use crate::world::names;
use lifecycle::migration::Outcome;
use lifecycle::{Instance, InstanceEvent, Ledger, MigrationId, SagaKind, VmmId};
use std::collections::{BTreeMap, BTreeSet};

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its saga went back.
    Unwound,
    /// It was cleared with this outcome.
    Cleared(Outcome),
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct MigrationChecks {
    sides: BTreeMap<MigrationId, (VmmId, VmmId)>,
    pairs: BTreeSet<(VmmId, VmmId)>,
    ends: BTreeMap<MigrationId, End>,
    /// Those that were cleared as succeeded since this was last asked for.
    pub(super) succeeded: Vec<MigrationId>,
}

impl MigrationChecks {
    /// Whether two VMMs are the source and the target of one migration.
    pub(super) fn are_sides(&self, one: VmmId, other: VmmId) -> bool {
        self.pairs.contains(&(one, other)) || self.pairs.contains(&(other, one))
    }

    /// I21: an event is to be applied to the state; it may end a migration, once.
    pub(super) fn event(&mut self, state: Option<&Instance>, event: &InstanceEvent) -> Result<(), Broken> {
        let Some(state) = state else {
            return Ok(());
        };
        if let (InstanceEvent::MigrateBegan { migration, vmm, .. }, Some(source)) = (event, state.active) {
            self.sides.insert(*migration, (source, *vmm));
            self.pairs.insert((source, *vmm));
        }
        let Some(linked) = state.linked_migration() else {
            return Ok(());
        };
        let end = match event {
            InstanceEvent::Updated(update) if update.migration.is_none() => {
                End::Cleared(state.outcome_of(linked))
            }
            InstanceEvent::SagaUnwound { .. }
                if state.saga.as_ref().is_some_and(|saga| saga.kind == SagaKind::Migrate) =>
            {
                End::Unwound
            }
            _ => return Ok(()),
        };
        if end == End::Cleared(Outcome::Succeeded) {
            self.succeeded.push(linked.id);
        }
        let is_open = matches!(end, End::Cleared(Outcome::UnderWay | Outcome::HandedOver));
        match self.ends.insert(linked.id, end) {
            None if !is_open => Ok(()),
            before => {
                let entity = names::entity(state.id);
                Err(Broken::new("I21", format!("a migration of {entity} ends as {end:?} after {before:?}")))
            }
        }
    }

    /// I21: failing a VMM fails its side of a migration that has not ended, in the same append; and unless a saga
    /// is under way the slots are where the outcome says.
    pub(super) fn reached(state: &Instance) -> Result<(), Broken> {
        for migration in state.migrations.values() {
            for side in [migration.source, migration.target] {
                let has_ended = state.vmms.get(&side.vmm).is_some_and(|vmm| vmm.state.is_terminal());
                if has_ended && !side.state.is_terminal() {
                    let text = names::vmm_text(side.vmm);
                    return Err(Broken::new("I21", format!("{text} has ended and its side has not")));
                }
            }
        }
        let Some(linked) = state.linked_migration().filter(|_| state.saga.is_none()) else {
            return Ok(());
        };
        let outcome = state.outcome_of(linked);
        let is_followed = match outcome {
            Outcome::UnderWay => state.active == Some(linked.source.vmm),
            Outcome::Undecided => !linked.is_given_up,
            Outcome::HandedOver => state.active == Some(linked.target.vmm),
            Outcome::Succeeded | Outcome::Lost | Outcome::Failed => false,
        };
        if is_followed {
            return Ok(());
        }
        let entity = names::entity(state.id);
        Err(Broken::new("I21", format!("{entity} does not follow its migration, which is {outcome:?}")))
    }

    /// I21: at rest every migration has ended, and its loser holds nothing.
    pub(super) fn at_rest(&self, ledger: &Ledger) -> Result<(), Broken> {
        for (id, (source, target)) in &self.sides {
            let losers: &[VmmId] = match self.ends.get(id) {
                None => return Err(Broken::new("I21", format!("migration {id} has not ended"))),
                Some(End::Cleared(Outcome::Succeeded)) => &[*source],
                Some(End::Cleared(Outcome::Lost | Outcome::Undecided)) => &[*source, *target],
                Some(_) => &[*target],
            };
            let held = losers.iter().find(|loser| ledger.vmm(**loser).is_some_and(|place| place.is_held));
            if let Some(loser) = held {
                let text = names::vmm_text(*loser);
                return Err(Broken::new("I21", format!("{text} lost its migration and is still reserved")));
            }
        }
        Ok(())
    }
}
