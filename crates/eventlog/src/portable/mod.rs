//! The log outside of its directory: exports to carry away and read anywhere, backups to come back from.
//!
//! ```text
//! any log ── export ──▶ one file ── import ──▶ empty directory ── open ──▶ Journal
//!                          └── ExportReader: replay without a journal
//! one stream of a log ── write_stream_file ──▶ one file, read by version
//! running journal ── backup ──▶ directory of segments and a manifest ── restore ──▶ empty directory
//! ```
//!
//! An export is one stream of bytes: versioned, compressed, checksummed, bounded in memory on both sides; a cut
//! anywhere is noticed. A backup is the journal's own segments at a durable position; the second one into the
//! same directory copies only what has grown.
//!
//! Invariants:
//! * positions, versions, times, causes and contexts come back exactly as they were;
//! * nothing is written into a directory that holds anything, and a directory gets its name only when all of
//!   it is durable and has been verified;
//! * an export without its trailer, or a backup without its manifest, is none;
//! * no bytes from outside are believed before their checksum has matched, and no length makes more be
//!   allocated than the largest frame.

mod backup;
mod error;
mod export;
mod frame;
mod import;
mod manifest;
mod place;
mod reader;
mod restore;
mod stream_file;
mod streaming;
mod streams;
mod wire;

#[cfg(test)]
mod tests;

pub use backup::{BackupReport, backup};
pub use error::Error;
pub use export::{ExportReport, LogSource, Source, export, export_file};
pub use import::{ImportReport, import, import_file};
pub use reader::ExportReader;
pub use restore::{RestoreReport, restore};
pub use stream_file::{
    StreamFileReport, read_stream_file, sweep_stream_files, verify_stream_file, write_stream_file,
};
pub use streaming::verify_export;
pub use wire::{NoPage, pack, unpack};
