//! The line from one life to one sled: every request and answer is a message of its own in the weather, and
//! outlives the life that sent it.

use super::life::Life;
use super::state::Stage;
use crate::bug::Bug;
use crate::coverage::Sometimes;
use crate::faults::{Direction, EffectKind, Entity, Fault, Refused, Window};
use crate::world::{about, brief, names};
use actors::SledConnector;
use futures::FutureExt;
use futures::future::BoxFuture;
use lifecycle::{InstanceId, SledId, VmmId};
use sim_sled::machine::{Answer, Request, Response};
use sled_protocol::{
    Inventory, LeaseEpoch, PropolisId, RegisterVmm, RequestedState, SerialData, SerialRange, SetState,
    SledClient, SledError, SledVmmState, V2pMapping,
};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Where the sleds are found.
pub(super) struct Switchboard {
    pub(super) stage: Weak<Stage>,
    pub(super) life: Arc<Life>,
}

impl SledConnector for Switchboard {
    fn connect(&self, sled: SledId, _: &str) -> Option<Arc<dyn SledClient>> {
        let (stage, life) = (self.stage.clone(), Arc::clone(&self.life));
        Some(Arc::new(Line { stage, life, sled: names::sled_number(sled) }))
    }
}

struct Line {
    stage: Weak<Stage>,
    life: Arc<Life>,
    sled: u16,
}

/// What is being asked, for draws, faults and crash points.
#[derive(Clone)]
struct Asked {
    request: Request,
    effect: Option<EffectKind>,
    vmm: Option<PropolisId>,
}

impl Asked {
    fn new(request: Request) -> Self {
        let (effect, vmm) = match &request {
            Request::Register { vmm, .. } => (Some(EffectKind::Register), Some(*vmm)),
            Request::Unregister { vmm, .. } => (Some(EffectKind::Unregister), Some(*vmm)),
            Request::GetState { vmm } => (Some(EffectKind::Ask), Some(*vmm)),
            Request::SetState { vmm, body } => {
                let effect = match &body.state {
                    RequestedState::Running => EffectKind::SetRunning,
                    RequestedState::Stopped => EffectKind::Stop,
                    RequestedState::Reboot => EffectKind::Reboot,
                    RequestedState::MigrationTarget { .. } => EffectKind::MigrationTarget,
                    RequestedState::MigrationCancel => EffectKind::MigrationCancel,
                };
                (Some(effect), Some(*vmm))
            }
            _ => (None, None),
        };
        Self { request, effect, vmm }
    }

    fn key(&self, is_answer: bool) -> (&'static str, u128) {
        let what = match (is_answer, self.effect) {
            (false, Some(EffectKind::Register)) => "to_register",
            (false, Some(EffectKind::Unregister)) => "to_unregister",
            (false, Some(EffectKind::Ask)) => "to_ask",
            (false, Some(_)) => "to_set_state",
            (false, None) => "to_inventory",
            (true, Some(_)) => "from_effect",
            (true, None) => "from_inventory",
        };
        (what, self.vmm.map_or(0, |vmm| vmm.as_uuid().as_u128()))
    }
}

impl Line {
    /// One request: its copies travel and are done, whoever still waits for the answer.
    async fn ask(&self, request: Request) -> Response {
        let stage = self.stage.upgrade().expect("the stage outlives the runtime's tasks");
        let asked = Asked::new(request);
        let key = asked.key(false);
        stage.let_others_go_first("call_turns", key.1).await;
        self.life.unless_dead(()).await;
        let instance = asked.vmm.and_then(|vmm| stage.instance_of(vmm));
        if let Some(lose) = instance.and_then(|id| self.life.springs(id, Window::EffectsUnsent)) {
            return self.life.end(lose).await;
        }
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Mutex::new(Some(reply)));
        for way in stage.ways(self.sled, Direction::ToSled, key) {
            let (stage, asked, sled) = (Arc::clone(&stage), asked.clone(), self.sled);
            let reply = Arc::clone(&reply);
            tokio::spawn(async move {
                sleep(way).await;
                let Some(response) = stage.deliver(sled, &asked) else { return };
                let Some(back) = stage.ways(sled, Direction::FromSled, asked.key(true)).first().copied()
                else {
                    return;
                };
                sleep(back).await;
                let waiting = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waiting) = waiting {
                    // Whoever asked may have gone, or died.
                    let _ = waiting.send(response);
                }
            });
        }
        drop(reply);
        if stage.scenario.bug == Some(Bug::LingerAfterCalls) {
            tokio::spawn(futures::future::pending::<()>());
        }
        // What is lost is heard of by the caller's own patience.
        let Ok(response) = answer.await else { return futures::future::pending().await };
        if let Some(lose) = instance.and_then(|id| self.life.springs(id, Window::EffectSent)) {
            return self.life.end(lose).await;
        }
        self.life.unless_dead(response).await
    }
}

