//! What everything on the stage shares: the checkers, the trace, the draws, who lives, and what went wrong.
//!
//! Invariant: the lock is never held across an await, and nobody calls into an actor while holding it.

use super::host::Host;
use super::life::Life;
use super::outside::Outside;
use super::panics;
use crate::checks::archive::Shelf;
use crate::checks::{Checks, FailureKind};
use crate::coverage::{Coverage, Sometimes};
use crate::draws::Draws;
use crate::faults::{EffectKind, Entity, Fault, LoseUnsynced, Window};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::{Outcome, names};
use lifecycle::{RequestId, Timestamp};
use sim_sled::embedded::Fabric;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The wall clock when a run begins, microseconds since the Unix epoch.
const WALL_START: u64 = 1_700_000_000_000_000;

/// See the module's head.
pub(super) struct Stage {
    pub(super) scenario: Scenario,
    pub(super) origin: Instant,
    pub(super) outside: Outside,
    pub(super) fabric: Fabric,
    state: Mutex<State>,
    has_failed: level::Sender<bool>,
}

/// What changes.
pub(super) struct State {
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) draws: Draws,
    pub(super) is_healed: bool,
    /// Set while the first life makes the project: nothing goes wrong, and nothing is lost.
    pub(super) is_begun: bool,
    wall_offset_us: i64,
    /// Points that have not fired: crashes, panics, lost answers of the log.
    pub(super) armed: Vec<usize>,
    pub(super) hosts: Vec<Host>,
    pub(super) life: Option<Arc<Life>>,
    pub(super) lives: u32,
    /// What is lost by the death that a failed sync leads to, once one is to fail.
    pub(super) fails_with: Option<LoseUnsynced>,
    /// Whether the scenario has killed an actor without which the process must end.
    pub(super) is_end_wanted: bool,
    /// Which requests have their answer.
    pub(super) answered: Vec<bool>,
    /// The append that carries a request out, written or durable.
    pub(super) written: BTreeMap<RequestId, u64>,
    /// How many effects of each kind reached their sleds per instance.
    pub(super) sent: BTreeMap<(u16, EffectKind), u32>,
    /// What was archived.
    pub(super) shelf: Shelf,
    /// Where the log ended when everything rested and the control plane was stopped, if it was.
    pub(super) stopped_at: Option<u64>,
    /// How often the operator has looked after a saga that is held.
    pub(super) attended: u32,
    /// How often it came to rest and was disturbed again.
    pub(super) rests: u32,
    pub(super) steps: u64,
}

