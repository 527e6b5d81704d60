//! What operators ask of instances: migrate, give a migration up, force-stop; and of sagas: take them back.

use crate::body::Fields;
use crate::error::{ApiError, echo};
use crate::selector::RawPath;
use crate::v1::{self, About, recorded};
use actors::Accepted;
use actors::instance::Ask;
use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lifecycle::{InstanceId, MigrationId, RunState, SagaId, SledId, VmmId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// What became of an instance that was asked for something.
#[derive(Serialize, ToSchema)]
#[schema(as = InstanceAsked)]
pub(super) struct AskedView {
    #[schema(value_type = uuid::Uuid)]
    id: InstanceId,
    name: String,
    #[schema(value_type = String)]
    run_state: RunState,
    /// The migration under way, if one is.
    #[schema(value_type = Option<uuid::Uuid>)]
    migration_id: Option<MigrationId>,
    /// The saga under way, if one is.
    #[schema(value_type = Option<uuid::Uuid>)]
    saga_id: Option<SagaId>,
}

/// The fields of a body that may be missing altogether.
pub(super) fn optional_fields(body: &Bytes, wanted: &'static [&'static str]) -> Result<Fields, ApiError> {
    Fields::parse(if body.is_empty() { b"{}" } else { body }, wanted)
}

pub(super) async fn migrate(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    let fields = optional_fields(&body, &["dst_sled"])?;
    let to = fields.optional_text("dst_sled")?.map(sled_id).transpose()?;
    ask(about, path, Ask::Migrate { to }).await
}

fn sled_id(text: &str) -> Result<SledId, ApiError> {
    let id = Uuid::try_parse(text);
    id.map(SledId::new)
        .map_err(|_| ApiError::invalid_request(format!("dst_sled: \"{}\" is not a UUID", echo(text))))
}

fn vmm_id(text: &str) -> Result<VmmId, ApiError> {
    let id = Uuid::try_parse(text);
    id.map(VmmId::new)
        .map_err(|_| ApiError::invalid_request(format!("vmm: \"{}\" is not a UUID", echo(text))))
}

pub(super) async fn cancel_migration(about: About, path: RawPath) -> Result<Response, ApiError> {
    ask(about, path, Ask::CancelMigration).await
}

pub(super) async fn force_stop(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["reason", "assert_dead", "vmm"])?;
    let reason = fields.text("reason")?.to_owned();
    let assert_dead = fields.flag_or("assert_dead", false)?;
    let wanted = match fields.optional_text("vmm")? {
        None => Ask::ForceStop { assert_dead, reason },
        Some(vmm) => Ask::ForceStopOf { vmm: vmm_id(vmm)?, assert_dead, reason },
    };
    ask(about, path, wanted).await
}

async fn ask(about: About, path: RawPath, ask: Ask) -> Result<Response, ApiError> {
    v1::accepted(about, path, ask).await.map(accepted)
}

/// The answer to something that goes on after it.
pub(super) fn accepted(Accepted { instance, position }: Accepted) -> Response {
    let view = AskedView {
        id: instance.id,
        run_state: instance.run_state(),
        migration_id: instance.migration,
        saga_id: instance.saga.as_ref().map(|saga| saga.id),
        name: instance.spec.name,
    };
    recorded(position, (StatusCode::ACCEPTED, Json(view))).into_response()
}
