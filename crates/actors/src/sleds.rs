//! The sleds: virtual actors, one per sled that has registered.

use crate::answer::{CommandError, RequestContext};
use crate::boards::Boards;
use crate::convert::VmmRequest;
use crate::env::Env;
use crate::instance::InstanceMsg;
use crate::instances::Instances;
use crate::ledger::LedgerHandle;
use crate::network::Network;
use crate::sled::{SledActor, SledArgs, SledMsg, SledStatus, Standing};
use crate::supervisor::{RestartPolicy, Roster};
use lifecycle::sled::{Registration, Sled, SledCommand};
use lifecycle::{BootId, LeaseEpoch, SledId, Span, Timestamp};
use ractor::{ActorCell, ActorRef, ActorRuntime, SpawnErr};
use sled_protocol::{ControlPlaneError, PropolisId, SerialData, SerialRange, SledError, SledLease};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Looks for the successor of an actor that ended, a restart's pause apart: several restarts in a row.
const SETTLE_ATTEMPTS: usize = 50;

/// Handle to all sleds.
#[derive(Clone)]
pub(crate) struct Sleds {
    env: Arc<Env>,
    roster: Roster<SledId, SledMsg>,
    boards: Boards,
    /// When each was last told that it was heard from.
    heard: Arc<Mutex<BTreeMap<SledId, Timestamp>>>,
    /// Where each stands, for whoever answers renewals.
    standings: Standings,
}

type Standings = Arc<Mutex<BTreeMap<SledId, Arc<Standing>>>>;

fn standing_of(standings: &Standings, sled: SledId) -> Arc<Standing> {
    // An entry is whole whatever panicked elsewhere.
    let mut standings = standings.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(standings.entry(sled).or_default())
}

/// How often a sled's actor is told that its sled was heard from: a busy sled reports a thousand times meanwhile.
const HEARD_EVERY: Span = Span::from_millis(500);

impl Sleds {
    /// Starts the roster under `parent`.
    pub(crate) async fn start(env: Arc<Env>, parent: ActorCell, boards: Boards) -> Result<Self, SpawnErr> {
        // A sled is never quarantined: without its actor its instances could not be acted on.
        let policy = RestartPolicy { pause: env.limits.restart_pause, panics_max: u32::MAX };
        let roster = Roster::start("sleds", policy, Some(parent)).await?;
        Ok(Self { env, roster, boards, heard: Arc::default(), standings: Arc::default() })
    }

    /// Gives the sleds what they need to know. Once, before the first message.
    pub(crate) fn connect(&self, ledger: LedgerHandle, instances: Instances, network: Network) {
        let (env, boards, standings) =
            (Arc::clone(&self.env), self.boards.clone(), Arc::clone(&self.standings));
        self.roster.spawn_with(move |id, supervisor| {
            let (ledger, instances, network) = (ledger.clone(), instances.clone(), network.clone());
            let (boards, standing) = (boards.clone(), standing_of(&standings, id));
            let args = SledArgs { env: Arc::clone(&env), id, ledger, instances, network, boards, standing };
            ActorRuntime::spawn_linked_instant(None, SledActor, args, supervisor).ok().map(|(actor, _)| actor)
        });
    }

    /// Asks a sled to make an effect true; the answer goes to the instance. A request that cannot be
    /// handed over is lost, like one on the wire: the sled's restart is heard of by its instances' timers.
    pub(crate) fn call(&self, request: VmmRequest, asker: ActorRef<InstanceMsg>, span: tracing::Span) {
        let (sled, effect) = (request.effect.sled(), request.effect);
        if let Err(error) = self.roster.send(sled, SledMsg::Call { request, asker: asker.clone(), span }) {
            tracing::debug!(%sled, %error, "call not handed over");
            let answer = crate::instance::Answer::Unknown(crate::answer::SledFailure::Transport);
            // The instance's actor may have ended.
            let _ = asker.cast(InstanceMsg::Answered { effect, answer });
        }
    }

    /// A sled registers.
    pub(crate) async fn register(&self, registration: Registration) -> Result<SledLease, ControlPlaneError> {
        let (reply, answer) = oneshot::channel();
        let unavailable = |why: String| ControlPlaneError::Unavailable(why);
        self.roster
            .send(registration.id, SledMsg::Register { registration, reply })
            .map_err(|error| unavailable(error.to_string()))?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the sled's actor restarts".to_owned())))
    }

