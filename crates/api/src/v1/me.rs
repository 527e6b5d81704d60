//! Who asks.

use crate::auth::Identity;
use crate::error::ApiError;
use crate::state::App;
use crate::views::CurrentUserView;
use axum::extract::State;
use axum::{Extension, Json};
use eventlog::{Position, ReadError};
use lifecycle::Timestamp;
use std::sync::Arc;

pub(super) async fn view(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Identity>,
) -> Result<Json<CurrentUserView>, ApiError> {
    let log = app.control.log();
    let first = match log.read_all(Position::new(1), 1) {
        // As old as what is left of it.
        Err(ReadError::Archived { oldest, .. }) => log.read_all(oldest, 1),
        read => read,
    };
    let first = first.map_err(|error| ApiError::internal(error.to_string()))?;
    let since = first.first().map_or(0, |record| record.time_us);
    Ok(Json(CurrentUserView::new(&who, Timestamp::from_micros(since))))
}
