//! From a recorded history to a scenario: an incident of production becomes a file that is run, shrunk and kept.
//!
//! Commands become requests in their order. What was unusual outside becomes faults: a sled that was silent while
//! something was to be sent to it was cut off; a daemon that came up after no clean stop had died; a guest that
//! ended unasked ended so; a refusal is given again. Sleds draw their own delays, so the run is sought among the
//! first [`SEEDS_TRIED`] seeds that follows the record farthest.
//!
//! Invariants:
//! * requests are sent in the order in which they were carried out;
//! * what cannot be played is named, never left out silently;
//! * the scenario is within the bounds of every scenario.

use crate::campaign::run_caught;
use crate::faults::{Direction, EffectKind, Entity, Fault, LoseUnsynced, Refused, Side};
use crate::scenario::{
    FORMAT, MIGRATE_DEADLINE_MS_MAX, REQUESTS_MAX, RESTART_MS_MAX, RESTARTS_MAX, Request, RestartShape,
    SAFETY_MS_MAX, SLEDS_MAX, START_DEADLINE_MS_MAX, Scenario, SledShape, Tier,
};
use crate::verb::Verb;
use crate::world::kind_of;
use journal::{Event, Recorded, StreamName};
use lifecycle::{
    AutoRestartPolicy, Command, Effect, EffectResult, Evidence, FailureReason, Input, Instance,
    InstanceEvent, Refusal, SledEvent, SledId, Span, SystemEvent, Timestamp, Vmm, VmmState, effects, evolve,
};
use std::collections::{BTreeMap, BTreeSet};

/// Seeds of the run that are tried.
pub const SEEDS_TRIED: u64 = 64;

/// Longest pause between two events, milliseconds: beyond every deadline of a scenario, so that nothing else
/// happens in it.
const PAUSE_MS_MAX: u64 = 180_000;

/// Time before the first request: sleds boot.
const BEGIN_MS: u64 = 2_000;

/// Silence of a sled that has something to do, milliseconds, from which on it counts as cut off.
const SILENCE_MS: u64 = 5_000;

/// What a scenario is made from.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Events of one instance, from the first.
    pub own: &'a [Recorded],
    /// Events of sleds and of the system, in order of the log.
    pub around: &'a [Recorded],
    /// Latest recorded time of the whole log.
    pub end: Timestamp,
}

/// A scenario and how well it follows.
#[derive(Clone, Debug)]
pub struct Reenactment {
    /// The scenario.
    pub scenario: Scenario,
    /// Events recorded.
    pub recorded: usize,
    /// How many of them, from the first, the run gives in the same order.
    pub followed: usize,
    /// The first that differs: recorded, and given by the run.
    pub parted: Option<(String, String)>,
    /// What has no counterpart in the simulator.
    pub left_out: Vec<String>,
}

/// Why a history is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoScenario {
    /// It has more than scenarios may have.
    #[error("the history has {count} {what}, a scenario at most {max}; cut it with an earlier export")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// It does not begin with a creation.
    #[error("the history does not begin with the instance's creation; export the log from position 1")]
    NotFromStart,
}

/// Makes a scenario of a history, and finds the seed that follows it farthest.
pub fn reenact(history: &History<'_>) -> Result<Reenactment, NoScenario> {
    let (mut scenario, left_out) = Making::of(history)?;
    let recorded: Vec<String> =
        history.own.iter().filter_map(own_event).map(|it| gist(&format!("{it:?}"))).collect();
    let mut best: Option<(usize, u64, Vec<String>)> = None;
    for seed in 0..SEEDS_TRIED {
        scenario.seed = seed;
        let given = story(&scenario);
        let followed = recorded.iter().zip(&given).take_while(|(was, is)| was == is).count();
        if best.as_ref().is_none_or(|(farthest, ..)| followed > *farthest) {
            best = Some((followed, seed, given));
        }
        if followed == recorded.len() {
            break;
        }
    }
    let (followed, seed, given) = best.expect("at least one seed is tried");
    scenario.seed = seed;
    let at = |events: &[String]| events.get(followed).cloned().unwrap_or_else(|| "nothing".to_owned());
    let parted = (followed < recorded.len()).then(|| (at(&recorded), at(&given)));
    Ok(Reenactment { scenario, recorded: recorded.len(), followed, parted, left_out })
}

/// What happens to the instance in a run, by the gist of its events.
fn story(scenario: &Scenario) -> Vec<String> {
    let outcome = run_caught(scenario, true);
    let own = outcome.log.iter().filter_map(|line| {
        let mut words = line.split_whitespace();
        let stream = words.nth(2)?;
        let (_, event) = line.split_once("Instance(")?;
        (stream == Entity::Instance(0).to_string()).then(|| gist(event))
    });
    own.collect()
}

