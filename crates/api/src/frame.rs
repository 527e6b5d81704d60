//! What surrounds every request: its id and trace, its body, the bounds on its size and time, the access log.
//!
//! Invariants:
//! * handlers see whole bodies, within the bound; a body never holds one of the permits for work;
//! * the frame answers within `request_time` and survives a handler that panics;
//! * a request id from outside is taken only if it is a UUID, because it is journaled as one.

use crate::auth::Identity;
use crate::error::ApiError;
use crate::fresh;
use crate::keyed::{Key, is_keyed};
use crate::manner::Manner;
use crate::state::App;
use crate::trace_parent;
use actors::RequestContext;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use eventlog::TraceContext;
use futures::{FutureExt, StreamExt};
use lifecycle::RequestId;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

/// Header that carries the request id in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// On whose behalf a command is given; an extractor for handlers that give one.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) RequestContext);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().expect("the frame surrounds every handler"))
    }
}

/// Paths whose work follows the size of the log.
const CARRIES_THE_LOG: &str = "/ops/v1/log/";

/// Runs one request.
pub(crate) async fn frame(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let admitted = admit(&app, &request, route.as_ref().map(MatchedPath::as_str));
    // A repeat has the request id of the first: it is the same request.
    let id = match &admitted {
        Ok(Admitted { key: Some(key), .. }) => key.request_id(),
        Ok(Admitted { key: None, .. }) | Err(_) => {
            taken_id(&request).unwrap_or_else(|| app.control.mint_request().uuid())
        }
    };
    let trace =
        request.headers().get(TRACE_PARENT).and_then(|value| trace_parent::parse(value.to_str().ok()?));
    let is_long = request.uri().path().starts_with(CARRIES_THE_LOG);
    let patience = if is_long { app.config.carry_time } else { app.config.request_time };
    let work = async {
        let Admitted { identity, key, manner } = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                let (parts, body) = request.into_parts();
                // A client that is still writing would not get to read the refusal.
                let _ = timeout(app.config.body_time, read_body(&app, &parts, body)).await;
                return Err(refused);
            }
        };
        let actor = journal::Actor::User(identity.name.clone());
        let Manner { is_rehearsal, reason } = manner;
        let context = RequestContext { actor, request: RequestId::new(id), trace, reason, is_rehearsal };
        let extensions = request.extensions_mut();
        extensions.insert(Caller(context));
        extensions.insert(identity);
        if let Some(key) = key {
            extensions.insert(key);
        }
        let answer = bounded(&app, request, next).await?;
        Ok(if is_rehearsal { ApiError::answer_to_rehearsal(answer) } else { answer })
    };
    let span = request_span(&method, route.as_ref(), id, trace.as_ref());
    let mut answer = match timeout(patience, work).instrument(span.clone()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::unavailable(
            "the request was not finished in time; a command may have been recorded: look before trying again",
        )
        .into_response(),
    };
    if let Some(error) = ApiError::taken_from(&mut answer) {
        log_failure(&error, id);
        answer = error.rendered(id);
    }
    let id_text = HeaderValue::from_str(&id.to_string()).expect("a UUID is printable");
    answer.headers_mut().insert(REQUEST_ID, id_text);
    span.record("status", answer.status().as_u16());
    if answer.status().is_server_error() {
        span.record("error", answer.status().canonical_reason());
    }
    app.traffic.note(&method, route.as_ref().map(MatchedPath::as_str), answer.status(), began.elapsed());
    log_access(&method, route.as_ref(), &answer, began, id);
    answer
}

/// A request's span, within its caller's.
fn request_span(
    method: &Method,
    route: Option<&MatchedPath>,
    id: Uuid,
    trace: Option<&TraceContext>,
) -> Span {
    tracing::debug_span!(
        target: "musher::spans",
        "request",
        %method,
        route = route.map(MatchedPath::as_str),
        request_id = %id,
        traceparent = trace.map(trace_parent::text),
        status = tracing::field::Empty,
        error = tracing::field::Empty,
    )
}

/// What is known of a request before its body is read.
struct Admitted {
    identity: Identity,
    key: Option<Key>,
    manner: Manner,
}

