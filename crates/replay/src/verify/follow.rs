//! One instance, followed event by event.

use super::VerifyReport;
use super::finding::{FindingKind, Place};
use crate::guard::guarded;
use crate::source::ends_append;
use eventlog::cache::Snapshot;
use journal::{Event, FOLD_VERSION, FoldError, Recorded, apply_instance, decode_snapshot, encode_snapshot};
use lifecycle::instance::PauseCause;
use lifecycle::{Decision, Input, Instance, InstanceEvent, Policy, Span, decide, invariant};
use std::num::NonZeroU32;

/// What is known of an instance on the way.
#[derive(Default)]
pub(super) struct Followed {
    /// The fold.
    pub(super) state: Option<Instance>,
    /// The fold before the append that is being read.
    before: Option<Instance>,
    /// Events of that append.
    append: Vec<Recorded>,
    /// What it was decided on.
    input: Option<Input>,
    /// Snapshot in the cache, until its version is reached.
    snapshot: Option<Snapshot>,
    /// Invariants are not checked further once one is broken: the rest would follow from it.
    is_violated: bool,
}

impl Followed {
    pub(super) fn new(snapshot: Option<Snapshot>) -> Self {
        Self { snapshot: snapshot.filter(|snapshot| snapshot.fold == FOLD_VERSION), ..Self::default() }
    }

    /// Folds the event and, if it ends its append, checks the append. Answers whether the stream can be
    /// followed further.
    pub(super) fn take(
        &mut self,
        recorded: &Recorded,
        input: Option<Input>,
        place: &Place,
        policy: Policy,
        report: &mut VerifyReport,
    ) -> bool {
        if recorded.index.0 == 0 {
            self.before.clone_from(&self.state);
            self.append.clear();
            self.input = input;
        }
        if let Err(error) = apply_instance(&mut self.state, recorded) {
            let detail = match error {
                FoldError::Poison { detail, .. } => detail,
                FoldError::Decode(error) => error.to_string(),
            };
            report.add(place.finding(FindingKind::CannotFollow, detail));
            return false;
        }
        self.compare_snapshot(recorded, place, report);
        let is_end = ends_append(recorded.index);
        self.append.push(recorded.clone());
        if is_end {
            self.check_invariants(place, report);
            self.decide_again(place, policy, report);
            self.fold_again(place, report);
        }
        true
    }

    /// Says what is left over at the end of the log.
    pub(super) fn finish(&self, place: &Place, report: &mut VerifyReport) {
        if let Some(snapshot) = &self.snapshot {
            let detail = format!(
                "the cache holds a snapshot of version {}, which the log does not have",
                snapshot.version
            );
            report.add(place.finding(FindingKind::SnapshotDiffers, detail));
        }
    }

    fn compare_snapshot(&mut self, recorded: &Recorded, place: &Place, report: &mut VerifyReport) {
        let is_here = |snapshot: &mut Snapshot| snapshot.version.get() == recorded.meta.version;
        let (Some(snapshot), Some(state)) = (self.snapshot.take_if(is_here), &self.state) else {
            return;
        };
        report.snapshots += 1;
        let is_placed = snapshot.position.get() == recorded.meta.position;
        if snapshot.state != encode_snapshot(state) || !is_placed {
            let detail = format!(
                "the cache's snapshot of version {} (position {}) is not the fold; forget the cache",
                snapshot.version, snapshot.position
            );
            report.add(place.finding(FindingKind::SnapshotDiffers, detail));
        }
    }

    fn check_invariants(&mut self, place: &Place, report: &mut VerifyReport) {
        let Some(state) = self.state.as_ref().filter(|_| !self.is_violated) else {
            return;
        };
        let before = self.before.as_ref();
        let checked = guarded(|| invariant::check(state).and_then(|()| invariant::check_step(before, state)));
        let finding = match checked {
            Ok(Ok(())) => return,
            Ok(Err(violation)) => place.violation(&violation),
            Err(said) => place.finding(FindingKind::CannotFollow, format!("the rules give up on it: {said}")),
        };
        self.is_violated = true;
        report.add(finding);
    }

