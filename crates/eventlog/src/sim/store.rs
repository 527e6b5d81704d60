//! `SimStore`: the log as plain data, synced only when told.
//!
//! Invariants:
//! * `records[..synced]` is durable and never changes again, except by nothing at all;
//! * readers see the synced half only; the gate judges against both halves, as the writer of the journal
//!   judges against appends of its own batch;
//! * appends are lost from the end and whole: `ends` marks where each unsynced one stops.

use crate::gate::{self, Owned};
use crate::log::{LogStats, ReadError};
use crate::record;
use crate::types::{
    Append, AppendOutcome, Claim, Epoch, Head, Position, Record, StreamId, Unavailable, Version,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What of the unsynced half is still there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing that was not synced.
    None,
    /// Everything, as after a killed process on a living machine.
    All,
    /// The first so many unsynced appends (fewer if there are fewer).
    Prefix(usize),
    /// The first so many unsynced appends, and a part of the next one that recovery has to trim.
    Torn(usize),
}

/// What a crash did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Number of unsynced appends that survived and are durable from here on.
    pub survived: usize,
    /// Number of unsynced appends that are gone, the torn one included.
    pub lost: usize,
    /// First position of the torn append that recovery trimmed, if one was torn.
    pub torn: Option<Position>,
}

/// A log in memory with a synced and an unsynced half.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    records: Vec<Record>,
    synced: usize,
    /// Where each unsynced append ends in `records`.
    ends: VecDeque<usize>,
    /// Heads and owners over both halves.
    written: BTreeMap<StreamId, Owned>,
    /// Heads over the synced half.
    heads: BTreeMap<StreamId, Head>,
    /// Positions of each stream's records, over both halves.
    index: BTreeMap<StreamId, Vec<Position>>,
    /// Last minted epoch; it rises over crashes as well, so that no owner from before one passes.
    minted: Epoch,
    refusal: Option<Unavailable>,
    fail_append: Option<Unavailable>,
    fail_sync: Option<String>,
    quarantined: BTreeMap<StreamId, String>,
    /// Ranges that cannot be read, in order.
    damaged: Vec<(Position, Position, String)>,
    stats: LogStats,
}

