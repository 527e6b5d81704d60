//! The serial console: what a guest has written, as far as its sled still keeps it. Nothing is kept here.

use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, instance};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use sled_protocol::{SerialData, SerialRange, SledError, limits};
use std::sync::Arc;
use utoipa::ToSchema;

/// Bytes of an answer if the client does not say: some screens full.
const BYTES_DEFAULT: u64 = 16 << 10;

/// A part of what a guest has written.
#[derive(Serialize, ToSchema)]
#[schema(as = SerialConsole)]
pub(super) struct SerialView {
    data: Vec<u8>,
    /// Just behind the last byte of `data`, counted from the VMM's first.
    last_byte_offset: u64,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// At a byte, counted from the VMM's first.
    At(u64),
    /// So many bytes before the end.
    BeforeEnd(u64),
}

fn range(params: &Params) -> Result<(Begin, u64), ApiError> {
    let begin = match (params.number("from_start")?, params.number("most_recent")?) {
        (Some(_), Some(_)) => {
            let problem = "query parameters \"from_start\" and \"most_recent\" exclude each other; give one";
            return Err(ApiError::invalid_request(problem));
        }
        (None, Some(bytes)) => Begin::BeforeEnd(bytes),
        (from, None) => Begin::At(from.unwrap_or(0)),
    };
    let max = params.number("max_bytes")?.unwrap_or(BYTES_DEFAULT).min(limits::SERIAL_BYTES_MAX);
    Ok((begin, max))
}

/// A part of what the instance's guest has written since its VMM began.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<SerialView>, ApiError> {
    let (begin, max) = range(&params)?;
    let found = instance(path, &params, &arrived).await?;
    let state = app.control.instance(found.id).await;
    let state = state.map_err(|error| command_error(error, || found.not_found()))?;
    let Some(vmm) = state.active_vmm() else {
        let state = state.run_state();
        let problem = format!("cannot read the serial console of an instance that is {state}: it has no VMM");
        return Err(ApiError::invalid_request(problem));
    };
    let read = async |from_start: u64, max_bytes: u64| {
        let range = SerialRange { from_start, max_bytes: Some(max_bytes) };
        app.control.serial(vmm.sled, vmm.id, range).await.map_err(refused)
    };
    let from = match begin {
        Begin::At(byte) => byte,
        // Behind the end there is nothing, and where the end is, is said.
        Begin::BeforeEnd(bytes) => read(limits::COUNTER_MAX, 0).await?.last_byte_offset.saturating_sub(bytes),
    };
    let SerialData { data, last_byte_offset } = read(from, max).await?;
    Ok(Json(SerialView { data, last_byte_offset }))
}

/// Reading changes nothing: whatever went wrong, it can be read again.
fn refused(error: SledError) -> ApiError {
    let text = error.to_string();
    match error {
        SledError::Timeout => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "Internal", "the sled did not answer in time")
        }
        SledError::Transport(why) => ApiError::new(
            StatusCode::BAD_GATEWAY,
            "Internal",
            format!("the sled could not be reached: {why}"),
        ),
        SledError::NotSent(_) => ApiError::new(StatusCode::BAD_GATEWAY, "Internal", text),
        SledError::NoSuchInstance | SledError::Gone => {
            ApiError::unavailable("the instance's VMM is not on its sled, or not yet; try again")
        }
        SledError::ChannelFull | SledError::BadState(_) => ApiError::unavailable(text),
        SledError::Malformed(_)
        | SledError::Conflict
        | SledError::StaleEpoch
        | SledError::NoRoom
        | SledError::Refused { .. }
        | SledError::ServerError { .. }
        | SledError::BadAnswer(_) => ApiError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_one_beginning_and_a_bound() {
        let of = |query: &str| range(&Params::parse(query).unwrap()).ok();
        assert_eq!(of(""), Some((Begin::At(0), BYTES_DEFAULT)));
        assert_eq!(of("from_start=7&max_bytes=3"), Some((Begin::At(7), 3)));
        assert_eq!(of("most_recent=9"), Some((Begin::BeforeEnd(9), BYTES_DEFAULT)));
        assert_eq!(of("max_bytes=18446744073709551615"), Some((Begin::At(0), limits::SERIAL_BYTES_MAX)));
        for bad in ["from_start=1&most_recent=1", "from_start=-1", "max_bytes=x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
