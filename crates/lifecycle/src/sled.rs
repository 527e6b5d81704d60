//! A sled as the log knows it: what it is, which boot it is in, whether it takes new VMMs.
//!
//! Invariants: the lease epoch rises with every boot and never otherwise falls or repeats; an expunged
//! sled never comes back.

use crate::event::{EventMeta, SledEvent};
use crate::ids::{BootId, LeaseEpoch, SledId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Fold of one sled's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sled {
    /// Its id.
    pub id: SledId,
    /// Its properties, as last registered.
    pub properties: SledProperties,
    /// Its boot and lease epoch; none until it booted.
    pub boot: Option<(BootId, LeaseEpoch)>,
    /// Whether new VMMs may be placed on it.
    pub provisionable: bool,
    /// Set for good by an operator.
    pub expunged: Option<Timestamp>,
    /// When it first registered.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
    /// Version of its stream.
    pub version: u64,
}

/// What a sled is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SledProperties {
    /// Its name.
    pub name: String,
    /// Hardware threads for guests.
    pub threads: u32,
    /// Memory for guests, bytes.
    pub memory: u64,
    /// CPU family, for live migration.
    pub cpu_family: String,
    /// Where its agent listens; empty if it lives in the daemon.
    pub address: String,
}

/// What a sled says when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its id.
    pub id: SledId,
    /// What it is.
    pub properties: SledProperties,
    /// Its boot.
    pub boot: BootId,
}

/// Why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationRefused {
    /// It was expunged: it must kill its VMMs.
    #[error("sled was expunged")]
    Expunged,
}

/// Events of a registration: none if nothing is new, so that re-registering costs nothing.
pub fn register(
    state: Option<&Sled>,
    registration: &Registration,
) -> Result<Vec<SledEvent>, RegistrationRefused> {
    if state.is_some_and(|sled| sled.expunged.is_some()) {
        return Err(RegistrationRefused::Expunged);
    }
    let mut events = Vec::new();
    if state.is_none_or(|sled| sled.properties != registration.properties) {
        let SledProperties { name, threads, memory, cpu_family, address } = registration.properties.clone();
        events.push(SledEvent::Registered {
            id: registration.id,
            name,
            threads,
            memory,
            cpu_family,
            address,
        });
    }
    let boot = state.and_then(|sled| sled.boot);
    if boot.is_none_or(|(boot, _)| boot != registration.boot) {
        let epoch = boot.map_or(LeaseEpoch::ZERO, |(_, epoch)| epoch).next();
        events.push(SledEvent::Booted { boot: registration.boot, epoch });
    }
    Ok(events)
}

/// Applies a fact.
pub fn evolve(state: &mut Option<Sled>, event: &SledEvent, meta: EventMeta) {
    if let SledEvent::Registered { id, name, threads, memory, cpu_family, address } = event {
        let properties = SledProperties {
            name: name.clone(),
            threads: *threads,
            memory: *memory,
            cpu_family: cpu_family.clone(),
            address: address.clone(),
        };
        match state {
            Some(sled) => sled.properties = properties,
            None => {
                *state = Some(Sled {
                    id: *id,
                    properties,
                    boot: None,
                    provisionable: true,
                    expunged: None,
                    time_created: meta.time,
                    time_modified: meta.time,
                    version: 0,
                });
            }
        }
    }
    let sled = state.as_mut().expect("a sled's first event registers it");
    match event {
        SledEvent::Registered { .. } => {}
        SledEvent::Booted { boot, epoch } => {
            assert!(sled.boot.is_none_or(|(_, before)| *epoch > before), "epochs rise");
            sled.boot = Some((*boot, *epoch));
        }
        SledEvent::ProvisionableChanged { provisionable, .. } => sled.provisionable = *provisionable,
        SledEvent::Expunged { .. } => sled.expunged = Some(meta.time),
    }
    sled.time_modified = meta.time;
    sled.version = meta.version;
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn registration(boot: u128) -> Registration {
        let properties = SledProperties {
            name: "sim-0".to_owned(),
            threads: 32,
            memory: 128 << 30,
            cpu_family: "sim".to_owned(),
            address: String::new(),
        };
        Registration {
            id: SledId::new(Uuid::from_u128(1)),
            properties,
            boot: BootId::new(Uuid::from_u128(boot)),
        }
    }

    fn fold(registrations: &[Registration]) -> Sled {
        let (mut state, mut version) = (None, 0);
        for registration in registrations {
            for event in register(state.as_ref(), registration).unwrap() {
                version += 1;
                let meta = EventMeta { version, position: version, time: Timestamp::from_micros(version) };
                evolve(&mut state, &event, meta);
            }
        }
        state.unwrap()
    }

    #[test]
    fn the_epoch_rises_with_a_new_boot_and_with_nothing_else() {
        let epoch = |boots: &[u128]| {
            let registrations: Vec<_> = boots.iter().copied().map(registration).collect();
            fold(&registrations).boot.unwrap().1.get()
        };
        assert_eq!(epoch(&[1]), 1);
        assert_eq!(epoch(&[1, 1, 1]), 1);
        assert_eq!(epoch(&[1, 2]), 2);
        assert_eq!(epoch(&[1, 2, 1]), 3);
    }

    #[test]
    fn registering_again_with_nothing_new_writes_nothing() {
        let state = fold(&[registration(1)]);
        assert_eq!(register(Some(&state), &registration(1)), Ok(Vec::new()));
    }

    #[test]
    fn an_expunged_sled_is_refused() {
        let mut state = fold(&[registration(1)]);
        state.expunged = Some(Timestamp::from_micros(9));
        assert_eq!(register(Some(&state), &registration(2)), Err(RegistrationRefused::Expunged));
    }
}