/// An event without what differs from run to run: ids and generations.
fn gist(debug: &str) -> String {
    let end = debug.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(debug.len());
    let mut text = debug[..end].to_owned();
    for key in ["step: ", "reason: ", "evidence: ", " state: ", "done: ", "attempt: "] {
        for (at, _) in debug.match_indices(key) {
            let value = &debug[at + key.len()..];
            let end = value.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(value.len());
            text.push(' ');
            text.push_str(&value[..end]);
        }
    }
    text
}

fn own_event(recorded: &Recorded) -> Option<&InstanceEvent> {
    match &recorded.event {
        Event::Instance(event) => Some(event),
        Event::Project(_) | Event::Sled(_) | Event::System(_) => None,
    }
}

/// A scenario in the making.
struct Making {
    requests: Vec<Request>,
    faults: Vec<Fault>,
    left_out: Vec<String>,
    sleds: BTreeMap<SledId, u16>,
    shapes: Vec<SledShape>,
    families: Vec<String>,
    deadlines: (u64, u64),
    is_restarted: bool,
    /// Recorded and scenario's time of the newest event.
    clock: (u64, u64),
    refused: BTreeMap<EffectKind, u32>,
}

impl Making {
    fn of(history: &History<'_>) -> Result<(Scenario, Vec<String>), NoScenario> {
        let Some(first) = history.own.first() else {
            return Err(NoScenario::NotFromStart);
        };
        if first.meta.version != 1 {
            return Err(NoScenario::NotFromStart);
        }
        let mut making = Self {
            requests: Vec::new(),
            faults: Vec::new(),
            left_out: Vec::new(),
            sleds: BTreeMap::new(),
            shapes: Vec::new(),
            families: Vec::new(),
            deadlines: (START_DEADLINE_MS_MAX, MIGRATE_DEADLINE_MS_MAX),
            is_restarted: false,
            clock: (first.meta.time.micros() / 1_000, BEGIN_MS),
            refused: BTreeMap::new(),
        };
        making.sleds(history.around);
        making.events(history);
        making.finish()
    }

    fn sleds(&mut self, around: &[Recorded]) {
        for recorded in around {
            let Event::Sled(SledEvent::Registered { id, threads, memory, cpu_family, .. }) = &recorded.event
            else {
                continue;
            };
            let family = self.families.iter().position(|it| it == cpu_family).unwrap_or_else(|| {
                self.families.push(cpu_family.clone());
                self.families.len() - 1
            });
            let shape = SledShape {
                threads: *threads,
                memory_gib: memory >> 30,
                family: u8::try_from(family).unwrap_or(u8::MAX),
                dirty_per_mille: 250,
            };
            let next = u16::try_from(self.shapes.len()).unwrap_or(u16::MAX);
            let nth = *self.sleds.entry(*id).or_insert(next);
            match self.shapes.get_mut(usize::from(nth)) {
                Some(known) => *known = shape,
                None => self.shapes.push(shape),
            }
        }
    }

    /// Own events and those around them, in order of the log.
    fn events(&mut self, history: &History<'_>) {
        let begin = history.own[0].meta.position;
        let around = history.around.iter().filter(|it| it.meta.position > begin);
        let mut all: Vec<&Recorded> = history.own.iter().chain(around).collect();
        all.sort_by_key(|recorded| recorded.meta.position);
        let mut state: Option<Instance> = None;
        for recorded in all {
            let before = self.clock;
            let at = self.tick(recorded.meta.time);
            match (&recorded.event, recorded.stream) {
                (Event::Instance(event), _) => {
                    if recorded.index.0 == 0 {
                        self.silence(state.as_ref(), before.1, at);
                        let input = recorded.context.as_ref().and_then(|context| context.input.as_ref());
                        self.input(input, state.as_ref(), at);
                    }
                    self.event(event, state.as_ref(), at);
                    evolve(&mut state, event, recorded.meta);
                }
                (Event::Sled(event), StreamName::Sled(id)) => self.sled_event(event, id, at),
                (Event::System(SystemEvent::DaemonStarted { after_clean_stop: false, .. }), _) => {
                    // What it was doing when it died had happened by then.
                    self.faults.push(Fault::CrashTime { at: before.1 + 1, lose: LoseUnsynced::None });
                }
                (Event::System(_) | Event::Sled(_) | Event::Project(_), _) => {}
            }
        }
        // The end of the log: what was to be sent and was not answered is still awaited.
        let before = self.clock.1;
        let end = self.tick(history.end);
        self.silence(state.as_ref(), before, end);
    }

