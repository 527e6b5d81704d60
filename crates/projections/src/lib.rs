//! Read models folded from the log.
//!
//! The one idea: **what is read is a fold of what was written, at a known position.** One [`ReadModel`]
//! follows the log in order; lists and searches are answered from it. It is kept in the cache by rows with
//! a checkpoint, and is rebuilt from the log whenever the cache is lost, older or wrong.
//!
//! Invariants:
//! * the model at position p is a function of events 1..=p: however it got there (from the start, from a
//!   checkpoint, after the cache was lost), it is equal;
//! * nothing here writes an event, and nothing that accepts or fences an append reads from here;
//! * an event that cannot be read or applied quarantines its stream here, is reported by [`Health`], and
//!   stops nothing else.
//!
//! Memory: about 1 KiB per live instance (its whole fold), dropped when it is deleted and its VMMs are
//! reaped; about 100 bytes per VMM that ever was, kept so that late reports find their way.
//!
//! Reading order: [`model`] (the fold), [`instances`], [`sleds`], [`directory`] (rows, and lists in pages),
//! [`rows`] (as they are kept), [`handle`] (what readers hold), [`projector`] (what keeps it current).

mod checkpoint;
pub mod directory;
pub mod handle;
pub mod instances;
pub mod model;
pub mod projector;
pub mod rows;
pub mod sleds;

pub use directory::{Order, PAGE_ROWS_MAX, Page, Scan};
pub use handle::{Health, Projections, Stage, Stopped};
pub use instances::InstanceRow;
pub use model::{OutOfOrder, ReadModel, VmmPlace};
pub use projector::spawn;
pub use sleds::{SledLoad, SledRow};
