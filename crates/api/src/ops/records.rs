//! The log as it is stored, in pages: for a debugger that folds it elsewhere.
//!
//! Invariants:
//! * a page is bounded in records and in bytes, and is read and packed off the threads that serve: whoever reads the whole
//!   log this way costs a daemon no more than one slow reader;
//! * only what is durable is answered; a page may be shorter than asked for, and is empty only at the end.

use super::keep::aside;
use crate::error::{ApiError, echo};
use crate::query::Params;
use crate::state::App;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use eventlog::portable::pack;
use eventlog::{Log, Position, ReadError, Record, Version};
use journal::StreamName;
use std::sync::Arc;

/// Most records of a page.
const RECORDS_MAX: u64 = 1_024;
/// Records of a page if the client does not say.
const RECORDS_DEFAULT: u64 = 256;
/// Bytes of payloads after which a page ends: small beside what a daemon holds anyway.
const PAGE_BYTES: usize = 2 << 20;
/// Records read at once: what a page may exceed its bytes by.
const READ_RECORDS: usize = 64;

/// Records from `from` on, of the log or of one stream.
pub(super) async fn page(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let stream = params.get("stream")?.map(parse_stream).transpose()?;
    let from = params.number("from")?.unwrap_or(1).max(1);
    let limit = params.number("limit")?.unwrap_or(RECORDS_DEFAULT).clamp(1, RECORDS_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let log = Arc::clone(app.control.log());
    let packed = aside(move || read(&*log, stream, from, limit).map(|records| pack(&records))).await?;
    let packed = packed.map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], packed).into_response())
}

fn parse_stream(text: &str) -> Result<StreamName, ApiError> {
    text.parse().map_err(|_| {
        let problem = format!("query parameter \"stream\": \"{}\" names no stream", echo(text));
        ApiError::invalid_request(problem)
    })
}

fn read(
    log: &dyn Log,
    stream: Option<StreamName>,
    from: u64,
    limit: usize,
) -> Result<Vec<Record>, ReadError> {
    let (mut records, mut bytes): (Vec<Record>, usize) = (Vec::new(), 0);
    while records.len() < limit && bytes < PAGE_BYTES {
        let next = from.saturating_add(records.len() as u64);
        let wanted = READ_RECORDS.min(limit - records.len());
        let more = match stream {
            Some(stream) => log.read_stream(stream.id(), Version::new(next), wanted)?,
            None => log.read_all(Position::new(next), wanted)?,
        };
        let is_last = more.len() < wanted;
        bytes += more.iter().map(|record| record.payload.len()).sum::<usize>();
        records.extend(more);
        if is_last {
            break;
        }
        // Whoever waits for this core to write has it first.
        std::thread::yield_now();
    }
    Ok(records)
}