impl Stage {
    /// An empty stage at the present time of the runtime.
    pub(super) fn new(scenario: Scenario, is_traced: bool) -> Self {
        let armed = (0..scenario.faults.len()).filter(|&nth| {
            let fault = &scenario.faults[nth];
            matches!(fault, Fault::CrashAt { .. } | Fault::ActorPanic { .. } | Fault::UnknownAppend { .. })
        });
        let state = State {
            checks: Checks::new(&scenario),
            trace: Trace::new(is_traced),
            coverage: Coverage::default(),
            draws: Draws::new(scenario.seed),
            is_healed: false,
            is_begun: false,
            wall_offset_us: 0,
            armed: armed.collect(),
            hosts: Vec::new(),
            life: None,
            lives: 0,
            fails_with: None,
            is_end_wanted: false,
            answered: vec![false; scenario.requests.len()],
            written: BTreeMap::new(),
            sent: BTreeMap::new(),
            shelf: Shelf::default(),
            stopped_at: None,
            attended: 0,
            rests: 0,
            steps: 0,
        };
        Self {
            outside: Outside::new(),
            scenario,
            origin: Instant::now(),
            fabric: Fabric::default(),
            state: Mutex::new(state),
            has_failed: level::Sender::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic that a scenario wants passes through no place that has half changed it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds of the run.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
    }

    /// The control plane's wall clock.
    pub(super) fn wall(&self) -> Timestamp {
        let offset = self.lock().wall_offset_us;
        Timestamp::from_micros((WALL_START + self.now()).saturating_add_signed(offset))
    }

    /// The sleds' clocks, which do not jump.
    pub(super) fn sled_clock(&self) -> u64 {
        WALL_START + self.now()
    }

    /// The wall clock jumps.
    pub(super) fn jump(&self, by_ms: i64) {
        let mut state = self.lock();
        state.wall_offset_us = state.wall_offset_us.saturating_add(by_ms.saturating_mul(1_000));
        if by_ms < 0 {
            state.coverage.note(Sometimes::ClockWentBack);
        }
    }

    /// Adds a line to the trace.
    pub(super) fn line(&self, what: &str, whom: &dyn fmt::Display, rest: fmt::Arguments<'_>) {
        let now = self.now();
        let mut state = self.lock();
        state.steps += 1;
        state.trace.line(now, what, whom, rest);
    }

    /// Whoever lives, or died last.
    pub(super) fn life(&self) -> Arc<Life> {
        self.lock().life.clone().expect("the first life begins before anything else")
    }

    /// Shows the checkers something.
    pub(super) fn check<T>(&self, look: impl FnOnce(&mut Checks, u64) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let answer = look(&mut state.checks, now);
        if state.checks.failure().is_some() {
            self.has_failed.send_if_modified(|has_failed| !std::mem::replace(has_failed, true));
        }
        answer
    }

    pub(super) fn fail(&self, kind: FailureKind, invariant: &str, detail: String) {
        self.check(|checks, now| checks.fail(kind, invariant, now, detail));
    }

    pub(super) fn note(&self, state: Sometimes) {
        self.lock().coverage.note(state);
    }

    /// Whether something is broken: an invariant, or an actor that panicked unasked.
    pub(super) fn has_failed(&self) -> bool {
        if let Some(panic) = panics::peek() {
            self.fail(FailureKind::Panic, "panic", panic);
        }
        self.lock().checks.failure().is_some()
    }

    /// Resolves once a checker has found something.
    pub(super) async fn failed(&self) {
        let mut has_failed = self.has_failed.subscribe();
        // The sender lives as long as `self`.
        drop(has_failed.wait_for(|has_failed| *has_failed).await);
    }

    /// Lets others go first, as often as is drawn for this purpose and identity.
    pub(super) async fn let_others_go_first(&self, purpose: &'static str, identity: u128) {
        let turns = self.lock().draws.next_within(purpose, identity, 0, 4);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Takes the first fault that is armed for any of these events and satisfies `is_it`. It fires once.
    pub(super) fn takes(&self, is_it: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.lock();
        if state.is_healed || !state.is_begun {
            return None;
        }
        let found = state.armed.iter().position(|&nth| is_it(&self.scenario.faults[nth]))?;
        let nth = state.armed.remove(found);
        Some(self.scenario.faults[nth].clone())
    }

    /// The crash that waits for any of these events of this entity in this window.
    pub(super) fn crash_at(
        &self,
        names: &[&'static str],
        whose: Entity,
        window: Window,
    ) -> Option<LoseUnsynced> {
        let found = self.takes(|fault| {
            matches!(fault, Fault::CrashAt { event, entity, window: at, .. }
                if *entity == whose && *at == window && names.contains(&event.as_str()))
        })?;
        let Fault::CrashAt { event, lose, .. } = found else { return None };
        self.line("CRASH", &whose, format_args!("{event} {}", window.name()));
        self.note(match window {
            Window::BeforeAppend => Sometimes::CrashBeforeAppend,
            Window::AppendedUnsynced => Sometimes::CrashAppendedUnsynced,
            Window::SyncedUnacknowledged => Sometimes::CrashSyncedUnacknowledged,
            Window::EffectsUnsent => Sometimes::CrashEffectsUnsent,
            Window::EffectSent => Sometimes::CrashEffectSent,
            Window::DuringReplay => Sometimes::CrashDuringReplay,
        });
        Some(lose)
    }

    /// Whether a fault that began at `at` and lasts so long, in milliseconds, acts.
    pub(super) fn is_active(&self, at: u64, lasts: u64) -> bool {
        let now = self.now() / 1_000;
        !self.lock().is_healed && at <= now && now < at + lasts
    }

    /// How long a sync that begins takes.
    pub(super) fn sync_takes(&self, durable: u64) -> Duration {
        let (min, max) = self.scenario.sync_us;
        let mut micros = self.lock().draws.next_within("sync", durable.into(), min, max);
        for fault in &self.scenario.faults {
            if let Fault::DiskStall { at, lasts, by } = fault
                && self.is_active(*at, *lasts)
            {
                micros += by * 1_000;
            }
        }
        Duration::from_micros(micros)
    }

    /// What came of the run.
    pub(super) fn finish(&self, is_traced: bool) -> Outcome {
        if let Some(panic) = panics::heard() {
            self.fail(FailureKind::Panic, "panic", panic);
        }
        let (store, now) = (self.life().store(), self.now());
        let mut state = self.lock();
        let failure = state.checks.take_failure();
        if let Some(failure) = &failure {
            state.trace.line(now, "FAIL", &failure.invariant, format_args!("{}", failure.detail));
        }
        let log = if is_traced { crate::checks::log_lines(&store) } else { Vec::new() };
        let trace = std::mem::replace(&mut state.trace, Trace::new(false));
        Outcome {
            failure,
            trace_hash: trace.hash(),
            steps: state.steps,
            simulated_us: now,
            coverage: std::mem::take(&mut state.coverage),
            states: std::mem::take(&mut state.checks.log.states),
            trace: trace.into_lines(),
            log,
        }
    }
}

/// The scenario's number for whose stream this is.
pub(super) fn entity_of(stream: eventlog::StreamId) -> Entity {
    match journal::StreamName::parse(stream) {
        Some(journal::StreamName::Instance(id)) => names::entity(id),
        Some(journal::StreamName::Sled(id)) => Entity::Sled(names::sled_number(id)),
        Some(journal::StreamName::Project(_)) => Entity::Project,
        _ => Entity::System,
    }
}
