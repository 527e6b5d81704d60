//! What stands beside an append's input: the reason that was given for it.
//!
//! Without a reason the bytes are the input's own, or none. With one, a number that no input ever has comes
//! first, then the reason with its length, then the input's own bytes, or none. So both sorts of input change
//! apart from each other, and what was written before there were reasons reads as ever.

use crate::error::DecodeProblem;
use crate::inputs::{decode_input, encode_input};
use bytes::{BufMut, Bytes, BytesMut};
use lifecycle::Input;
use lifecycle::spec::REASON_CHARS_MAX;

/// Where an input has its schema number, which only ever counts up from 1.
const NOTED: u16 = 0x8001;

/// Longest reason that is stored, bytes; longer ones are cut at a character.
const REASON_BYTES_MAX: usize = 4 * REASON_CHARS_MAX;

/// The bytes of a reason and an input, either of which may be missing.
pub(crate) fn encode_noted(reason: Option<&str>, input: Option<&Input>) -> Bytes {
    let input = input.map_or_else(Bytes::new, encode_input);
    let Some(reason) = reason else {
        return input;
    };
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let length = u16::try_from(reason.len()).expect("reasons are bounded");
    let mut bytes = BytesMut::with_capacity(4 + reason.len() + input.len());
    bytes.put_u16_le(NOTED);
    bytes.put_u16_le(length);
    bytes.put_slice(reason.as_bytes());
    bytes.put(input);
    bytes.freeze()
}

/// The reason and the input that these bytes are.
pub(crate) fn decode_noted(bytes: &[u8]) -> Result<(Option<String>, Option<Input>), DecodeProblem> {
    let malformed = |what: &str| DecodeProblem::Malformed(format!("context: {what}"));
    let (reason, input) = match bytes.split_first_chunk() {
        Some((number, rest)) if u16::from_le_bytes(*number) == NOTED => {
            let (length, rest) =
                rest.split_first_chunk().ok_or_else(|| malformed("its reason is cut off"))?;
            let (reason, input) = rest
                .split_at_checked(usize::from(u16::from_le_bytes(*length)))
                .ok_or_else(|| malformed("its reason is cut off"))?;
            let reason = std::str::from_utf8(reason).map_err(|_| malformed("its reason is not UTF-8"))?;
            (Some(reason.to_owned()), input)
        }
        _ => (None, bytes),
    };
    let input = if input.is_empty() { None } else { Some(decode_input(input)?) };
    Ok((reason, input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reason_and_input_read_back_each_with_or_without_the_other() {
        for reason in [None, Some(""), Some("firmware \u{1f4a5}")] {
            for input in [None, Some(Input::Reconsider)] {
                let bytes = encode_noted(reason, input.as_ref());
                assert_eq!(decode_noted(&bytes), Ok((reason.map(str::to_owned), input.clone())));
            }
        }
        let long = "\u{e9}".repeat(REASON_BYTES_MAX);
        let (cut, _) = decode_noted(&encode_noted(Some(&long), None)).unwrap();
        assert_eq!(cut.map(|cut| cut.len()), Some(REASON_BYTES_MAX));
    }

    #[test]
    fn the_bytes_of_a_reason_never_change() {
        let bytes = encode_noted(Some("why"), Some(&Input::Reconsider));
        let golden = [&[0x01, 0x80, 3, 0], b"why".as_slice(), &encode_input(&Input::Reconsider)].concat();
        assert_eq!(bytes, golden);
        assert_eq!(encode_noted(None, Some(&Input::Reconsider)), encode_input(&Input::Reconsider));
        assert!(encode_noted(None, None).is_empty());
    }

    #[test]
    fn what_is_cut_off_or_no_text_is_malformed() {
        for bad in [&[0x01, 0x80][..], &[0x01, 0x80, 1], &[0x01, 0x80, 2, 0, b'a'], &[0x01, 0x80, 1, 0, 0xff]]
        {
            assert!(matches!(decode_noted(bad), Err(DecodeProblem::Malformed(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_noted(&bytes);
            let _ = decode_noted(&[&[0x01, 0x80], bytes.as_slice()].concat());
        }
    }
}
