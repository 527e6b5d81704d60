//! From the core's words to what peers are sent: keys, underlay addresses, wire entries.

use lifecycle::network::{Key, Mapping};
use lifecycle::{SledId, VmmId};
use sled_protocol as wire;
use std::net::{IpAddr, Ipv6Addr};

use super::desk::Producing;

/// What a sled is told about is found by its virtual network and virtual IP.
pub(super) type V2pKey = (wire::Vni, IpAddr);

/// What a switch is told about is found by its external address and first port.
pub(super) type NatKey = (IpAddr, u16);

/// First 64 bits of the external addresses: a locally assigned prefix of its own.
const EXTERNAL_PREFIX: [u16; 4] = [0xfd6d, 0x7573, 0x6865, 0];

/// A sled's underlay address: a locally assigned IPv6 address (`fd00::/8`) whose other 120 bits are those of
/// the sled's id. Nothing needs to be handed out or remembered, and two sleds meet only if their random ids
/// differ in the first byte alone.
pub fn underlay_address(sled: SledId) -> Ipv6Addr {
    let mut bytes = sled.uuid().into_bytes();
    bytes[0] = 0xfd;
    Ipv6Addr::from(bytes)
}

/// An instance's address as seen from outside: `fd6d:7573:6865::/64`, then its VNI and its virtual IP with 32
/// bits each. There are no pools of external addresses; this one is as unique as the instance's own.
pub fn external_address((vni, virtual_ip): Key) -> Ipv6Addr {
    let [a, b, c, d] = EXTERNAL_PREFIX;
    let [first, second, third, fourth] = virtual_ip.octets();
    let [vni_0, vni_1, vni_2, vni_3] = vni.to_be_bytes();
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        a,
        b,
        c,
        d,
        pair(vni_0, vni_1),
        pair(vni_2, vni_3),
        pair(first, second),
        pair(third, fourth),
    )
}

pub(super) fn vni(vni: u32) -> wire::Vni {
    wire::Vni::new(vni).expect("the ledger grants 24 bits")
}

pub(super) fn v2p_key((network, virtual_ip): Key) -> V2pKey {
    (vni(network), IpAddr::V4(virtual_ip))
}

/// The mapping as a sled holds it; none if there shall be none.
pub(super) fn v2p(key: Key, mapping: &Mapping) -> Option<wire::V2pMapping> {
    let (vni, virtual_ip) = v2p_key(key);
    mapping.sled.map(|sled| wire::V2pMapping {
        virtual_ip,
        vni,
        mac: wire::MacAddr::new(mapping.mac),
        physical_host_ip: IpAddr::V6(underlay_address(sled)),
        generation: wire::Generation::new(mapping.generation),
    })
}

/// A deletion says key and generation; nothing else of it is looked at.
pub(super) fn v2p_deletion((vni, virtual_ip): V2pKey, generation: u64) -> wire::V2pMapping {
    wire::V2pMapping {
        virtual_ip,
        vni,
        mac: wire::MacAddr::new([0; 6]),
        physical_host_ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        generation: wire::Generation::new(generation),
    }
}

pub(super) fn nat_key(key: Key) -> NatKey {
    (IpAddr::V6(external_address(key)), 0)
}

/// The entry as the switch holds it, for all ports of the address; none if there shall be none.
pub(super) fn nat(key: Key, mapping: &Mapping) -> Option<wire::NatEntry> {
    let (external_ip, first_port) = nat_key(key);
    mapping.sled.map(|sled| wire::NatEntry {
        external_ip,
        first_port,
        last_port: u16::MAX,
        physical_host_ip: IpAddr::V6(underlay_address(sled)),
        vni: vni(key.0),
        mac: wire::MacAddr::new(mapping.mac),
        generation: wire::Generation::new(mapping.generation),
    })
}

/// A deletion says key and generation; nothing else of it is looked at.
pub(super) fn nat_deletion((external_ip, first_port): NatKey, generation: u64) -> wire::NatEntry {
    wire::NatEntry {
        external_ip,
        first_port,
        last_port: u16::MAX,
        physical_host_ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        vni: vni(0),
        mac: wire::MacAddr::new([0; 6]),
        generation: wire::Generation::new(generation),
    }
}

/// The producer as the registry holds it; none if there shall be none.
pub(super) fn producer(vmm: VmmId, producing: &Producing) -> Option<wire::Producer> {
    producing.place.map(|(instance, sled)| wire::Producer {
        propolis_id: crate::convert::propolis(vmm),
        instance_id: wire::InstanceId::from_uuid(instance.uuid()),
        physical_host_ip: IpAddr::V6(underlay_address(sled)),
        generation: wire::Generation::new(producing.generation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use uuid::Uuid;

    #[test]
    fn addresses_are_derived_and_keep_what_they_are_derived_from() {
        let sled = SledId::new(Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788));
        assert_eq!(underlay_address(sled).to_string(), "fd34:5678:9abc:def0:1122:3344:5566:7788");
        let key = (0x00ab_cdef, Ipv4Addr::new(172, 30, 1, 9));
        assert_eq!(external_address(key).to_string(), "fd6d:7573:6865:0:ab:cdef:ac1e:109");
    }

    #[test]
    fn what_is_sent_is_what_the_peers_accept() {
        let key = (0x00ff_ffff, Ipv4Addr::BROADCAST);
        let sled = Some(SledId::new(Uuid::from_u128(1)));
        let mapping = Mapping { mac: [0xff; 6], sled, generation: 1 };
        v2p(key, &mapping).unwrap().validate().unwrap();
        nat(key, &mapping).unwrap().validate().unwrap();
        v2p_deletion(v2p_key(key), 1).validate().unwrap();
        nat_deletion(nat_key(key), 1).validate().unwrap();
        assert_eq!(v2p(key, &Mapping { sled: None, ..mapping }), None);
    }
}
