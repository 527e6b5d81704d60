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
//! Memory: 4 MiB at most for migrations and sagas that have ended, of which the last ten thousand of each are
//! kept; about 1 KiB per live instance (its whole fold), dropped when it is deleted and its VMMs are
//! reaped; about 100 bytes per VMM that ever was, kept so that late reports find their way.
//!
//! Reading order: [`model`] (the fold), [`instances`], [`sleds`], [`groups`], [`migrations`], [`sagas`] (rows),
//! [`directory`], [`history`] (lists in pages), [`rows`] (as they are kept), [`handle`] (what readers hold), [`projector`] (what keeps it current).

mod checkpoint;
pub mod directory;
mod ended;
pub mod groups;
pub mod handle;
pub mod history;
pub mod instances;
pub mod migrations;
pub mod model;
pub mod projector;
pub mod rows;
pub mod sagas;
pub mod sleds;

pub use checkpoint::stored_model;
pub use directory::{Order, PAGE_ROWS_MAX, Page, Scan};
pub use groups::GroupRow;
pub use handle::{Health, Projections, Stage, Stopped};
pub use history::{Among, ENDED_MAX};
pub use instances::InstanceRow;
pub use migrations::{MigrationEnd, MigrationOutcome, MigrationRow, MigrationSide};
pub use model::{OutOfOrder, ReadModel, VmmPlace};
pub use projector::{spawn, spawn_from};
pub use rows::{Loading, MODEL_VERSION, RowError, rows as model_rows};
pub use sagas::{SagaEnd, SagaOutcome, SagaRow};
pub use sleds::{SledLoad, SledRow};
