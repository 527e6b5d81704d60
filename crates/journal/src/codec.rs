//! The codec of stored values: the only file that names bincode, so that another codec can take over per
//! event.
//!
//! Invariants:
//! * every byte is used up: the codec itself would accept what trails;
//! * a length is believed only as far as [`BYTES_MAX`] allows, before anything is allocated for it; only state
//!   whose checksums have been compared may be larger;
//! * integers are variable-length, little-endian first; the configuration is part of codec id 1.

use bincode::config::{Configuration, Limit, LittleEndian, NoLimit, Varint};
use bytes::Bytes;
use eventlog::{CodecId, LIMITS};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};

pub(crate) use bincode::de::{Decode, Decoder};
pub(crate) use bincode::enc::{Encode, Encoder};
pub(crate) use bincode::error::{DecodeError, EncodeError};

/// Stored with every event that this codec wrote.
pub const CODEC: CodecId = CodecId(1);

/// Most bytes a decoded value may claim: no stored value outgrows its record.
const BYTES_MAX: usize = LIMITS.record_bytes_max;

const CONFIG: Configuration<LittleEndian, Varint, Limit<BYTES_MAX>> =
    bincode::config::standard().with_limit::<BYTES_MAX>();

/// For state that has been checked before it is decoded, and outgrows a record.
const UNBOUNDED: Configuration<LittleEndian, Varint, NoLimit> = bincode::config::standard();

/// Why bytes are no value of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// They do not decode.
    #[error("{0}")]
    Bytes(String),
    /// They decode before their end.
    #[error("{0} byte(s) follow the end of the value")]
    Trailing(usize),
}

/// The bytes of a value.
pub(crate) fn encode(value: &impl Encode) -> Bytes {
    let bytes = bincode::encode_to_vec(value, CONFIG).expect("mirrors hold plain data, and memory takes it");
    Bytes::from(bytes)
}

/// The value that is exactly these bytes.
pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, Malformed> {
    exactly(bytes, bincode::decode_from_slice(bytes, CONFIG))
}

/// The bytes of disposable state, in whatever layout it has at present.
pub(crate) fn encode_disposable(value: &impl Serialize) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, CONFIG).expect("folds are plain data of known length")
}

/// The state that is exactly these bytes, if its layout is still the same.
pub(crate) fn decode_disposable<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    exactly(bytes, bincode::serde::decode_from_slice(bytes, CONFIG))
}

/// Writes disposable state of any size, in whatever layout it has at present; answers its bytes.
pub(crate) fn write_disposable(value: &impl Serialize, to: &mut impl Write) -> Result<usize, String> {
    bincode::serde::encode_into_std_write(value, to, UNBOUNDED).map_err(|error| error.to_string())
}

/// Reads disposable state of any size, if its layout is still the same. What is read must have been checked:
/// a length in it is believed.
pub(crate) fn read_disposable<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, Malformed> {
    bincode::serde::decode_from_std_read(from, UNBOUNDED).map_err(|error| Malformed::Bytes(error.to_string()))
}

fn exactly<T>(bytes: &[u8], decoded: Result<(T, usize), DecodeError>) -> Result<T, Malformed> {
    let (value, consumed) = decoded.map_err(|error| Malformed::Bytes(error.to_string()))?;
    if consumed == bytes.len() { Ok(value) } else { Err(Malformed::Trailing(bytes.len() - consumed)) }
}

/// What a decoder answers to a variant number that was never given out.
pub(crate) fn unknown_variant(type_name: &'static str, tag: u8) -> DecodeError {
    DecodeError::OtherString(format!("{type_name} has no variant {tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64).to_vec();
        assert_eq!(decode::<u64>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u64>(&bytes), Err(Malformed::Trailing(1)));
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_allocated() {
        // 253 announces eight bytes of length: 2^63 elements.
        let bytes = [253, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert!(matches!(decode::<String>(&bytes), Err(Malformed::Bytes(_))));
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(Malformed::Bytes(_))));
        assert!(matches!(decode_disposable::<Vec<u64>>(&bytes), Err(Malformed::Bytes(_))));
    }
}
