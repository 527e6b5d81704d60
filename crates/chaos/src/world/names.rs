//! Ids of a run: numbers of the scenario dressed as the ids that the rules use, and back for people.
//!
//! An id says what it is: its top bits are a tag, the rest are numbers. Ids that are minted count per
//! instance over the whole run, crashes included, so that none is used twice.

use crate::faults::Entity;
use lifecycle::{
    BootId, GroupId, InstanceId, MigrationId, OpId, ProjectId, RequestId, SagaId, SledId, VmmId,
};
use uuid::Uuid;

const fn tagged(tag: u128, high: u64, low: u64) -> Uuid {
    Uuid::from_u128(tag << 112 | (high as u128) << 48 | low as u128)
}

const LOW: u128 = (1 << 48) - 1;

fn parts(id: Uuid) -> (u64, u64) {
    let raw = id.as_u128();
    ((raw >> 48) as u64, (raw & LOW) as u64)
}

pub(crate) const fn instance(n: u16) -> InstanceId {
    InstanceId::new(tagged(0x1, 0, n as u64))
}

pub(crate) const fn sled(n: u16) -> SledId {
    SledId::new(tagged(0x5, 0, n as u64))
}

pub(crate) const fn project() -> ProjectId {
    ProjectId::new(tagged(0x9, 0, 0))
}

pub(crate) const fn vmm(instance: u16, nth: u64) -> VmmId {
    VmmId::new(tagged(0x3, instance as u64, nth))
}

pub(crate) const fn saga(instance: u16, nth: u64) -> SagaId {
    SagaId::new(tagged(0x6, instance as u64, nth))
}

pub(crate) const fn migration(instance: u16, nth: u64) -> MigrationId {
    MigrationId::new(tagged(0xc, instance as u64, nth))
}

pub(crate) const fn group(n: u16) -> GroupId {
    GroupId::new(tagged(0xd, 0, n as u64))
}

pub(crate) const fn request(id: u32) -> RequestId {
    RequestId::new(tagged(0x7, 0, id as u64))
}

/// The order that a request makes: the same however often it is sent.
pub(crate) const fn op(request: u32) -> OpId {
    OpId::new(tagged(0x8, 0, request as u64))
}

/// The order to run a VMM: once per VMM, and not the one that ends it when it is abandoned.
pub(crate) fn run_op(vmm: VmmId) -> OpId {
    let (instance, nth) = parts(vmm.uuid());
    OpId::new(tagged(0xa, instance & 0xffff, nth))
}

/// The orders that a migration gives: to its target to take the guest over, and to both sides to give up.
pub(crate) fn migration_ops(migration: MigrationId) -> (OpId, OpId) {
    let (instance, nth) = parts(migration.uuid());
    let instance = instance & 0xffff;
    (OpId::new(tagged(0xe, instance, nth)), OpId::new(tagged(0xf, instance, nth)))
}

pub(crate) const fn boot(sled: u16, nth: u64) -> BootId {
    BootId::new(tagged(0xb, sled as u64, nth))
}

/// An id of the actors tier, where everything is minted from one count per life.
pub(crate) const fn minted(life: u32, nth: u64) -> Uuid {
    tagged(MINTED, life as u64, nth)
}

const MINTED: u128 = 0x2;

pub(crate) fn instance_number(id: InstanceId) -> u16 {
    parts(id.uuid()).1 as u16
}

pub(crate) fn sled_number(id: SledId) -> u16 {
    parts(id.uuid()).1 as u16
}

pub(crate) fn request_number(id: RequestId) -> u32 {
    parts(id.uuid()).1 as u32
}

pub(crate) fn entity(id: InstanceId) -> Entity {
    Entity::Instance(instance_number(id))
}

/// A VMM for people: its instance and its number there.
pub(crate) fn vmm_text(id: VmmId) -> String {
    let (instance, nth) = parts(id.uuid());
    if id.uuid().as_u128() >> 112 == MINTED {
        return format!("v{}.{nth}", instance & 0xffff);
    }
    format!("i{:02}.{nth}", instance & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_being_dressed() {
        assert_eq!(instance_number(instance(512)), 512);
        assert_eq!(sled_number(sled(7)), 7);
        assert_eq!(request_number(request(70_000)), 70_000);
        assert_eq!(vmm_text(vmm(5, 2)), "i05.2");
        assert_ne!(run_op(vmm(5, 2)).uuid(), vmm(5, 2).uuid());
        let (target, cancel) = migration_ops(migration(5, 2));
        assert_ne!(target, cancel);
    }
}
