//! A sled as the log knows it: what it is, which boot it is in, whether it takes new VMMs.
//!
//! Invariants:
//! * The lease epoch rises with every boot, with the first registration after a lease that expired, and with one that
//!   says that the sled has held a higher one: a log that was restored has forgotten some. It never falls or repeats.
//! * Whether its VMMs run on a lease, and of which length, is the same for the whole of an epoch: a VMM can only
//!   be registered in an epoch by a sled that took the epoch together with its lease.
//! * Only a sled with a lease can lose it, and none is in an epoch from then until it registers again.
//! * A boot that was superseded never comes back, nor does an expunged sled.

use crate::event::{EventMeta, SledEvent};
use crate::ids::{BootId, LeaseEpoch, SledId};
use crate::rejected::Rejected;
use crate::spec::validate_reason;
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
    /// How long it may go without a renewal in this epoch, in seconds; none means for ever.
    pub lease: Option<u64>,
    /// When its lease was found expired, if it has not registered since.
    pub lapsed: Option<Timestamp>,
    /// Boots before this one, newest last, at most [`PAST_BOOTS_MAX`].
    pub past_boots: Vec<BootId>,
    /// Whether new VMMs may be placed on it.
    pub provisionable: bool,
    /// Since when its guests are being moved away, if they are.
    pub draining: Option<Timestamp>,
    /// Set for good by an operator.
    pub expunged: Option<Timestamp>,
    /// When it first registered.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
    /// Version of its stream.
    pub version: u64,
}

impl Sled {
    /// The epoch that requests to it carry; none until it booted, and from an expired lease to the next
    /// registration.
    pub fn epoch(&self) -> Option<LeaseEpoch> {
        self.boot.filter(|_| self.lapsed.is_none()).map(|(_, epoch)| epoch)
    }

    /// The lease that is running and can expire, in seconds.
    pub fn running_lease(&self) -> Option<u64> {
        self.lease.filter(|_| self.lapsed.is_none() && self.expunged.is_none())
    }
}

/// Past boots remembered per sled: a registration can be late by a few boots, not by more.
pub const PAST_BOOTS_MAX: usize = 64;

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

impl SledProperties {
    /// Whether its agent listens on a network: a sled in the daemon's process goes by its name.
    pub fn is_remote(&self) -> bool {
        self.address.contains(':')
    }
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
    /// The highest epoch that it has taken so far, as it says itself.
    pub held: Option<LeaseEpoch>,
}

/// How much higher than the log's an epoch may be that a sled says it has held: more boots and expired leases than
/// are lost with the log since any backup.
pub const EPOCH_LEAD_MAX: u64 = 1 << 16;

/// Highest epoch that is granted. A sled that has claimed its way up to here, which takes as many registrations as
/// nobody has time for, has harmed itself only.
pub const EPOCH_MAX: u64 = 1 << 52;

/// Why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationRefused {
    /// It was expunged: it must kill its VMMs.
    #[error("sled was expunged")]
    Expunged,
    /// It comes from a boot that another has followed: a late message. Believing it would declare every VMM
    /// of the present boot gone while their guests run.
    #[error("the registration is of an earlier boot of the sled")]
    PastBoot,
    /// It says that it has held an epoch that no log of its past has granted.
    #[error(
        "the sled says it has held an epoch far above every one that it was granted; expunge it and give it a new id"
    )]
    EpochOutOfReach,
}

/// Whether a registration names a boot that only the sled itself can vouch for. It was sent some time ago:
/// the sled may have booted again since, and no memory of boots can tell a late message from a new boot.
/// Such a registration counts only if the sled, asked since its last boot was journaled, says the same.
pub fn needs_witness(state: Option<&Sled>, registration: &Registration) -> bool {
    state.and_then(|sled| sled.boot).is_some_and(|(boot, _)| boot != registration.boot)
}

