//! The operator: somebody looks, once nothing goes wrong any more, at the sagas that are held, and lets each go on or
//! takes it back. Nobody else would.

use super::instance_shell::{From, Waiting, What};
use super::{World, names};
use lifecycle::{Command, Input, InstanceId, SagaId};

/// One saga in so many is taken back.
const CANCELS_ONE_IN: u64 = 3;

impl World {
    /// Lets go of whatever is held.
    pub(super) fn attend_to_held(&mut self) {
        let Some(control) = &self.control else { return };
        let held = control.instances.iter().filter_map(|(id, shell)| {
            let saga = shell.state.as_ref()?.saga.as_ref()?;
            (saga.pause.is_some() && shell.is_idle()).then_some((*id, saga.id))
        });
        let held: Vec<(InstanceId, SagaId)> = held.collect();
        for (id, saga) in held {
            if !self.is_up() {
                return;
            }
            let drawn = self.draws.next("attend", names::instance_number(id).into());
            let command = if drawn.is_multiple_of(CANCELS_ONE_IN) {
                Command::CancelSaga { saga }
            } else {
                Command::ResumeSaga { saga }
            };
            let what = What::Input(Input::Command(command));
            self.give(id, Waiting { what, from: From::Nobody });
        }
    }
}
