//! The lanes of a part of an instance's history.

use super::folds::Folds;
use crate::error::Error;
use crate::lanes::{LaneOf, Lanes};
use crate::names::SledNames;
use crate::source::{Source, stream_page};
use journal::{StreamName, read};
use lifecycle::{Instance, InstanceId};

/// Lanes of some versions of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneWindow {
    /// The rows of these versions, and every lane that is marked in one of them or passes through.
    pub lanes: Lanes,
    /// Of each lane, whether it was there before the first row.
    pub comes: Vec<bool>,
    /// Of each lane, whether it is there behind the last row.
    pub goes: Vec<bool>,
}

impl LaneWindow {
    /// Whether a lane, which is not marked in this row, passes through it.
    pub fn passes(&self, lane: usize, row: usize) -> bool {
        let it = &self.lanes.lanes[lane];
        (self.comes[lane] || it.first < row) && (self.goes[lane] || row < it.last)
    }
}

/// The lanes of the versions `from..=to`.
pub fn lane_window(
    source: &dyn Source,
    folds: &mut Folds<'_>,
    instance: InstanceId,
    (from, to): (u64, u64),
) -> Result<LaneWindow, Error> {
    let stream = StreamName::Instance(instance);
    let from = from.max(1);
    let count = usize::try_from((to + 1).saturating_sub(from)).unwrap_or(usize::MAX);
    let mut state = folds.at(stream, from - 1)?.instance().cloned();
    let mut sleds = SledNames::new(source);
    let mut lanes = Lanes::passing(state.as_ref(), &mut sleds);
    let comes = lanes.lanes.len();
    for mut record in stream_page(source, stream, from, count)? {
        record.context = None;
        lanes.take(&mut state, None, &read(&record)?, &mut sleds)?;
    }
    let lanes = lanes.finish();
    Ok(LaneWindow {
        comes: (0..lanes.lanes.len()).map(|nth| nth < comes).collect(),
        goes: lanes.lanes.iter().map(|lane| is_there(lane.of, state.as_ref())).collect(),
        lanes,
    })
}

fn is_there(lane: LaneOf, state: Option<&Instance>) -> bool {
    state.is_some_and(|state| match lane {
        LaneOf::Instance => true,
        LaneOf::Vmm(id) => state.vmms.contains_key(&id),
        LaneOf::Saga(id) => state.saga.as_ref().is_some_and(|saga| saga.id == id),
    })
}
