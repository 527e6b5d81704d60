//! Points in time: microseconds inside, RFC 3339 with `Z` on the wire.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time in microseconds since the Unix epoch, at most `Timestamp::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last instant that RFC 3339 can write and every library reads: the end of the year 9998.
    pub const MAX: Self = Self(253_370_764_799_999_999);

    /// From microseconds since the Unix epoch; anything later than `MAX` becomes `MAX`.
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    fn to_jiff(self) -> jiff::Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
            .expect("every value up to MAX is in the range of jiff")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_jiff().fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed: jiff::Timestamp = text
            .parse()
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a time as RFC 3339"))?;
        let micros = u64::try_from(parsed.as_microsecond())
            .map_err(|_| de::Error::custom("a time before 1970 is not one that a sled can have seen"))?;
        if micros > Self::MAX.0 {
            return Err(de::Error::custom("a time after the year 9998 is not one that a sled can have seen"));
        }
        Ok(Self(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_and_read_in_any_offset() {
        let time = Timestamp::from_micros(1_700_000_000_123_456);
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2023-11-14T22:13:20.123456Z\"");
        for text in ["\"2023-11-14T22:13:20.123456Z\"", "\"2023-11-15T00:13:20.123456+02:00\""] {
            assert_eq!(serde_json::from_str::<Timestamp>(text).unwrap(), time, "{text}");
        }
        let last = serde_json::to_string(&Timestamp::from_micros(u64::MAX)).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&last).unwrap(), Timestamp::MAX);
    }

    #[test]
    fn nonsense_and_times_before_1970_are_refused() {
        for text in ["\"\"", "\"yesterday\"", "1700000000", "\"1969-12-31T23:59:59Z\"", "\"2023-11-14\""] {
            assert!(serde_json::from_str::<Timestamp>(text).is_err(), "{text}");
        }
    }
}
