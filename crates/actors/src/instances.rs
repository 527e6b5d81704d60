//! The instances: virtual actors, bounded at the door.

use crate::answer::CommandError;
use crate::counts::{Counts, Tally};
use crate::env::Env;
use crate::instance::{InstanceActor, InstanceArgs, InstanceMsg};
use crate::ledger::LedgerHandle;
use crate::sleds::Sleds;
use crate::supervisor::{RestartPolicy, Roster, Undeliverable};
use lifecycle::InstanceId;
use ractor::{ActorCell, ActorRuntime, SpawnErr};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Handle to all instances.
#[derive(Clone)]
pub(crate) struct Instances {
    env: Arc<Env>,
    roster: Roster<InstanceId, InstanceMsg>,
    door: Arc<Mutex<Door>>,
    tally: Arc<Tally>,
}

/// Counts what waits. Ractor's mailboxes are unbounded; ours are bounded here.
#[derive(Default)]
struct Door {
    waiting: BTreeMap<InstanceId, usize>,
    total: usize,
}

/// Leave to wait in a mailbox; given back when the message has been handled or dropped.
pub(crate) struct Ticket {
    door: Arc<Mutex<Door>>,
    id: InstanceId,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut door = self.door.lock().expect("nothing panics at the door");
        door.total -= 1;
        if let Some(waiting) = door.waiting.get_mut(&self.id) {
            *waiting -= 1;
            if *waiting == 0 {
                door.waiting.remove(&self.id);
            }
        }
    }
}

impl Instances {
    /// Starts the roster under `parent`.
    pub(crate) async fn start(env: Arc<Env>, parent: ActorCell) -> Result<Self, SpawnErr> {
        let policy = RestartPolicy { pause: env.limits.restart_pause, panics_max: env.limits.restarts_max };
        let roster = Roster::start("instances", policy, Some(parent)).await?;
        Ok(Self { env, roster, door: Arc::default(), tally: Arc::default() })
    }

    /// Gives the instances what they need to know. Once, before the first message.
    pub(crate) fn connect(&self, ledger: LedgerHandle, sleds: Sleds) {
        let (env, tally) = (Arc::clone(&self.env), Arc::clone(&self.tally));
        self.roster.spawn_with(move |id, supervisor| {
            let args = InstanceArgs {
                env: Arc::clone(&env),
                id,
                ledger: ledger.clone(),
                sleds: sleds.clone(),
                tally: Arc::clone(&tally),
            };
            let spawned = ActorRuntime::spawn_linked_instant(None, InstanceActor, args, supervisor);
            spawned.ok().map(|(actor, _)| actor)
        });
    }

    /// A place in the mailbox, or a refusal that says which bound is reached.
    pub(crate) fn admit(&self, id: InstanceId) -> Result<Ticket, CommandError> {
        let mut door = self.door.lock().expect("nothing panics at the door");
        if door.total >= self.env.limits.commands_max {
            self.tally.turned_away();
            return Err(CommandError::Unavailable(
                "too many requests are waiting; try again later".to_owned(),
            ));
        }
        let waiting = door.waiting.entry(id).or_insert(0);
        if *waiting >= self.env.limits.instance_queue_max {
            self.tally.turned_away();
            let why = "too many requests are waiting for this instance; try again later";
            return Err(CommandError::Unavailable(why.to_owned()));
        }
        *waiting += 1;
        door.total += 1;
        Ok(Ticket { door: Arc::clone(&self.door), id })
    }

    /// Hands a message over, activating the instance.
    pub(crate) fn send(&self, id: InstanceId, message: InstanceMsg) -> Result<(), Undeliverable> {
        self.roster.send(id, message)
    }

    /// Instances that keep failing, with the reason.
    pub(crate) fn quarantined(&self) -> Vec<(InstanceId, String)> {
        self.roster.quarantined()
    }

    /// What came in and what was turned away.
    pub(crate) fn counts(&self) -> Counts {
        let waiting = self.door.lock().expect("nothing panics at the door").total;
        self.tally.counts(waiting)
    }

    /// Number of instances in memory.
    pub(crate) fn live(&self) -> usize {
        self.roster.live()
    }

    /// Asks every instance in memory to leave it if it is left alone; answers how many were asked.
    pub(crate) fn passivate(&self) -> usize {
        self.roster.tell_live(|| InstanceMsg::Passivate)
    }

    /// Its live actor.
    pub(crate) fn cell(&self, id: InstanceId) -> Option<ActorCell> {
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