impl SimStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes ownership of a stream. The head counts unsynced appends too: whoever answers a caller with it
    /// waits until [`SimStore::durable`] has reached it.
    pub fn claim(&mut self, stream: StreamId) -> Result<Claim, Unavailable> {
        match &self.refusal {
            None | Some(Unavailable::NoSpace(_)) => {}
            Some(refusal) => return Err(refusal.clone()),
        }
        if self.quarantined.contains_key(&stream) {
            return Err(Unavailable::Quarantined(stream));
        }
        self.minted = self.minted.next();
        let owned = self.written.entry(stream).or_default();
        assert!(owned.epoch < self.minted, "epochs rise");
        owned.epoch = self.minted;
        Ok(Claim { epoch: owned.epoch, head: owned.head })
    }

    /// Writes an append into the unsynced half. `Appended` says where it lies, not that it is durable:
    /// whoever answers a caller waits until [`SimStore::durable`] has reached `last`.
    pub fn append(&mut self, mut append: Append) -> AppendOutcome {
        let bytes = match gate::admit(&append) {
            Ok(bytes) => bytes,
            Err(refusal) => return AppendOutcome::Unavailable(refusal),
        };
        if let Some(refusal) = &self.refusal {
            return AppendOutcome::Unavailable(refusal.clone());
        }
        if self.quarantined.contains_key(&append.stream) {
            return AppendOutcome::Unavailable(Unavailable::Quarantined(append.stream));
        }
        let stream = append.stream;
        let owned = self.written.get(&stream).copied().unwrap_or_default();
        if let Some(refused) = gate::judge(owned, &append) {
            return refused;
        }
        if let Some(refusal) = self.fail_append.take() {
            return AppendOutcome::Unavailable(refusal);
        }
        let start = self.records.len();
        let first = self.written().next();
        let (outcome, head) = gate::place(&mut append, owned, first, &mut self.records);
        self.written.insert(stream, Owned { head, ..owned });
        self.index
            .entry(stream)
            .or_default()
            .extend(self.records[start..].iter().map(|record| record.position));
        self.ends.push_back(self.records.len());
        self.stats.bytes += bytes as u64;
        self.stats.appends += 1;
        outcome
    }

    /// Makes everything written durable and answers the last durable position. A failed sync poisons.
    pub fn sync(&mut self) -> Result<Position, Unavailable> {
        match &self.refusal {
            None | Some(Unavailable::NoSpace(_)) => {}
            Some(refusal) => return Err(refusal.clone()),
        }
        if let Some(why) = self.fail_sync.take() {
            let poisoned = Unavailable::Poisoned(why);
            self.refusal = Some(poisoned.clone());
            return Err(poisoned);
        }
        if !self.ends.is_empty() {
            self.stats.syncs += 1;
            self.stats.batches += 1;
        }
        self.settle();
        Ok(self.durable())
    }

    /// Ends the process: what was not synced survives as told, ownership is forgotten, a poisoned or closed
    /// store is open again, injected failures are gone.
    pub fn crash(&mut self, survival: Survival) -> CrashReport {
        let unsynced = self.ends.len();
        let (keep, torn) = match survival {
            Survival::None => (0, false),
            Survival::All => (unsynced, false),
            Survival::Prefix(appends) => (appends.min(unsynced), false),
            Survival::Torn(appends) => (appends.min(unsynced), appends < unsynced),
        };
        let end = if keep == 0 { self.synced } else { self.ends[keep - 1] };
        let torn = torn.then(|| self.records[end].position);
        for record in self.records.drain(end..).rev() {
            self.stats.bytes -= encoded(&record);
            let positions = self.index.get_mut(&record.stream).expect("every record is indexed");
            assert_eq!(positions.pop(), Some(record.position), "the index follows the records");
        }
        self.settle();
        self.written =
            self.heads.iter().map(|(&stream, &head)| (stream, Owned { head, epoch: Epoch::ZERO })).collect();
        self.refusal = None;
        self.fail_append = None;
        self.fail_sync = None;
        CrashReport { survived: keep, lost: unsynced - keep, torn }
    }

    fn settle(&mut self) {
        for record in &self.records[self.synced..] {
            self.heads.insert(record.stream, Head { version: record.version, position: record.position });
        }
        self.synced = self.records.len();
        self.ends.clear();
    }

    /// Lets the next append that would be written answer `NoSpace`, and nothing else.
    pub fn fail_next_append(&mut self, why: &str) {
        self.fail_append = Some(Unavailable::NoSpace(why.to_owned()));
    }

    /// Lets the next sync fail, which poisons the store until [`SimStore::crash`].
    pub fn fail_next_sync(&mut self, why: &str) {
        self.fail_sync = Some(why.to_owned());
    }

    /// Refuses every append with this reason until [`SimStore::accept`] or a crash.
    pub fn refuse(&mut self, refusal: Unavailable) {
        self.refusal = Some(refusal);
    }

    /// Ends [`SimStore::refuse`], and takes back what was to fail next. A poisoned store stays poisoned.
    pub fn accept(&mut self) {
        self.fail_append = None;
        self.fail_sync = None;
        if !matches!(self.refusal, Some(Unavailable::Poisoned(_))) {
            self.refusal = None;
        }
    }

    /// Declares a stream damaged: it can be neither read nor extended from here on.
    pub fn quarantine(&mut self, stream: StreamId, detail: &str) {
        self.quarantined.insert(stream, detail.to_owned());
    }

    /// Declares a range of durable positions damaged, behind every earlier one: it cannot be read, and the
    /// streams that have a record in it are quarantined.
    pub fn damage(&mut self, first: Position, last: Position, detail: &str) {
        assert!(
            Position::ZERO < first && first <= last && last <= self.durable(),
            "what is damaged was there"
        );
        assert!(self.damaged.last().is_none_or(|(_, before, _)| *before < first), "ranges are in order");
        for stream in self.streams_in(first, last) {
            self.quarantine(stream, detail);
        }
        self.damaged.push((first, last, detail.to_owned()));
    }

    fn streams_in(&self, first: Position, last: Position) -> Vec<StreamId> {
        let range = gate::skip_to(Position::new(1), first)..=gate::skip_to(Position::new(1), last);
        let streams: BTreeSet<StreamId> = self.records[range].iter().map(|record| record.stream).collect();
        streams.into_iter().collect()
    }

    /// How many records can be read from `from` on, at most `limit`, as a reader of a damaged log finds it.
    pub(crate) fn readable(&self, from: Position, limit: usize) -> Result<usize, ReadError> {
        let from = from.max(Position::new(1));
        let Some((first, last, detail)) = self.damaged.iter().find(|(_, last, _)| from <= *last) else {
            return Ok(limit);
        };
        if from < *first {
            return Ok(limit.min(gate::skip_to(from, *first)));
        }
        let (streams, detail) = (self.streams_in(*first, *last), detail.clone());
        Err(ReadError::Damaged { position: from, last: Some(*last), streams, detail })
    }

    /// Last durable position.
    pub fn durable(&self) -> Position {
        Position::new(self.synced as u64)
    }

    /// Last written position, durable or not.
    pub fn written(&self) -> Position {
        Position::new(self.records.len() as u64)
    }

    /// Number of appends that are written and not synced.
    pub fn unsynced(&self) -> usize {
        self.ends.len()
    }

    /// Durable head of a stream.
    pub fn head(&self, stream: StreamId) -> Head {
        self.heads.get(&stream).copied().unwrap_or_default()
    }

    /// Head of a stream over both halves.
    pub fn written_head(&self, stream: StreamId) -> Head {
        self.written.get(&stream).map_or_else(Head::default, |owned| owned.head)
    }

    /// Owner of a stream (zero if never claimed since the last crash).
    pub fn epoch(&self, stream: StreamId) -> Epoch {
        self.written.get(&stream).map_or(Epoch::ZERO, |owned| owned.epoch)
    }

    /// Streams that have a durable record, in order of their names.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, Head)> + '_ {
        self.heads.iter().map(|(&stream, &head)| (stream, head))
    }

    /// Reads the synced half from position `from`, at most `limit` records, damaged or not.
    pub fn read_all(&self, from: Position, limit: usize) -> Vec<Record> {
        let start = gate::skip_to(Position::new(1), from).min(self.synced);
        self.records[start..self.synced].iter().take(limit).cloned().collect()
    }

    /// Every durable record, in order.
    pub fn records(&self) -> &[Record] {
        &self.records[..self.synced]
    }

    /// Reads the synced half of a stream from version `from`, at most `limit` records.
    pub fn read_stream(
        &self,
        stream: StreamId,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        if let Some(detail) = self.quarantined.get(&stream) {
            return Err(ReadError::Quarantined { stream, detail: detail.clone() });
        }
        let from = from.max(Version::new(1));
        let durable = self.durable();
        let positions = self.index.get(&stream).map_or(&[][..], Vec::as_slice);
        let skip = usize::try_from(from.get() - 1).unwrap_or(usize::MAX);
        let wanted = positions.iter().skip(skip).take(limit).take_while(|&&position| position <= durable);
        let records: Vec<Record> = wanted.map(|position| self.record(*position).clone()).collect();
        assert!(gate::contiguous(&records, from), "versions of stream {stream} are gapless");
        Ok(records)
    }

    fn record(&self, position: Position) -> &Record {
        &self.records[gate::skip_to(Position::new(1), position)]
    }

    /// Why appends are refused at present, if they are.
    pub fn refusal(&self) -> Option<Unavailable> {
        self.refusal.clone()
    }

    /// Damaged streams with the reason of each.
    pub fn quarantined(&self) -> Vec<(StreamId, String)> {
        self.quarantined.iter().map(|(&stream, detail)| (stream, detail.clone())).collect()
    }

    /// Numbers for people.
    pub fn stats(&self) -> LogStats {
        LogStats {
            durable: self.durable(),
            streams: self.heads.len() as u64,
            segments: 1,
            ..self.stats.clone()
        }
    }
}

