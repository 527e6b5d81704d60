//! A history to look through: events a page at a time, and the state after any of them.
//!
//! ```text
//!  Source ──▶ Events (pages)   ──▶ what happened at a place
//!         └─▶ Folds (anchors)  ──▶ the state after a version, and lanes around it
//!         └─▶ Seek  (slices)   ──▶ the next place that mentions a text, or where a condition comes true
//! ```
//!
//! Invariants:
//! * memory is bounded whatever the length of the log: so many pages, so many states of so many streams;
//! * nothing here takes longer than one page or one stream: a search is carried on slice by slice, so that
//!   whoever looks stays able to turn away;
//! * what cannot be read or folded is an answer that names the place, and hides nothing else.

mod events;
mod folds;
mod seek;
mod window;

pub use events::{Events, Listed, Track};
pub use folds::{Folded, Folds};
pub use seek::{Direction, Found, Seek, Wanted};
pub use window::{LaneWindow, lane_window};
