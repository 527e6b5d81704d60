//! Where an agent listens: `host:port`, with or without `http://` before it, and nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::error::Invalid;
use crate::limits::TEXT_BYTES_MAX;

/// Longest host name that DNS knows, in bytes.
const HOST_BYTES_MAX: usize = 253;

const EXPECTED: &str = "host:port or http://host:port, with an address that others can reach";

/// The address of an agent that is reached over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentAddr {
    host: String,
    port: u16,
}

impl AgentAddr {
    /// Reads the address given in `field`; refuses other schemes, users, paths, port 0, and addresses that
    /// mean "any".
    pub fn read(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::Malformed { field, expected: EXPECTED };
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = bare.rsplit_once(':').ok_or_else(malformed)?;
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port: u16 = port.parse().map_err(|_| malformed())?;
        if !is_number || port == 0 || !is_host(host) {
            return Err(malformed());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// What URLs of the agent begin with, such as `http://127.0.0.1:7001`.
    pub fn base(&self) -> String {
        format!("http://{self}")
    }
}

impl fmt::Display for AgentAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for AgentAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::read("address", text)
    }
}

fn is_host(host: &str) -> bool {
    let reachable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok_and(|ip| reachable(ip.into()));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return ip.is_ipv4() && reachable(ip);
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A name whose end is a number would be read as an address by some.
    let is_name =
        host.rsplit('.').next().is_some_and(|end| end.bytes().any(|byte| byte.is_ascii_alphabetic()));
    host.len() <= HOST_BYTES_MAX && is_name && host.split('.').all(is_label)
}

/// The text of an address as it comes over the wire: only one that can be reached over HTTP is taken. A sled
/// in the control plane's own process registers without a wire, and by its name.
pub(crate) fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    AgentAddr::read("api_addr", &text).map_err(de::Error::custom)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for (text, base) in [
            ("127.0.0.1:7001", "http://127.0.0.1:7001"),
            ("http://127.0.0.1:7001", "http://127.0.0.1:7001"),
            ("http://127.0.0.1:7001/", "http://127.0.0.1:7001"),
            ("[fd00::1]:7000", "http://[fd00::1]:7000"),
            ("rack3-sled4.EXAMPLE:80", "http://rack3-sled4.example:80"),
            ("sled1:7000", "http://sled1:7000"),
            ("localhost:65535", "http://localhost:65535"),
        ] {
            assert_eq!(text.parse::<AgentAddr>().unwrap().base(), base, "{text}");
        }
        for text in [
            "",
            "sim-0",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:+80",
            "host:80x",
            "https://host:80",
            "ftp://host:80",
            "http://host",
            "http://user@host:80",
            "http://host:80/path",
            "http://host:80?query",
            "http://http://host:80",
            "host name:80",
            "-host:80",
            "a..b:80",
            "0.0.0.0:80",
            "[::]:80",
            "::1:80",
            "[fd00::1:80",
            "[127.0.0.1]:80",
            "256.1.1.1:80",
            "224.0.0.1:80",
            "host\n:80",
            "h\u{f6}st:80",
        ] {
            assert!(text.parse::<AgentAddr>().is_err(), "{text:?}");
        }
        assert!(format!("{}:80", "a".repeat(300)).parse::<AgentAddr>().is_err());
    }
}
