//! Who is at the other end: a fleet's secret, the key of each sled that is made from it, and the tokens that are sent.
//!
//! ```text
//!   secret ─▶ key of one sled ─▶ token of the sled to its control plane
//!          │                  └▶ token of the control plane to this sled
//!          └▶ key of all migrations ─▶ token of a sled to another
//! ```
//!
//! Each arrow is an HMAC-SHA256 of a name that is used for nothing else.
//!
//! Invariants:
//! * only the control plane has the secret; a sled has its own key, and so cannot speak for another sled;
//! * what is sent in one direction is no use in the other;
//! * how long a comparison takes says nothing about what was expected;
//! * no `Debug` shows a secret, a key or a token.

use std::fmt::{self, Write as _};
use std::hint::black_box;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::ids::SledId;

/// Shortest secret of a fleet, in bytes: 32 random bytes in any encoding are longer.
const SECRET_BYTES_MIN: usize = 32;

/// Longest secret of a fleet, in bytes.
const SECRET_BYTES_MAX: usize = 1024;

/// What a key file begins with.
const KEY_HEAD: &str = "musher-sled-key-1";

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

type Mac = [u8; 32];

fn hmac(key: &[u8], name: &str) -> Mac {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(name).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn from_hex(text: &str) -> Option<Mac> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut bytes = [0; 32];
    for (nth, byte) in bytes.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * nth..2 * nth + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
}

/// What only the control plane knows.
#[derive(Clone)]
pub struct FleetSecret(Vec<u8>);

impl FleetSecret {
    /// The secret in a file; white space around it does not count. Refuses what is too short to be one.
    pub fn read(text: &str) -> Result<Self, String> {
        let secret = text.trim().as_bytes();
        if secret.len() < SECRET_BYTES_MIN || secret.len() > SECRET_BYTES_MAX {
            let len = secret.len();
            return Err(format!("it has {len} bytes; a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}"));
        }
        Ok(Self(secret.to_vec()))
    }

    /// The key of one sled.
    pub fn key(&self, sled: SledId) -> SledKey {
        SledKey {
            sled,
            own: hmac(&self.0, &format!("musher sled {sled}")),
            peers: hmac(&self.0, "musher peers"),
        }
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret(..)")
    }
}

/// What one sled knows, and proves who it is with.
#[derive(Clone, PartialEq, Eq)]
pub struct SledKey {
    sled: SledId,
    own: Mac,
    peers: Mac,
}

impl SledKey {
    /// Whose it is.
    pub const fn sled(&self) -> SledId {
        self.sled
    }

    /// What the sled sends to its control plane.
    pub fn to_control_plane(&self) -> Token {
        Token(hex(&hmac(&self.own, "to the control plane")))
    }

    /// What the control plane sends to the sled.
    pub fn to_sled(&self) -> Token {
        Token(hex(&hmac(&self.own, "to the sled")))
    }

    /// What a sled sends to another from or to which a guest moves.
    pub fn to_peer(&self) -> Token {
        Token(hex(&hmac(&self.peers, "to a peer")))
    }

    /// The line of a key file.
    pub fn line(&self) -> String {
        format!("{KEY_HEAD} {} {} {}", self.sled, hex(&self.own), hex(&self.peers))
    }
}

impl FromStr for SledKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "it holds no key of a sled; `musher sled key` makes one".to_owned();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [KEY_HEAD, sled, own, peers] = fields[..] else {
            return Err(malformed());
        };
        let sled = sled.parse().map_err(|_| malformed())?;
        let (own, peers) = (from_hex(own).ok_or_else(malformed)?, from_hex(peers).ok_or_else(malformed)?);
        Ok(Self { sled, own, peers })
    }
}

impl fmt::Debug for SledKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SledKey({}, ..)", self.sled)
    }
}

/// What is sent as a bearer token.
#[derive(Clone)]
pub struct Token(String);

/// What an `authorization` header proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// It is the token.
    Right,
    /// It is another.
    Wrong,
    /// There is none.
    Missing,
}

impl Token {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the value of an `authorization` header is this token.
    pub fn is_in(&self, authorization: Option<&[u8]>) -> Presented {
        let text = authorization.and_then(|value| std::str::from_utf8(value).ok());
        let Some((scheme, given)) = text.and_then(|text| text.split_once(' ')) else {
            return Presented::Missing;
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Presented::Missing;
        }
        let (given, expected) = (Sha256::digest(given.trim()), Sha256::digest(&self.0));
        let differing = given.iter().zip(expected).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        if differing == 0 { Presented::Right } else { Presented::Wrong }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn secret(text: &str) -> FleetSecret {
        FleetSecret::read(text).unwrap()
    }

    fn sled(n: u128) -> SledId {
        SledId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn the_arrows_are_hmac_sha256() {
        // RFC 4231, cases 2 and 6.
        let mac = hmac(b"Jefe", "what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let mac = hmac(&[0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&mac), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn every_sled_and_every_direction_has_a_token_of_its_own() {
        let (one, other) = (secret(&"a".repeat(32)), secret(&"b".repeat(32)));
        let mut tokens = Vec::new();
        for key in [one.key(sled(1)), one.key(sled(2)), other.key(sled(1))] {
            tokens.extend([key.to_control_plane().0, key.to_sled().0]);
        }
        tokens.push(one.key(sled(1)).to_peer().0);
        assert_eq!(one.key(sled(1)).to_peer().0, one.key(sled(2)).to_peer().0, "peers know no other key");
        tokens.sort();
        let count = tokens.len();
        tokens.dedup();
        assert_eq!(tokens.len(), count);
        assert_eq!(secret(&format!(" {} \n", "a".repeat(32))).key(sled(1)), one.key(sled(1)));
    }

    #[test]
    fn a_key_reads_back_and_what_is_none_is_refused() {
        let key = secret(&"a".repeat(32)).key(sled(1));
        assert_eq!(format!("{}\n", key.line()).parse(), Ok(key.clone()));
        let cut = key.line();
        for bad in ["", "x", &cut[..cut.len() - 1], &cut.replace("key-1", "key-2"), &format!("{cut} x")] {
            assert!(bad.parse::<SledKey>().is_err(), "{bad}");
        }
        assert!(FleetSecret::read(&"a".repeat(31)).is_err() && FleetSecret::read(&"a".repeat(1025)).is_err());
        let shown = format!("{key:?} {:?} {:?}", key.to_sled(), secret(&"a".repeat(32)));
        assert!(!shown.contains(&hex(&key.own)) && !shown.contains("aaaa"), "{shown}");
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = secret(&"a".repeat(32)).key(sled(1)).to_sled();
        let bearer = format!("Bearer {}", token.as_str());
        for (value, expected) in [
            (bearer.clone(), Presented::Right),
            (bearer.replace("Bearer", "bearer"), Presented::Right),
            (format!("{bearer}0"), Presented::Wrong),
            (bearer[..bearer.len() - 1].to_owned(), Presented::Wrong),
            ("Bearer ".to_owned(), Presented::Wrong),
            (token.as_str().to_owned(), Presented::Missing),
            (format!("Basic {}", token.as_str()), Presented::Missing),
            (String::new(), Presented::Missing),
        ] {
            assert_eq!(token.is_in(Some(value.as_bytes())), expected, "{value}");
        }
        assert_eq!(token.is_in(None), Presented::Missing);
        assert_eq!(token.is_in(Some(&[0xff, b' ', 0xff])), Presented::Missing);
    }
}
