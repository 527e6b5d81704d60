//! Refusals and failures on their way to a client: status, stable code, message; and what only the log sees.
//!
//! Invariants:
//! * every answer that is not a success has the body `{error_code?, message, request_id}`;
//! * a 500 says "Internal Server Error" and nothing else; its detail goes to the log with the request id.

use crate::manner::DryRunView;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use journal::Event;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Seconds after which a client that was told "not now" may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Longest piece of what a client sent that is repeated in a message, in characters.
const ECHO_CHARS_MAX: usize = 64;

/// Why a request is not answered with a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    /// For the log only.
    pub(crate) detail: Option<String>,
    /// What would be recorded, if it was a rehearsal: the one answer here that is a success.
    pub(crate) rehearsed: Option<Vec<Event>>,
}

/// What every answer says that is not a success.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    message: &'a str,
    request_id: Uuid,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: Some(code), message: message.into(), detail: None, rehearsed: None }
    }

    /// The request cannot be understood.
    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// The request is understood; a value in it is not allowed.
    pub(crate) fn invalid_value(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidValue", message)
    }

    /// There is no such thing, as the caller addressed it.
    pub(crate) fn not_found(what: &str, addressed: &str) -> Self {
        let message = format!("not found: {what} with {addressed}");
        Self::new(StatusCode::NOT_FOUND, "ObjectNotFound", message)
    }

    /// Not now; the same request may succeed later.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceNotAvailable", message)
    }

    /// A failure of ours; `detail` is for the log.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "Internal Server Error");
        error.detail = Some(detail.into());
        error
    }

    /// It was to be decided only: these events would be recorded.
    pub(crate) fn rehearsed(events: Vec<Event>) -> Self {
        Self { code: None, rehearsed: Some(events), ..Self::new(StatusCode::OK, "", "it was a rehearsal") }
    }

    /// The answer to a rehearsal: what would be recorded; nothing, if a handler went through without deciding
    /// anything. Refusals stay what they are.
    pub(crate) fn answer_to_rehearsal(mut response: Response) -> Response {
        if !response.status().is_success() {
            return response;
        }
        let events = response.extensions_mut().remove::<Self>().and_then(|it| it.rehearsed);
        Json(DryRunView::new(&events.unwrap_or_default())).into_response()
    }

    /// What the framework refused before a handler saw it.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                Self { code: None, ..Self::new(status, "", "Method Not Allowed") }
            }
            StatusCode::NOT_FOUND => Self { code: None, ..Self::new(status, "", "Not Found") },
            _ if status.is_client_error() => {
                Self::invalid_request("the request's path or headers are malformed")
            }
            _ => Self::internal(format!("an answer with status {status} has no explanation")),
        }
    }

    /// Takes the error out of a response; none if the response is a success.
    pub(crate) fn taken_from(response: &mut Response) -> Option<Self> {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return None;
        }
        Some(response.extensions_mut().remove().unwrap_or_else(|| Self::of_status(status)))
    }

    /// The response as the client sees it. The router adds `allow` to a 405 by itself.
    pub(crate) fn rendered(&self, request_id: Uuid) -> Response {
        let body = Body { error_code: self.code, message: &self.message, request_id };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// Only carries the error outwards: the frame around all handlers knows the request id and renders it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Enough of what a client sent to recognise it.
pub(crate) fn echo(text: &str) -> String {
    let mut shown: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
