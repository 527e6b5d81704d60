//! `/ops/v1`: what operators ask, one file per noun. Ours; nobody else's clients depend on it.

pub(crate) mod attention;
mod events;
mod explain;
mod groups;
mod instances;
mod keep;
mod log;
mod migrations;
mod past;
mod quotas;
mod records;
mod sagas;
mod sled_explain;
mod sleds;
mod timer_words;
mod timers;
mod trace;
mod verbs;

use crate::openapi::schemas_of;
use crate::state::App;
use axum::Router;
use axum::routing::{get, post};
use serde_json::Value;
use std::sync::Arc;

/// Every route below `/ops/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/instances/{instance}", get(instances::view))
        .route("/instances/{instance}/history", get(instances::history))
        .route("/instances/{instance}/diff", get(past::diff))
        .route("/fleet", get(past::fleet))
        .route("/instances/{instance}/explain", get(explain::view))
        .route("/instances/{instance}/migrate", post(verbs::migrate))
        .route("/instances/{instance}/migrate/cancel", post(verbs::cancel_migration))
        .route("/instances/{instance}/force-stop", post(verbs::force_stop))
        .route("/migrations", get(migrations::list))
        .route("/migrations/{migration}", get(migrations::view))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{saga}", get(sagas::view))
        .route("/sagas/{saga}/cancel", post(sagas::cancel))
        .route("/sagas/{saga}/pause", post(sagas::pause))
        .route("/sagas/{saga}/resume", post(sagas::resume))
        .route("/sagas/{saga}/retry", post(sagas::retry))
        .route("/quotas/{scope}", get(quotas::view).put(quotas::set))
        .route("/anti-affinity-groups", get(groups::list).post(groups::create))
        .route("/anti-affinity-groups/{group}", get(groups::view).delete(groups::delete))
        .route("/anti-affinity-groups/{group}/members/{instance}", post(groups::join).delete(groups::leave))
        .route("/timers", get(timers::list))
        .route("/timers/{timer}", get(timers::explain))
        .route("/timers/{timer}/activate", post(timers::activate))
        .route("/sleds", get(sleds::list))
        .route("/sleds/{sled}", get(sleds::view))
        .route("/sleds/{sled}/explain", get(sled_explain::view))
        .route("/sleds/{sled}/cordon", post(sleds::cordon))
        .route("/sleds/{sled}/uncordon", post(sleds::uncordon))
        .route("/sleds/{sled}/drain", post(sleds::drain))
        .route("/sleds/{sled}/expunge", post(sleds::expunge))
        .route("/log/stats", get(log::stats))
        .route("/log/tail", get(keep::tail))
        .route("/log/records", get(records::page))
        .route("/log/export", get(keep::export_log))
        .route("/log/snapshot", post(keep::snapshot))
        .route("/log/compact", post(keep::compact))
        .route("/attention", get(attention::list))
        .route("/events", get(events::feed))
        .route("/trace/{request_id}", get(trace::view))
}

/// The schema of every view, with its name.
pub(crate) fn schemas(each: &mut dyn FnMut((String, Value))) {
    schemas_of::<attention::AttentionView>(each);
    schemas_of::<groups::GroupsView>(each);
    schemas_of::<instances::HistoryView>(each);
    schemas_of::<keep::SnapshotView>(each);
    schemas_of::<keep::CompactView>(each);
    schemas_of::<keep::TailView>(each);
    schemas_of::<log::StatsView>(each);
    schemas_of::<migrations::MigrationView>(each);
    schemas_of::<quotas::QuotaView>(each);
    schemas_of::<sagas::SagaView>(each);
    schemas_of::<sled_explain::ExplainedView>(each);
    schemas_of::<sleds::SledView>(each);
    schemas_of::<timers::TimersView>(each);
    schemas_of::<timers::ExplainedView>(each);
    schemas_of::<verbs::AskedView>(each);
}
