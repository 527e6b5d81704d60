//! The whole fleet at one moment: every instance with its state and place, every sled with what it held.
//!
//! Invariants:
//! * each row is the fold of its own stream up to the moment, by the same `evolve` as everywhere;
//! * a stream that cannot be folded is named, and hides no other.

use crate::at::At;
use crate::error::Error;
use crate::source::{Flow, Source, each_record};
use crate::time::rfc3339;
use crate::verify::Progress;
use eventlog::Record;
use journal::{Event, StreamName, apply_instance, apply_project, apply_sled, read};
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{Instance, InstanceId, ProjectId, RunState, SagaKind, SledId, Step};
use serde::Serialize;
use std::collections::BTreeMap;

/// The fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fleet {
    /// Position of the newest event folded; zero if there was none yet.
    pub position: u64,
    /// Latest recorded time folded, RFC 3339 in UTC.
    pub time: Option<String>,
    /// Instances that were not deleted, by name.
    pub instances: Vec<FleetInstance>,
    /// Instances that were deleted by then.
    pub deleted: u64,
    /// Sleds by name.
    pub sleds: Vec<FleetSled>,
    /// Streams that could not be folded, with the reason.
    pub unreadable: Vec<Unfoldable>,
}

/// One instance of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// Its project's name, or id if the log does not know it.
    pub project: String,
    /// The state that users saw.
    pub run_state: RunState,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Name of the sled of its active VMM.
    pub sled: Option<String>,
    /// Name of the sled that its guest was moving to.
    pub target: Option<String>,
    /// The saga under way and its step.
    pub saga: Option<(SagaKind, Step)>,
    /// Version of its newest event.
    pub version: u64,
}

/// One sled of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetSled {
    /// Its id.
    pub id: SledId,
    /// Its name.
    pub name: String,
    /// VMMs that held room on it.
    pub vmms: u64,
    /// Hardware threads held.
    pub threads_held: u64,
    /// Hardware threads in all.
    pub threads: u32,
    /// Bytes of memory held.
    pub memory_held: u64,
    /// Bytes of memory in all.
    pub memory: u64,
    /// `in service`, `cordoned`, `draining` or `expunged`.
    pub state: &'static str,
}

/// A stream that could not be folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfoldable {
    /// Its name.
    pub stream: String,
    /// Why.
    pub why: String,
}

/// Every stream folded up to a moment.
#[derive(Default)]
pub(crate) struct Folds {
    pub(crate) instances: BTreeMap<InstanceId, Option<Instance>>,
    projects: BTreeMap<ProjectId, Option<Project>>,
    sleds: BTreeMap<SledId, Option<Sled>>,
    broken: BTreeMap<String, String>,
    position: u64,
    time: Option<u64>,
}

impl Folds {
    /// Folds one record. Who wrote it, and on what input, does not matter to the state.
    pub(crate) fn take(&mut self, mut record: Record, at: At) {
        record.context = None;
        let recorded = match read(&record) {
            Ok(recorded) => recorded,
            Err(error) => {
                let name = StreamName::parse(record.stream);
                let name = name.map_or_else(|| record.stream.to_string(), |name| name.to_string());
                self.broken.entry(name).or_insert_with(|| error.to_string());
                return;
            }
        };
        if !at.includes(&recorded) {
            return;
        }
        self.position = recorded.meta.position;
        self.time = self.time.max(Some(recorded.meta.time.micros()));
        if !self.broken.is_empty() && self.broken.contains_key(&recorded.stream.to_string()) {
            return;
        }
        let folded = match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), _) => apply_instance(self.instances.entry(id).or_default(), &recorded),
            (StreamName::Project(id), _) => apply_project(self.projects.entry(id).or_default(), &recorded),
            (StreamName::Sled(id), _) => apply_sled(self.sleds.entry(id).or_default(), &recorded),
            (StreamName::System, Event::System(_)) => Ok(()),
            (StreamName::System, _) => Ok(()),
        };
        if let Err(error) = folded {
            self.broken.insert(recorded.stream.to_string(), error.to_string());
        }
    }

    fn sled_name(&self, id: SledId) -> String {
        let known = self.sleds.get(&id).and_then(Option::as_ref);
        known.map_or_else(|| crate::names::short(id), |sled| sled.properties.name.clone())
    }

    fn row(&self, state: &Instance) -> FleetInstance {
        let project = self.projects.get(&state.spec.project).and_then(Option::as_ref);
        FleetInstance {
            id: state.id,
            name: state.spec.name.clone(),
            project: project.map_or_else(|| state.spec.project.to_string(), |project| project.name.clone()),
            run_state: state.run_state(),
            since: rfc3339(state.time_run_state_updated),
            sled: state.active_vmm().map(|vmm| self.sled_name(vmm.sled)),
            target: state.target_vmm().map(|vmm| self.sled_name(vmm.sled)),
            saga: state.saga.as_ref().map(|saga| (saga.kind, saga.step)),
            version: state.head.version,
        }
    }

    fn fleet(self) -> Fleet {
        let mut sleds: BTreeMap<SledId, FleetSled> = BTreeMap::new();
        for sled in self.sleds.values().flatten() {
            sleds.insert(sled.id, empty_sled(sled));
        }
        let states = || self.instances.values().flatten();
        for vmm in states().flat_map(|state| state.vmms.values()).filter(|vmm| vmm.reservation.is_some()) {
            if let Some(sled) = sleds.get_mut(&vmm.sled) {
                sled.vmms += 1;
                sled.threads_held += u64::from(vmm.size.ncpus);
                sled.memory_held += vmm.size.memory;
            }
        }
        let mut instances: Vec<FleetInstance> =
            states().filter(|state| state.deleted.is_none()).map(|state| self.row(state)).collect();
        instances.sort_by(|a, b| (&a.project, &a.name, a.id).cmp(&(&b.project, &b.name, b.id)));
        let mut sleds: Vec<FleetSled> = sleds.into_values().collect();
        sleds.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Fleet {
            position: self.position,
            time: self.time.map(|time| rfc3339(lifecycle::Timestamp::from_micros(time))),
            deleted: states().filter(|state| state.deleted.is_some()).count() as u64,
            instances,
            sleds,
            unreadable: self.broken.into_iter().map(|(stream, why)| Unfoldable { stream, why }).collect(),
        }
    }
}

fn empty_sled(sled: &Sled) -> FleetSled {
    let state = match (sled.expunged, sled.draining, sled.provisionable) {
        (Some(_), _, _) => "expunged",
        (None, Some(_), _) => "draining",
        (None, None, false) => "cordoned",
        (None, None, true) => "in service",
    };
    FleetSled {
        id: sled.id,
        name: sled.properties.name.clone(),
        vmms: 0,
        threads_held: 0,
        threads: sled.properties.threads,
        memory_held: 0,
        memory: sled.properties.memory,
        state,
    }
}

/// The fleet as it was at `at`: a position, a time or now. `progress` is called once per page read.
pub fn fleet_at(source: &dyn Source, at: At, progress: &mut dyn FnMut(Progress)) -> Result<Fleet, Error> {
    let durable = source.durable().get();
    let last = match at {
        At::Position(position) if position > durable => {
            return Err(Error::NoSuchPosition { position, durable });
        }
        At::Position(position) => position,
        // Clocks jump: a later position may have an earlier time.
        At::Now | At::Version(_) | At::Time(_) => durable,
    };
    let mut folds = Folds::default();
    each_record(source, last, progress, &mut |record| {
        folds.take(record, at);
        Ok(Flow::Continue(()))
    })?;
    Ok(folds.fleet())
}
