//! The manifest of a backup: lines for people and machines, whose last one sums up the others.
//!
//! ```text
//! musher-backup 1
//! store 0a0b...
//! position 4711 chain 89abcdef01234567
//! base base-00000000000000000100.chk first 1 last 100 bytes 4000 crc 89abcdef chain 0000000000000000
//! segment 00000000000000000001.seg first 1 last 4000 bytes 4194000 crc 89abcdef chain 0123456789abcdef
//! end 4 crc 01234567
//! ```
//!
//! Invariants:
//! * `base`, only where something was archived, holds the heads up to the first segment;
//! * segments stand in order and join: the first one's positions end where the next one's start;
//! * the last segment ends at the backup's position;
//! * file names are names in the backup's directory and nothing else: no path gets out of it.

use super::error::Error;
use crate::journal::StoreId;
use crate::types::Position;
use std::fmt::Write;
use std::path::{Component, Path};

pub(crate) const MANIFEST_NAME: &str = "manifest";
/// Newest format this build reads and the one it writes.
const FORMAT: u32 = 1;
/// A manifest has a line per segment: this is enough for some 60 TiB of default segments.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 128 << 20;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) first: Position,
    /// Last position; before the first if it holds none.
    pub(crate) last: Position,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    /// Chain up to the end of the file.
    pub(crate) chain: u64,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    pub(crate) position: Position,
    pub(crate) chain: u64,
    /// Heads at the end of what was archived, if something was.
    pub(crate) base: Option<Entry>,
    pub(crate) segments: Vec<Entry>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> String {
        let mut text = format!(
            "musher-backup {FORMAT}\nstore {}\nposition {} chain {:016x}\n",
            self.store, self.position, self.chain
        );
        let entries = self.base.iter().map(|base| ("base", base));
        for (word, entry) in entries.chain(self.segments.iter().map(|segment| ("segment", segment))) {
            let Entry { name, first, last, bytes, crc, chain } = entry;
            // Writing to a string does not fail.
            writeln!(
                text,
                "{word} {name} first {first} last {last} bytes {bytes} crc {crc:08x} chain {chain:016x}"
            )
            .ok();
        }
        let end = last_line(self.files().count(), &text);
        text + &end
    }

    /// Every file of the backup.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Entry> {
        self.base.iter().chain(&self.segments)
    }

    /// Reads a manifest's text; the error says in which line what is wrong.
    pub(crate) fn decode(text: &str, path: &Path) -> Result<Self, Error> {
        let fail = |line: usize, detail| Error::Manifest { path: path.into(), line: line + 1, detail };
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let line = |index: usize| lines.get(index).map_or(&[][..], Vec::as_slice);
        match line(0) {
            ["musher-backup", format] => match format.parse::<u32>() {
                Ok(FORMAT) => {}
                Ok(found) if found > FORMAT => {
                    return Err(Error::NewerFormat { what: "backup", found, known: FORMAT });
                }
                _ => return Err(fail(0, "the format is no number of a format")),
            },
            _ => return Err(fail(0, "it does not start as a manifest does")),
        }
        let end = lines.len() - 1;
        let summed = text.trim_end_matches('\n').rfind('\n').map_or("", |at| &text[..=at]);
        // Compared as text: another spelling of the same numbers is a change, too.
        if text != format!("{summed}{}", last_line(end.saturating_sub(3), summed)) {
            return Err(fail(end, "the last line does not agree with what stands before it"));
        }
        let store = match line(1) {
            ["store", id] => store_id(id),
            _ => None,
        };
        let store = store.ok_or_else(|| fail(1, "there is no store id"))?;
        let ["position", position, "chain", chain] = line(2) else {
            return Err(fail(2, "there is no position"));
        };
        let position =
            position.parse().map(Position::new).map_err(|_| fail(2, "the position is no number"))?;
        let chain = u64::from_str_radix(chain, 16).map_err(|_| fail(2, "the chain is no number"))?;
        let mut segments: Vec<Entry> = Vec::new();
        let base = entry("base", line(3));
        for index in 3 + usize::from(base.is_some())..end {
            let entry = entry("segment", line(index)).ok_or_else(|| fail(index, "this is no segment"))?;
            let before = segments.last().or(base.as_ref());
            let joins = before.is_none_or(|before| before.last.next() == entry.first);
            if !joins {
                return Err(fail(index, "the segment does not join the one before it"));
            }
            segments.push(entry);
        }
        let ends = segments.last().is_some_and(|last| last.last == position && last.chain == chain);
        if !ends {
            return Err(fail(2, "the segments do not end at the position"));
        }
        Ok(Self { store, position, chain, base, segments })
    }
}

fn last_line(segments: usize, before: &str) -> String {
    format!("end {segments} crc {:08x}\n", crc32c::crc32c(before.as_bytes()))
}

fn store_id(text: &str) -> Option<StoreId> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(StoreId(number.to_be_bytes()))
}

fn entry(word: &str, words: &[&str]) -> Option<Entry> {
    let [kind, name, "first", first, "last", last, "bytes", bytes, "crc", crc, "chain", chain] = words else {
        return None;
    };
    let mut components = Path::new(name).components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    let entry = Entry {
        name: (*name).to_owned(),
        first: first.parse().map(Position::new).ok()?,
        last: last.parse().map(Position::new).ok()?,
        bytes: bytes.parse().ok()?,
        crc: u32::from_str_radix(crc, 16).ok()?,
        chain: u64::from_str_radix(chain, 16).ok()?,
    };
    let is_possible = entry.first > Position::ZERO
        && entry.last < Position::new(u64::MAX)
        && entry.last.next() >= entry.first;
    (*kind == word && is_plain && is_possible).then_some(entry)
}
