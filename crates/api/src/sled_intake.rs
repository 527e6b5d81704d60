//! What sleds call (`docs/sled-protocol.md`, the control plane serves): reports, registrations, renewals.
//!
//! A sled is not trusted: it names itself, proves it where the fleet has a secret, speaks only for itself and its own
//! VMMs, and whatever it sends is validated where it is taken in.

use crate::auth::Identity;
use crate::error::{ApiError, echo};
use crate::selector::RawPath;
use crate::state::App;
use axum::Extension;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{post, put};
use serde::de::DeserializeOwned;
use sled_protocol::{
    ControlPlaneError, OTHER_STORE, PropolisId, RegisterSled, RenewLease, SLED_ID_HEADER, SledId, SledLease,
    SledVmmState, StoreId,
};
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

/// Every route that sleds call.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/vmms/{vmm}", put(report))
        .route("/sleds/register", post(register))
        .route("/sleds/{sled}/renew", post(renew))
}

async fn report(
    State(app): State<Arc<App>>,
    path: RawPath,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let vmm: PropolisId = id("VMM", path)?;
    let named = headers.get(SLED_ID_HEADER).and_then(|value| value.to_str().ok());
    let sled: Option<SledId> = named.and_then(|text| text.parse().ok());
    let sled = sled.ok_or_else(|| malformed(format!("header {SLED_ID_HEADER} must hold the sled's id")))?;
    let state: SledVmmState = json(&body)?;
    let _place = place(&app.reports, "reports")?;
    app.control.intake().report(sled, vmm, state).await.map_err(intake_error)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn register(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Identity>,
    body: Bytes,
) -> Result<Json<SledLease>, ApiError> {
    let request: RegisterSled = json(&body)?;
    must_be(&who, request.sled_id)?;
    let own = app.keeper.as_ref().map(|keeper| StoreId::from_uuid(Uuid::from_bytes(keeper.store_id().0)));
    if own.zip(request.store_id).is_some_and(|(own, its)| own != its) {
        return Err(intake_error(ControlPlaneError::OtherStore));
    }
    let _place = place(&app.registrations, "registrations").or_else(|full| {
        let is_known = app.control.has_registered(lifecycle::SledId::new(request.sled_id.as_uuid()));
        if is_known { place(&app.registrations_known, "registrations") } else { Err(full) }
    })?;
    let lease = app.control.intake().register(request).await.map_err(intake_error)?;
    Ok(Json(SledLease { store_id: own, ..lease }))
}

async fn renew(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Identity>,
    path: RawPath,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let sled: SledId = id("sled", path)?;
    must_be(&who, sled)?;
    let request: RenewLease = json(&body)?;
    request.validate().map_err(|invalid| malformed(invalid.to_string()))?;
    app.control.intake().renew(sled, request).await.map_err(intake_error)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A place among those that are worked on; none is waited for, so that a connection is not held by what comes again.
fn place<'a>(places: &'a Semaphore, what: &str) -> Result<SemaphorePermit<'a>, ApiError> {
    places.try_acquire().map_err(|_| {
        let busy = format!("too many {what} are being worked on; send it again");
        intake_error(ControlPlaneError::Unavailable(busy))
    })
}

/// A sled that has proved who it is speaks for nobody else.
fn must_be(who: &Identity, sled: SledId) -> Result<(), ApiError> {
    if who.is_anybody() || who.name == sled.to_string() {
        return Ok(());
    }
    let message = format!("sled {} cannot speak for sled {sled}", who.name);
    Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message))
}

fn id<Id: FromStr>(what: &str, path: RawPath) -> Result<Id, ApiError> {
    let text = path.map(|Path(text)| text).unwrap_or_default();
    text.parse().map_err(|_| malformed(format!("{what}: \"{}\" is not a UUID", echo(&text))))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| malformed(format!("unable to parse the request body: {error}")))
}

fn malformed(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "MALFORMED", message)
}

fn intake_error(error: ControlPlaneError) -> ApiError {
    let code = match &error {
        ControlPlaneError::Malformed(message) => return malformed(message.clone()),
        ControlPlaneError::Unknown => "UNKNOWN",
        ControlPlaneError::Conflict => "CONFLICT",
        ControlPlaneError::OtherStore => OTHER_STORE,
        ControlPlaneError::Expunged => "EXPUNGED",
        ControlPlaneError::StaleEpoch => "STALE_EPOCH",
        ControlPlaneError::Refused { .. } => "REFUSED",
        ControlPlaneError::Unavailable(_) => "UNAVAILABLE",
    };
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::new(status, code, error.to_string())
}
