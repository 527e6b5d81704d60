//! The log in numbers, and how far what is read from it has come.

use crate::state::App;
use axum::Json;
use axum::extract::State;
use projections::Stage;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = LogStats)]
pub(super) struct StatsView {
    durable: u64,
    streams: u64,
    segments: u64,
    bytes: u64,
    batches: u64,
    appends: u64,
    syncs: u64,
    /// Why appends are refused, if they are.
    refusal: Option<String>,
    quarantined: Vec<QuarantinedView>,
    read_model: ReadModelView,
    live_instances: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Quarantined)]
struct QuarantinedView {
    stream: String,
    reason: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReadModel)]
struct ReadModelView {
    position: u64,
    stage: &'static str,
    /// Why it stopped, or why its next start will take longer.
    trouble: Option<String>,
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Json<StatsView> {
    let log = app.control.log();
    let stats = log.stats();
    let health = app.projections.health();
    let (stage, stopped) = match health.stage {
        Stage::CatchingUp => ("catching_up", None),
        Stage::Following => ("following", None),
        Stage::Stopped(why) => ("stopped", Some(why)),
    };
    let trouble = stopped.or(health.cache_trouble);
    let quarantined = log.quarantined().into_iter().map(|(stream, reason)| QuarantinedView {
        stream: journal::StreamName::parse(stream)
            .map_or_else(|| stream.to_string(), |name| name.to_string()),
        reason,
    });
    Json(StatsView {
        durable: stats.durable.get(),
        streams: stats.streams,
        segments: stats.segments,
        bytes: stats.bytes,
        batches: stats.batches,
        appends: stats.appends,
        syncs: stats.syncs,
        refusal: log.refusal().map(|refusal| refusal.to_string()),
        quarantined: quarantined.collect(),
        read_model: ReadModelView { position: health.position.get(), stage, trouble },
        live_instances: app.control.live_instances(),
    })
}
