//! A VMM's serial output: the last few kilobytes of it, addressed from its first byte.

use serde::{Deserialize, Serialize};
use sled_protocol::{SerialData, SerialRange, limits};

/// Bytes kept per VMM: a boot's worth of lines, small enough to be stored with every change of the VMM.
const KEPT_BYTES_MAX: usize = 4096;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serial {
    kept: String,
    discarded: u64,
}

impl Serial {
    pub(crate) fn write(&mut self, text: &str) {
        self.kept.push_str(text);
        let mut excess = self.kept.len().saturating_sub(KEPT_BYTES_MAX);
        while !self.kept.is_char_boundary(excess) {
            excess += 1;
        }
        self.kept.drain(..excess);
        self.discarded += excess as u64;
    }

    /// Output before what is kept is skipped, and the future is empty.
    pub(crate) fn read(&self, range: SerialRange) -> SerialData {
        let skipped = range.from_start.saturating_sub(self.discarded).min(self.kept.len() as u64) as usize;
        let rest = &self.kept.as_bytes()[skipped..];
        let wanted = range.max_bytes.unwrap_or(limits::SERIAL_BYTES_MAX).min(rest.len() as u64) as usize;
        let data = rest[..wanted].to_vec();
        SerialData { last_byte_offset: self.discarded + (skipped + wanted) as u64, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_can_follow_and_never_gets_more_than_is_kept() {
        let mut serial = Serial::default();
        serial.write("hello ");
        serial.write("world");
        let read = |serial: &Serial, from_start, max_bytes| {
            let answer = serial.read(SerialRange { from_start, max_bytes });
            (String::from_utf8(answer.data).unwrap(), answer.last_byte_offset)
        };
        assert_eq!(read(&serial, 0, Some(5)), ("hello".into(), 5));
        assert_eq!(read(&serial, 5, None), (" world".into(), 11));
        assert_eq!(read(&serial, 99, None), (String::new(), 11));
        serial.write(&"é".repeat(KEPT_BYTES_MAX));
        let (kept, offset) = read(&serial, 0, None);
        assert!(kept.len() <= KEPT_BYTES_MAX && kept.chars().all(|c| c == 'é'));
        assert_eq!(offset, 11 + 2 * KEPT_BYTES_MAX as u64);
    }
}
