//! How reads keep up: nothing is read from the read model before it has seen what the log held when the
//! request came in, or the position that the client names.
//!
//! The wait is part of the type: the model is only reached through [`Arrived::fresh`]. Commands that name
//! their object by id do not need the model, and do not wait. A position that the client names is waited for by
//! the frame, before any read, whether or not it is answered from the model.

use crate::error::{ApiError, echo};
use crate::state::App;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use eventlog::Position;
use projections::Projections;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const MIN_POSITION: HeaderName = HeaderName::from_static("x-min-position");

/// The log as it was when the request came in, and what the client wants to see of it.
pub(crate) struct Arrived {
    projections: Projections,
    wanted: Position,
    wait: Duration,
}

impl Arrived {
    /// The read model, once it has seen enough; 503 if it has not in time.
    pub(crate) async fn fresh(&self) -> Result<&Projections, ApiError> {
        seen(&self.projections, self.wanted, self.wait).await?;
        Ok(&self.projections)
    }
}

/// Waits until the read model has seen the position that the client names, if it names one.
pub(crate) async fn until_seen(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    match named(headers)? {
        None => Ok(()),
        Some(wanted) => seen(&app.projections, wanted, app.config.fresh_wait).await,
    }
}

async fn seen(projections: &Projections, wanted: Position, wait: Duration) -> Result<(), ApiError> {
    // The common case, without the machinery of waiting.
    if projections.position() >= wanted {
        return Ok(());
    }
    match timeout(wait, projections.wait_for(wanted)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => Err(ApiError::unavailable(stopped.to_string())),
        Err(_) => Err(ApiError::unavailable(format!(
            "the read model is at position {} and has not reached {wanted} in time; try again later",
            projections.position()
        ))),
    }
}

/// The position that the client names.
fn named(headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let Some(value) = headers.get(MIN_POSITION) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let position = Some(text).filter(|_| is_number).and_then(|text| text.parse().ok());
    let position = position.ok_or_else(|| {
        let shown = echo(text);
        ApiError::invalid_request(format!("header {MIN_POSITION}: \"{shown}\" is not a log position"))
    })?;
    Ok(Some(Position::new(position)))
}

impl FromRequestParts<Arc<App>> for Arrived {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let durable = app.control.log().durable();
        let wanted = named(&parts.headers)?.map_or(durable, |named| durable.max(named));
        let (projections, wait) = (app.projections.clone(), app.config.fresh_wait);
        Ok(Self { projections, wanted, wait })
    }
}