    fn decide_again(&self, place: &Place, policy: Policy, report: &mut VerifyReport) {
        let Some(input) = &self.input else {
            report.inputs_missing += 1;
            return;
        };
        report.inputs_decided += 1;
        let recorded: Vec<&InstanceEvent> = self.append.iter().filter_map(instance_event).collect();
        let policy = policy_of(&recorded, policy);
        let decided = guarded(|| decide(self.before.as_ref(), input, &policy));
        let difference = match decided {
            Ok(Ok(Decision::Events(events))) => difference(&recorded, &events),
            Ok(Ok(Decision::AskForRoom(size))) => Some(format!("the input asks for room of {size:?}")),
            Ok(Err(rejected)) => Some(format!("the input is refused: {rejected}")),
            Err(said) => Some(format!("the rules give up on the input: {said}")),
        };
        if let Some(difference) = difference {
            let detail = format!("{difference}; the input was {input:?}");
            report.add(place.finding(FindingKind::DecidesDifferently, detail));
        }
    }

    /// The same events again, over a state that has been through its snapshot.
    fn fold_again(&self, place: &Place, report: &mut VerifyReport) {
        let Some(state) = &self.state else {
            return;
        };
        let mut again = match self.before.as_ref().map(|before| decode_snapshot(&encode_snapshot(before))) {
            None => None,
            Some(Ok(before)) => Some(before),
            Some(Err(error)) => {
                let detail = format!("the state before it does not survive its snapshot: {error}");
                report.add(place.finding(FindingKind::FoldsDifferently, detail));
                return;
            }
        };
        let refolded = self.append.iter().try_for_each(|recorded| apply_instance(&mut again, recorded));
        // Bytes follow from values, whose maps are ordered; comparing values is the cheaper way to say it.
        let is_same = refolded.is_ok() && again.as_ref() == Some(state);
        if !is_same {
            let detail = "folding its append again from a snapshot gives other bytes";
            report.add(place.finding(FindingKind::FoldsDifferently, detail));
        }
    }
}

const fn instance_event(recorded: &Recorded) -> Option<&InstanceEvent> {
    match &recorded.event {
        Event::Instance(event) => Some(event),
        Event::Project(_) | Event::Sled(_) | Event::System(_) => None,
    }
}

/// The configuration may have changed since; what it said of a start, a migration, a pause or a restart is recorded
/// with it. Of a restart it is only whether the guest had run for long enough to begin at the first attempt again,
/// and that there was one left.
pub(crate) fn policy_of(recorded: &[&InstanceEvent], mut policy: Policy) -> Policy {
    for event in recorded {
        match event {
            InstanceEvent::StartBegan { deadline, .. } => policy.start_deadline = *deadline,
            InstanceEvent::MigrateBegan { deadline, .. } => policy.migrate_deadline = *deadline,
            InstanceEvent::SagaPaused { cause: PauseCause::Failures { count }, .. } => {
                policy.pause_after_failures = NonZeroU32::new(*count);
            }
            InstanceEvent::RestartTried { attempt } => {
                let restart = &mut policy.restart;
                restart.budget = restart.budget.max(*attempt);
                restart.stable = if *attempt == 1 { Span::default() } else { Span::from_micros(u64::MAX) };
            }
            _ => {}
        }
    }
    policy
}

/// The first event in which the two differ.
fn difference(recorded: &[&InstanceEvent], decided: &[InstanceEvent]) -> Option<String> {
    let count = recorded.len().max(decided.len());
    (0..count).find_map(|n| match (recorded.get(n), decided.get(n)) {
        (Some(was), Some(is)) if *was == is => None,
        (was, is) => {
            let text = |event: Option<&InstanceEvent>| {
                event.map_or_else(|| "nothing".to_owned(), |event| format!("{event:?}"))
            };
            let (was, is) = (text(was.copied()), text(is));
            Some(format!("event {} was recorded as {was}, the input decides to {is}", n + 1))
        }
    })
}
