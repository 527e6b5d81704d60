//! Answers as they leave, and bodies as they come in.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use sled_protocol::{ErrorBody, Inventory, InventoryTag, SledError};
use thiserror::Error;

/// A request that is to see its connection break.
#[derive(Debug, Error)]
#[error("the request is left without an answer: {0}")]
pub(super) struct Broken(pub(super) String);

/// A body that is there as a whole.
pub(super) struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// 200 with a body.
pub(super) fn ok(body: &impl Serialize) -> Result<Response<Whole>, Broken> {
    json(StatusCode::OK, body)
}

/// An inventory and its tag, or 304 if the sender knows it already.
pub(super) fn listing(
    inventory: &Inventory,
    known: Option<&InventoryTag>,
) -> Result<Response<Whole>, Broken> {
    let bytes = serde_json::to_vec(inventory).map_err(|error| Broken(error.to_string()))?;
    let tag = InventoryTag::of(&bytes);
    let is_known = known == Some(&tag);
    let mut response = if is_known { Response::new(Whole(None)) } else { whole(StatusCode::OK, bytes) };
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let tag = HeaderValue::from_str(tag.as_str()).map_err(|error| Broken(error.to_string()))?;
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// 204.
pub(super) fn done() -> Response<Whole> {
    let mut response = Response::new(Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// What the protocol says about the error; what it says nothing about breaks the connection.
pub(super) fn refusal(error: &SledError) -> Result<Response<Whole>, Broken> {
    let status = error.status().and_then(|status| StatusCode::from_u16(status).ok());
    match status {
        Some(status) => json(status, &error.body()),
        None => Err(Broken(error.to_string())),
    }
}

/// A refusal of what is no request of the protocol.
pub(super) fn stranger(status: StatusCode, code: &str, message: String) -> Result<Response<Whole>, Broken> {
    json(status, &ErrorBody { error_code: Some(code.to_owned()), message })
}

fn json(status: StatusCode, body: &impl Serialize) -> Result<Response<Whole>, Broken> {
    Ok(whole(status, serde_json::to_vec(body).map_err(|error| Broken(error.to_string()))?))
}

fn whole(status: StatusCode, json: Vec<u8>) -> Response<Whole> {
    let mut response = Response::new(Whole(Some(Bytes::from(json))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why a body was not taken.
pub(super) enum Unread {
    TooLarge,
    Cut,
}

/// The whole body, of at most so many bytes.
pub(super) async fn read(mut body: Incoming, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Unread::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| Unread::Cut)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
