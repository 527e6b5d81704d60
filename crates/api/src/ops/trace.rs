//! What came of one request, as a tree.

use super::instances::past_error_of;
use super::keep::aside;
use crate::error::{ApiError, echo};
use crate::selector::{RawPath, path_text};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use lifecycle::RequestId;
use replay::trace::{Trace, trace};
use std::sync::Arc;
use uuid::Uuid;

/// The tree. Nothing indexes requests: the log is searched, newest first, so an old one takes longer.
pub(super) async fn view(State(app): State<Arc<App>>, path: RawPath) -> Result<Json<Trace>, ApiError> {
    let text = path_text(path)?;
    let id = Uuid::try_parse(&text)
        .map_err(|_| ApiError::invalid_request(format!("request: \"{}\" is not a UUID", echo(&text))))?;
    let log = Arc::clone(app.control.log());
    let found = aside(move || trace(&log, RequestId::new(id))).await?;
    let not_found = || ApiError::not_found("recorded request", &format!("id \"{id}\""));
    found.map_err(|error| past_error_of(error, not_found))?.map(Json).ok_or_else(not_found)
}