    /// A sled renews its lease. One that the log does not know must register. Its actor, which may be waiting for the
    /// log, is asked only if it has not loaded yet.
    pub(crate) async fn renew(
        &self,
        sled: SledId,
        boot: BootId,
        epoch: LeaseEpoch,
    ) -> Result<(), ControlPlaneError> {
        if let Some(answer) = standing_of(&self.standings, sled).renew(boot, epoch, self.env.clock.now()) {
            if answer.is_ok() {
                self.heard(sled);
            }
            return answer;
        }
        let (reply, answer) = oneshot::channel();
        let unavailable = |why: String| ControlPlaneError::Unavailable(why);
        self.roster
            .send(sled, SledMsg::Renew { boot, epoch, reply })
            .map_err(|error| unavailable(error.to_string()))?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the sled's actor restarts".to_owned())))
    }

    /// Does what an operator asks; answers the sled afterwards and the position of its newest event.
    pub(crate) async fn command(
        &self,
        sled: SledId,
        command: SledCommand,
        context: RequestContext,
    ) -> Result<(Sled, u64), CommandError> {
        let (reply, answer) = oneshot::channel();
        self.roster
            .send(sled, SledMsg::Command { command, context, reply })
            .map_err(|error| CommandError::Unavailable(error.to_string()))?;
        if let Ok(answer) = answer.await {
            return answer;
        }
        // Until its successor has loaded the stream, a repeat could not tell whether this was recorded.
        for _ in 0..SETTLE_ATTEMPTS {
            if self.status(sled).await.is_some() {
                break;
            }
            tokio::time::sleep(self.env.limits.restart_pause).await;
        }
        Err(CommandError::Unknown("the sled's actor restarts".to_owned()))
    }

    /// What a VMM on a sled has written.
    pub(crate) async fn serial(
        &self,
        sled: SledId,
        vmm: PropolisId,
        range: SerialRange,
    ) -> Result<SerialData, SledError> {
        let (reply, answer) = oneshot::channel();
        let gone = || SledError::Transport("its actor restarts".to_owned());
        self.roster.send(sled, SledMsg::Serial { vmm, range, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Starts watching a sled that the log knows.
    pub(crate) fn watch(&self, sled: SledId) {
        if let Err(error) = self.roster.send(sled, SledMsg::Watch) {
            tracing::warn!(%sled, %error, "sled is not watched");
        }
    }

    /// Makes a draining sled look at once for guests that can move.
    pub(crate) fn drain(&self, sled: SledId) {
        // Its own clock comes to it too.
        let _ = self.roster.send(sled, SledMsg::Drain);
    }

    /// Notes that a sled was heard from, unless it was just noted and nothing depends on it.
    pub(crate) fn heard(&self, sled: SledId) {
        let is_found = standing_of(&self.standings, sled).heard();
        let now = self.env.clock.now();
        // A time is whole whatever panicked elsewhere.
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_just = |last: &Timestamp| *last <= now && now.since(*last).micros() < HEARD_EVERY.micros();
        if !is_found && heard.get(&sled).is_some_and(is_just) {
            return;
        }
        heard.insert(sled, now);
        drop(heard);
        // Lost with an actor that restarts, and known again when its successor asks.
        let _ = self.roster.send(sled, SledMsg::Heard);
    }

    /// How it is doing.
    pub(crate) async fn status(&self, sled: SledId) -> Option<SledStatus> {
        let (reply, answer) = oneshot::channel();
        self.roster.send(sled, SledMsg::Look(reply)).ok()?;
        answer.await.ok()
    }

    /// Its live actor.
    pub(crate) fn cell(&self, id: SledId) -> Option<ActorCell> {
        self.roster.cell(id)
    }

    /// The actor that restarts them.
    pub(crate) fn supervisor(&self) -> Option<ActorCell> {
        self.roster.supervisor()
    }

    /// Lets every mailbox drain, then ends.
    pub(crate) async fn close(&self) {
        self.roster.close().await;
    }
}
