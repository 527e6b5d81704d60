//! Upcasters: each lifts one released layout to the event of today, by pure conversion.
//!
//! Every event is at its first schema, so there is nothing to lift. When a kind gets schema n + 1, the
//! mirror of schema n moves here from its table, with an arm that converts it.

use crate::codec::Malformed;
use crate::event::Event;

/// The event of an older layout; none if this (kind, schema) was never released.
#[expect(clippy::match_single_binding, reason = "the table is empty until a layout changes")]
pub(crate) fn upcast(kind: u16, schema: u16, _payload: &[u8]) -> Option<Result<Event, Malformed>> {
    match (kind, schema) {
        // Numbers start at 1: whatever comes here was never written by any release.
        (_, _) => None,
    }
}
