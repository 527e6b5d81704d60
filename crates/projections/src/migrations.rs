//! Migrations as they are read: both sides, and how it ended.

use crate::history::{Ends, History};
use lifecycle::event::Update;
use lifecycle::instance::{Instance, UnwindReason};
use lifecycle::migration::{CancelReason, Migration, Outcome, Side, SideState};
use lifecycle::{
    EventMeta, Generation, InstanceEvent, InstanceId, MigrationId, SagaId, SledId, Span, Step, Timestamp,
    VmmId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A migration as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRow {
    /// Its id.
    pub id: MigrationId,
    /// Whose guest moves.
    pub instance: InstanceId,
    /// The saga that began it.
    pub saga: SagaId,
    /// Where the guest was at the start.
    pub source: MigrationSide,
    /// Where it shall go.
    pub target: MigrationSide,
    /// When it began.
    pub started: Timestamp,
    /// How long it may take.
    pub deadline: Span,
    /// Why both sides were told to give up, if they were.
    pub cancelled: Option<CancelReason>,
    /// How it ended; none while it is under way.
    pub end: Option<MigrationEnd>,
}

/// One side of a migration, as last reported. It may change after the end: a source may speak late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationSide {
    /// Its VMM.
    pub vmm: VmmId,
    /// The VMM's sled.
    pub sled: SledId,
    /// Its state.
    pub state: SideState,
    /// Generation of its newest report; zero before the first.
    pub generation: Generation,
}

/// The end of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationEnd {
    /// When.
    pub at: Timestamp,
    /// Log position of the event that ended it.
    pub position: u64,
    /// How.
    pub outcome: MigrationOutcome,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigrationOutcome {
    /// The guest is in the target.
    Succeeded,
    /// The guest is, or ended, in the source.
    Failed,
    /// It was given up; the guest is, or ended, in the source.
    Cancelled(CancelReason),
    /// Its saga went back before the target was told to take the guest over.
    Unwound {
        /// The step it was at.
        step: Step,
        /// Why.
        reason: UnwindReason,
    },
    /// The guest is in neither.
    Lost,
}

impl fmt::Display for MigrationOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled(_) => "cancelled",
            Self::Unwound { .. } => "unwound",
            Self::Lost => "lost",
        })
    }
}

impl Ends for MigrationRow {
    fn ended_at(&self) -> Option<u64> {
        self.end.map(|end| end.position)
    }
}

impl MigrationSide {
    fn new(side: Side, instance: &Instance) -> Option<Self> {
        let sled = instance.vmms.get(&side.vmm)?.sled;
        Some(Self { vmm: side.vmm, sled, state: side.state, generation: side.generation })
    }

    fn follow(&mut self, side: Side) {
        self.state = side.state;
        self.generation = side.generation;
    }
}

/// Brings the rows of an instance's migrations up to date with an event; answers those that changed.
pub(crate) fn follow(
    history: &mut History<MigrationId, MigrationRow>,
    before: Option<&Instance>,
    after: &Instance,
    event: &InstanceEvent,
    meta: EventMeta,
) -> Vec<MigrationId> {
    let mut changed = Vec::new();
    if let InstanceEvent::MigrateBegan { saga, migration, .. } = event
        && let Some(row) = after.migrations.get(migration).and_then(|began| began_row(*saga, began, after))
    {
        put(history, row, &mut changed);
    }
    for migration in after.migrations.values() {
        let ended = ended_by(before, after, migration, event);
        // One that ended long ago may be dropped while its source has not spoken.
        let Some(row) = history.get(migration.id) else {
            continue;
        };
        let mut now = row.clone();
        now.source.follow(migration.source);
        now.target.follow(migration.target);
        now.cancelled = migration.cancelled;
        if let Some(outcome) = ended {
            let end = MigrationEnd { at: meta.time, position: meta.position, outcome };
            now.end.get_or_insert(end).outcome = outcome;
        }
        if now != *row {
            put(history, now, &mut changed);
        }
    }
    changed
}

fn put(history: &mut History<MigrationId, MigrationRow>, row: MigrationRow, changed: &mut Vec<MigrationId>) {
    changed.push(row.id);
    changed.extend(history.put(row.id, row));
}

fn began_row(saga: SagaId, began: &Migration, instance: &Instance) -> Option<MigrationRow> {
    Some(MigrationRow {
        id: began.id,
        instance: instance.id,
        saga,
        source: MigrationSide::new(began.source, instance)?,
        target: MigrationSide::new(began.target, instance)?,
        started: began.started,
        deadline: began.deadline,
        cancelled: began.cancelled,
        end: None,
    })
}

/// What the event makes of the migration, if it ends it, or shows its end in another light.
fn ended_by(
    before: Option<&Instance>,
    after: &Instance,
    migration: &Migration,
    event: &InstanceEvent,
) -> Option<MigrationOutcome> {
    let before = before?;
    let was = before.migrations.get(&migration.id)?;
    if before.migration == Some(migration.id) && after.migration != Some(migration.id) {
        return Some(match event {
            InstanceEvent::SagaUnwound { step, reason, .. } => {
                MigrationOutcome::Unwound { step: *step, reason: *reason }
            }
            _ => match before.outcome_of(was) {
                Outcome::Succeeded => MigrationOutcome::Succeeded,
                Outcome::Lost | Outcome::Undecided => MigrationOutcome::Lost,
                Outcome::Failed | Outcome::UnderWay | Outcome::HandedOver => {
                    was.cancelled.map_or(MigrationOutcome::Failed, MigrationOutcome::Cancelled)
                }
            },
        });
    }
    // A source that says late that the guest had left: it is in neither.
    match event {
        InstanceEvent::Updated(Update { failed: Some((vmm, _)), .. })
            if before.migration.is_none()
                && *vmm == was.target.vmm
                && before.active == Some(was.source.vmm) =>
        {
            Some(MigrationOutcome::Lost)
        }
        _ => None,
    }
}
