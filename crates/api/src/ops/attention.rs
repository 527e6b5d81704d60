//! What needs somebody to look at it, one line each.

use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use eventlog::StreamId;
use journal::StreamName;
use lifecycle::instance::{Trouble, TroubleCause};
use lifecycle::{Instance, RunState};
use replay::time::rfc3339;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most lines of one answer; more is a fire, and the count says so.
const LINES_MAX: usize = 1_000;

#[derive(Serialize)]
pub(super) struct AttentionView {
    items: Vec<LineView>,
    /// How many there are in all, shown or not.
    total: usize,
}

#[derive(Serialize)]
struct LineView {
    kind: &'static str,
    /// The stream of what is meant, such as `instance/<id>`.
    subject: String,
    /// Its name, if it has one that is known.
    name: Option<String>,
    reason: String,
    since: Option<String>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    arrived: Arrived,
) -> Result<Json<AttentionView>, ApiError> {
    let model = arrived.fresh().await?;
    // One line per stream, whoever noticed: the log, the read model, or the actor that keeps failing.
    let failing = app.control.quarantined().into_iter().map(|(id, why)| (StreamName::Instance(id).id(), why));
    let noticed =
        app.control.log().quarantined().into_iter().chain(model.health().quarantined).chain(failing);
    let mut quarantined: BTreeMap<StreamId, String> = BTreeMap::new();
    for (stream, reason) in noticed {
        quarantined.entry(stream).or_insert(reason);
    }
    let mut items: Vec<LineView> = quarantined
        .into_iter()
        .map(|(stream, reason)| {
            let name = match StreamName::parse(stream) {
                Some(StreamName::Instance(id)) => model.read(|model| name_of(model.instance_state(id))),
                _ => None,
            };
            LineView { kind: "quarantined", subject: subject(stream), name, reason, since: None }
        })
        .collect();
    let mut total = items.len();
    model.read(|model| {
        for instance in model.instance_states().filter(|instance| instance.run_state() == RunState::Failed) {
            total += 1;
            if items.len() < LINES_MAX {
                items.push(failed(instance));
            }
        }
    });
    items.truncate(LINES_MAX);
    Ok(Json(AttentionView { items, total }))
}

fn subject(stream: StreamId) -> String {
    StreamName::parse(stream).map_or_else(|| stream.to_string(), |name| name.to_string())
}

fn name_of(instance: Option<&Instance>) -> Option<String> {
    instance.map(|instance| instance.spec.name.clone())
}

fn failed(instance: &Instance) -> LineView {
    let trouble = instance.failed.as_ref();
    LineView {
        kind: "failed",
        subject: StreamName::Instance(instance.id).to_string(),
        name: name_of(Some(instance)),
        reason: trouble.map_or_else(|| "it has failed".to_owned(), told),
        since: trouble.map(|trouble| rfc3339(trouble.at)),
    }
}

fn told(trouble: &Trouble) -> String {
    match &trouble.cause {
        TroubleCause::VmmFailed { vmm, reason } => format!("its VMM {vmm} failed ({reason:?})"),
        TroubleCause::StartUnwound { step, reason } => {
            format!("a start was undone at step {step:?} ({reason:?})")
        }
        TroubleCause::NoCapacity { short } => short.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::{FailureReason, InstanceId, Timestamp, VmmId};
    use uuid::Uuid;

    #[test]
    fn a_subject_is_a_stream_by_name_if_it_has_one() {
        let id = InstanceId::new(Uuid::from_u128(1));
        assert_eq!(subject(StreamName::Instance(id).id()), format!("instance/{id}"));
        let unknown = StreamId::new(eventlog::StreamKind(9), [0; 16]);
        assert_eq!(subject(unknown), unknown.to_string());
    }

    #[test]
    fn a_trouble_is_one_line() {
        let cause = TroubleCause::VmmFailed {
            vmm: VmmId::new(Uuid::from_u128(2)),
            reason: FailureReason::SledRebooted,
        };
        let line = told(&Trouble { cause, at: Timestamp::from_micros(1) });
        assert!(line.contains("00000000-0000-0000-0000-000000000002") && line.lines().count() == 1);
    }
}
