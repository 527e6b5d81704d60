//! An inventory that is still the same is not sent again: what a sled answered last has a tag, and a sled that is
//! asked with the tag of what it would answer says only that.
//!
//! Invariants:
//! * two inventories with one tag are the same, boot and epoch included;
//! * a sled that knows no tags answers in full, and so does one that is asked without.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::control::Inventory;

/// Longest tag that is kept, in bytes.
const TAG_BYTES_MAX: usize = 128;

/// Bytes of the hash that a tag shows: enough that no two inventories share one.
const HASH_BYTES: usize = 16;

/// What tells one inventory of a sled from any other, in the quoted form of an HTTP entity tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryTag(String);

impl InventoryTag {
    /// The tag of an answer with this body.
    pub fn of(body: &[u8]) -> Self {
        let hash = Sha256::digest(body);
        let mut text = String::from('"');
        for byte in hash.iter().take(HASH_BYTES) {
            write!(text, "{byte:02x}").expect("a string takes everything");
        }
        text.push('"');
        Self(text)
    }

    /// Reads a tag as it came; none if it is too long or not in quotes.
    pub fn read(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        let is_plain = inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        (is_plain && text.len() <= TAG_BYTES_MAX).then(|| Self(text.to_owned()))
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a sled answered when it was asked for its inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is what was answered with the tag that was sent.
    Unchanged,
    /// All of it, and its tag if the sled gives one.
    Whole(Inventory, Option<InventoryTag>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_as_it_was_sent_and_nothing_else_is_taken_for_one() {
        let tag = InventoryTag::of(b"{}");
        assert_eq!(InventoryTag::read(tag.as_str()), Some(tag.clone()));
        assert_ne!(tag, InventoryTag::of(b"{ }"));
        let long = format!("\"{}\"", "a".repeat(TAG_BYTES_MAX));
        for text in ["", "\"", "abc", "\"a", "a\"", "W/\"a\"", "\"a\"b\"", "\"a b\"", "\"\u{f6}\"", &long] {
            assert_eq!(InventoryTag::read(text), None, "{text:?}");
        }
    }
}
