//! Who may do what: bearer tokens, each with a name and one of three roles.
//!
//! A token file has one line per token, `NAME ROLE sha256:HEX TIME`, and never a token itself. Tokens are 244
//! random bits: one round of SHA-256 hides them, because there is nothing to guess.
//!
//! Invariants:
//! * how long it takes to look a token up says nothing about those that are known: all are compared, whole;
//! * a path that is not there needs a token as well, and so tells strangers nothing;
//! * tokens are replaced all together, or not at all.

use crate::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use sled_protocol::{FleetSecret, Presented, SLED_ID_HEADER, SledId};
use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// Most tokens in a file: every request is compared with all of them.
pub const TOKENS_MAX: usize = 1_024;

/// Longest name of a token, bytes; it is the name of its holder in the log.
pub const NAME_BYTES_MAX: usize = 63;

/// Who asks where nobody has a token.
const ANYBODY: &str = "operator";

/// What the holder of a token may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything but the log as a whole.
    Viewer,
    /// Change instances, projects, groups and sleds.
    Operator,
    /// Set quotas, give sleds up for good, carry the log away.
    Admin,
}

impl Role {
    /// Its name in files and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Viewer, Self::Operator, Self::Admin];
        let found = all.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("\"{text}\" is no role; there are viewer, operator and admin"))
    }
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Takes as long whether they differ early, late or not at all.
    fn equals(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        differing == 0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "a hash is \"sha256:\" and 64 digits of lower-case hex".to_owned();
        let digits = text.strip_prefix("sha256:").ok_or_else(malformed)?;
        let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits.len() != 64 || !is_hex {
            return Err(malformed());
        }
        let mut hash = [0; 32];
        for (nth, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * nth..2 * nth + 2], 16).map_err(|_| malformed())?;
        }
        Ok(Self(hash))
    }
}

/// One line of a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What its holder may do.
    pub role: Role,
    /// Its hash.
    pub hash: TokenHash,
    /// When it was made; for people.
    pub made: String,
}

/// The tokens that are known, by the name of their holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// Reads a token file; the refusal names the line. Empty lines and those that begin with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Self::default();
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let of_line = |problem: String| format!("line {}: {problem}", nth + 1);
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, role, hash, made] = fields[..] else {
                return Err(of_line("a token is a name, a role, a hash and a time".to_owned()));
            };
            let role = role.parse().map_err(of_line)?;
            let hash = hash.parse().map_err(of_line)?;
            tokens.add(name, Token { role, hash, made: made.to_owned() }).map_err(of_line)?;
        }
        Ok(tokens)
    }

    /// Adds one; refused if the name is taken or none, or if there are too many.
    pub fn add(&mut self, name: &str, token: Token) -> Result<(), String> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
        let is_name = name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain);
        if !is_name || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(format!(
                "a token's name is 1 to {NAME_BYTES_MAX} letters, digits, \"-\", \"_\", \".\" or \"@\", and begins \
                 with a letter or digit"
            ));
        }
        if self.0.contains_key(name) {
            return Err(format!("there is a token by the name \"{name}\"; revoke it, or take another name"));
        }
        if self.0.len() >= TOKENS_MAX {
            return Err(format!("there are {TOKENS_MAX} tokens; revoke one first"));
        }
        self.0.insert(name.to_owned(), token);
        Ok(())
    }

    /// Takes one away; false if there is none by this name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Whether nobody could come in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Token)> {
        self.0.iter().map(|(name, token)| (name.as_str(), token))
    }

    fn holder(&self, token: &str) -> Option<Identity> {
        let hash = TokenHash::of(token);
        let mut found = None;
        for (name, known) in &self.0 {
            if known.hash.equals(&hash) {
                found = Some((name, known.role));
            }
        }
        found.map(|(name, role)| Identity { name: name.clone(), role })
    }
}

impl fmt::Display for Tokens {
    /// As a token file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Tokens of musher: name, role, hash, time made. The tokens themselves are nowhere.")?;
        for (name, Token { role, hash, made }) in &self.0 {
            writeln!(f, "{name} {} {hash} {made}", role.as_str())?;
        }
        Ok(())
    }
}

