//! The live feed: every event from any position on, as server-sent events whose `id:` is the log position.
//!
//! Invariants:
//! * a client that comes back with the last id it has seen misses nothing and sees nothing twice, however long
//!   it was away: the feed is the log itself;
//! * a feed holds one event at a time. A reader that is slow holds up its own feed, and is dropped once it takes
//!   nothing for `write_stall`; nothing is kept for it;
//! * at most `feeds_max` are open, and all end with the daemon.

use crate::error::{ApiError, echo};
use crate::fresh::Arrived;
use crate::manner::data;
use crate::query::Params;
use crate::selector::instance;
use crate::state::App;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use eventlog::{Follower, Position, ReadError, Record, StreamId, Version};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use journal::{RecordedContext, StreamName, event_name};
use lifecycle::{RequestId, SagaId, Step};
use replay::time::rfc3339;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Records that are looked at without sending one, before others run.
const SKIPPED_MAX: u32 = 256;

/// How soon a client should come back when the connection ends, milliseconds.
const RETRY_MS: u32 = 1_000;

/// One event, as it is sent.
#[derive(Serialize)]
struct EventView {
    position: u64,
    time: Option<String>,
    stream: String,
    version: Option<u64>,
    event: String,
    data: Value,
    actor: Option<String>,
    request_id: Option<RequestId>,
    saga_id: Option<SagaId>,
    saga_step: Option<Step>,
    cause: Option<u64>,
    /// Version of the first event that was decided together with it.
    append: Option<u64>,
}

/// Which events are sent; all, where nothing is said.
#[derive(Default)]
struct Filter {
    stream: Option<StreamId>,
    kinds: Option<BTreeSet<u16>>,
}

impl Filter {
    async fn read(app: &App, params: &Params, arrived: &Arrived) -> Result<Self, ApiError> {
        let mut filter = Self::default();
        if let Some(text) = params.get("instance")? {
            let found = instance(Ok(Path(text.to_owned())), params, arrived).await?;
            let stream = StreamName::Instance(found.id).id();
            if app.control.log().head(stream).version == Version::ZERO {
                return Err(found.not_found());
            }
            filter.stream = Some(stream);
        }
        if let Some(names) = params.get("kind")? {
            let kinds = names.split(',').map(kinds).collect::<Result<Vec<_>, _>>()?;
            filter.kinds = Some(kinds.into_iter().flatten().collect());
        }
        Ok(filter)
    }

    fn takes(&self, record: &Record) -> bool {
        self.stream.is_none_or(|stream| record.stream == stream)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&record.kind))
    }
}

/// The numbers of a name: streams of several sorts have events of one name, such as `Created`.
fn kinds(name: &str) -> Result<Vec<u16>, ApiError> {
    let named: Vec<u16> =
        journal::event_kinds().filter(|kind| kind.name == name).map(|kind| kind.kind).collect();
    if named.is_empty() {
        let known: BTreeSet<&str> = journal::event_kinds().map(|kind| kind.name).collect();
        let (shown, known) = (echo(name), known.into_iter().collect::<Vec<_>>().join(", "));
        return Err(ApiError::invalid_request(format!(
            "query parameter \"kind\": there is no event \"{shown}\"; there are {known}"
        )));
    }
    Ok(named)
}

/// Events behind `Last-Event-ID`, else behind `after`, else from now on; with `follow=false` up to what is
/// durable.
pub(super) async fn feed(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let durable = app.control.log().durable();
    let after = match resumed(&headers)? {
        Some(seen) => seen,
        None => params.number("after")?.map_or(durable, Position::new),
    };
    if after > durable {
        let problem =
            format!("the log ends at position {durable}, before {after}: what was seen is not of this log");
        return Err(ApiError::invalid_request(problem));
    }
    if let Err(error @ ReadError::Archived { .. }) = app.control.log().read_all(after.next(), 1) {
        return Err(ApiError::invalid_request(format!("events after {after} cannot be sent: {error}")));
    }
    let until = match params.get("follow")? {
        None | Some("true") => None,
        Some("false") => Some(durable),
        Some(_) => {
            return Err(ApiError::invalid_request(
                "query parameter \"follow\" must be \"true\" or \"false\"",
            ));
        }
    };
    let filter = Filter::read(&app, &params, &arrived).await?;
    let permit = Arc::clone(&app.feeds).try_acquire_owned().map_err(|_| {
        let open = app.config.feeds_max;
        ApiError::unavailable(format!("{open} feeds of events are open; at most so many are served"))
    })?;
    let feed = Feed::new(&app, after, until, filter, permit);
    let hello = Bytes::from(format!(": events after {after}\nretry: {RETRY_MS}\n\n"));
    let pieces = stream::once(async { hello }).chain(stream::unfold(feed, Feed::next));
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The position that a client says it has seen.
fn resumed(headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let number = Some(text).filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).map(|seen| Some(Position::new(seen))).ok_or_else(|| {
        ApiError::invalid_request(format!("header {LAST_EVENT_ID}: \"{}\" is not a log position", echo(text)))
    })
}

