//! Who asks.

use crate::error::ApiError;
use crate::state::App;
use crate::views::CurrentUserView;
use axum::Json;
use axum::extract::State;
use eventlog::Position;
use lifecycle::Timestamp;
use std::sync::Arc;

pub(super) async fn view(State(app): State<Arc<App>>) -> Result<Json<CurrentUserView>, ApiError> {
    let first = app.control.log().read_all(Position::new(1), 1);
    let first = first.map_err(|error| ApiError::internal(error.to_string()))?;
    let since = first.first().map_or(0, |record| record.time_us);
    Ok(Json(CurrentUserView::new(Timestamp::from_micros(since))))
}