/// Who may come in. Clones share the tokens.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Whoever reaches the listener.
    #[default]
    Anybody,
    /// Holders of tokens.
    Holders(Holders),
    /// Sleds, each with the token that is made for it from the fleet's secret.
    Sleds(Arc<FleetSecret>),
}

/// Tokens that can be replaced while requests come.
#[derive(Clone, Debug)]
pub struct Holders(Arc<RwLock<Tokens>>);

impl Holders {
    /// These.
    pub fn new(tokens: Tokens) -> Self {
        Self(Arc::new(RwLock::new(tokens)))
    }

    /// From here on these and no others; what is under way goes on.
    pub fn replace(&self, tokens: Tokens) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }
}

/// Who asks, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name of the token, which is the actor in the log.
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl Identity {
    /// Who asks where nobody has a token, and may do everything.
    pub(crate) fn anybody() -> Self {
        Self { name: ANYBODY.to_owned(), role: Role::Admin }
    }

    /// Whether it is the one who asks where nobody has a token, or its namesake.
    pub(crate) fn is_anybody(&self) -> bool {
        self.name == ANYBODY
    }
}

/// Whether the process is up and answers: for probes, which have no tokens.
const WITHOUT_TOKEN: &[&str] = &["/healthz", "/readyz", "/v1/ping"];

/// What binds everybody, cannot be taken back, or takes everything.
const FOR_ADMINS: &[(Method, &str)] = &[
    (Method::PUT, "/ops/v1/quotas/{scope}"),
    (Method::POST, "/ops/v1/sleds/{sled}/expunge"),
    (Method::GET, "/ops/v1/log/export"),
    (Method::POST, "/ops/v1/log/snapshot"),
    (Method::POST, "/ops/v1/log/compact"),
];

/// The role that a method of a route needs; none if no token is needed. A HEAD is a GET.
pub(crate) fn needed(method: &Method, route: Option<&str>) -> Option<Role> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let reads = *method == Method::GET;
    match route {
        Some(route) if reads && WITHOUT_TOKEN.contains(&route) => None,
        Some(route) if FOR_ADMINS.iter().any(|(it, path)| it == method && *path == route) => {
            Some(Role::Admin)
        }
        None => Some(Role::Viewer),
        Some(_) if reads => Some(Role::Viewer),
        Some(_) => Some(Role::Operator),
    }
}

impl Access {
    /// Who sends a request with these headers, if they may.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        method: &Method,
        route: Option<&str>,
    ) -> Result<Identity, ApiError> {
        let Holders(tokens) = match self {
            Self::Anybody => return Ok(Identity::anybody()),
            Self::Sleds(secret) => return admit_sled(secret, headers),
            Self::Holders(holders) => holders,
        };
        let Some(needed) = needed(method, route) else {
            return Ok(Identity::anybody());
        };
        let token = bearer(headers)?;
        let holder = tokens.read().unwrap_or_else(PoisonError::into_inner).holder(token);
        let holder = holder.ok_or_else(|| unauthorized("the bearer token is not known here"))?;
        if holder.role < needed {
            let message = format!(
                "{} is a {}; this needs a token of the role {}",
                holder.name,
                holder.role.as_str(),
                needed.as_str()
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
        }
        Ok(holder)
    }
}

