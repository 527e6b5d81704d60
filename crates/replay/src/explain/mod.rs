//! Why an instance is as it is: the cause, who owns what is under way, whom it waits for and since when, what
//! happens on each outcome, what it holds, and what can be done about it.
//!
//! The one idea: **an explanation is a function of the fold**, and of what is known at present of the sleds. It
//! guesses nothing: every sentence follows from a rule in `docs/lifecycle.md`.
//!
//! Invariants:
//! * every visible state is explained: there is a cause, and something that comes next or can be done;
//! * every VMM that is waited for is named with its sled, and how that sled is doing.

mod sagas;
mod states;
#[cfg(test)]
mod tests;

pub use crate::summary::paused_because;
use crate::time;
use lifecycle::instance::{Trouble, TroubleCause};
use lifecycle::{
    Instance, InstanceId, Policy, RunState, SagaId, SledId, Span, Timestamp, Vmm, VmmId, deadlines,
};
use serde::Serialize;

/// What is known at present, besides the fold.
pub trait Present {
    /// What people call a sled.
    fn sled_name(&self, sled: SledId) -> String;

    /// How the sled is doing.
    fn contact(&self, sled: SledId) -> Contact;

    /// How long a saga of this kind, or a reboot, stop or migration, usually takes in this fleet; none if that
    /// is not known yet.
    fn usual(&self, what: Doing) -> Option<Span>;
}

/// Something that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// Coming up.
    Starting,
    /// Moving.
    Migrating,
    /// Going down.
    Stopping,
    /// Rebooting.
    Rebooting,
}

/// How a sled is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contact {
    /// When it was last heard from, since this daemon started.
    #[serde(serialize_with = "time::serialize_some")]
    pub last_heard: Option<Timestamp>,
    /// Why it cannot be reached, and since when, if it cannot.
    pub unreachable: Option<Unreachable>,
    /// Whether requests to it are held back until it is heard from, if they are.
    pub held_back: Option<HeldBack>,
}

/// Since when requests to a sled are held back, and when it is asked again whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// Since when.
    #[serde(serialize_with = "time::serialize")]
    pub since: Timestamp,
    /// When; none while it is being asked.
    #[serde(serialize_with = "time::serialize_some")]
    pub next_probe: Option<Timestamp>,
}

/// Why a sled cannot be reached, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(serialize_with = "time::serialize")]
    pub since: Timestamp,
}

/// The answer to "why".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The instance.
    pub instance: InstanceId,
    /// Its name.
    pub name: String,
    /// Its visible state.
    pub run_state: RunState,
    /// Since when.
    #[serde(serialize_with = "time::serialize")]
    pub since: Timestamp,
    /// How long that usually takes here, seconds, if it is a state that ends by itself.
    #[serde(rename = "usual_s", serialize_with = "time::serialize_span")]
    pub usual: Option<Span>,
    /// Version of the newest event.
    pub version: u64,
    /// Why: the newest cause first.
    pub because: Vec<String>,
    /// Who sees to what is under way.
    pub owner: Owner,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// What it holds on sleds.
    pub holds: Vec<Hold>,
    /// What happens next, and on which outcome.
    pub next: Vec<Next>,
    /// Commands that help.
    pub can: Vec<String>,
}