    /// The scenario's time of a recorded one, milliseconds. Pauses are cut, and time never goes back.
    fn tick(&mut self, time: Timestamp) -> u64 {
        let recorded = time.micros() / 1_000;
        let passed = recorded.saturating_sub(self.clock.0).min(PAUSE_MS_MAX);
        self.clock = (recorded.max(self.clock.0), self.clock.1 + passed);
        self.clock.1
    }

    /// Sleds that had something to do, or a VMM on its way, and said nothing were cut off.
    fn silence(&mut self, state: Option<&Instance>, from: u64, to: u64) {
        let Some(state) = state.filter(|_| to - from >= SILENCE_MS) else {
            return;
        };
        let on_its_way = |vmm: &&Vmm| matches!(vmm.state, VmmState::Rebooting | VmmState::Stopping);
        let awaited = state.vmms.values().filter(on_its_way).map(|vmm| vmm.sled);
        let silent: BTreeSet<SledId> = effects(state).into_iter().map(Effect::sled).chain(awaited).collect();
        for sled in silent {
            if let Some(sled) = self.sleds.get(&sled).copied() {
                let (at, lasts, direction) = (from + 1, to - from, Direction::Both);
                self.faults.push(Fault::Partition { at, lasts, sled, direction });
            }
        }
    }

    fn input(&mut self, input: Option<&Input>, state: Option<&Instance>, at: u64) {
        match input {
            Some(Input::Command(command)) => self.command(command, state, at),
            Some(Input::Outcome { effect, result: EffectResult::Refused(refusal) }) => {
                let (effect, instance) = (kind_of(*effect), 0);
                let nth = self.refused.entry(effect).or_insert(0);
                self.faults.push(Fault::Refuse {
                    effect,
                    instance,
                    nth: *nth,
                    refused: refused(*refusal),
                    is_lasting: false,
                });
                *nth += 1;
            }
            Some(Input::Restart(_)) => self.is_restarted = true,
            Some(_) => {}
            None => self.left_out.push(format!("an append at {at} ms that kept no input")),
        }
    }

    fn command(&mut self, command: &Command, state: Option<&Instance>, at: u64) {
        let verbs = match command {
            Command::Create { spec, start, .. } => {
                vec![Verb::Create { start: start.is_some(), ncpus: spec.size.ncpus }]
            }
            Command::Start { .. } => vec![Verb::Start],
            Command::Stop { .. } => vec![Verb::Stop],
            Command::Reboot { .. } => vec![Verb::Reboot],
            Command::Delete => vec![Verb::Delete],
            Command::Migrate { grant } => {
                vec![Verb::Migrate { to: grant.and_then(|grant| self.sleds.get(&grant.sled).copied()) }]
            }
            Command::CancelMigration => vec![Verb::CancelMigration],
            Command::CancelSaga { .. } => vec![Verb::CancelSaga],
            Command::PauseSaga { .. } => vec![Verb::PauseSaga],
            Command::ResumeSaga { .. } => vec![Verb::ResumeSaga],
            Command::RetrySaga { .. } => vec![Verb::RetrySaga],
            Command::ForceStop { assert_dead, .. } => vec![Verb::ForceStop { assert_dead: *assert_dead }],
            Command::ForceStopOf { vmm, assert_dead, .. } => {
                let is_target = state.is_some_and(|state| state.target == Some(*vmm));
                let side = if is_target { Side::Target } else { Side::Source };
                vec![Verb::ForceStopOf { side, assert_dead: *assert_dead }]
            }
            Command::Update { change } => {
                let was = state.map(|state| state.spec.changeable());
                let resized = was.as_ref().is_none_or(|was| was.size != change.size);
                let restarts = was.as_ref().is_none_or(|was| was.auto_restart != change.auto_restart);
                let on = change.auto_restart != Some(AutoRestartPolicy::Never);
                let resize = resized.then_some(Verb::Resize { ncpus: change.size.ncpus });
                resize.into_iter().chain(restarts.then_some(Verb::SetRestarts { on })).collect()
            }
        };
        if verbs.is_empty() {
            self.left_out.push(format!("an update at {at} ms of what the simulator does not know"));
        }
        for verb in verbs {
            self.request(verb, at);
        }
    }

    fn request(&mut self, verb: Verb, at: u64) {
        let id = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        let at = self.requests.last().map_or(at, |last| at.max(last.at + 1));
        self.requests.push(Request { id, at, phase: None, instance: 0, verb });
    }

