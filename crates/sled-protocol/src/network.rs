//! Where instances are found: overlay mappings, NAT entries, and metrics producers.
//!
//! All three follow one rule: per key the larger generation wins, a deletion included, so that they may be
//! repeated and reordered freely.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Invalid;
use crate::ids::{Generation, InstanceId, PropolisId};

/// Virtual network identifier, 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Vni(u32);

impl Vni {
    /// Largest identifier.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Wraps an identifier of at most 24 bits; refuses larger ones.
    pub fn new(vni: u32) -> Result<Self, Invalid> {
        if vni > Self::MAX {
            return Err(Invalid::OutOfRange {
                field: "vni",
                value: vni.into(),
                min: 0,
                max: Self::MAX.into(),
            });
        }
        Ok(Self(vni))
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Vni {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Ethernet address, written as six upper-case hexadecimal pairs with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Wraps the six bytes in transmission order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes in transmission order.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl FromStr for MacAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::Malformed { field: "mac", expected: "six hexadecimal pairs with colons" };
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(malformed)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        if pairs.next().is_some() { Err(malformed()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where one virtual address lives; keyed by `(vni, virtual_ip)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct V2pMapping {
    /// The instance's address within its virtual network.
    pub virtual_ip: IpAddr,
    /// The virtual network.
    pub vni: Vni,
    /// The instance's Ethernet address.
    pub mac: MacAddr,
    /// The underlay address of the sled that holds the instance.
    pub physical_host_ip: IpAddr,
    /// Position of the decision in the control plane's log; larger wins, for ever, per key.
    pub generation: Generation,
}

impl V2pMapping {
    /// Refuses a generation out of range.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.generation.validate("generation")
    }
}

/// A mapping's key, and with it its place in a list: `VNI-ADDRESS` in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct V2pKey {
    /// The virtual network.
    pub vni: Vni,
    /// The address in it.
    pub virtual_ip: IpAddr,
}

impl V2pMapping {
    /// What it is listed and looked up by.
    pub const fn key(&self) -> V2pKey {
        V2pKey { vni: self.vni, virtual_ip: self.virtual_ip }
    }
}

impl fmt::Display for V2pKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.vni.get(), self.virtual_ip)
    }
}

impl FromStr for V2pKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed =
            || Invalid::Malformed { field: "after", expected: "a virtual network, a dash and an address" };
        let (vni, ip) = text.split_once('-').ok_or_else(malformed)?;
        let vni = Vni::new(vni.parse().map_err(|_| malformed())?)?;
        Ok(Self { vni, virtual_ip: ip.parse().map_err(|_| malformed())? })
    }
}

/// Where the switch sends traffic for one external address; keyed by `(external_ip, first_port)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatEntry {
    /// The address seen from outside.
    pub external_ip: IpAddr,
    /// First port of the range, inclusive.
    pub first_port: u16,
    /// Last port of the range, inclusive.
    pub last_port: u16,
    /// The underlay address of the sled that holds the instance.
    pub physical_host_ip: IpAddr,
    /// The instance's virtual network.
    pub vni: Vni,
    /// The instance's Ethernet address.
    pub mac: MacAddr,
    /// Position of the decision in the control plane's log; larger wins, for ever, per key.
    pub generation: Generation,
}

impl NatEntry {
    /// Refuses an empty port range and a generation out of range.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.first_port > self.last_port {
            return Err(Invalid::OutOfRange {
                field: "last_port",
                value: self.last_port.into(),
                min: self.first_port.into(),
                max: u16::MAX.into(),
            });
        }
        self.generation.validate("generation")
    }
}

/// A VMM registered as a source of metrics; keyed by its VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// The VMM that produces.
    pub propolis_id: PropolisId,
    /// The instance it belongs to.
    pub instance_id: InstanceId,
    /// The underlay address of the sled to collect from.
    pub physical_host_ip: IpAddr,
    /// Position of the decision in the control plane's log; larger wins, for ever, per key.
    pub generation: Generation,
}

impl Producer {
    /// Refuses nil ids and a generation out of range.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.propolis_id.validate("propolis_id")?;
        self.instance_id.validate("instance_id")?;
        self.generation.validate("generation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_survives_the_wire_and_nonsense_does_not() {
        let mac = MacAddr::new([0xa8, 0x40, 0x25, 0xff, 0x00, 0x01]);
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"A8:40:25:FF:00:01\"");
        assert_eq!("a8:40:25:ff:00:01".parse::<MacAddr>().unwrap(), mac);
        for text in
            ["", "a8:40:25:ff:00", "a8:40:25:ff:00:01:02", "a8:40:25:ff:0:001", "+8:40:25:ff:00:01", "é:"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_virtual_network_beyond_24_bits_is_refused() {
        assert_eq!(serde_json::from_str::<Vni>("16777215").unwrap().get(), Vni::MAX);
        assert!(serde_json::from_str::<Vni>("16777216").is_err());
    }
}
