//! Why an instance is as it is.

use super::attention;
use super::instances::past_error_of;
use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, instance};
use crate::state::App;
use actors::CommandError;
use axum::Json;
use axum::extract::State;
use journal::StreamName;
use lifecycle::saga::SagaKind;
use lifecycle::{Rejected, RequestId, SledId, Span};
use projections::{Among, Order, ReadModel, SagaOutcome};
use replay::explain::{Contact, Doing, Explanation, HeldBack, Present, Unreachable, explain};
use replay::{At, Entry};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ended sagas that "usual" is drawn from.
const SAMPLE_MAX: usize = 1_000;

/// An explanation, and who asked last.
#[derive(Serialize)]
pub(super) struct ExplainedView {
    #[serde(flatten)]
    explanation: Explanation,
    asked_by: Option<AskedBy>,
}

/// The newest request that the instance has taken.
#[derive(Serialize)]
struct AskedBy {
    actor: String,
    request_id: Option<RequestId>,
    reason: Option<String>,
    event: &'static str,
    version: u64,
    time: String,
}

impl From<Entry> for AskedBy {
    fn from(entry: Entry) -> Self {
        let Entry { actor, request_id, reason, event, version, time, .. } = entry;
        Self { actor, request_id, reason, event, version, time }
    }
}

/// What is known at present, gathered before the explanation is written.
struct Known {
    sleds: BTreeMap<SledId, (String, Contact)>,
    usual: BTreeMap<Doing, Span>,
}

impl Present for Known {
    fn sled_name(&self, sled: SledId) -> String {
        self.sleds.get(&sled).map_or_else(|| sled.to_string(), |(name, _)| name.clone())
    }

    fn contact(&self, sled: SledId) -> Contact {
        self.sleds.get(&sled).map(|(_, contact)| contact.clone()).unwrap_or_default()
    }

    fn usual(&self, what: Doing) -> Option<Span> {
        self.usual.get(&what).copied()
    }
}

pub(super) async fn view(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<ExplainedView>, ApiError> {
    let found = instance(path, &params, &arrived).await?;
    // Of what is quarantined the read model knows what was last folded, if anything.
    let why = attention::quarantined(&app).remove(&StreamName::Instance(found.id).id());
    let last_known = match &why {
        Some(_) => arrived.fresh().await?.read(|model| model.instance_state(found.id).cloned()),
        None => None,
    };
    let state = match last_known {
        Some(state) => Box::new(state),
        None => match app.control.instance(found.id).await {
            // What is deleted has no actor to ask: its history says why it is gone.
            Err(CommandError::Rejected(Rejected::NoSuchInstance(_))) => {
                let past = replay::state_at(&app.past, found.id, At::Now);
                Box::new(past.map_err(|error| past_error_of(error, || found.not_found()))?.state)
            }
            state => state.map_err(|error| command_error(error, || found.not_found()))?,
        },
    };
    let mut sleds = BTreeMap::new();
    for vmm in state.vmms.values() {
        let status = app.control.sled_status(vmm.sled).await;
        let contact = status.map_or_else(Contact::default, |status| Contact {
            last_heard: status.last_contact,
            unreachable: status.unreachable.map(|(reason, since)| Unreachable { reason, since }),
            held_back: status
                .circuit
                .map(|circuit| HeldBack { since: circuit.since, next_probe: circuit.next_probe }),
        });
        sleds.insert(vmm.sled, (vmm.sled.to_string(), contact));
    }
    let usual = arrived.fresh().await?.read(|model| {
        for (sled, (name, _)) in &mut sleds {
            if let Some(row) = model.sled(*sled) {
                name.clone_from(&row.properties.name);
            }
        }
        usual(model)
    });
    let present = Known { sleds, usual };
    let asked = replay::last_asked(&app.past, found.id, state.head.version);
    let explanation = explain(&state, &app.control.policy(), &present);
    if let Some(why) = why {
        // Its history cannot be read, or need not be: who asked last is not why.
        let explanation = explanation.quarantined(&why);
        return Ok(Json(ExplainedView { explanation, asked_by: None }));
    }
    let asked = asked.map_err(|error| past_error_of(error, || found.not_found()))?;
    Ok(Json(ExplainedView { explanation, asked_by: asked.map(AskedBy::from) }))
}

/// Medians of what this fleet's own sagas and migrations took, among the newest by id.
fn usual(model: &ReadModel) -> BTreeMap<Doing, Span> {
    let sagas = model.sagas(Among::All, Order::Descending, None, SAMPLE_MAX);
    let starts = sagas.rows.iter().filter(|row| row.kind == SagaKind::Start).filter_map(|row| {
        let end = row.end.as_ref().filter(|end| end.outcome == SagaOutcome::Done)?;
        Some(end.at.since(row.started))
    });
    let migrations = model.migrations(Among::All, Order::Descending, None, SAMPLE_MAX);
    let moves = migrations.rows.iter().filter_map(|row| Some(row.end?.at.since(row.started)));
    [(Doing::Starting, median(starts)), (Doing::Migrating, median(moves))]
        .into_iter()
        .filter_map(|(doing, span)| Some((doing, span?)))
        .collect()
}

fn median(spans: impl Iterator<Item = Span>) -> Option<Span> {
    let mut spans: Vec<Span> = spans.collect();
    spans.sort();
    spans.get(spans.len() / 2).copied()
}