/// One client's feed.
struct Feed {
    app: Arc<App>,
    follower: Follower,
    filter: Filter,
    /// Last position that is looked at; none for a feed without an end.
    until: Option<Position>,
    /// Last position that was looked at.
    seen: Position,
    /// Who and why, of the append that begins at a position.
    context: Option<(u64, RecordedContext)>,
    ending: BoxFuture<'static, ()>,
    /// When something must be said.
    due: Instant,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    fn new(
        app: &Arc<App>,
        after: Position,
        until: Option<Position>,
        filter: Filter,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let ready = Arc::clone(&app.ready);
        Self {
            app: Arc::clone(app),
            follower: app.control.log().follow(after.next()),
            filter,
            until,
            seen: after,
            context: None,
            ending: async move { ready.ending().await }.boxed(),
            due: Instant::now() + app.config.heartbeat,
            is_over: false,
            _permit: permit,
        }
    }

    /// The next piece of the answer; none at its end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let mut skipped = 0;
        while !self.is_over && self.until.is_none_or(|until| self.seen < until) {
            if skipped == SKIPPED_MAX {
                skipped = 0;
                tokio::task::yield_now().await;
            }
            let item = tokio::select! {
                biased;
                () = &mut self.ending => return None,
                () = sleep_until(self.due) => {
                    self.due = Instant::now() + self.app.config.heartbeat;
                    // An id without data is no event, and yet where the client goes on from.
                    return Some((Bytes::from(format!(": heartbeat\nid: {}\n\n", self.seen)), self));
                }
                item = self.follower.next() => item?,
            };
            match self.piece(item) {
                Some(piece) => {
                    self.due = Instant::now() + self.app.config.heartbeat;
                    return Some((piece, self));
                }
                None => skipped += 1,
            }
        }
        None
    }

    /// What is sent of an item, if anything is.
    fn piece(&mut self, item: Result<Record, ReadError>) -> Option<Bytes> {
        match item {
            Ok(record) => {
                self.seen = record.position;
                if !self.filter.takes(&record) {
                    return None;
                }
                Some(said(record.position, &self.view(&record)))
            }
            Err(ReadError::Damaged { position, last: Some(last), streams, detail }) => {
                // Never a silent gap, whatever the filter.
                self.seen = last;
                let streams: Vec<String> = streams.iter().map(ToString::to_string).collect();
                let event = format!("unreadable up to position {last}: {detail}");
                Some(said(last, &unreadable(position, streams.join(", "), event)))
            }
            Err(error) => {
                self.is_over = true;
                Some(Bytes::from(format!(": ended: {}\n\n", error.to_string().replace('\n', " "))))
            }
        }
    }

    fn view(&mut self, record: &Record) -> EventView {
        let recorded = match journal::read(record) {
            Ok(recorded) => recorded,
            Err(error) => {
                let event = format!("unreadable: {error}");
                return unreadable(record.position, record.stream.to_string(), event);
            }
        };
        let behind = u64::from(recorded.index.0);
        let first = recorded.meta.position.saturating_sub(behind);
        if let Some(context) = recorded.context {
            self.context = Some((first, context));
        } else if self.context.as_ref().is_none_or(|(known, _)| *known != first) {
            self.context = self.context_of(record, behind).map(|context| (first, context));
        }
        let context = self.context.as_ref().map(|(_, context)| context);
        let saga = context.and_then(|context| context.saga);
        EventView {
            position: recorded.meta.position,
            time: Some(rfc3339(recorded.meta.time)),
            stream: recorded.stream.to_string(),
            version: Some(recorded.meta.version),
            event: event_name(&recorded.event).to_owned(),
            data: data(&recorded.event),
            actor: context.map(|context| context.actor.to_string()),
            request_id: context.and_then(|context| context.request),
            saga_id: saga.map(|(id, _)| id),
            saga_step: saga.map(|(_, step)| step),
            cause: (recorded.cause != 0).then_some(recorded.cause),
            append: Some(recorded.meta.version.saturating_sub(behind)),
        }
    }

    /// Who and why stand on the first event of an append, which this feed may not have looked at.
    fn context_of(&self, record: &Record, behind: u64) -> Option<RecordedContext> {
        let first = Version::new(record.version.get().saturating_sub(behind));
        let records = self.app.control.log().read_stream(record.stream, first, 1).ok()?;
        journal::read(records.first()?).ok()?.context
    }
}

fn said(id: Position, view: &EventView) -> Bytes {
    let json = serde_json::to_string(view).expect("texts, numbers and events become JSON");
    Bytes::from(format!("id: {id}\ndata: {json}\n\n"))
}

fn unreadable(position: Position, stream: String, event: String) -> EventView {
    EventView {
        position: position.get(),
        time: None,
        stream,
        version: None,
        event,
        data: Value::Null,
        actor: None,
        request_id: None,
        saga_id: None,
        saga_step: None,
        cause: None,
        append: None,
    }
}