/// The sled that a request says it comes from, if it proves it.
fn admit_sled(secret: &FleetSecret, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let named = headers.get(SLED_ID_HEADER).and_then(|value| value.to_str().ok()?.parse::<SledId>().ok());
    let sled = named.ok_or_else(|| unauthorized("the header x-sled-id must hold the sled's id"))?;
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = given.next().filter(|_| given.next().is_none()).map(HeaderValue::as_bytes);
    match secret.key(sled).to_control_plane().is_in(authorization) {
        Presented::Right => Ok(Identity { name: sled.to_string(), role: Role::Operator }),
        Presented::Missing => Err(unauthorized("a sled needs a key here: see `musher sled key`")),
        Presented::Wrong => {
            tracing::warn!(%sled, "a sled came with a token that is not its own");
            let message = format!("this token is not the one of sled {sled}");
            Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(unauthorized("a bearer token is needed, once: send \"authorization: Bearer TOKEN\""));
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    let token = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, it)| it.trim());
    token.filter(|token| !token.is_empty()).ok_or_else(|| {
        unauthorized("the header authorization must be \"Bearer\" and a token, with a space between them")
    })
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", format!("credentials missing or invalid: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: Role, text: &str) -> Token {
        Token { role, hash: TokenHash::of(text), made: "2026-01-01T00:00:00Z".to_owned() }
    }

    fn tokens() -> Tokens {
        let mut tokens = Tokens::default();
        tokens.add("ada", token(Role::Operator, "secret-a")).unwrap();
        tokens.add("bob@ops.1", token(Role::Viewer, "secret-b")).unwrap();
        tokens
    }

    #[test]
    fn a_token_file_reads_back_and_holds_no_token() {
        let text = tokens().to_string();
        assert_eq!(Tokens::parse(&text), Ok(tokens()));
        assert!(!text.contains("secret"), "{text}");
        // The published test vector for "abc".
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of("abc").to_string(), abc);
        assert_eq!(abc.parse(), Ok(TokenHash::of("abc")));
    }

    #[test]
    fn what_is_no_token_file_is_refused_by_line() {
        let good = tokens().to_string();
        let line = good.lines().nth(1).unwrap();
        let (other, upper) = (line.replace("operator", "root"), line.replace("sha256:", "sha256:A"));
        let long = line.replace("ada", &"a".repeat(64));
        let (many, short) = (format!("{line} more"), line.replace(" 2026-01-01T00:00:00Z", ""));
        for (bad, says) in [
            (other.as_str(), "line 1: \"root\" is no role"),
            (&upper, "line 1: a hash is"),
            (&long, "line 1: a token's name"),
            (&many, "line 1: a token is a name"),
            (&short, "line 1: a token is a name"),
            (&format!("\n# x\n{line}\n{line}"), "line 4: there is a token by the name \"ada\""),
            (&line.replace("ada", "-a"), "line 1: a token's name"),
            (&line.replace("ada", "größe"), "line 1: a token's name"),
        ] {
            let refused = Tokens::parse(bad).unwrap_err();
            assert!(refused.starts_with(says), "{bad}: {refused}");
        }
    }

    #[test]
    fn hashes_are_equal_only_if_every_bit_is() {
        let hash = TokenHash::of("x");
        assert!(hash.equals(&TokenHash::of("x")));
        for bit in 0..256 {
            let mut other = hash;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!hash.equals(&other), "{bit}");
        }
    }

    #[test]
    fn who_has_no_token_or_a_wrong_one_is_a_stranger() {
        let access = Access::Holders(Holders::new(tokens()));
        let admit = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            access.admit(&headers, &Method::GET, Some("/v1/instances")).map_err(|it| it.status.as_u16())
        };
        let ada = Ok(Identity { name: "ada".to_owned(), role: Role::Operator });
        assert_eq!(admit(&["Bearer secret-a"]), ada);
        assert_eq!(admit(&["bearer  secret-a "]), ada);
        let strangers: [&[&str]; 7] = [
            &[],
            &["secret-a"],
            &["Basic secret-a"],
            &["Bearer "],
            &["Bearer secret-"],
            &["Bearer secret-aa"],
            &["Bearer secret-a", "Bearer secret-a"],
        ];
        for stranger in strangers {
            assert_eq!(admit(stranger), Err(401), "{stranger:?}");
        }
    }

    #[test]
    fn tokens_that_are_replaced_count_from_then_on() {
        let holders = Holders::new(tokens());
        let access = Access::Holders(holders.clone());
        let headers =
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret-a"))]);
        assert!(access.admit(&headers, &Method::GET, None).is_ok());
        let mut without = tokens();
        assert!(without.remove("ada") && !without.remove("ada"));
        holders.replace(without);
        assert!(access.admit(&headers, &Method::GET, None).is_err());
    }
}
