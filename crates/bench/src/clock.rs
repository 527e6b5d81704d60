//! The real clock, which a measurement cannot do without.

use std::time::Instant;

/// This moment.
#[expect(clippy::disallowed_methods, reason = "a measurement needs the real clock")]
pub fn now() -> Instant {
    Instant::now()
}
