//! The simulated world: one queue of events in virtual time, and everything that reacts to them.
//!
//! ```text
//!  clients ──requests──▶ control plane ──append──▶ log (synced, unsynced)
//!     ▲                     │     ▲                 │
//!     └──────answers────────┘     └──────durable────┘
//!                           │     ▲
//!                        network (drop, duplicate, delay, cut)
//!                           ▼     │
//!         the sleds' machines (and each other) ──truth──▶ checks
//! ```
//!
//! A run has two phases. In the safety phase faults act and invariants must hold. Then everything is healed,
//! and within [`QUIESCE_MAX_US`] everything must come to rest, with reality as the record says.
//!
//! Invariants:
//! * single-threaded and pure: the scenario decides everything, the same scenario gives the same trace;
//! * events at one time happen in the order in which they were scheduled;
//! * a crash takes everything the control plane has in memory; messages that were under way arrive.

mod admin_shell;
mod answers;
mod clients;
mod control_plane;
mod crash;
mod disk;
mod effects;
mod inject;
mod instance_shell;
mod intake;
mod ledger_shell;
mod migrations;
pub(crate) mod names;
mod network;
mod notes;
mod observe;
mod operator;
pub(crate) mod planted;
mod rest;
mod retention;
mod sled_commands;
mod sled_shell;
mod sleds;
pub(crate) mod wire;

use crate::checks::archive::Shelf;
use crate::checks::{Checks, Failure, FailureKind};
use crate::coverage::{Coverage, Sometimes};
use crate::draws::Draws;
use crate::scenario::Scenario;
use crate::states::Met;
use crate::trace::Trace;
pub(crate) use clients::Answer as ClientAnswer;
use clients::Clients;
use control_plane::ControlPlane;
pub(crate) use effects::kind_of;
use eventlog::SimStore;
pub(crate) use instance_shell::labels_of;
pub(crate) use ledger_shell::{policy, size_of};
use lifecycle::{DeadlineKind, Effect, InstanceId, Timestamp};
use network::{ToControl, ToSled};
pub(crate) use observe::is_at_work;
pub use planted::decide_with;
use sim_sled::machine::PeerMessage;
use sled_protocol::{MigrationId, PropolisId};
use sleds::SledHost;
pub(crate) use sleds::{about, brief};
use std::collections::{BTreeMap, BTreeSet};

/// How long everything may take to come to rest once the faults have ended: the longest deadline of a start,
/// the longest wait before an effect is sent again, several watches, and as much again.
pub const QUIESCE_MAX_US: u64 = 600 * SECOND;

/// Most steps of a run: a run that needs more is a loop.
pub const STEPS_MAX: u64 = 2_000_000;

/// Microseconds of a second.
pub(crate) const SECOND: u64 = 1_000_000;

/// Microseconds of a millisecond.
pub(crate) const MILLI: u64 = 1_000;

/// The wall clock when a run begins, microseconds since the Unix epoch.
const WALL_START: u64 = 1_700_000_000 * SECOND;

/// How often it is looked whether everything has come to rest.
const PROBE_US: u64 = 500 * MILLI;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A client sends a request, first or again.
    Send { request: usize, attempt: u32, other_body: bool },
    /// A request reaches the control plane.
    Asked { request: usize, attempt: u32, other_body: bool },
    /// A client has waited long enough for an answer.
    ClientTimeout { request: usize, attempt: u32 },
    /// An answer reaches a client.
    Answered { request: usize, answer: clients::Answer, other_body: bool },
    /// A message reaches a sled.
    ToSled { sled: u16, message: ToSled },
    /// A message of another sled reaches a sled.
    ToPeer { sled: u16, message: Box<PeerMessage> },
    /// A message reaches the control plane.
    ToControl { sled: u16, message: ToControl },
    /// A sync ends.
    Sync { incarnation: u32 },
    /// A sled's machine wants to be polled.
    SledWake { sled: u16 },
    /// A sled repeats a report.
    ReportAgain { sled: u16, vmm: PropolisId, token: u64 },
    /// A sled repeats its registration.
    RegisterAgain { sled: u16, token: u64 },
    /// An effect is sent again if it is still wanted.
    EffectAgain { incarnation: u32, instance: InstanceId, effect: Effect, attempt: u32 },
    /// A deadline passes.
    Deadline { incarnation: u32, instance: InstanceId, kind: DeadlineKind },
    /// A sled is asked for its inventory.
    Watch { incarnation: u32, sled: u16, is_periodic: bool },
    /// A fault begins.
    Fault(usize),
    /// What a fault aimed at a phase of a migration happens.
    Mishap { nth: usize, migration: MigrationId },
    /// A sled that was cut off reboots.
    Vanish { sled: u16 },
    /// A sled's host is up again.
    SledUp { sled: u16 },
    /// The control plane starts.
    Restart,
    /// It is looked whether anything deleted is to be archived.
    Retain { incarnation: u32 },
    /// The faults end.
    Heal,
    /// It is looked whether everything is at rest.
    Probe,
}

