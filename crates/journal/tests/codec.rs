//! Properties of the stored form: what goes in comes out, and what never went in is refused without harm.

mod arbitrary;
mod examples;

use eventlog::CodecId;
use journal::{
    CODEC, DecodeProblem, decode_event, decode_input, decode_snapshot, encode_event, encode_input,
    event_kinds,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Longest arbitrary payload tried: longer than any event without long texts.
const BYTES_MAX: usize = 400;

fn mutated(bytes: &[u8], at: Index, to: u8, cut: Index) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        bytes[at] = to;
        bytes.truncate(cut.index(bytes.len() + 1).max(1));
    }
    bytes
}

#[test]
fn numbers_that_no_build_gave_out_are_refused_by_name() {
    let event = &examples::events()[0];
    let stored = encode_event(event);
    let payload = &stored.payload;
    for (kind, schema, codec, expected) in [
        (100, 3, CODEC, DecodeProblem::NewerSchema { known: 2 }),
        (100, u16::MAX, CODEC, DecodeProblem::NewerSchema { known: 2 }),
        (101, 2, CODEC, DecodeProblem::NewerSchema { known: 1 }),
        (99, 1, CODEC, DecodeProblem::UnknownKind),
        (124, 1, CODEC, DecodeProblem::UnknownKind),
        (100, 1, CodecId(0), DecodeProblem::UnknownCodec(CodecId(0))),
        (100, 1, CodecId(2), DecodeProblem::UnknownCodec(CodecId(2))),
    ] {
        assert_eq!(decode_event(kind, schema, codec, payload), Err(expected));
    }
    assert!(matches!(decode_event(100, 0, CODEC, payload), Err(DecodeProblem::Malformed(_))));
    assert_eq!(decode_input(&[3, 0, 7]), Err(DecodeProblem::NewerSchema { known: 2 }));
    for bytes in [&[][..], &[1], &[0, 0, 7], &[1, 0, 8], &[1, 0, 0], &[2, 0, 10], &[1, 0, 1, 6, 0]] {
        assert!(matches!(decode_input(bytes), Err(DecodeProblem::Malformed(_))), "{bytes:?}");
    }
}

#[test]
fn an_event_cut_or_followed_by_anything_is_refused() {
    for event in examples::events() {
        let stored = encode_event(&event);
        let decode = |payload: &[u8]| decode_event(stored.kind.kind, stored.kind.schema, CODEC, payload);
        for end in 0..stored.payload.len() {
            assert!(decode(&stored.payload[..end]).is_err(), "{event:?} cut at {end}");
        }
        let longer: Vec<u8> = stored.payload.iter().copied().chain([0]).collect();
        assert!(decode(&longer).is_err(), "{event:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_event_reads_back_as_written(event in arbitrary::event()) {
        let stored = encode_event(&event);
        let decoded = decode_event(stored.kind.kind, stored.kind.schema, stored.codec, &stored.payload);
        prop_assert_eq!(decoded, Ok(event));
    }

    #[test]
    fn every_input_reads_back_as_written(input in arbitrary::input()) {
        prop_assert_eq!(decode_input(&encode_input(&input)), Ok(input));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_mean_one_thing(
        kind in select(event_kinds().collect::<Vec<_>>()),
        bytes in prop::collection::vec(any::<u8>(), 0..BYTES_MAX),
    ) {
        if let Ok(event) = decode_event(kind.kind, kind.schema, CODEC, &bytes) {
            // Integers have longer spellings, so the bytes may differ; what they mean may not.
            let stored = encode_event(&event);
            prop_assert!(stored.payload.len() <= bytes.len());
            prop_assert_eq!(decode_event(kind.kind, kind.schema, CODEC, &stored.payload), Ok(event));
        }
        let _ = decode_input(&bytes);
        let _ = decode_snapshot(&bytes);
    }

    #[test]
    fn damaged_events_and_inputs_never_panic(
        event in arbitrary::event(),
        input in arbitrary::input(),
        at in any::<Index>(),
        to in any::<u8>(),
        cut in any::<Index>(),
    ) {
        let stored = encode_event(&event);
        let damaged = mutated(&stored.payload, at, to, cut);
        if let Ok(event) = decode_event(stored.kind.kind, stored.kind.schema, CODEC, &damaged) {
            prop_assert!(encode_event(&event).payload.len() <= damaged.len());
        }
        let damaged = mutated(&encode_input(&input), at, to, cut);
        if let Ok(input) = decode_input(&damaged) {
            prop_assert!(encode_input(&input).len() <= damaged.len());
        }
    }
}
