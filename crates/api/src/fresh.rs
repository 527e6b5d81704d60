//! How reads keep up: nothing is read from the read model before it has seen what the log held when the
//! request came in, or the position that the client names.
//!
//! The wait is part of the type: the model is only reached through [`Arrived::fresh`]. Commands that name
//! their object by id do not need the model, and do not wait.

use crate::error::{ApiError, echo};
use crate::state::App;
use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
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
        // The common case, without the machinery of waiting.
        if self.projections.position() >= self.wanted {
            return Ok(&self.projections);
        }
        match timeout(self.wait, self.projections.wait_for(self.wanted)).await {
            Ok(Ok(())) => Ok(&self.projections),
            Ok(Err(stopped)) => Err(ApiError::unavailable(stopped.to_string())),
            Err(_) => Err(ApiError::unavailable(format!(
                "the read model is at position {} and has not reached {} in time; try again later",
                self.projections.position(),
                self.wanted
            ))),
        }
    }
}

impl FromRequestParts<Arc<App>> for Arrived {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let durable = app.control.log().durable();
        let wanted = match parts.headers.get(MIN_POSITION) {
            None => durable,
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let position = Some(text).filter(|_| is_number).and_then(|text| text.parse().ok());
                let position = position.ok_or_else(|| {
                    let shown = echo(text);
                    ApiError::invalid_request(format!(
                        "header {MIN_POSITION}: \"{shown}\" is not a log position"
                    ))
                })?;
                durable.max(Position::new(position))
            }
        };
        let (projections, wait) = (app.projections.clone(), app.config.fresh_wait);
        Ok(Self { projections, wanted, wait })
    }
}