/// Who asks, if they may; the key that makes repeats one request; and how it is meant.
fn admit(app: &App, request: &Request, route: Option<&str>) -> Result<Admitted, ApiError> {
    let method = request.method();
    let identity = app.access.admit(request.headers(), method, route)?;
    let may_have_key = *method == Method::POST;
    let key = if may_have_key { Key::read(request.headers(), &identity.name)? } else { None };
    let manner = Manner::read(method, route, request.uri(), key.is_some())?;
    Ok(Admitted { identity, key, manner })
}

/// What went wrong on our side; what a client did wrong is its own to know.
fn log_failure(error: &ApiError, id: Uuid) {
    let status = error.status.as_u16();
    if let Some(detail) = &error.detail {
        tracing::error!(request_id = %id, status, detail, "request failed");
    } else if error.status.is_server_error() && error.status != StatusCode::INSUFFICIENT_STORAGE {
        tracing::warn!(request_id = %id, status, reason = error.message, "request not served");
    }
}

fn log_access(method: &Method, route: Option<&MatchedPath>, answer: &Response, began: Instant, id: Uuid) {
    // The route, not the target: names of users' things do not belong into every line.
    let route = route.map_or("none", MatchedPath::as_str);
    let status = answer.status().as_u16();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(target: "musher::access", %method, route, status, ms, request_id = %id, "request");
}

fn taken_id(request: &Request) -> Option<Uuid> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    Uuid::try_parse(text).ok().filter(|id| !id.is_nil() && !is_keyed(*id))
}

/// Reads the body, waits for a permit and for what the client wants to see, runs the handler.
async fn bounded(app: &App, request: Request, next: Next) -> Result<Response, ApiError> {
    let uri = request.uri();
    let uri_bytes = uri.path().len() + uri.query().map_or(0, str::len);
    if uri_bytes > app.config.uri_bytes_max {
        let message = format!(
            "the request target has {uri_bytes} bytes; at most {} are read",
            app.config.uri_bytes_max
        );
        return Err(ApiError::invalid_request(message));
    }
    let (parts, body) = request.into_parts();
    let body = match timeout(app.config.body_time, read_body(app, &parts, body)).await {
        Ok(body) => body?,
        Err(_) => {
            let seconds = app.config.body_time.as_secs_f32();
            let message = format!("the request body did not arrive within {seconds} seconds");
            return Err(ApiError::invalid_request(message));
        }
    };
    let Ok(_permit) = app.permits.acquire().await else {
        return Err(ApiError::unavailable("the daemon is shutting down"));
    };
    if parts.method == Method::GET {
        fresh::until_seen(app, &parts.headers).await?;
    }
    Ok(survived(next.run(Request::from_parts(parts, Body::from(body)))).await)
}

/// The handler's answer; a panic of it is a failure of this request and of nothing else.
async fn survived(handler: impl Future<Output = Response>) -> Response {
    let answer = AssertUnwindSafe(handler).catch_unwind().await;
    answer.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        ApiError::internal(format!("the handler panicked: {said}")).into_response()
    })
}

/// The whole body. One that is too large is read on for a while and thrown away: a client that writes first
/// and reads later would otherwise find its connection broken instead of the answer.
async fn read_body(app: &App, parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
    let (keep, drain) =
        (app.config.body_bytes_max, app.config.drain_bytes_max.max(app.config.body_bytes_max));
    let too_large = || {
        ApiError::invalid_request(format!(
            "request body exceeds the maximum of {keep} bytes; send a smaller one"
        ))
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let awaits_leave = parts.headers.contains_key(header::EXPECT);
    if announced > drain || (announced > keep && awaits_leave) {
        return Err(too_large());
    }
    let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::invalid_request("the request body could not be read; send it again, whole")
        })?;
        seen = seen.saturating_add(chunk.len());
        if seen > drain {
            break;
        }
        if seen <= keep {
            kept.extend_from_slice(&chunk);
        }
    }
    if seen > keep { Err(too_large()) } else { Ok(kept.freeze()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_fails_its_own_request_and_says_nothing_to_the_client() {
        for said in ["a secret", ""] {
            let panics = async move {
                assert!(!said.is_empty(), "formatted {said}");
                std::panic::panic_any(said);
            };
            let mut answer = survived(panics).await;
            let error = ApiError::taken_from(&mut answer).unwrap();
            assert_eq!((error.status.as_u16(), error.message.as_str()), (500, "Internal Server Error"));
            let detail = error.detail.unwrap();
            assert!(detail.contains(if said.is_empty() { "formatted" } else { said }), "{detail}");
        }
    }
}
