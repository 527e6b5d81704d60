//! Recorded times as people and JSON write them.

use lifecycle::Timestamp;

/// The moment as RFC 3339 in UTC, to the microsecond; beyond the year 9999 it is the last that can be
/// written.
pub fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.micros()).unwrap_or(i64::MAX);
    let written = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    format!("{written:.6}")
}

/// Serialises a time as [`rfc3339`] writes it.
pub(crate) fn serialize<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// The same, or null.
#[expect(clippy::ref_option, reason = "serde gives fields by reference")]
pub(crate) fn serialize_some<S: serde::Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serialises a span as seconds, or null.
#[expect(clippy::ref_option, reason = "serde gives fields by reference")]
pub(crate) fn serialize_span<S: serde::Serializer>(
    span: &Option<lifecycle::Span>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => serializer.serialize_f64(std::time::Duration::from_micros(span.micros()).as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_written_with_six_digits_in_utc() {
        assert_eq!(rfc3339(Timestamp::from_micros(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(Timestamp::from_micros(1_700_000_000_000_001)), "2023-11-14T22:13:20.000001Z");
        assert!(rfc3339(Timestamp::from_micros(u64::MAX)).starts_with("9999-"));
    }
}