/// Events of a registration: none if nothing is new, so that re-registering costs nothing. `lease` is what an
/// epoch that begins here is granted, in seconds; one that goes on keeps what it has.
pub fn register(
    state: Option<&Sled>,
    registration: &Registration,
    lease: Option<u64>,
) -> Result<Vec<SledEvent>, RegistrationRefused> {
    if state.is_some_and(|sled| sled.expunged.is_some()) {
        return Err(RegistrationRefused::Expunged);
    }
    if state.is_some_and(|sled| sled.past_boots.contains(&registration.boot)) {
        return Err(RegistrationRefused::PastBoot);
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
    let own = boot.map_or(LeaseEpoch::ZERO, |(_, epoch)| epoch);
    let highest = registration.held.map_or(own, |held| held.max(own));
    if highest.get() - own.get() > EPOCH_LEAD_MAX || highest.get() >= EPOCH_MAX {
        return Err(RegistrationRefused::EpochOutOfReach);
    }
    let epoch = highest.next();
    if boot.is_none_or(|(boot, _)| boot != registration.boot) {
        events.push(SledEvent::Booted { boot: registration.boot, epoch });
        events.extend(lease.map(|seconds| SledEvent::LeaseBegan { epoch, seconds: Some(seconds) }));
    } else if let Some(sled) = state.filter(|sled| highest > own || sled.lapsed.is_some()) {
        // VMMs that live on end with the lease that they have.
        let seconds = if sled.lapsed.is_some() { lease } else { sled.lease };
        events.push(SledEvent::LeaseBegan { epoch, seconds });
    }
    Ok(events)
}

/// The event of a lease that was not renewed in time; none if there is no lease to lose.
pub fn expire(state: &Sled) -> Option<SledEvent> {
    state.running_lease()?;
    state.epoch().map(|epoch| SledEvent::LeaseExpired { epoch })
}

/// Something an operator asks of a sled. Each carries the reason, in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SledCommand {
    /// Place no new VMMs on it.
    Cordon(String),
    /// Place new VMMs on it again; calls a drain off.
    Uncordon(String),
    /// Move its guests away, and place no new VMMs on it.
    Drain(String),
    /// The drain has moved the last guest.
    Drained,
    /// It is gone for good, with everything on it.
    Expunge(String),
}

