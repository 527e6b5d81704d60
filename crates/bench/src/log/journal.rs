//! Writers of the journal: each owns a stream and appends one event at a time.

use crate::Failure;
use crate::log::PAYLOAD_BYTES;
use crate::log::engine::Writer;
use bytes::Bytes;
use eventlog::{
    Append, AppendContext, AppendOutcome, Cause, Claim, CodecId, Log, NewEvent, StreamId, StreamKind, Version,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Bytes of one appended event in the journal: envelope, empty context, payload, checksum.
pub const RECORD_BYTES: usize = 80 + 8 + PAYLOAD_BYTES + 4;

/// Name of the stream with this number.
pub fn stream(number: u32) -> StreamId {
    let mut id = [0x11; 16];
    // Spread over the names, as random ids are.
    id[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_le_bytes());
    StreamId::new(StreamKind(1), id)
}

/// An append of `count` events.
pub fn append_of(stream: StreamId, claim: &Claim, expected: Version, count: usize) -> Append {
    let event = NewEvent {
        kind: 1,
        schema: 1,
        codec: CodecId(1),
        time_us: 1_700_000_000_000_000,
        cause: Cause::None,
        payload: Bytes::from_static(&[7; PAYLOAD_BYTES]),
    };
    let events = vec![event; count];
    Append { stream, epoch: claim.epoch, expected, events, context: AppendContext::default() }
}

/// One owner of a stream.
pub struct JournalWriter {
    log: Arc<dyn Log>,
    stream: StreamId,
    claim: Claim,
    version: Version,
}

impl JournalWriter {
    /// Claims the stream with this number.
    pub async fn claim(log: Arc<dyn Log>, number: u32) -> Result<Self, Failure> {
        let stream = stream(number);
        let claim = log.claim(stream).await?;
        Ok(Self { log, stream, claim, version: claim.head.version })
    }

    /// Appends `count` events at once.
    pub async fn append_many(&mut self, count: usize) -> Result<(), Failure> {
        let append = append_of(self.stream, &self.claim, self.version, count);
        match self.log.append(append).await {
            AppendOutcome::Appended { version, .. } => self.version = version,
            other => return Err(format!("an append was not accepted: {other:?}").into()),
        }
        Ok(())
    }
}

impl Writer for JournalWriter {
    fn append(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.append_many(1).boxed()
    }
}
