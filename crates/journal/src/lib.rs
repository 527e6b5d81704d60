//! Joins the rules and the log: what an event means on one side, bytes and a number on the other.
//!
//! The one idea: **a stored layout never changes.** Every event type has a kind and a schema number, and
//! a frozen mirror of the event as it was when that number was released; today's types are converted to
//! and from their newest mirror, older mirrors are lifted by upcasters (`docs/storage.md`, events).
//!
//! Invariants:
//! * a (kind, schema) pair names one layout for ever: golden bytes of each are compared in the tests;
//! * decoding uses up every byte, allocates no more than it was given, and never panics;
//! * numbers written by a newer build are refused by name, never guessed at;
//! * one file (`codec.rs`) knows the codec; the codec's id is stored with every event.
//!
//! Reading order: [`stream`] and [`event`] (names), [`context`] (who and why), [`mod@append`] and [`mod@read`]
//! (the way in and out), [`fold`] and [`snapshot`] (state), then the mirrors in `events` and `inputs`.

mod actor;
pub mod append;
mod codec;
pub mod context;
pub mod error;
pub mod event;
mod events;
pub mod fold;
mod frozen;
mod inputs;
mod noted;
pub mod read;
pub mod snapshot;
pub mod stream;
mod upcast;

pub use append::{TooLarge, append};
pub use codec::CODEC;
pub use context::{Actor, Context, RecordedContext};
pub use error::{DecodeError, DecodeProblem};
pub use event::{EncodedEvent, Event, EventKind, decode_event, encode_event, event_kinds, event_name};
pub use fold::{
    FoldError, apply_instance, apply_project, apply_sled, fold_instance, fold_project, fold_sled,
};
pub use inputs::{decode_input, encode_input};
pub use read::{Recorded, read};
pub use snapshot::{
    FOLD_VERSION, SnapshotError, decode_disposable, decode_snapshot, encode_disposable, encode_snapshot,
    read_disposable, write_disposable,
};
pub use stream::{ARCHIVED_STREAMS, StreamName, UnknownStream};
