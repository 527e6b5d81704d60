//! The shell's state, its loading, and the one way in which anything is written.

use super::sending::{Armed, Sending};
use super::snapshot;
use super::span::SagaSpan;
use super::{InstanceArgs, InstanceMsg};
use crate::answer::{Accepted, CommandError};
use crate::counts::{Reported, Tally};
use crate::env::Env;
use crate::ledger::LedgerHandle;
use crate::sleds::Sleds;
use crate::writer::{AppendError, Writer};
use eventlog::failpoints::{Point, pass};
use journal::{Actor as Who, Context, Event, Recorded, StreamName};
use lifecycle::input::{Input, VmmReport};
use lifecycle::{
    DeadlineKind, Decision, Effect, Instance, InstanceEvent, InstanceId, OpId, Rejected, SledId, VmmId,
    decide, evolve,
};
use ractor::{ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument as _;

/// One waiting caller.
pub(super) type Waiter = oneshot::Sender<Result<Accepted, CommandError>>;

/// Everything an instance's actor has in memory. All of it but `state` is derived or transient.
pub(crate) struct Shell {
    pub(super) env: Arc<Env>,
    pub(super) id: InstanceId,
    pub(super) me: ActorRef<InstanceMsg>,
    pub(super) ledger: LedgerHandle,
    pub(super) sleds: Sleds,
    tally: Arc<Tally>,
    pub(super) writer: Writer,
    pub(super) state: Option<Instance>,
    /// Effects that are wished, with how often each was sent.
    pub(super) sending: BTreeMap<Effect, Sending>,
    /// Deadlines that run.
    pub(super) deadlines: BTreeMap<DeadlineKind, Armed>,
    /// Version of the snapshot in the cache, as far as is known.
    pub(super) snapshot_version: u64,
    /// When anything but housekeeping last came.
    touched: Instant,
    /// What is under way, for whoever listens.
    pub(super) saga_span: SagaSpan,
    /// Callers that wait for a sled to confirm their order.
    pub(super) waiters: BTreeMap<OpId, Vec<Waiter>>,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotDone {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Shell {
    /// Claims the stream, folds it, and derives what is to be done.
    pub(super) async fn load(
        args: InstanceArgs,
        me: ActorRef<InstanceMsg>,
    ) -> Result<Self, ActorProcessingErr> {
        let InstanceArgs { env, id, ledger, sleds, tally } = args;
        let stream = StreamName::Instance(id);
        let snapshot = snapshot::load(&env, stream);
        let known = snapshot.as_ref().map(snapshot::folded_to).unwrap_or_default();
        let (writer, records) = Writer::open_after(Arc::clone(&env), stream, known).await?;
        let is_whole = records.first().is_some_and(|record| record.meta.version == 1);
        let mut state = snapshot.filter(|_| !is_whole);
        for Recorded { event, meta, .. } in &records {
            if let Event::Instance(event) = event {
                evolve(&mut state, event, *meta);
            }
        }
        assert!(
            state.as_ref().is_none_or(|state: &Instance| state.head.position == writer.position()),
            "the fold ends at the stream's head"
        );
        ledger.barrier(id, writer.epoch(), writer.position());
        let mut shell = Self {
            env,
            id,
            me,
            ledger,
            sleds,
            tally,
            writer,
            state,
            sending: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            snapshot_version: known.version,
            touched: Instant::now(),
            saga_span: SagaSpan::default(),
            waiters: BTreeMap::new(),
        };
        shell.saga_span.follow(shell.state.as_ref(), None);
        shell.derive();
        Ok(shell)
    }

    /// Leaves a snapshot behind if it would shorten the next loading.
    pub(super) fn save(&mut self) {
        if let Some(state) = &self.state
            && snapshot::is_worth(state, self.snapshot_version)
        {
            snapshot::save(&self.env, StreamName::Instance(self.id), state);
            self.snapshot_version = state.head.version;
        }
    }

    /// Whether there is nothing to act for any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.as_ref().is_none_or(Instance::is_over)
    }

    /// Notes that somebody came.
    pub(super) fn touch(&mut self) {
        self.touched = Instant::now();
    }

    /// Whether it may leave memory: whatever it would do by itself later needs it to stay.
    pub(super) fn is_idle(&self) -> bool {
        self.touched.elapsed() >= self.env.limits.passivate_after
            && self.sending.is_empty()
            && self.deadlines.is_empty()
            && self.waiters.is_empty()
            && self.state.as_ref().is_none_or(Instance::is_quiesced)
    }

    pub(super) fn state(&self) -> Option<&Instance> {
        self.state.as_ref()
    }

    /// Decides, appends, waits until durable, evolves, derives. Answers whether anything was written, or
    /// what must be asked for first.
    pub(super) async fn give(&mut self, input: Input, context: Context) -> Result<Given, NotDone> {
        let events = match decide(self.state.as_ref(), &input, &self.env.policy)? {
            Decision::AskForRoom(wanted) => return Ok(Given::AskForRoom(wanted)),
            Decision::Events(events) if events.is_empty() => return Ok(Given::Nothing),
            Decision::Events(events) => events,
        };
        let recorded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let (request, context) = (context.request, Context { input: Some(input), ..context });
        let appending = tracing::debug_span!(target: "musher::spans", "append", instance = %self.id, events = events.len());
        let metas = self.writer.append(&recorded, &context).instrument(appending).await?;
        let before = self.state.as_ref().map(Instance::run_state);
        for (event, meta) in events.iter().zip(metas) {
            evolve(&mut self.state, event, meta);
        }
        self.trace(before, &events);
        self.saga_span.follow(self.state.as_ref(), request);
        pass(Point::InstanceFolded);
        self.derive();
        pass(Point::InstanceDerived);
        self.save();
        Ok(Given::Written)
    }

    fn trace(&self, before: Option<lifecycle::RunState>, events: &[InstanceEvent]) {
        let Some(state) = &self.state else {
            return;
        };
        let now = state.run_state();
        if before != Some(now) {
            let before = before.map_or("none", lifecycle::RunState::as_str);
            tracing::info!(instance = %self.id, name = state.spec.name, from = before, to = %now, "state changed");
        }
        tracing::debug!(instance = %self.id, version = state.head.version, ?events, "appended");
    }

    /// The state, as an answer.
    pub(super) fn accepted(&self) -> Accepted {
        let instance = self.state.clone().expect("an accepted command leaves an instance");
        Accepted { position: instance.head.position, instance: Box::new(instance) }
    }

    /// A report counts once it is durable; a sled that hears "unavailable" says it again.
    pub(super) async fn on_report(
        &mut self,
        sled: SledId,
        vmm: VmmId,
        report: VmmReport,
        reply: Option<oneshot::Sender<Result<(), CommandError>>>,
    ) -> Result<(), ActorProcessingErr> {
        let context = self.context(Who::Sled(sled), None);
        let given = self.give(Input::Report { sled, vmm, report }, context).await;
        self.tally.reported(match &given {
            Ok(Given::Written) => Reported::Accepted,
            Ok(Given::Nothing | Given::AskForRoom(_)) => Reported::Stale,
            Err(_) => Reported::Refused,
        });
        let answer = match &given {
            Ok(_) => Ok(()),
            Err(not_done) => Err(command_error(not_done)),
        };
        if let Some(reply) = reply {
            // The sled may have hung up; it will ask again.
            let _ = reply.send(answer);
        }
        self.go_on(given)
    }

    /// Evidence about a VMM. Whoever brought it brings it again while it holds.
    pub(super) async fn on_learned(&mut self, input: Input) -> Result<(), ActorProcessingErr> {
        let is_retention = matches!(input, Input::Archived(_));
        let timer = if is_retention { "retention" } else { "watch" };
        let context = self.context(Who::Timer(timer.to_owned()), None);
        let given = self.give(input, context).await;
        if is_retention && matches!(given, Ok(Given::Written)) {
            snapshot::forget(&self.env, StreamName::Instance(self.id));
        }
        self.go_on(given)
    }

    /// Whether the actor may go on after `given`: not if the stream is no longer, or not surely, its own.
    pub(super) fn go_on(&self, given: Result<Given, NotDone>) -> Result<(), ActorProcessingErr> {
        match given {
            Err(NotDone::Append(AppendError::Rehearsed(_))) => Ok(()),
            Err(NotDone::Append(error)) if error.ends_owner() => Err(error.into()),
            Err(NotDone::Append(error)) => {
                tracing::warn!(instance = %self.id, %error, "append refused");
                Ok(())
            }
            Err(NotDone::Rejected(rejected)) => {
                tracing::debug!(instance = %self.id, %rejected, "refused");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// What the log is told of an append that no request asked for.
    pub(super) fn context(&self, actor: Who, cause: Option<u64>) -> Context {
        let saga = self.state.as_ref().and_then(|state| state.saga.as_ref()).map(|saga| (saga.id, saga.step));
        Context { saga, cause, ..Context::of(actor) }
    }
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Events are durable and folded.
    Written,
    /// Nothing changes.
    Nothing,
    /// A grant is needed first.
    AskForRoom(lifecycle::RoomWanted),
}

pub(super) fn command_error(not_done: &NotDone) -> CommandError {
    match not_done {
        NotDone::Rejected(rejected) => CommandError::Rejected(rejected.clone()),
        NotDone::Append(AppendError::Rehearsed(events)) => CommandError::Rehearsed(events.clone()),
        NotDone::Append(AppendError::Refused(reason)) => reason.clone().into(),
        NotDone::Append(AppendError::Lost(_)) => {
            CommandError::Unavailable("the instance has a new owner; try again".to_owned())
        }
        NotDone::Append(error @ AppendError::Unknown(_)) => CommandError::Unknown(error.to_string()),
    }
}
