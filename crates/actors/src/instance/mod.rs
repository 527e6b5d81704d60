//! The instance's shell: decide, append, wait until durable, evolve, send effects, reply.
//!
//! One input at a time. While its append is in flight further inputs wait in the mailbox, and share the
//! next group commit with everybody else's. Effects and deadlines are derived after every append and after
//! activation; none is stored. If the actor panics, or loses its stream, its successor loads the stream and
//! derives the same.

mod command;
mod sending;
mod shell;
mod snapshot;
mod span;

pub use command::Ask;
pub(crate) use sending::Timer;

use crate::answer::{Accepted, CommandError, RequestContext, SledFailure};
use crate::counts::Tally;
use crate::env::Env;
use crate::instances::Ticket;
use crate::ledger::LedgerHandle;
use crate::sleds::Sleds;
use lifecycle::input::{EffectResult, Input, VmmReport};
use lifecycle::{Deadline, Effect, Instance, InstanceId, OpId, SledId, VmmId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use shell::Shell;
use std::sync::Arc;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

/// What an instance can be told.
pub(crate) enum InstanceMsg {
    /// Somebody asks for something.
    Command {
        ask: Ask,
        context: RequestContext,
        ticket: Ticket,
        reply: oneshot::Sender<Result<Accepted, CommandError>>,
        /// What it came of, for whoever listens.
        span: Span,
    },
    /// A sled says what a VMM is doing.
    Report {
        sled: SledId,
        vmm: VmmId,
        report: VmmReport,
        ticket: Option<Ticket>,
        reply: Option<oneshot::Sender<Result<(), CommandError>>>,
    },
    /// A sled answered an effect, or did not.
    Answered { effect: Effect, answer: Answer },
    /// Something became known of a VMM: evidence from its sled's boot or inventory.
    Learned(Input),
    /// An effect is due again.
    SendAgain(Effect),
    /// A deadline has passed.
    DeadlinePassed(Deadline),
    /// A stop or reboot has waited long enough for its sled.
    WaitIsOver(OpId),
    /// Look again.
    Reconsider,
    /// Leave memory, if nothing is under way and nobody has come for a while.
    Passivate,
    /// What is the state?
    Get(oneshot::Sender<Option<Box<Instance>>>),
}

/// What became of a call to a sled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The sled's word.
    Definite(EffectResult),
    /// It may or may not have acted.
    Unknown(SledFailure),
}

/// What an instance's actor starts with.
pub(crate) struct InstanceArgs {
    pub(crate) env: Arc<Env>,
    pub(crate) id: InstanceId,
    pub(crate) ledger: LedgerHandle,
    pub(crate) sleds: Sleds,
    pub(crate) tally: Arc<Tally>,
}

/// Loading happens in the actor's own task, never in its supervisor's.
pub(crate) enum Life {
    Loading(InstanceArgs),
    Loaded(Box<Shell>),
    Ended,
}

pub(crate) struct InstanceActor;

impl Actor for InstanceActor {
    type Msg = InstanceMsg;
    type State = Life;
    type Arguments = InstanceArgs;

    async fn pre_start(
        &self,
        _: ActorRef<InstanceMsg>,
        args: InstanceArgs,
    ) -> Result<Life, ActorProcessingErr> {
        Ok(Life::Loading(args))
    }

    async fn post_start(&self, me: ActorRef<InstanceMsg>, life: &mut Life) -> Result<(), ActorProcessingErr> {
        let Life::Loading(args) = std::mem::replace(life, Life::Ended) else {
            unreachable!("an actor starts once");
        };
        *life = Life::Loaded(Box::new(Shell::load(args, me).await?));
        Ok(())
    }

    async fn handle(
        &self,
        me: ActorRef<InstanceMsg>,
        message: InstanceMsg,
        life: &mut Life,
    ) -> Result<(), ActorProcessingErr> {
        let Life::Loaded(shell) = life else {
            unreachable!("messages are handled after the start");
        };
        shell.env.let_others_go_first().await;
        if !matches!(message, InstanceMsg::Passivate) {
            shell.touch();
        }
        let span = shell.saga_span.of_message(shell.id, &message);
        let done = match message {
            InstanceMsg::Command { ask, context, ticket, reply, span: _ } => {
                shell.on_command(ask, &context, reply).instrument(span).await?;
                drop(ticket);
                Ok(())
            }
            InstanceMsg::Report { sled, vmm, report, ticket, reply } => {
                shell.on_report(sled, vmm, report, reply).instrument(span).await?;
                drop(ticket);
                Ok(())
            }
            InstanceMsg::Answered { effect, answer } => {
                shell.on_answer(effect, answer).instrument(span).await
            }
            InstanceMsg::Learned(input) => shell.on_learned(input).instrument(span).await,
            InstanceMsg::SendAgain(effect) => {
                span.in_scope(|| shell.on_send_again(effect));
                Ok(())
            }
            InstanceMsg::DeadlinePassed(deadline) => shell.on_deadline(deadline).instrument(span).await,
            InstanceMsg::WaitIsOver(op) => {
                shell.on_wait_is_over(op);
                Ok(())
            }
            InstanceMsg::Reconsider => shell.on_learned(Input::Reconsider).instrument(span).await,
            InstanceMsg::Passivate => {
                if shell.is_idle() {
                    // What still comes is answered, and whatever comes later activates anew.
                    shell.save();
                    let _ = me.drain();
                }
                Ok(())
            }
            InstanceMsg::Get(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(shell.state().cloned().map(Box::new));
                Ok(())
            }
        };
        if shell.is_over() {
            // A creation that was refused, or a deletion that holds nothing any more: what still comes is
            // answered, and whatever comes later activates anew.
            let _ = me.drain();
        }
        done
    }
}
