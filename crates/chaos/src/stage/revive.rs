//! How a life begins, as the daemon begins: fold, actors, read model, what was unfinished, timers.

use super::cloth::named;
use super::life::Life;
use super::outside::{ReadModelCensus, env};
use super::retention::Keeper;
use super::state::Stage;
use crate::bug::Bug;
use crate::checks::FailureKind;
use crate::coverage::Sometimes;
use crate::faults::{Fault, LoseUnsynced};
use crate::world::names;
use actors::projects::ProjectAsk;
use actors::{ControlPlane, RequestContext};
use eventlog::{Log as _, SimStore};
use lifecycle::restart::restart_due;
use lifecycle::sled::SledCommand;
use lifecycle::{Instance, InstanceId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Shortest and longest time between a death and the next start, microseconds.
const DOWN_US: (u64, u64) = (20_000, 500_000);

/// Longest start: far above what stalls of the disk and calls to sleds that are away can add up to.
const START_MAX: Duration = Duration::from_mins(20);

/// Most lives of one run: more starts than its scenario has deaths are a crash loop.
const LIVES_MAX: u32 = 200;

/// On whose behalf an operator asks.
pub(super) fn context(request: u32) -> RequestContext {
    let actor = journal::Actor::User("chaos".to_owned());
    RequestContext { actor, request: names::request(request), trace: None, reason: None, is_rehearsal: false }
}

/// The planted zeal: what is found at a start is written anew.
async fn rewrite(control: &ControlPlane, life: u32) {
    for (sled, _) in control.sleds().await.unwrap_or_default() {
        let command = SledCommand::Cordon("found at the start".to_owned());
        let request = REWRITE_REQUESTS + life * 100 + u32::from(names::sled_number(sled.id));
        // One that is cordoned is left alone.
        let _ = control.ask_sled(sled.id, command, context(request)).await;
    }
}

/// Requests of the planted bug count from here; no request of a scenario does.
const REWRITE_REQUESTS: u32 = 0x6000_0000;

/// The request that makes the project; no request of a scenario has it.
const PROJECT_REQUEST: u32 = u32::MAX;

impl Stage {
    /// What is there before anything goes wrong: a control plane, a project, sleds that boot.
    pub(super) async fn begin(self: &Arc<Self>) {
        self.live(SimStore::new()).await;
        let life = self.life();
        let Some(up) = life.up() else {
            return self.fail(FailureKind::Invariant, "begin", "the first start fails".to_owned());
        };
        let ask = ProjectAsk::Create { name: "chaos".to_owned(), description: String::new() };
        let made = up.control.ask_project(None, ask, context(PROJECT_REQUEST));
        if let Err(error) = named(names::project().uuid(), made).await {
            self.fail(FailureKind::Invariant, "begin", format!("the project cannot be made: {error}"));
        }
        self.lock().is_begun = true;
        self.boot_sleds();
    }

    /// The next life begins on what the last one left.
    pub(super) async fn revive(self: &Arc<Self>) {
        let store = self.life().take_remains();
        let down = self.lock().draws.next_within("down", 0, DOWN_US.0, DOWN_US.1);
        sleep(Duration::from_micros(down)).await;
        self.live(store).await;
    }

    async fn live(self: &Arc<Self>, store: SimStore) {
        let nth = {
            let mut state = self.lock();
            state.lives += 1;
            state.fails_with = None;
            state.is_end_wanted = false;
            state.lives
        };
        if nth > LIVES_MAX {
            self.fail(FailureKind::Liveness, "I18", format!("{LIVES_MAX} starts and no end"));
            return;
        }
        let life = Arc::new(Life::new(self, nth, store));
        self.lock().life = Some(Arc::clone(&life));
        self.line("start", &"", format_args!("life {nth}"));
        tokio::select! {
            biased;
            // It may die while it starts.
            () = life.died() => {}
            () = self.start(&life) => {}
            () = sleep(START_MAX) => {
                let detail = format!("a start has not ended after {} min", START_MAX.as_secs() / 60);
                self.fail(FailureKind::Liveness, "I18", detail);
            }
        }
    }

    async fn start(self: &Arc<Self>, life: &Arc<Life>) {
        let env = env(self, life);
        let (log, cache, policy) = (Arc::clone(&env.log), env.cache.clone(), env.policy);
        let control = match ControlPlane::start(env).await {
            Ok((control, _)) => control,
            Err(error) => {
                // A death during the start reads like a refusal of the log.
                if !life.is_dead() {
                    self.ended_by_itself(life, &error.to_string());
                }
                return futures::future::pending().await;
            }
        };
        let (projections, _) = projections::spawn(Arc::clone(&log), cache);
        if let Err(stopped) = projections.wait_for(log.durable()).await {
            self.fail(FailureKind::Invariant, "I22", stopped.to_string());
        }
        let unfinished: Vec<InstanceId> = projections.read(|model| {
            let has_work =
                |instance: &&Instance| !instance.is_quiesced() || restart_due(instance, &policy).is_some();
            model.instance_states().filter(has_work).map(|instance| instance.id).collect()
        });
        if self.scenario.bug != Some(Bug::ForgetEffects) {
            control.resume(unfinished).await;
            let (stage, life) = (Arc::downgrade(self), Arc::clone(life));
            control.archive_into(Arc::new(Keeper { stage, life, projections: projections.clone() }));
            control.start_timers(Arc::new(ReadModelCensus(projections.clone())));
        }
        if self.scenario.bug == Some(Bug::RewriteAtStart) && life.nth > 1 {
            rewrite(&control, life.nth).await;
        }
        life.serve(control, projections);
    }

    /// The control plane asks for its own end. That is right after a failed sync, and after the death of an
    /// actor without which it must not go on; nothing else may lead to it.
    pub(super) fn ended_by_itself(&self, life: &Life, why: &str) {
        let (fails_with, is_end_wanted) = {
            let state = self.lock();
            (state.fails_with, state.is_end_wanted)
        };
        if fails_with.is_none() && !is_end_wanted {
            self.fail(FailureKind::Panic, "fatal", format!("the control plane ended itself: {why}"));
        }
        if is_end_wanted {
            self.note(Sometimes::CoreActorKilled);
        }
        life.die(fails_with.unwrap_or(LoseUnsynced::None));
    }

    /// Everything is healed: faults end, and hosts that are only down come up by themselves.
    pub(super) fn heal(&self) {
        let life = self.life();
        {
            let mut state = self.lock();
            state.is_healed = true;
            state.armed.clear();
            // What was to fail next does not, unless it has.
            if life.log().refusal().is_none() {
                state.fails_with = None;
            }
        }
        life.log().with_store(SimStore::accept);
        let addrs: Vec<String> = self.lock().hosts.iter().map(|host| host.addr.clone()).collect();
        for fault in &self.scenario.faults {
            if let Fault::PeerPartition { one, other, .. } = fault {
                let (one, other) = (&addrs[usize::from(*one)], &addrs[usize::from(*other)]);
                self.fabric.heal(one, other);
                self.fabric.heal(other, one);
            }
        }
        self.line("HEAL", &"", format_args!(""));
    }
}