    /// What came from outside and was no command.
    fn event(&mut self, event: &InstanceEvent, state: Option<&Instance>, at: u64) {
        match event {
            InstanceEvent::StartBegan { deadline, .. } => {
                self.deadlines.0 = millis(*deadline).clamp(1, START_DEADLINE_MS_MAX);
            }
            InstanceEvent::MigrateBegan { deadline, .. } => {
                self.deadlines.1 = millis(*deadline).clamp(1, MIGRATE_DEADLINE_MS_MAX);
            }
            InstanceEvent::VmmReported { vmm, report } => {
                let is_asked = state.is_some_and(|state| state.stop.is_some() || state.active != Some(*vmm));
                let was = state.and_then(|state| state.vmms.get(vmm)).map(|vmm| vmm.state);
                match report.state {
                    VmmState::Failed => self.faults.push(Fault::GuestCrash { at, instance: 0 }),
                    VmmState::Stopping if !is_asked && was != Some(VmmState::Stopping) => {
                        self.faults.push(Fault::GuestShutdown { at, instance: 0 });
                    }
                    _ => {}
                }
            }
            InstanceEvent::VmmFailed { vmm, reason: FailureReason::SledRebooted }
            | InstanceEvent::VmmGone { vmm, evidence: Evidence::SledRebooted } => {
                let sled = state.and_then(|state| state.vmms.get(vmm)).map(|vmm| vmm.sled);
                if let Some(sled) = sled.and_then(|sled| self.sleds.get(&sled).copied()) {
                    self.faults.push(Fault::SledReboot { at: at.saturating_sub(1_500), sled, lasts: 1_000 });
                }
            }
            _ => {}
        }
    }

    fn sled_event(&mut self, event: &SledEvent, id: SledId, at: u64) {
        let Some(sled) = self.sleds.get(&id).copied() else {
            return;
        };
        match event {
            SledEvent::ProvisionableChanged { provisionable: true, .. } => {
                self.request(Verb::Uncordon { sled }, at);
            }
            SledEvent::ProvisionableChanged { .. } => self.request(Verb::Cordon { sled }, at),
            SledEvent::Expunged { .. } => self.request(Verb::Expunge { sled }, at),
            SledEvent::DrainBegan { .. } => self.left_out.push(format!("a drain at {at} ms")),
            SledEvent::LeaseExpired { .. } => self.left_out.push(format!("a lease that expired at {at} ms")),
            SledEvent::DrainEnded { .. }
            | SledEvent::Registered { .. }
            | SledEvent::Booted { .. }
            | SledEvent::LeaseBegan { .. } => {}
        }
    }

    fn finish(mut self) -> Result<(Scenario, Vec<String>), NoScenario> {
        let too_much = |what, count, max| Err(NoScenario::TooMuch { what, count, max });
        if self.requests.len() > REQUESTS_MAX {
            return too_much("commands", self.requests.len(), REQUESTS_MAX);
        }
        if self.shapes.len() > SLEDS_MAX {
            return too_much("sleds", self.shapes.len(), SLEDS_MAX);
        }
        let end = self.requests.last().map_or(self.clock.1, |last| last.at.max(self.clock.1)) + 1;
        if end > SAFETY_MS_MAX {
            let (count, max) = (usize::try_from(end).unwrap_or(usize::MAX), SAFETY_MS_MAX as usize);
            return too_much("milliseconds of activity", count, max);
        }
        if self.shapes.is_empty() {
            self.shapes.push(SledShape { threads: 32, memory_gib: 128, family: 0, dirty_per_mille: 250 });
        }
        // Two sleds cannot be told to be cut off twice at once.
        self.faults.dedup();
        let restart = self.is_restarted.then_some(RestartShape {
            base_ms: RESTART_MS_MAX / 4,
            cap_ms: RESTART_MS_MAX,
            budget: RESTARTS_MAX,
            stable_ms: 60_000,
        });
        let scenario = Scenario {
            format: FORMAT,
            tier: Tier::Core,
            seed: 0,
            profile: "recorded".to_owned(),
            bug: None,
            sleds: self.shapes,
            sync_us: (100, 1_000),
            start_deadline_ms: self.deadlines.0,
            migrate_deadline_ms: self.deadlines.1,
            restart,
            lease_s: None,
            passivate_ms: None,
            pause_after_failures: None,
            retain_ms: None,
            queue_max: None,
            safety_ms: end,
            requests: self.requests,
            faults: self.faults,
        };
        Ok((scenario, self.left_out))
    }
}

fn millis(span: Span) -> u64 {
    span.micros() / 1_000
}

const fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NoSuchVmm => Refused::NoSuchVmm,
        Refusal::Tombstoned => Refused::Gone,
        Refusal::StaleEpoch => Refused::StaleEpoch,
        Refusal::NoRoom => Refused::NoRoom,
        Refusal::OtherInstance => Refused::Conflict,
        Refusal::NotPossible => Refused::BadState,
        Refusal::Malformed => Refused::Malformed,
    }
}