/// Who sees to what is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Owner {
    /// A saga.
    Saga {
        /// Its id.
        id: SagaId,
        /// What it is called.
        name: &'static str,
        /// The step it is at, counted from 1.
        step: usize,
        /// How many there are.
        steps: usize,
        /// What the step does.
        does: &'static str,
        /// Since when it is at it.
        #[serde(serialize_with = "time::serialize")]
        since: Timestamp,
    },
    /// The instance itself: an order that is sent until it acts, or a migration that is observed.
    Instance {
        /// What it sees to.
        what: String,
    },
    /// The restart policy.
    RestartPolicy {
        /// Which attempt comes next.
        attempt: u32,
        /// When.
        #[serde(serialize_with = "time::serialize")]
        at: Timestamp,
    },
    /// Nobody: nothing is under way.
    Nobody,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// What.
    #[serde(rename = "for")]
    pub what: String,
    /// The VMM.
    pub vmm: VmmId,
    /// Its sled.
    pub sled: SledId,
    /// What people call the sled.
    pub sled_name: String,
    /// How the sled is doing.
    pub contact: Contact,
    /// Until when it is waited for, if not for ever.
    #[serde(serialize_with = "time::serialize_some")]
    pub until: Option<Timestamp>,
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The VMM.
    pub vmm: VmmId,
    /// What people call its sled.
    pub sled_name: String,
    /// Threads.
    pub threads: u16,
    /// Memory, bytes.
    pub memory: u64,
    /// What for.
    pub what: &'static str,
}

/// What follows from an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Next {
    /// The outcome.
    pub when: String,
    /// What follows.
    pub then: String,
    /// At what time, if the outcome is that of a deadline.
    #[serde(serialize_with = "time::serialize_some")]
    pub at: Option<Timestamp>,
}

impl Explanation {
    /// The same of an instance that is quarantined: nothing of what is under way goes on, and only an operator can
    /// change that.
    #[must_use]
    pub fn quarantined(mut self, why: &str) -> Self {
        self.because.insert(0, format!("it is quarantined, and what follows is what was last known: {why}"));
        self.owner = Owner::Nobody;
        self.waits.clear();
        let next = |when: &str, then: &str| Next { when: when.to_owned(), then: then.to_owned(), at: None };
        self.next = vec![
            next("its part of the log is brought back, and the daemon restarted", "it goes on where it was"),
            next("nobody does anything", "commands to it are refused; its guest is left alone"),
        ];
        self.can = ["musher log stats", "musher doctor"].map(str::to_owned).into();
        self
    }
}

/// Explains an instance.
pub fn explain(state: &Instance, policy: &Policy, present: &dyn Present) -> Explanation {
    let mut writer = Writer { state, policy, present, found: empty(state) };
    writer.found.usual = usual(state).and_then(|doing| present.usual(doing));
    writer.trouble();
    writer.saga();
    writer.migration();
    writer.orders();
    writer.rest();
    writer.leftovers();
    writer.holds();
    writer.found
}

fn empty(state: &Instance) -> Explanation {
    Explanation {
        instance: state.id,
        name: state.spec.name.clone(),
        run_state: state.run_state(),
        since: state.time_run_state_updated,
        usual: None,
        version: state.head.version,
        because: Vec::new(),
        owner: Owner::Nobody,
        waits: Vec::new(),
        holds: Vec::new(),
        next: Vec::new(),
        can: Vec::new(),
    }
}

fn usual(state: &Instance) -> Option<Doing> {
    match state.run_state() {
        RunState::Starting => Some(Doing::Starting),
        RunState::Migrating => Some(Doing::Migrating),
        RunState::Stopping => Some(Doing::Stopping),
        RunState::Rebooting => Some(Doing::Rebooting),
        _ => None,
    }
}

/// An explanation that is being written.
struct Writer<'a> {
    state: &'a Instance,
    policy: &'a Policy,
    present: &'a dyn Present,
    found: Explanation,
}

