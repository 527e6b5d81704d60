//! What planted bugs do to an instance's shell (`Bug`). Nothing here runs unless a scenario asks for it.

use super::World;
use super::instance_shell::From;
use crate::bug::Bug;
use lifecycle::{Input, Instance, InstanceEvent, InstanceId, Step};

impl World {
    /// What planted bugs do as soon as an append is written.
    pub(super) fn act_too_early(&mut self, id: InstanceId) {
        match self.scenario.bug {
            Some(Bug::AcknowledgeBeforeSync) => {
                let in_flight = self.shell(id).in_flight.as_mut().expect("it was just written");
                in_flight.is_answered = true;
                let (from, first) = (in_flight.from.clone(), in_flight.metas[0].position);
                if matches!(from, From::Client { .. }) {
                    self.answer(from, Some(first));
                } else {
                    self.shell(id).in_flight.as_mut().expect("it was just written").is_answered = false;
                }
            }
            Some(Bug::EffectBeforeSync) => {
                let shell = self.shell(id);
                let mut ahead = shell.state.clone();
                let in_flight = shell.in_flight.as_ref().expect("it was just written");
                for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
                    lifecycle::evolve(&mut ahead, event, *meta);
                }
                if let Some(ahead) = ahead {
                    self.derive_from(id, &ahead);
                }
            }
            _ => {}
        }
    }
}

/// The planted leak: a start that goes back does not give back what it reserved.
pub(super) fn keep_what_is_undone(events: &mut [InstanceEvent]) {
    for event in events {
        if let InstanceEvent::SagaUnwound { undone, .. } = event {
            undone.retain(|step| *step != Step::Reserve);
        }
    }
}

/// The planted open fence: a start that is to wait goes on.
pub(super) fn pass_the_fence(events: &mut Vec<InstanceEvent>) {
    if let Some(InstanceEvent::StartBegan { saga, .. }) = events.last() {
        let saga = *saga;
        events.push(InstanceEvent::SagaAdvanced { saga, step: Step::Register });
    }
}

/// The planted deafness to generations: every report passes as the newest.
pub(super) fn make_newer(input: &mut Input, state: Option<&Instance>) {
    if let Input::Report { vmm, report, .. } = input
        && let Some(known) = state.and_then(|state| state.vmms.get(vmm))
        && report.generation <= known.generation
    {
        report.generation = known.generation.next();
    }
}
