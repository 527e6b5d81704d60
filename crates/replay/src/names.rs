//! Names of sleds, for sentences. A name that cannot be found out is replaced by the start of the id.

use crate::source::{PAGE_RECORDS, Source, stream_page};
use journal::{Event, StreamName, read};
use lifecycle::{SledEvent, SledId};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Looks sleds up once each.
pub(crate) struct SledNames<'a> {
    source: &'a dyn Source,
    known: BTreeMap<SledId, String>,
}

impl<'a> SledNames<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Self {
        Self { source, known: BTreeMap::new() }
    }

    /// The sled's name as it last registered.
    pub(crate) fn get(&mut self, sled: SledId) -> &str {
        let source = self.source;
        self.known.entry(sled).or_insert_with(|| find(source, sled).unwrap_or_else(|| short(sled)))
    }
}

/// A sled registers again only when something about it changed, so one page holds what there is.
fn find(source: &dyn Source, sled: SledId) -> Option<String> {
    let records = stream_page(source, StreamName::Sled(sled), 1, PAGE_RECORDS).ok()?;
    records.iter().rev().find_map(|record| match read(record).ok()?.event {
        Event::Sled(SledEvent::Registered { name, .. }) => Some(name),
        _ => None,
    })
}

/// Enough of an id to find it by.
const SHORT_CHARS: usize = 8;

/// The start of an id, as sentences show it.
pub(crate) fn short(id: impl Display) -> String {
    id.to_string().chars().take(SHORT_CHARS).collect()
}