impl Writer<'_> {
    fn because(&mut self, why: impl Into<String>) {
        self.found.because.push(why.into());
    }

    fn then(&mut self, when: impl Into<String>, then: impl Into<String>) {
        self.found.next.push(Next { when: when.into(), then: then.into(), at: None });
    }

    fn at(&mut self, at: Timestamp, when: impl Into<String>, then: impl Into<String>) {
        self.found.next.push(Next { when: when.into(), then: then.into(), at: Some(at) });
    }

    fn wait(&mut self, vmm: &Vmm, what: impl Into<String>, until: Option<Timestamp>) {
        self.found.waits.push(Wait {
            what: what.into(),
            vmm: vmm.id,
            sled: vmm.sled,
            sled_name: self.present.sled_name(vmm.sled),
            contact: self.present.contact(vmm.sled),
            until,
        });
    }

    /// A command about this instance.
    fn can(&mut self, verb: &str) {
        self.can_with(verb, "");
    }

    /// The same, with flags after the name.
    fn can_with(&mut self, verb: &str, flags: &str) {
        let command = format!("musher instance {verb} {} {flags}", self.state.spec.name);
        let command = command.trim_end().to_owned();
        if !self.found.can.contains(&command) {
            self.found.can.push(command);
        }
    }

    fn sled(&self, vmm: &Vmm) -> String {
        self.present.sled_name(vmm.sled)
    }

    /// When the first deadline of this instance passes that is of the wanted kind.
    fn deadline(&self, wanted: impl Fn(lifecycle::DeadlineKind) -> bool) -> Option<Timestamp> {
        let running = deadlines(self.state, self.policy);
        running.into_iter().find(|deadline| wanted(deadline.kind)).map(|d| d.start + d.span)
    }

    /// What went wrong last, as far as it has to do with the state.
    fn trouble(&mut self) {
        let failed = self.state.failed.as_ref();
        let last = self.state.last_trouble.as_ref().filter(|last| Some(*last) != failed);
        let told: Vec<String> = failed.into_iter().chain(last).map(trouble).collect();
        self.found.because.extend(told);
    }

    /// VMMs that nothing refers to any more, and that may still be on their sleds.
    fn leftovers(&mut self) {
        let state = self.state;
        for vmm in state.vmms.values().filter(|vmm| !state.refers_to(vmm.id) && vmm.gone.is_none()) {
            let what = if vmm.state.is_live() { "to stop the VMM" } else { "to unregister the VMM" };
            self.wait(vmm, what, None);
            let sled = self.sled(vmm);
            self.then(format!("{sled} confirms that it is gone"), "its reservation is free");
        }
        if state.vmms.values().any(|vmm| !state.refers_to(vmm.id) && vmm.may_run()) {
            self.can_with("force-stop", "--assert-dead --reason TEXT");
        }
    }

    fn holds(&mut self) {
        let held = self.state.vmms.values().filter_map(|vmm| {
            let what = match vmm.reservation? {
                lifecycle::vmm::Reservation::Active => "active",
                lifecycle::vmm::Reservation::Target => "target",
                lifecycle::vmm::Reservation::Tombstoned => "tombstoned",
            };
            let (threads, memory) = (vmm.size.ncpus, vmm.size.memory);
            Some(Hold { vmm: vmm.id, sled_name: self.present.sled_name(vmm.sled), threads, memory, what })
        });
        self.found.holds = held.collect();
    }
}

/// What went wrong, in one line.
pub fn trouble(trouble: &Trouble) -> String {
    use crate::summary::{because, failure, given_up, step_name};
    let at = crate::time::rfc3339(trouble.at);
    match &trouble.cause {
        TroubleCause::VmmFailed { reason, .. } => {
            format!("its VMM failed at {at}: {}", failure(*reason))
        }
        TroubleCause::StartUnwound { step, reason } => format!(
            "a start was taken back at {at}, at its step \"{}\", because {}",
            step_name(*step),
            because(*reason)
        ),
        TroubleCause::MigrateUnwound { step, reason } => format!(
            "a migration was taken back at {at}, at its step \"{}\", because {}",
            step_name(*step),
            because(*reason)
        ),
        TroubleCause::MigrationFailed { cancelled: Some(reason), .. } => {
            format!(
                "a migration did not move the guest; it was given up because {} ({at})",
                given_up(*reason)
            )
        }
        TroubleCause::MigrationFailed { cancelled: None, .. } => {
            format!("a migration did not move the guest: one of its sides failed ({at})")
        }
        TroubleCause::NoCapacity { short } => format!("a start could not be placed at {at}: {short}"),
    }
}
