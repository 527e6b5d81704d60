//! What clients were told, and whether the log still says so.

use super::Broken;
use crate::world::{ClientAnswer, names};
use eventlog::{Position, SimStore};
use lifecycle::RequestId;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Acknowledged requests, by the append that carries each out.
#[derive(Default)]
pub(crate) struct History {
    acknowledged: BTreeMap<RequestId, u64>,
    /// Ids under which something else was accepted.
    other_body: BTreeMap<RequestId, u64>,
    /// Requests in the log, durable or not, by the append that carries each out.
    written: BTreeMap<RequestId, u64>,
}

impl History {
    pub(super) fn written_for(&mut self, request: RequestId, position: u64) {
        self.written.insert(request, position);
    }

    pub(super) fn crashed(&mut self, durable: Position) {
        self.written.retain(|_, position| *position <= durable.get());
    }

    /// C7: a refused request left no trace.
    pub(super) fn refused(&self, request: RequestId) -> Result<(), Broken> {
        match self.written.get(&request) {
            None => Ok(()),
            Some(position) => {
                let id = names::request_number(request);
                Err(Broken::new("C7", format!("r{id} was refused and is in the log at p{position}")))
            }
        }
    }

    /// I8: the same id always gets the same answer.
    pub(super) fn acknowledged(&mut self, request: RequestId, position: u64) -> Result<(), Broken> {
        let id = names::request_number(request);
        if let Some(other) = self.other_body.get(&request) {
            let detail = format!("r{id} was accepted at p{position}, and with another body at p{other}");
            return Err(Broken::new("I8", detail));
        }
        match self.acknowledged.insert(request, position) {
            Some(before) if before != position => {
                let detail = format!("r{id} was answered with p{before}, then with p{position}");
                Err(Broken::new("I8", detail))
            }
            _ => Ok(()),
        }
    }

    /// I8: an id that was used is refused with another body.
    pub(super) fn answered_other_body(
        &mut self,
        request: RequestId,
        answer: &ClientAnswer,
    ) -> Result<(), Broken> {
        let ClientAnswer::Accepted(Some(position)) = answer else {
            return Ok(());
        };
        let id = names::request_number(request);
        match self.acknowledged.get(&request) {
            Some(before) => {
                let detail = format!("r{id} was accepted at p{before}, and with another body at p{position}");
                Err(Broken::new("I8", detail))
            }
            None => {
                self.other_body.insert(request, *position);
                Ok(())
            }
        }
    }

    /// I6: an acknowledged command is in the log for ever.
    pub(super) fn is_in(&self, store: &SimStore) -> Result<(), Broken> {
        let said = |record: &eventlog::Record| {
            let request = record.context.as_ref().and_then(|context| context.request)?;
            Some((RequestId::new(Uuid::from_bytes(request)), record.position.get()))
        };
        let present: BTreeMap<RequestId, u64> = store.records().iter().filter_map(said).collect();
        for (request, position) in self.acknowledged.iter().chain(&self.other_body) {
            if present.get(request) != Some(position) {
                let id = names::request_number(*request);
                let detail = format!("r{id} was acknowledged at p{position} and is lost");
                return Err(Broken::new("I6", detail));
            }
        }
        Ok(())
    }
}
