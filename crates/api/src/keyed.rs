//! Requests with an `Idempotency-Key`: done once, however often they come.
//!
//! The key becomes the request id under which the command is journaled, so the log itself says which keys were
//! accepted: nothing is kept beside it, and a restart forgets nothing. Whether a repeat asks the same is read
//! from the recorded command.
//!
//! Invariants:
//! * one request per key is under way at a time; its repeats wait for it;
//! * a command that was begun is not given up when its client hangs up: until its outcome is known, a repeat
//!   cannot tell whether it was recorded;
//! * ids made of keys are of UUID version 5, and ids of that version are never taken from outside: nobody can
//!   occupy another's key.

use crate::error::ApiError;
use crate::state::App;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use eventlog::Position;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::Instrument as _;
use uuid::Uuid;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key, bytes: four UUIDs and some words.
const KEY_BYTES_MAX: usize = 255;

/// The version of UUIDs that are made of keys.
const KEYED_VERSION: usize = 5;

/// What the ids are derived from, together with user and key; never changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d75_7368_6572_4000_8000_0000_0000_0004);

/// A key, as the request id that stands for it in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(Uuid);

impl Key {
    /// The key of a request by `user`; none if it has none.
    pub(crate) fn read(headers: &HeaderMap, user: &str) -> Result<Option<Self>, ApiError> {
        let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else {
            return Ok(None);
        };
        let key = key.as_bytes();
        let is_plain = key.iter().all(u8::is_ascii_graphic);
        if given.next().is_some() || key.is_empty() || key.len() > KEY_BYTES_MAX || !is_plain {
            return Err(ApiError::invalid_request(format!(
                "header {IDEMPOTENCY_KEY} must be given once, as 1 to {KEY_BYTES_MAX} printable ASCII characters \
                 without spaces"
            )));
        }
        // The length first: no user and key read as another user and key.
        let mut name = (user.len() as u64).to_be_bytes().to_vec();
        name.extend_from_slice(user.as_bytes());
        name.extend_from_slice(key);
        Ok(Some(Self(Uuid::new_v5(&NAMESPACE, &name))))
    }

    /// The request id under which its command is journaled.
    pub(crate) const fn request_id(self) -> Uuid {
        self.0
    }
}

/// Whether a request id was made of a key.
pub(crate) fn is_keyed(request: Uuid) -> bool {
    request.get_version_num() == KEYED_VERSION
}

/// One door per key with a request under way.
#[derive(Default)]
pub(crate) struct Doors(StdMutex<BTreeMap<Uuid, Weak<Mutex<()>>>>);

impl Doors {
    /// Waits until no other request with this key is under way.
    async fn enter(&self, key: Key) -> OwnedMutexGuard<()> {
        let door = {
            let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // As many as there are requests under way, which is bounded.
            doors.retain(|_, door| door.strong_count() > 0);
            let door = doors.get(&key.0).and_then(Weak::upgrade).unwrap_or_default();
            doors.insert(key.0, Arc::downgrade(&door));
            door
        };
        door.lock_owned().await
    }
}

/// The key of a request, if it has one; an extractor for handlers of commands.
pub(crate) struct Once {
    key: Option<Key>,
}

impl<S: Sync> FromRequestParts<S> for Once {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { key: parts.extensions.get::<Key>().copied() })
    }
}

/// Leave to give the command, or where it was recorded when it was given before.
pub(crate) struct Turn {
    /// Position of the first event that was recorded for it.
    pub(crate) recorded: Option<Position>,
    door: Option<OwnedMutexGuard<()>>,
}

impl Once {
    /// Waits for its turn, and looks whether the command was recorded. 503 until everything that is durable has
    /// been looked through.
    pub(crate) async fn turn(&self, app: &App) -> Result<Turn, ApiError> {
        let (Some(key), Some(watcher)) = (self.key, &app.watcher) else {
            return Ok(Turn { recorded: None, door: None });
        };
        let door = app.doors.enter(key).await;
        let recorded = watcher.request(key.request_id(), app.control.log().durable(), app.config.fresh_wait);
        Ok(Turn { recorded: recorded.await?, door: Some(door) })
    }
}

impl Once {
    /// Refuses a key where `what` is asked, which records nothing.
    pub(crate) fn must_have_no_key(&self, what: &str) -> Result<(), ApiError> {
        match self.key {
            None => Ok(()),
            Some(_) => Err(ApiError::invalid_request(format!(
                "header {IDEMPOTENCY_KEY}: {what} leaves nothing in the log by which a repeat could be told; send it \
                 without a key"
            ))),
        }
    }
}

impl Turn {
    /// Gives the command. With a key it goes on, and keeps its repeats out, when the client has gone.
    pub(crate) async fn perform<T: Send + 'static>(
        self,
        command: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Some(door) = self.door else {
            return Ok(command.await);
        };
        let performing = async move {
            let outcome = command.await;
            drop(door);
            outcome
        };
        let performed = tokio::spawn(performing.in_current_span());
        performed.await.map_err(|error| ApiError::internal(format!("the command panicked: {error}")))
    }
}

/// That a key stands for another request.
pub(crate) fn used_otherwise() -> ApiError {
    ApiError::invalid_request(format!(
        "header {IDEMPOTENCY_KEY}: this key was used for another request; use a fresh one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn key(user: &str, text: &str) -> Result<Option<Key>, ApiError> {
        let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_str(text).unwrap())]);
        Key::read(&headers, user)
    }

    #[test]
    fn a_key_is_one_request_id_per_user_and_no_id_from_outside() {
        let id = |user, text| key(user, text).unwrap().unwrap().request_id();
        assert_eq!(id("ada", "k1"), id("ada", "k1"));
        for other in [id("ada", "k2"), id("bob", "k1"), id("adak", "1")] {
            assert_ne!(other, id("ada", "k1"));
            assert!(is_keyed(other));
        }
        assert!(!is_keyed(Uuid::from_u128(0x1234_5678_9abc_4ef0_8234_5678_9abc_def0)));
        assert_eq!(id("operator", "a-key").to_string(), "b38e3817-9bad-594a-8e04-77ba9a380088");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(Key::read(&HeaderMap::new(), "ada"), Ok(None));
        for bad in ["", "a b", "\t", &"k".repeat(KEY_BYTES_MAX + 1)] {
            assert_eq!(key("ada", bad).unwrap_err().status.as_u16(), 400, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(Key::read(&twice, "ada").is_err());
    }

    #[tokio::test]
    async fn a_door_is_passed_by_one_at_a_time_and_goes_away() {
        let doors = Doors::default();
        let first = Key(Uuid::from_u128(1));
        let inside = doors.enter(first).await;
        assert!(futures::FutureExt::now_or_never(doors.enter(first)).is_none());
        drop(doors.enter(Key(Uuid::from_u128(2))).await);
        drop(inside);
        drop(doors.enter(first).await);
        drop(doors.enter(Key(Uuid::from_u128(3))).await);
        assert!(doors.0.lock().unwrap().len() <= 1, "those that nobody holds are forgotten");
    }
}
