//! A page of records as bytes, for a reader elsewhere: one record after the other, as the log stores them.
//!
//! Invariant: each record carries its own checksum and length, so that a page that was cut or altered is refused
//! by the place where it is.

use crate::record;
use crate::types::Record;
use bytes::Bytes;

/// Bytes that are no page of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page of records is damaged at byte {at}: {detail}; ask for it again")]
pub struct NoPage {
    /// Where, from 0.
    pub at: usize,
    /// What is wrong.
    pub detail: String,
}

/// The records as bytes.
pub fn pack(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for it in records {
        record::encode(&mut bytes, it);
    }
    bytes
}

/// The records that are exactly these bytes.
pub fn unpack(bytes: &Bytes) -> Result<Vec<Record>, NoPage> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (it, length) =
            record::decode(bytes, at).map_err(|error| NoPage { at, detail: error.to_string() })?;
        records.push(it);
        at += length;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AppendContext, CodecId, Position, StreamId, StreamKind, Version};

    fn page() -> Vec<Record> {
        (1..=3)
            .map(|n| Record {
                position: Position::new(n),
                stream: StreamId::new(StreamKind(1), [7; 16]),
                version: Version::new(n),
                previous: Position::new(n - 1),
                cause: Position::ZERO,
                kind: 100,
                schema: 1,
                codec: CodecId(1),
                time_us: n,
                index: (0, 1),
                context: Some(AppendContext::default()),
                payload: Bytes::from(vec![1; 5]),
            })
            .collect()
    }

    #[test]
    fn a_page_reads_back_and_none_that_was_cut_or_altered_does() {
        let bytes = pack(&page());
        assert_eq!(unpack(&Bytes::from(bytes.clone())), Ok(page()));
        assert_eq!(unpack(&Bytes::new()), Ok(Vec::new()));
        let one = bytes.len() / 3;
        for cut in 1..bytes.len() {
            let read = unpack(&Bytes::copy_from_slice(&bytes[..cut]));
            assert_eq!(read.is_ok(), cut % one == 0, "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x10;
            let refused = unpack(&Bytes::from(altered)).unwrap_err();
            assert_eq!(refused.at, at / one * one, "byte {at}");
        }
    }
}