impl Stage {
    /// Whose VMM it is, by the durable log.
    fn instance_of(&self, vmm: PropolisId) -> Option<InstanceId> {
        let place = self.lock().checks.log.ledger.vmm(VmmId::new(vmm.as_uuid()));
        place.map(|place| place.instance)
    }

    /// A request reaches a sled. None if its host is down, or its answer is to be lost.
    fn deliver(&self, nth: u16, asked: &Asked) -> Option<Response> {
        let sled = self.sled_that_is_up(nth)?;
        self.look_at_guests();
        let place = self.nth_asked(asked);
        let refusal = place.and_then(|place| self.injected_refusal(place));
        let response = match refusal {
            Some(error) => {
                self.check(|checks, _| checks.lied(&asked.request, &error));
                Err(error)
            }
            None => {
                self.check(|checks, now| checks.received(now, nth, &asked.request));
                sled.with_machine(|machine, now| machine.handle(now, asked.request.clone()))?
            }
        };
        if asked.effect.is_some() {
            let (kind, whom) = (asked.request.kind(), about(&asked.request));
            self.line("sled", &Entity::Sled(nth), format_args!("{kind:?} {whom} -> {}", brief(&response)));
        }
        match &response {
            Err(SledError::StaleEpoch) => self.note(Sometimes::EpochFenceRefused),
            Err(SledError::Gone) => self.note(Sometimes::TombstoneRefused),
            _ => {}
        }
        self.look_at_guests();
        let is_lost = place.is_some_and(|place| self.loses_answer(place));
        (!is_lost).then_some(response)
    }

    /// Which sending of an effect this is, over the instance's life.
    fn nth_asked(&self, asked: &Asked) -> Option<(u16, EffectKind, u32)> {
        let (effect, id) = (asked.effect?, self.instance_of(asked.vmm?)?);
        let mut state = self.lock();
        let count = state.sent.entry((names::instance_number(id), effect)).or_insert(0);
        *count += 1;
        let nth = *count - 1;
        (!state.is_healed).then_some((names::instance_number(id), effect, nth))
    }

    fn loses_answer(&self, place: (u16, EffectKind, u32)) -> bool {
        self.scenario.faults.iter().any(|fault| {
            matches!(fault, Fault::LoseAnswer { effect, instance, nth } if (*instance, *effect, *nth) == place)
        })
    }

    fn injected_refusal(&self, place: (u16, EffectKind, u32)) -> Option<SledError> {
        let refused = self.scenario.faults.iter().find_map(|fault| match fault {
            Fault::Refuse { effect, instance, nth, refused, is_lasting }
                if (*instance, *effect) == (place.0, place.1)
                    && (*nth == place.2 || (*is_lasting && *nth < place.2)) =>
            {
                Some(*refused)
            }
            _ => None,
        })?;
        let injected = || "injected".to_owned();
        Some(match refused {
            Refused::NoSuchVmm => SledError::NoSuchInstance,
            Refused::BadState => SledError::BadState(injected()),
            Refused::Conflict => SledError::Conflict,
            Refused::Gone => SledError::Gone,
            Refused::StaleEpoch => SledError::StaleEpoch,
            Refused::NoRoom => SledError::NoRoom,
            Refused::Malformed => SledError::Malformed(injected()),
        })
    }
}

fn other(answer: &Answer) -> SledError {
    SledError::BadAnswer(format!("an answer to another request: {answer:?}"))
}

impl SledClient for Line {
    fn register(&self, vmm: PropolisId, body: RegisterVmm) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            match self.ask(Request::Register { vmm, body }).await? {
                Answer::Vmm(state) => Ok(state),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            match self.ask(Request::Unregister { vmm, lease_epoch }).await? {
                Answer::Updated(state) => Ok(state),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        body: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            match self.ask(Request::SetState { vmm, body }).await? {
                Answer::Updated(state) => Ok(state),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            match self.ask(Request::GetState { vmm }).await? {
                Answer::Vmm(state) => Ok(state),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        async move {
            match self.ask(Request::Inventory).await? {
                Answer::Inventory(inventory) => Ok(inventory),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move { self.ask(Request::PutV2p { lease_epoch, mappings }).await.map(drop) }.boxed()
    }

    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move { self.ask(Request::DeleteV2p { lease_epoch, mappings }).await.map(drop) }.boxed()
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        async move {
            match self.ask(Request::ListV2p).await? {
                Answer::V2p(mappings) => Ok(mappings),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        async move {
            match self.ask(Request::Serial { vmm, range }).await? {
                Answer::Serial(data) => Ok(data),
                answer => Err(other(&answer)),
            }
        }
        .boxed()
    }
}
