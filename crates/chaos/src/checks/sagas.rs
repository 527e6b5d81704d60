//! Sagas, by a count of our own: what is held takes no step, is let go once, and what is taken back is taken back
//! whole, newest first, held or not.

use super::Broken;
use crate::world::names;
use lifecycle::{Instance, InstanceEvent, InstanceId, SagaId, SagaKind, Step};
use std::collections::BTreeMap;

/// One saga under way.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: SagaId,
    kind: SagaKind,
    has_registered: bool,
    is_held: bool,
}

impl Known {
    /// The steps that leave something to undo and ran, or may have run, newest first.
    fn owed(self) -> Vec<Step> {
        let is_start = matches!(self.kind, SagaKind::Start);
        let registered = self.has_registered.then_some(Step::Register);
        let pointed = is_start.then_some(Step::Network);
        [registered, pointed, Some(Step::Allocate), Some(Step::Reserve)].into_iter().flatten().collect()
    }
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct SagaChecks {
    known: BTreeMap<InstanceId, Known>,
}

impl SagaChecks {
    /// An event is to be applied to the state.
    pub(super) fn event(&mut self, id: InstanceId, event: &InstanceEvent) -> Result<(), Broken> {
        let began = |id: &SagaId, kind| Known { id: *id, kind, has_registered: false, is_held: false };
        match event {
            InstanceEvent::StartBegan { saga, .. } => {
                self.known.insert(id, began(saga, SagaKind::Start));
                Ok(())
            }
            InstanceEvent::MigrateBegan { saga, .. } => {
                self.known.insert(id, began(saga, SagaKind::Migrate));
                Ok(())
            }
            InstanceEvent::SagaAdvanced { saga, step } => {
                let known = self.under_way(id, *saga, "advances")?;
                known.has_registered |= *step == Step::Register;
                let is_held = known.is_held;
                ensure(!is_held, || format!("{} advances to {step:?} while it is paused", names::entity(id)))
            }
            InstanceEvent::SagaPaused { saga, .. } => {
                let known = self.under_way(id, *saga, "is paused")?;
                let was_held = std::mem::replace(&mut known.is_held, true);
                ensure(!was_held, || format!("{} is paused twice", names::entity(id)))
            }
            InstanceEvent::SagaResumed { saga } => {
                let known = self.under_way(id, *saga, "is resumed")?;
                let was_held = std::mem::replace(&mut known.is_held, false);
                ensure(was_held, || format!("{} is resumed and was not paused", names::entity(id)))
            }
            InstanceEvent::SagaUnwound { saga, undone, .. } => {
                let known = *self.under_way(id, *saga, "is taken back")?;
                self.known.remove(&id);
                let owed = known.owed();
                ensure(*undone == owed, || {
                    format!("{} took {undone:?} back and owed {owed:?}: {known:?}", names::entity(id))
                })
            }
            InstanceEvent::SagaEnded { saga, .. } => {
                self.under_way(id, *saga, "ends")?;
                self.known.remove(&id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn under_way(&mut self, id: InstanceId, saga: SagaId, what: &str) -> Result<&mut Known, Broken> {
        let detail = || format!("a saga of {} {what} that is not under way", names::entity(id));
        self.known.get_mut(&id).filter(|known| known.id == saga).ok_or_else(|| Broken::new("I20", detail()))
    }

    /// The fold knows of the same sagas.
    pub(super) fn reached(&self, state: &Instance) -> Result<(), Broken> {
        let counted = self.known.get(&state.id).map(|known| (known.id, known.is_held));
        let folded = state.saga.as_ref().map(|saga| (saga.id, saga.pause.is_some()));
        ensure(counted == folded, || {
            format!("{} has the saga {folded:?}, and its events make {counted:?}", names::entity(state.id))
        })
    }
}

fn ensure(holds: bool, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new("I20", detail())) }
}
