//! Spans of what an instance does, for whoever listens (`docs/operations.md`, traces): a request's command, the saga
//! that came of it, the calls that the saga makes, and the reports that it waits for.
//!
//! Invariants:
//! * a saga's span is open from the append that began it, or from the instance's activation, to the append that
//!   ended it; it stands within what asked for it;
//! * nothing is decided by a span, and where nobody listens none is made.

use super::InstanceMsg;
use lifecycle::{Effect, Instance, InstanceId, RequestId, SagaId};
use tracing::Span;

/// The span of the saga under way.
#[derive(Default)]
pub(super) struct SagaSpan(Option<(SagaId, Span)>);

impl SagaSpan {
    /// Opens one for a saga that has begun, and closes that of one that is over.
    pub(super) fn follow(&mut self, state: Option<&Instance>, request: Option<RequestId>) {
        let saga = state.and_then(|state| state.saga.as_ref());
        if self.0.as_ref().map(|(id, _)| *id) == saga.map(|saga| saga.id) {
            return;
        }
        self.0 = state.zip(saga).map(|(state, saga)| {
            let span = tracing::debug_span!(
                target: "musher::spans",
                "saga",
                instance = %state.id,
                name = state.spec.name,
                saga = %saga.id,
                kind = ?saga.kind,
                request_id = request.as_ref().map(tracing::field::display),
            );
            (saga.id, span)
        });
    }

    /// What is under way: the saga, else whatever is being done just now.
    fn span(&self) -> Span {
        self.0.as_ref().map_or_else(Span::current, |(_, span)| span.clone())
    }

    /// What a message is handled within.
    pub(super) fn of_message(&self, id: InstanceId, message: &InstanceMsg) -> Span {
        match message {
            InstanceMsg::Command { ask, context, span, .. } => tracing::debug_span!(
                target: "musher::spans",
                parent: span,
                "command",
                instance = %id,
                ask = ask.name(),
                actor = %context.actor,
                request_id = %context.request,
            ),
            InstanceMsg::Report { sled, vmm, report, .. } => tracing::debug_span!(
                target: "musher::spans",
                parent: &self.span(),
                "report",
                instance = %id,
                %sled,
                %vmm,
                state = ?report.state,
            ),
            InstanceMsg::Answered { .. }
            | InstanceMsg::Learned(_)
            | InstanceMsg::SendAgain(_)
            | InstanceMsg::DeadlinePassed(_)
            | InstanceMsg::WaitIsOver(_)
            | InstanceMsg::Reconsider
            | InstanceMsg::Passivate
            | InstanceMsg::Get(_) => self.span(),
        }
    }

    /// A call to a sled, until it is answered.
    pub(super) fn of_call(&self, id: InstanceId, effect: Effect) -> Span {
        tracing::debug_span!(
            target: "musher::spans",
            parent: &self.span(),
            "sled call",
            instance = %id,
            effect = effect.name(),
            sled = %effect.sled(),
            vmm = %effect.vmm(),
            error = tracing::field::Empty,
        )
    }
}
