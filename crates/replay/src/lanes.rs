//! A history side by side: one lane for the instance, one for each of its VMMs, one for each saga.
//!
//! Invariants:
//! * every event has one row, and a mark in at least one lane;
//! * a lane lives from the row in which it is first marked to the last; in between it is drawn.

use crate::error::Error;
use crate::names::{SledNames, short};
use crate::source::{Flow, Source, each_of_stream};
use crate::summary::{step_name, word};
use crate::table::grid;
use crate::time::rfc3339;
use journal::{Event, Recorded, StreamName, apply_instance, event_name, read};
use lifecycle::instance::SagaProgress;
use lifecycle::saga::definition;
use lifecycle::{Instance, InstanceEvent, InstanceId, SagaId, SledId, VmmId};
use serde::Serialize;

/// What a lane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "of", content = "id")]
pub enum LaneOf {
    /// The instance itself.
    Instance,
    /// One VMM.
    Vmm(VmmId),
    /// One saga.
    Saga(SagaId),
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// What it is about.
    #[serde(flatten)]
    pub of: LaneOf,
    /// What people read above it.
    pub label: String,
    /// Row in which it begins.
    pub first: usize,
    /// Row in which it ends.
    pub last: usize,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneRow {
    /// Version in the stream.
    pub version: u64,
    /// Recorded time, RFC 3339 in UTC.
    pub time: String,
    /// Microseconds since the first event.
    pub since_first_us: u64,
    /// What happened in each lane, in the order of the lanes.
    pub cells: Vec<Option<String>>,
}

/// A history in lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lanes {
    /// The lanes, in order of their beginning; the instance's is the first.
    pub lanes: Vec<Lane>,
    /// The events, oldest first.
    pub rows: Vec<LaneRow>,
}

/// The history of an instance in lanes.
pub fn lanes(source: &dyn Source, instance: InstanceId) -> Result<Lanes, Error> {
    let mut sleds = SledNames::new(source);
    let mut found = Lanes::default();
    let (mut state, mut began): (Option<Instance>, Option<u64>) = (None, None);
    let seen = each_of_stream(source, StreamName::Instance(instance), &mut |mut record| {
        record.context = None;
        let recorded = read(&record)?;
        let began = *began.get_or_insert(recorded.meta.time.micros());
        found.take(&mut state, Some(began), &recorded, &mut sleds)?;
        Ok(Flow::Continue(()))
    })?;
    if seen == 0 { Err(Error::NoSuchInstance(instance)) } else { Ok(found.finish()) }
}

/// What happened in a lane, with the lane's label should it be new.
struct Mark {
    of: LaneOf,
    label: String,
    text: String,
}

impl Lanes {
    /// Without rows: the lanes that a state has, for rows that come after it.
    pub(crate) fn passing(state: Option<&Instance>, sleds: &mut SledNames<'_>) -> Self {
        let mut found = Self::default();
        let Some(state) = state else {
            return found;
        };
        let mut add = |of: LaneOf, label: String| found.lanes.push(Lane { of, label, first: 0, last: 0 });
        add(LaneOf::Instance, state.spec.name.to_uppercase());
        for vmm in state.vmms.values() {
            add(LaneOf::Vmm(vmm.id), vmm_label(vmm.id, vmm.sled, sleds));
        }
        if let Some(saga) = &state.saga {
            add(LaneOf::Saga(saga.id), saga_label(saga));
        }
        found
    }

    /// One more row, and the state after it. It began at `began`, microseconds since the Unix epoch; without, when
    /// the instance was created.
    pub(crate) fn take(
        &mut self,
        state: &mut Option<Instance>,
        began: Option<u64>,
        recorded: &Recorded,
        sleds: &mut SledNames<'_>,
    ) -> Result<(), Error> {
        let before = state.clone();
        apply_instance(state, recorded)?;
        let (Event::Instance(event), Some(after)) = (&recorded.event, state) else {
            return Ok(());
        };
        let began = began.unwrap_or_else(|| after.time_created.micros());
        let since_first_us = recorded.meta.time.micros().saturating_sub(began);
        let marks = marks(event, before.as_ref(), after, event_name(&recorded.event), sleds);
        self.push(recorded.meta.version, rfc3339(recorded.meta.time), since_first_us, marks);
        Ok(())
    }

    fn push(&mut self, version: u64, time: String, since_first_us: u64, marks: Vec<Mark>) {
        let row = self.rows.len();
        let mut cells = vec![None; self.lanes.len()];
        for Mark { of, label, text } in marks {
            let nth = self.lanes.iter().position(|lane| lane.of == of).unwrap_or_else(|| {
                self.lanes.push(Lane { of, label, first: row, last: row });
                cells.push(None);
                self.lanes.len() - 1
            });
            self.lanes[nth].last = row;
            cells[nth] = Some(text);
        }
        self.rows.push(LaneRow { version, time, since_first_us, cells });
    }

