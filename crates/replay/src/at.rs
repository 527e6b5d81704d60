//! A moment of the past, as people write it: `#118` (version of the stream), `@1234` or `1234` (position
//! in the log), RFC 3339, `-30s` `-5m` `-2h` `-1d` (that long ago), `now`.

use crate::time::rfc3339;
use journal::Recorded;
use lifecycle::{Span, Timestamp};
use std::fmt;

/// A moment. The state at it includes every event up to and including it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Now,
    /// A version of the stream, from 1.
    Version(u64),
    /// A position of the log, from 1.
    Position(u64),
    /// A recorded time.
    Time(Timestamp),
}

/// Text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no moment ({problem}): write #118 for a version, @1234 for a position, a time such as \
     2026-01-31T12:00:00Z, or -30s, -5m, -2h, -1d for that long ago"
)]
pub struct AtError {
    /// What was written, shortened.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl At {
    /// Reads a moment. `now` is what `-30s` counts from.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, AtError> {
        const CHARS_MAX: usize = 64;
        Self::read(text.trim(), now)
            .map_err(|problem| AtError { text: text.chars().take(CHARS_MAX).collect(), problem })
    }

    fn read(text: &str, now: Timestamp) -> Result<Self, &'static str> {
        if text == "now" {
            return Ok(Self::Now);
        }
        if let Some(version) = text.strip_prefix('#') {
            return from_one(version).map(Self::Version);
        }
        if let Some(ago) = text.strip_prefix('-') {
            let ago = span(ago)?;
            return Ok(Self::Time(Timestamp::from_micros(now.micros().saturating_sub(ago.micros()))));
        }
        let position = text.strip_prefix('@').unwrap_or(text);
        if text.starts_with('@') || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())) {
            return from_one(position).map(Self::Position);
        }
        let time: jiff::Timestamp =
            text.parse().map_err(|_| "it is neither a place nor a time with offset")?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| "it lies before 1970")?;
        Ok(Self::Time(Timestamp::from_micros(micros)))
    }

    /// Whether the event had happened by then.
    pub(crate) fn includes(self, recorded: &Recorded) -> bool {
        match self {
            Self::Now => true,
            Self::Version(version) => recorded.meta.version <= version,
            Self::Position(position) => recorded.meta.position <= position,
            Self::Time(time) => recorded.meta.time <= time,
        }
    }
}

fn from_one(digits: &str) -> Result<u64, &'static str> {
    match digits.parse() {
        Ok(0) => Err("numbers start at 1"),
        Ok(number) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err("it is not a number"),
    }
}

fn span(text: &str) -> Result<Span, &'static str> {
    let unit = text.chars().last().ok_or("a number and a unit are missing")?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err("its unit is not s, m, h or d"),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("it is not a whole number of units");
    }
    let count: u64 = digits.parse().map_err(|_| "its number is too large")?;
    Ok(Span::from_secs(count.saturating_mul(secs)))
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Version(version) => write!(f, "#{version}"),
            Self::Position(position) => write!(f, "@{position}"),
            Self::Time(time) => f.write_str(&rfc3339(*time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn ago(secs: u64) -> At {
        At::Time(Timestamp::from_micros(NOW.micros() - secs * 1_000_000))
    }

    #[test]
    fn every_way_of_writing_a_moment_is_read() {
        for (text, expected) in [
            ("now", At::Now),
            ("#118", At::Version(118)),
            ("@1234", At::Position(1234)),
            ("1234", At::Position(1234)),
            (" 7 ", At::Position(7)),
            ("-30s", ago(30)),
            ("-5m", ago(300)),
            ("-2h", ago(7_200)),
            ("-1d", ago(86_400)),
            ("-0s", At::Time(NOW)),
            ("2023-11-14T22:13:20Z", At::Time(NOW)),
            ("2023-11-14T23:13:20+01:00", At::Time(NOW)),
            ("2023-11-14T22:13:20.000001Z", At::Time(Timestamp::from_micros(NOW.micros() + 1))),
        ] {
            assert_eq!(At::parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn longer_ago_than_time_is_the_beginning_of_time() {
        assert_eq!(At::parse("-9999999999999d", NOW), Ok(At::Time(Timestamp::from_micros(0))));
    }

    #[test]
    fn what_is_no_moment_is_refused_with_the_reason() {
        for (text, problem) in [
            ("", "neither"),
            ("#", "not a number"),
            ("#0", "start at 1"),
            ("@+5", "not a number"),
            ("0", "start at 1"),
            ("-", "missing"),
            ("-5", "unit"),
            ("-5w", "unit"),
            ("-é", "unit"),
            ("-+5s", "whole number"),
            ("-s", "whole number"),
            ("-99999999999999999999d", "too large"),
            ("yesterday", "neither"),
            ("2023-11-14T22:13:20", "neither"),
            ("1969-12-31T23:59:59Z", "before 1970"),
        ] {
            let error = At::parse(text, NOW).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_moment_reads_back_from_its_text() {
        for at in [At::Now, At::Version(3), At::Position(4), At::Time(NOW)] {
            assert_eq!(At::parse(&at.to_string(), NOW), Ok(at));
        }
    }
}
