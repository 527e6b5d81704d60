//! Whether this build can go on from a history: every event is read and folded, every decision repeated, and
//! whatever may come next for every instance is tried on its newest state. Nothing is written.
//!
//! Invariants:
//! * what this build cannot read, cannot fold or gives up on is named by instance and place;
//! * that the past would be decided differently is told and stops nothing: the past has been decided.

use crate::at::At;
use crate::error::Error;
use crate::fleet::Folds;
use crate::guard::guarded;
use crate::source::{Flow, Source, each_record};
use crate::verify::{Finding, FindingKind, Options, Progress, Scope, verify};
use lifecycle::{
    Effect, EffectResult, Input, Instance, Policy, Refusal, SagaKind, Step, deadlines, decide, effects,
};
use serde::Serialize;

/// What stands in the way of an upgrade that is kept; the rest is counted.
pub const BLOCKED_MAX: usize = 100;

/// A saga that will be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenSaga {
    /// Name of the instance.
    pub instance: String,
    /// Which saga.
    pub saga: SagaKind,
    /// Its step.
    pub step: Step,
}

/// What was tried and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Upgrade {
    /// Events read and folded.
    pub events: u64,
    /// Instances.
    pub instances: u64,
    /// Inputs that were tried on the newest states.
    pub tried: u64,
    /// Sagas under way: the new build goes on with them.
    pub sagas: Vec<OpenSaga>,
    /// What cannot go on, in order of the log.
    pub blocked: Vec<Finding>,
    /// How many more there are.
    pub blocked_dropped: u64,
    /// Appends that this build would have decided differently.
    pub decided_differently: u64,
}

impl Upgrade {
    fn block(&mut self, finding: Finding) {
        if self.blocked.len() < BLOCKED_MAX {
            self.blocked.push(finding);
        } else {
            self.blocked_dropped += 1;
        }
    }
}

/// Checks. `progress` is called once per page read.
pub fn check_upgrade(
    source: &dyn Source,
    policy: Policy,
    progress: &mut dyn FnMut(Progress),
) -> Result<Upgrade, Error> {
    let options = Options { policy, cache: None };
    let report = verify(source, Scope::All, &options, progress)?;
    let mut upgrade = Upgrade { events: report.events, instances: report.instances, ..Upgrade::default() };
    upgrade.blocked_dropped = report.findings_dropped;
    for finding in report.findings {
        if finding.kind == FindingKind::DecidesDifferently {
            upgrade.decided_differently += 1;
        } else {
            upgrade.block(finding);
        }
    }
    if !upgrade.blocked.is_empty() {
        return Ok(upgrade);
    }
    let mut folds = Folds::default();
    each_record(source, source.durable().get(), &mut |_| {}, &mut |record| {
        folds.take(record, At::Now);
        Ok(Flow::Continue(()))
    })?;
    for state in folds.instances.values().flatten() {
        if let Some(saga) = &state.saga {
            upgrade.sagas.push(OpenSaga {
                instance: state.spec.name.clone(),
                saga: saga.kind,
                step: saga.step,
            });
        }
        try_on(state, &policy, &mut upgrade);
    }
    Ok(upgrade)
}

/// Whatever may come next: a look, every deadline, and every answer to what would be sent.
fn try_on(state: &Instance, policy: &Policy, upgrade: &mut Upgrade) {
    let place = (state.head.version, state.head.position);
    let gives_up = |what: &str, said: String| {
        let detail = format!("{}: the rules give up on {what}: {said}", state.spec.name);
        Finding::of_instance(FindingKind::CannotFollow, state.id, place, detail)
    };
    let inputs = match guarded(|| next_inputs(state, policy)) {
        Ok(inputs) => inputs,
        Err(said) => return upgrade.block(gives_up("what it would send", said)),
    };
    for input in inputs {
        upgrade.tried += 1;
        if let Err(said) = guarded(|| decide(Some(state), &input, policy)) {
            upgrade.block(gives_up(&format!("{input:?}"), said));
        }
    }
}

fn next_inputs(state: &Instance, policy: &Policy) -> Vec<Input> {
    let mut inputs = vec![Input::Reconsider];
    inputs.extend(deadlines(state, policy).into_iter().map(|deadline| Input::Deadline(deadline.kind)));
    let answers = [EffectResult::Done(None), EffectResult::Refused(Refusal::NoSuchVmm)];
    let answered = |effect: Effect| answers.map(|result| Input::Outcome { effect, result });
    inputs.extend(effects(state).into_iter().flat_map(answered));
    inputs
}
