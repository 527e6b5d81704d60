//! Sagas as they are read: those of more than one append, with their steps' times and how they ended.

use crate::history::{Ends, History};
use lifecycle::instance::{Instance, Pause, SagaProgress, UnwindReason};
use lifecycle::{
    EventMeta, InstanceEvent, InstanceId, Origin, SagaId, SagaKind, Span, Step, Timestamp, VmmId,
};
use serde::{Deserialize, Serialize};

/// A saga as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRow {
    /// Its id.
    pub id: SagaId,
    /// Which.
    pub kind: SagaKind,
    /// Its instance.
    pub instance: InstanceId,
    /// Who asked for it.
    pub origin: Origin,
    /// The VMM it works on.
    pub vmm: VmmId,
    /// The step it is at, or ended at.
    pub step: Step,
    /// When it began.
    pub started: Timestamp,
    /// When that step began.
    pub step_started: Timestamp,
    /// How long all of it may take.
    pub deadline: Span,
    /// From when that counts: its beginning, or the end of its last pause.
    pub deadline_from: Timestamp,
    /// Since when and why it is held at its step, if it is.
    pub pause: Option<Pause>,
    /// How it ended; none while it is under way.
    pub end: Option<SagaEnd>,
}

/// The end of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaEnd {
    /// When.
    pub at: Timestamp,
    /// Log position of the event that ended it.
    pub position: u64,
    /// How.
    pub outcome: SagaOutcome,
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaOutcome {
    /// Its goal was reached.
    Done,
    /// Its VMM ended after the point of no return.
    NotDone,
    /// It went all the way back.
    Unwound {
        /// Why.
        reason: UnwindReason,
        /// What was undone, newest first.
        undone: Vec<Step>,
    },
}

impl Ends for SagaRow {
    fn ended_at(&self) -> Option<u64> {
        self.end.as_ref().map(|end| end.position)
    }
}

impl SagaRow {
    fn new(saga: &SagaProgress, instance: InstanceId) -> Self {
        Self {
            id: saga.id,
            kind: saga.kind,
            instance,
            origin: saga.origin,
            vmm: saga.vmm,
            step: saga.step,
            started: saga.started,
            step_started: saga.step_started,
            deadline: saga.deadline,
            deadline_from: saga.deadline_from,
            pause: saga.pause,
            end: None,
        }
    }
}

/// Brings the rows of an instance's sagas up to date with an event; answers those that changed.
pub(crate) fn follow(
    history: &mut History<SagaId, SagaRow>,
    before: Option<&Instance>,
    after: &Instance,
    event: &InstanceEvent,
    meta: EventMeta,
) -> Vec<SagaId> {
    let was = before.and_then(|instance| instance.saga.as_ref());
    let is = after.saga.as_ref();
    if was == is {
        return Vec::new();
    }
    let mut changed = Vec::new();
    let mut put = |row: SagaRow| {
        changed.push(row.id);
        changed.extend(history.put(row.id, row));
    };
    if let Some(was) = was.filter(|was| is.is_none_or(|is| is.id != was.id)) {
        let end = SagaEnd { at: meta.time, position: meta.position, outcome: outcome(event) };
        put(SagaRow { end: Some(end), ..SagaRow::new(was, after.id) });
    }
    if let Some(is) = is {
        put(SagaRow::new(is, after.id));
    }
    changed
}

fn outcome(event: &InstanceEvent) -> SagaOutcome {
    match event {
        InstanceEvent::SagaEnded { done: true, .. } => SagaOutcome::Done,
        InstanceEvent::SagaUnwound { reason, undone, .. } => {
            SagaOutcome::Unwound { reason: *reason, undone: undone.clone() }
        }
        _ => SagaOutcome::NotDone,
    }
}