fn encoded(record: &Record) -> u64 {
    record::encoded_len(record.payload.len(), record.context.as_ref()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::shape::{append, event, stream};

    fn filled(appends: usize) -> SimStore {
        let mut store = SimStore::new();
        let claim = store.claim(stream(1)).unwrap();
        for version in 0..appends as u64 {
            let outcome = store.append(append(stream(1), claim.epoch, version * 2, [event(1), event(2)]));
            assert!(matches!(outcome, AppendOutcome::Appended { .. }));
        }
        store
    }

    #[test]
    fn a_crash_keeps_what_it_is_told_and_only_whole_appends() {
        let table = [
            (Survival::None, 0, None),
            (Survival::All, 3, None),
            (Survival::Prefix(2), 2, None),
            (Survival::Prefix(9), 3, None),
            (Survival::Torn(1), 1, Some(Position::new(3))),
            (Survival::Torn(3), 3, None),
        ];
        for (survival, survived, torn) in table {
            let mut store = filled(3);
            assert_eq!(store.durable(), Position::ZERO);
            let report = store.crash(survival);
            assert_eq!(report, CrashReport { survived, lost: 3 - survived, torn }, "{survival:?}");
            assert_eq!(store.durable().get(), survived as u64 * 2, "{survival:?}");
            assert_eq!(store.written(), store.durable(), "{survival:?}");
            let read = store.read_stream(stream(1), Version::new(1), 100).unwrap();
            assert_eq!(read.len(), survived * 2, "{survival:?}");
        }
    }

    #[test]
    fn an_owner_from_before_a_crash_is_fenced_even_if_nobody_claimed_since() {
        let mut store = filled(1);
        let before = store.epoch(stream(1));
        store.crash(Survival::All);
        let late = store.append(append(stream(1), before, 2, [event(1)]));
        assert_eq!(late, AppendOutcome::Fenced { current: Epoch::ZERO });
        assert!(store.claim(stream(1)).unwrap().epoch > before);
    }

    #[test]
    fn a_failed_sync_poisons_until_the_crash() {
        let mut store = filled(1);
        store.fail_next_sync("injected");
        assert!(matches!(store.sync(), Err(Unavailable::Poisoned(_))));
        store.accept();
        assert!(matches!(store.sync(), Err(Unavailable::Poisoned(_))), "no sync is tried again");
        let epoch = store.epoch(stream(1));
        let refused = store.append(append(stream(1), epoch, 2, [event(1)]));
        assert!(matches!(refused, AppendOutcome::Unavailable(Unavailable::Poisoned(_))));
        store.crash(Survival::None);
        assert_eq!(store.refusal(), None);
        assert_eq!(store.stats().bytes, 0);
    }

    #[test]
    fn no_space_refuses_one_append_and_leaves_no_trace() {
        let mut store = filled(1);
        let epoch = store.epoch(stream(1));
        store.fail_next_append("injected");
        let refused = store.append(append(stream(1), epoch, 2, [event(1)]));
        assert!(matches!(refused, AppendOutcome::Unavailable(Unavailable::NoSpace(_))));
        store.fail_next_append("taken back");
        store.accept();
        let accepted = store.append(append(stream(1), epoch, 2, [event(1)]));
        assert!(matches!(accepted, AppendOutcome::Appended { first, .. } if first == Position::new(3)));
    }

    #[test]
    fn a_quarantined_stream_is_neither_read_nor_extended() {
        let mut store = filled(1);
        store.quarantine(stream(1), "injected");
        assert!(matches!(
            store.read_stream(stream(1), Version::new(1), 1),
            Err(ReadError::Quarantined { .. })
        ));
        assert_eq!(store.claim(stream(1)), Err(Unavailable::Quarantined(stream(1))));
        assert!(store.claim(stream(2)).is_ok());
    }
}
