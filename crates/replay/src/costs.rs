//! What a start and a stop cost in appends, measured from what was written.
//!
//! A start counts from the append that began it to the one after which the instance is `running`; one
//! that did not get there is not counted. A stop counts from the first report that shows the VMM going
//! down to the append after which the instance is `stopped`.

use crate::error::Error;
use crate::source::{PAGE_RECORDS, Source, ends_append, stream_page};
use journal::{Event, Recorded, StreamName, apply_instance, read};
use lifecycle::{Instance, InstanceEvent, InstanceId, RunState, VmmState};
use serde::Serialize;

/// Appends that starts and stops took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AppendCosts {
    /// From the append that began the start to the one that showed the guest running.
    pub start: Cost,
    /// From the first report of going down to the append that made the instance stopped.
    pub stop: Cost,
}

/// Appends that several runs of one thing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Runs that reached their goal.
    pub runs: u64,
    /// Appends of all of them.
    pub appends: u64,
    /// Appends of the dearest.
    pub appends_max: u64,
}

impl Cost {
    fn add(&mut self, appends: u64) {
        self.runs += 1;
        self.appends += appends;
        self.appends_max = self.appends_max.max(appends);
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.appends += other.appends;
        self.appends_max = self.appends_max.max(other.appends_max);
    }
}

impl AppendCosts {
    pub(crate) fn merge(&mut self, other: Self) {
        self.start.merge(other.start);
        self.stop.merge(other.stop);
    }
}

/// Costs of one instance's starts and stops.
pub fn append_costs(source: &dyn Source, instance: InstanceId) -> Result<AppendCosts, Error> {
    let mut meter = Meter::default();
    let mut next = 1;
    loop {
        let page = stream_page(source, StreamName::Instance(instance), next, PAGE_RECORDS)?;
        for record in &page {
            meter.take(&read(record)?)?;
        }
        next += page.len() as u64;
        if page.len() < PAGE_RECORDS {
            break;
        }
    }
    if next == 1 { Err(Error::NoSuchInstance(instance)) } else { Ok(meter.costs) }
}

/// Counts along one instance's stream.
#[derive(Default)]
pub(crate) struct Meter {
    state: Option<Instance>,
    /// Appends of the start under way.
    start: Option<u64>,
    /// Appends of the stop under way.
    stop: Option<u64>,
    pub(crate) costs: AppendCosts,
}

impl Meter {
    pub(crate) fn take(&mut self, recorded: &Recorded) -> Result<(), Error> {
        if let Event::Instance(event) = &recorded.event {
            if matches!(event, InstanceEvent::StartBegan { .. }) {
                self.start = Some(0);
            }
            if self.stop.is_none() && self.shows_going_down(event) {
                self.stop = Some(0);
            }
        }
        apply_instance(&mut self.state, recorded)?;
        if ends_append(recorded.index) {
            self.append_ended();
        }
        Ok(())
    }

    fn append_ended(&mut self) {
        let Some(run_state) = self.state.as_ref().map(Instance::run_state) else {
            return;
        };
        self.start = self.start.map(|appends| appends + 1);
        self.stop = self.stop.map(|appends| appends + 1);
        match run_state {
            RunState::Running => {
                self.start.take().into_iter().for_each(|appends| self.costs.start.add(appends));
            }
            RunState::Stopped => {
                self.start = None;
                self.stop.take().into_iter().for_each(|appends| self.costs.stop.add(appends));
            }
            RunState::Failed | RunState::Destroyed => {
                self.start = None;
                self.stop = None;
            }
            RunState::Stopping => self.start = None,
            RunState::Creating
            | RunState::Starting
            | RunState::Rebooting
            | RunState::Migrating
            | RunState::Repairing => {}
        }
    }

    /// Only what the active VMM does moves the instance: one that was given up may go down beside it.
    fn shows_going_down(&self, event: &InstanceEvent) -> bool {
        let active = self.state.as_ref().and_then(|state| state.active);
        match event {
            InstanceEvent::VmmReported { vmm, report } => {
                active == Some(*vmm)
                    && matches!(report.state, VmmState::Stopping | VmmState::Stopped | VmmState::Destroyed)
            }
            _ => false,
        }
    }
}