    /// Every row as wide as there are lanes.
    pub(crate) fn finish(mut self) -> Self {
        for row in &mut self.rows {
            row.cells.resize(self.lanes.len(), None);
        }
        self
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let mut rows = vec![vec!["VERSION".to_owned(), "AFTER".to_owned()]];
        rows[0].extend(self.lanes.iter().map(|lane| lane.label.clone()));
        for (nth, row) in self.rows.iter().enumerate() {
            let mut line = vec![format!("#{}", row.version), after(row.since_first_us)];
            line.extend(self.lanes.iter().zip(&row.cells).map(|(lane, cell)| match cell {
                Some(text) => text.clone(),
                None if lane.first < nth && nth < lane.last => "│".to_owned(),
                None => String::new(),
            }));
            rows.push(line);
        }
        grid(&rows)
    }
}

/// Seconds with milliseconds.
pub fn after(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us / 1_000 % 1_000)
}

fn marks(
    event: &InstanceEvent,
    before: Option<&Instance>,
    after: &Instance,
    name: &str,
    sleds: &mut SledNames<'_>,
) -> Vec<Mark> {
    let (was, is) = (before.map(Instance::run_state), after.run_state());
    let own = if was == Some(is) { name.to_owned() } else { format!("{name} → {is}") };
    let mut marks = vec![Mark { of: LaneOf::Instance, label: after.spec.name.to_uppercase(), text: own }];
    marks.extend(saga_marks(event, before, after));
    for vmm in after.vmms.values() {
        let label = vmm_label(vmm.id, vmm.sled, sleds);
        let mut text = Vec::new();
        let earlier = before.and_then(|before| before.vmms.get(&vmm.id));
        if earlier.is_none_or(|earlier| earlier.state != vmm.state) {
            text.push(word(&vmm.state));
        }
        if let InstanceEvent::VmmReported { vmm: reported, report } = event
            && *reported == vmm.id
        {
            for (side, part) in [("in", report.migration_in), ("out", report.migration_out)] {
                text.extend(part.map(|part| format!("{side} {}", word(&part.state))));
            }
            if text.is_empty() {
                text.push(format!("{} again", word(&report.state)));
            }
        }
        if let Some(gone) = vmm.gone.filter(|_| earlier.is_none_or(|earlier| earlier.gone.is_none())) {
            text.push(format!("gone ({})", word(&gone)));
        }
        if let InstanceEvent::ReportAnomalous { vmm: reported, report } = event
            && *reported == vmm.id
        {
            text.push(format!("said {}, ignored", word(&report.state)));
        }
        if !text.is_empty() {
            marks.push(Mark { of: LaneOf::Vmm(vmm.id), label, text: text.join(", ") });
        }
    }
    for (id, vmm) in before.into_iter().flat_map(|before| &before.vmms) {
        if !after.vmms.contains_key(id) {
            let label = vmm_label(*id, vmm.sled, sleds);
            marks.push(Mark { of: LaneOf::Vmm(*id), label, text: "forgotten".to_owned() });
        }
    }
    marks
}

fn saga_marks(event: &InstanceEvent, before: Option<&Instance>, after: &Instance) -> Option<Mark> {
    let (was, is) = (before.and_then(|before| before.saga.as_ref()), after.saga.as_ref());
    let saga = is.or(was)?;
    let text = match (was, is, event) {
        (_, _, InstanceEvent::SagaPaused { .. }) => "paused".to_owned(),
        (_, _, InstanceEvent::SagaResumed { .. }) => "goes on".to_owned(),
        (_, _, InstanceEvent::SagaRetried { .. }) => "sent again".to_owned(),
        (Some(was), Some(is), _) if was.id == is.id && was.step == is.step => return None,
        (_, Some(is), _) => step_name(is.step).to_owned(),
        (_, None, InstanceEvent::SagaUnwound { .. }) => "undone".to_owned(),
        (_, None, InstanceEvent::SagaEnded { done: true, .. }) => "done".to_owned(),
        (_, None, _) => "ended".to_owned(),
    };
    Some(Mark { of: LaneOf::Saga(saga.id), label: saga_label(saga), text })
}

fn vmm_label(vmm: VmmId, sled: SledId, sleds: &mut SledNames<'_>) -> String {
    format!("VMM {} ON {}", short(vmm), sleds.get(sled))
}

fn saga_label(saga: &SagaProgress) -> String {
    format!("{} {}", definition(saga.kind).name.to_uppercase(), short(saga.id))
}