impl Happening {
    /// Whether the control plane has to do something for it to happen.
    const fn needs_control(&self) -> bool {
        matches!(
            self,
            Self::Asked { .. }
                | Self::ToControl { .. }
                | Self::Sync { .. }
                | Self::EffectAgain { .. }
                | Self::Deadline { .. }
                | Self::Watch { .. }
                | Self::Retain { .. }
        )
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was broken, if anything.
    pub failure: Option<Failure>,
    /// Hash of the trace: equal for equal runs.
    pub trace_hash: u64,
    /// Number of happenings.
    pub steps: u64,
    /// Virtual time that passed, microseconds.
    pub simulated_us: u64,
    /// Rare states that were met.
    pub coverage: Coverage,
    /// Abstract states that were met.
    pub states: Met,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
    /// The log at the end, one line per event, if the trace was asked for.
    pub log: Vec<String>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    steps: u64,
    pub(crate) draws: Draws,
    pub(crate) store: SimStore,
    disk: disk::Disk,
    control: Option<ControlPlane>,
    /// Counts the lives of the control plane; what an earlier one was waiting for never comes.
    incarnation: u32,
    /// How many ids were minted per instance, over all lives.
    minted: BTreeMap<u16, u64>,
    sleds: Vec<SledHost>,
    clients: Clients,
    /// Which crash points have not fired.
    armed: Vec<usize>,
    /// How many effects of each kind were sent per instance.
    sent: BTreeMap<(u16, crate::faults::EffectKind), u32>,
    /// Which of the requests that wait for a phase have been sent.
    aimed: BTreeSet<usize>,
    /// Which mishaps of migrations have happened.
    mishaps: BTreeSet<usize>,
    /// How far each migration has come on its sleds.
    moves: BTreeMap<MigrationId, migrations::Move>,
    /// What was archived.
    shelf: Shelf,
    /// Where the log ended when everything rested and the control plane was stopped, if it was.
    stopped_at: Option<usize>,
    /// Links that mishaps have cut.
    cuts: Vec<network::Cut>,
    wall_offset_us: i64,
    /// Until when the control plane stands still.
    paused_until: u64,
    pub(crate) is_healed: bool,
    is_over: bool,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
}

/// Runs a scenario to its end. `is_traced` says whether the trace and the log are wanted as text.
///
/// # Panics
/// When the rules panic: the caller decides what that means.
pub fn run(scenario: &Scenario, is_traced: bool) -> Outcome {
    let mut world = World::new(scenario.clone(), is_traced);
    world.run();
    world.finish(is_traced)
}

impl World {
    fn new(scenario: Scenario, is_traced: bool) -> Self {
        let draws = Draws::new(scenario.seed);
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            steps: 0,
            draws,
            store: SimStore::new(),
            disk: disk::Disk::default(),
            control: None,
            incarnation: 0,
            minted: BTreeMap::new(),
            sleds: Vec::new(),
            clients: Clients::new(&scenario.requests),
            armed: Vec::new(),
            sent: BTreeMap::new(),
            aimed: BTreeSet::new(),
            mishaps: BTreeSet::new(),
            moves: BTreeMap::new(),
            shelf: Shelf::default(),
            stopped_at: None,
            cuts: Vec::new(),
            wall_offset_us: 0,
            paused_until: 0,
            is_healed: false,
            is_over: false,
            checks: Checks::new(&scenario),
            trace: Trace::new(is_traced),
            coverage: Coverage::default(),
            scenario,
        };
        world.begin();
        world
    }

    /// What is there before the first second: a project in the log, sleds that boot, a control plane.
    fn begin(&mut self) {
        self.found_project();
        self.recover();
        self.boot_sleds();
        self.send_first_requests();
        self.plan_faults();
        let safety_us = self.scenario.safety_ms * MILLI;
        self.at(safety_us, Happening::Heal);
    }

