//! Migrations, under way and over: both sides, timing, outcome.

use crate::error::{ApiError, echo};
use crate::fresh::Arrived;
use crate::query::Params;
use crate::selector::{RawPath, path_text};
use axum::Json;
use lifecycle::migration::{CancelReason, SideState};
use lifecycle::{Generation, InstanceId, MigrationId, SagaId, SledId, VmmId};
use projections::{Among, MigrationRow, MigrationSide, Order, PAGE_ROWS_MAX};
use replay::time::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Rows of an answer if the client does not say.
const ROWS_DEFAULT: usize = 100;

/// A page of something that begins and ends, by id.
#[derive(Serialize)]
pub(super) struct RowsView<T> {
    pub(super) items: Vec<T>,
    /// What to give as `after` to go on; none at the end.
    pub(super) next_after: Option<Uuid>,
}

/// Where to go on, and how many: `after`, `limit`, `all`.
pub(super) struct Rows {
    pub(super) after: Option<Uuid>,
    pub(super) limit: usize,
    pub(super) among: Among,
}

impl Rows {
    pub(super) fn read(params: &Params) -> Result<Self, ApiError> {
        let limit = match params.number("limit")? {
            None => ROWS_DEFAULT,
            Some(0) => return Err(ApiError::invalid_request("query parameter \"limit\" must be at least 1")),
            Some(wanted) => usize::try_from(wanted).unwrap_or(usize::MAX).min(PAGE_ROWS_MAX),
        };
        let after = params.get("after")?.map(|text| uuid("after", text)).transpose()?;
        let among = match params.get("state")? {
            None | Some("all") => Among::All,
            Some("under_way") => Among::UnderWay,
            Some(other) => {
                return Err(ApiError::invalid_request(format!(
                    "query parameter \"state\": \"{}\" is neither \"all\" nor \"under_way\"",
                    echo(other)
                )));
            }
        };
        Ok(Self { after, limit, among })
    }
}

/// A UUID that a client names.
pub(super) fn uuid(what: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text)
        .map_err(|_| ApiError::invalid_request(format!("{what}: \"{}\" is not a UUID", echo(text))))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Migration)]
pub(super) struct MigrationView {
    #[schema(value_type = uuid::Uuid)]
    id: MigrationId,
    #[schema(value_type = uuid::Uuid)]
    instance_id: InstanceId,
    #[schema(value_type = uuid::Uuid)]
    saga_id: SagaId,
    source: SideView,
    target: SideView,
    time_started: String,
    deadline_s: u64,
    /// `requested`, `deadline` or `refused`, if both sides were told to give up.
    #[schema(value_type = Option<String>)]
    cancelled: Option<CancelReason>,
    time_ended: Option<String>,
    /// Seconds from beginning to end.
    took_s: Option<f64>,
    /// `succeeded`, `failed`, `cancelled`, `unwound` or `lost`; none while it is under way.
    outcome: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MigrationSide)]
struct SideView {
    #[schema(value_type = uuid::Uuid)]
    vmm_id: VmmId,
    #[schema(value_type = uuid::Uuid)]
    sled_id: SledId,
    /// `pending`, `in_progress`, `completed` or `failed`.
    #[schema(value_type = String)]
    state: SideState,
    #[schema(value_type = u64)]
    generation: Generation,
}

impl From<MigrationSide> for SideView {
    fn from(side: MigrationSide) -> Self {
        let MigrationSide { vmm, sled, state, generation } = side;
        Self { vmm_id: vmm, sled_id: sled, state, generation }
    }
}

/// Seconds of a span.
pub(super) fn seconds(span: lifecycle::Span) -> f64 {
    std::time::Duration::from_micros(span.micros()).as_secs_f64()
}

impl From<MigrationRow> for MigrationView {
    fn from(row: MigrationRow) -> Self {
        Self {
            id: row.id,
            instance_id: row.instance,
            saga_id: row.saga,
            source: row.source.into(),
            target: row.target.into(),
            time_started: rfc3339(row.started),
            deadline_s: row.deadline.micros() / 1_000_000,
            cancelled: row.cancelled,
            time_ended: row.end.map(|end| rfc3339(end.at)),
            took_s: row.end.map(|end| seconds(end.at.since(row.started))),
            outcome: row.end.map(|end| end.outcome.to_string()),
        }
    }
}

pub(super) async fn list(
    arrived: Arrived,
    params: Params,
) -> Result<Json<RowsView<MigrationView>>, ApiError> {
    let Rows { after, limit, among } = Rows::read(&params)?;
    let page = arrived
        .fresh()
        .await?
        .read(|model| model.migrations(among, Order::Ascending, after.map(MigrationId::new), limit));
    let next_after = page.rows.last().filter(|_| !page.is_last).map(|row| row.id.uuid());
    Ok(Json(RowsView { items: page.rows.into_iter().map(MigrationView::from).collect(), next_after }))
}

pub(super) async fn view(arrived: Arrived, path: RawPath) -> Result<Json<MigrationView>, ApiError> {
    let id = uuid("migration", &path_text(path)?)?;
    let row = arrived.fresh().await?.read(|model| model.migration(MigrationId::new(id)).cloned());
    row.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("migration", &format!("id \"{id}\"")))
}