/// Decides: none if it is so already.
pub fn decide(state: &Sled, command: &SledCommand) -> Result<Vec<SledEvent>, Rejected> {
    let action = match command {
        SledCommand::Cordon(_) => "cordon",
        SledCommand::Uncordon(_) => "uncordon",
        SledCommand::Drain(_) | SledCommand::Drained => "drain",
        SledCommand::Expunge(_) => "expunge",
    };
    let is_expunge = matches!(command, SledCommand::Expunge(_));
    if state.expunged.is_some() && !is_expunge {
        return Err(Rejected::SledNotPossible { action, why: "it was expunged" });
    }
    let provisionable = |provisionable: bool, reason: &str| {
        (state.provisionable != provisionable)
            .then(|| SledEvent::ProvisionableChanged { provisionable, reason: reason.to_owned() })
    };
    let drain_off = |done| state.draining.map(|_| SledEvent::DrainEnded { done });
    let (first, second) = match command {
        SledCommand::Cordon(reason) => {
            validate_reason(reason)?;
            (provisionable(false, reason), None)
        }
        SledCommand::Uncordon(reason) => {
            validate_reason(reason)?;
            (drain_off(false), provisionable(true, reason))
        }
        SledCommand::Drain(reason) => {
            validate_reason(reason)?;
            let reason_of_drain = reason.clone();
            let began = state.draining.is_none().then_some(SledEvent::DrainBegan { reason: reason_of_drain });
            (provisionable(false, reason), began)
        }
        SledCommand::Drained => (drain_off(true), None),
        SledCommand::Expunge(reason) => {
            validate_reason(reason)?;
            let expunged = SledEvent::Expunged { reason: reason.clone() };
            (drain_off(false), state.expunged.is_none().then_some(expunged))
        }
    };
    Ok([first, second].into_iter().flatten().collect())
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
                    lease: None,
                    lapsed: None,
                    past_boots: Vec::new(),
                    provisionable: true,
                    draining: None,
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
            if let Some((superseded, _)) = sled.boot.replace((*boot, *epoch)) {
                sled.past_boots.push(superseded);
                if sled.past_boots.len() > PAST_BOOTS_MAX {
                    sled.past_boots.remove(0);
                }
            }
            (sled.lease, sled.lapsed) = (None, None);
        }
        SledEvent::LeaseBegan { epoch, seconds } => {
            let (_, present) = sled.boot.as_mut().expect("a lease begins in a boot");
            let is_rejoining = sled.lapsed.is_some();
            assert!(*epoch > *present || (*epoch == *present && !is_rejoining), "an expired epoch is over");
            *present = *epoch;
            (sled.lease, sled.lapsed) = (*seconds, None);
        }
        SledEvent::LeaseExpired { .. } => sled.lapsed = Some(meta.time),
        SledEvent::ProvisionableChanged { provisionable, .. } => sled.provisionable = *provisionable,
        SledEvent::DrainBegan { .. } => sled.draining = Some(meta.time),
        SledEvent::DrainEnded { .. } => sled.draining = None,
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
            held: None,
        }
    }

    fn holding(boot: u128, held: u64) -> Registration {
        Registration { held: Some(LeaseEpoch::new(held)), ..registration(boot) }
    }

    fn fold(registrations: &[Registration]) -> Sled {
        let (mut state, mut version) = (None, 0);
        for registration in registrations {
            for event in register(state.as_ref(), registration, None).unwrap() {
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
        assert_eq!(epoch(&[1, 2, 3]), 3);
    }

    #[test]
    fn an_epoch_is_above_every_one_that_the_sled_has_held() {
        for (registrations, expected) in [
            (vec![holding(1, 5)], 6),
            (vec![holding(1, 5), holding(1, 6)], 6),
            // A repeat of what was sent before it took the last.
            (vec![holding(1, 5), holding(1, 5)], 6),
            (vec![registration(1), holding(1, 1)], 1),
            (vec![registration(1), holding(1, 4)], 5),
            (vec![registration(1), holding(2, 4)], 5),
            (vec![registration(1), registration(2), holding(2, 1)], 2),
            (vec![holding(1, EPOCH_LEAD_MAX)], EPOCH_LEAD_MAX + 1),
        ] {
            let state = fold(&registrations);
            assert_eq!(state.boot.unwrap().1.get(), expected, "{registrations:?}");
        }
    }

    #[test]
    fn an_epoch_cannot_be_claimed_out_of_reach() {
        let state = fold(&[registration(1)]);
        let far = [EPOCH_LEAD_MAX + 2, EPOCH_MAX, u64::MAX];
        for held in far {
            for boot in [1, 2] {
                let refused = register(Some(&state), &holding(boot, held), None);
                assert_eq!(refused, Err(RegistrationRefused::EpochOutOfReach), "{held}");
            }
            assert_eq!(
                register(None, &holding(1, held), None),
                Err(RegistrationRefused::EpochOutOfReach),
                "{held}"
            );
        }
        let mut worn = state;
        worn.boot = worn.boot.map(|(boot, _)| (boot, LeaseEpoch::new(EPOCH_MAX)));
        assert_eq!(register(Some(&worn), &registration(2), None), Err(RegistrationRefused::EpochOutOfReach));
    }

    #[test]
    fn a_late_registration_of_an_earlier_boot_is_refused() {
        let state = fold(&[registration(1), registration(2)]);
        assert_eq!(register(Some(&state), &registration(1), None), Err(RegistrationRefused::PastBoot));
        assert_eq!(register(Some(&state), &registration(2), None), Ok(Vec::new()));
    }

    #[test]
    fn only_another_boot_than_the_known_one_needs_a_witness() {
        let state = fold(&[registration(1)]);
        assert!(!needs_witness(None, &registration(1)), "there is nothing to lose yet");
        assert!(!needs_witness(Some(&state), &registration(1)));
        assert!(needs_witness(Some(&state), &registration(2)));
    }

    #[test]
    fn registering_again_with_nothing_new_writes_nothing() {
        let state = fold(&[registration(1)]);
        assert_eq!(register(Some(&state), &registration(1), None), Ok(Vec::new()));
    }

    fn evolved(state: &Sled, events: &[SledEvent]) -> Sled {
        let mut state = Some(state.clone());
        for event in events {
            let version = state.as_ref().unwrap().version + 1;
            let meta = EventMeta { version, position: version, time: Timestamp::from_micros(version) };
            evolve(&mut state, event, meta);
        }
        state.unwrap()
    }

    fn after(state: &Sled, command: &SledCommand) -> (Sled, usize) {
        let events = decide(state, command).unwrap();
        (evolved(state, &events), events.len())
    }

    fn registered(state: &Sled, boot: u128, lease: Option<u64>) -> Sled {
        evolved(state, &register(Some(state), &registration(boot), lease).unwrap())
    }

    #[test]
    fn a_lease_lasts_as_long_as_its_epoch_and_a_changed_setting_waits_for_the_next() {
        let booted = registered(&fold(&[registration(1)]), 2, Some(30));
        assert_eq!((booted.epoch().unwrap().get(), booted.running_lease()), (2, Some(30)));
        for other in [None, Some(30), Some(5)] {
            assert_eq!(register(Some(&booted), &registration(2), other), Ok(Vec::new()), "{other:?}");
        }
        let next = registered(&booted, 3, None);
        assert_eq!((next.epoch().unwrap().get(), next.running_lease()), (3, None));
        assert_eq!(expire(&next), None, "what was never granted is not lost");
    }

    #[test]
    fn a_lease_that_expired_leaves_no_epoch_until_the_sled_registers_into_the_next() {
        let booted = registered(&fold(&[registration(1)]), 2, Some(30));
        let lapsed = evolved(&booted, &[expire(&booted).unwrap()]);
        assert_eq!((lapsed.epoch(), lapsed.running_lease(), expire(&lapsed)), (None, None, None));
        for (lease, running) in [(Some(60), Some(60)), (None, None)] {
            let back = registered(&lapsed, 2, lease);
            assert_eq!((back.epoch().unwrap().get(), back.running_lease()), (3, running));
            assert_eq!(back.past_boots.len(), 1, "the host has not booted");
            assert_eq!(register(Some(&back), &registration(2), lease), Ok(Vec::new()));
        }
        let rebooted = registered(&lapsed, 4, Some(60));
        assert_eq!((rebooted.epoch().unwrap().get(), rebooted.lapsed), (3, None));
        let (expunged, _) = after(&booted, &SledCommand::Expunge("burnt".to_owned()));
        assert_eq!(expire(&expunged), None, "its VMMs are gone by the operator's word");
    }

    #[test]
    fn a_drain_cordons_and_an_uncordon_calls_it_off() {
        let why = || "firmware".to_owned();
        let registered = fold(&[registration(1)]);
        let (draining, written) = after(&registered, &SledCommand::Drain(why()));
        assert_eq!((written, draining.provisionable, draining.draining.is_some()), (2, false, true));
        assert_eq!(after(&draining, &SledCommand::Drain(why())).1, 0, "it drains already");
        let (drained, _) = after(&draining, &SledCommand::Drained);
        assert_eq!((drained.provisionable, drained.draining), (false, None));
        let (open, _) = after(&draining, &SledCommand::Uncordon(why()));
        assert_eq!((open.provisionable, open.draining), (true, None));
    }

    #[test]
    fn an_expunged_sled_takes_no_command_and_expunging_it_again_changes_nothing() {
        let why = || "burnt".to_owned();
        let (gone, _) = after(&fold(&[registration(1)]), &SledCommand::Expunge(why()));
        assert!(gone.expunged.is_some());
        for command in [SledCommand::Cordon(why()), SledCommand::Uncordon(why()), SledCommand::Drain(why())] {
            assert!(matches!(decide(&gone, &command), Err(Rejected::SledNotPossible { .. })), "{command:?}");
        }
        assert_eq!(decide(&gone, &SledCommand::Expunge(why())), Ok(Vec::new()));
        assert!(decide(&fold(&[registration(1)]), &SledCommand::Expunge(" ".to_owned())).is_err());
    }

    #[test]
    fn an_expunged_sled_is_refused() {
        let mut state = fold(&[registration(1)]);
        state.expunged = Some(Timestamp::from_micros(9));
        assert_eq!(register(Some(&state), &registration(2), Some(30)), Err(RegistrationRefused::Expunged));
    }
}