    fn run(&mut self) {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if self.is_over || self.checks.failure().is_some() {
                return;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                let detail = format!("{STEPS_MAX} steps and no end");
                self.checks.fail(FailureKind::Liveness, "I18", self.now, detail);
                return;
            }
            self.now = self.now.max(at);
            let touches_sleds = matches!(
                happening,
                Happening::ToSled { .. }
                    | Happening::ToPeer { .. }
                    | Happening::SledWake { .. }
                    | Happening::Fault(_)
                    | Happening::Mishap { .. }
            );
            self.happen(happening);
            if touches_sleds {
                self.check_guests();
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        if self.now < self.paused_until && happening.needs_control() {
            self.note(Sometimes::PausedAtWork);
            self.at(self.paused_until, happening);
            return;
        }
        match happening {
            Happening::Send { request, attempt, other_body } => {
                self.client_sends(request, attempt, other_body);
            }
            Happening::Asked { request, attempt, other_body } => self.asked(request, attempt, other_body),
            Happening::ClientTimeout { request, attempt } => self.client_timeout(request, attempt),
            Happening::Answered { request, answer, other_body } => {
                self.client_answered(request, answer, other_body);
            }
            Happening::ToSled { sled, message } => self.at_sled(sled, message),
            Happening::ToPeer { sled, message } => self.at_peer(sled, *message),
            Happening::ToControl { sled, message } => self.at_control(sled, message),
            Happening::Sync { incarnation } => self.sync_ends(incarnation),
            Happening::SledWake { sled } => self.settle_sled(sled),
            Happening::ReportAgain { sled, vmm, token } => self.report_again(sled, vmm, token),
            Happening::RegisterAgain { sled, token } => self.register_again(sled, token),
            Happening::EffectAgain { incarnation, instance, effect, attempt } => {
                self.effect_again(incarnation, instance, effect, attempt);
            }
            Happening::Deadline { incarnation, instance, kind } => {
                self.deadline_passes(incarnation, instance, kind);
            }
            Happening::Watch { incarnation, sled, is_periodic } => self.watch(incarnation, sled, is_periodic),
            Happening::Fault(nth) => self.fault_begins(nth),
            Happening::Mishap { nth, migration } => self.mishap(nth, migration),
            Happening::Vanish { sled } => self.vanishes(sled),
            Happening::SledUp { sled } => self.sled_up(sled),
            Happening::Restart => self.recover(),
            Happening::Retain { incarnation } => self.retain(incarnation),
            Happening::Heal => self.heal(),
            Happening::Probe => self.probe(),
        }
    }

    /// Schedules something for a time.
    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((at.max(self.now), self.scheduled), happening);
    }

    /// Schedules something for so much later.
    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now.saturating_add(delay), happening);
    }

    /// The control plane's wall clock, which may jump.
    pub(crate) fn wall(&self) -> Timestamp {
        let wall = (WALL_START + self.now).saturating_add_signed(self.wall_offset_us);
        Timestamp::from_micros(wall)
    }

    /// The sleds' clocks, which do not jump.
    pub(crate) const fn sled_clock(&self) -> u64 {
        WALL_START + self.now
    }

    /// Everything is healed: faults end, and what is down comes up.
    fn heal(&mut self) {
        self.is_healed = true;
        self.armed.clear();
        self.disk.fails_with = None;
        self.store.accept();
        self.paused_until = 0;
        self.trace.line(self.now, "HEAL", &"", format_args!(""));
        self.send_aimed(None, None);
        self.after(PROBE_US, Happening::Probe);
    }

    pub(crate) fn note(&mut self, state: Sometimes) {
        self.coverage.note(state);
    }

    fn finish(mut self, is_traced: bool) -> Outcome {
        let failure = self.checks.take_failure();
        if let Some(failure) = &failure {
            let whom = &failure.invariant;
            self.trace.line(self.now, "FAIL", whom, format_args!("{}", failure.detail));
        }
        let log = if is_traced { crate::checks::log_lines(&self.store) } else { Vec::new() };
        Outcome {
            failure,
            trace_hash: self.trace.hash(),
            steps: self.steps,
            simulated_us: self.now,
            coverage: self.coverage,
            states: std::mem::take(&mut self.checks.log.states),
            trace: self.trace.into_lines(),
            log,
        }
    }
}
