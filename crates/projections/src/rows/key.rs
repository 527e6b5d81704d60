//! Names of rows, as bytes.

use bytes::Bytes;
use eventlog::{StreamId, StreamKind};
use lifecycle::{GroupId, InstanceId, MigrationId, ProjectId, QuotaScope, SagaId, SledId, VmmId};
use uuid::Uuid;

const INSTANCE: u8 = 1;
const PROJECT: u8 = 2;
const SLED: u8 = 3;
const VMM: u8 = 4;
const QUARANTINED: u8 = 5;
const MIGRATION: u8 = 6;
const SAGA: u8 = 7;
const QUOTA: u8 = 8;
const GROUP: u8 = 9;
const MEMBER: u8 = 10;
const ENDED: u8 = 11;

/// Name of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// An instance's fold.
    Instance(InstanceId),
    /// A project's.
    Project(ProjectId),
    /// A sled's.
    Sled(SledId),
    /// Where a VMM belongs.
    Vmm(VmmId),
    /// What is left of an instance that is over.
    Ended(InstanceId),
    /// Why a stream is quarantined.
    Quarantined(StreamId),
    /// A migration, under way or ended.
    Migration(MigrationId),
    /// A saga, under way or ended.
    Saga(SagaId),
    /// A quota of the silo or the fleet.
    Quota(QuotaScope),
    /// A group of a project, without its members.
    Group(ProjectId, GroupId),
    /// That an instance is a member of a project's group.
    Member(ProjectId, GroupId, InstanceId),
}

impl RowKey {
    /// Its bytes in the cache.
    pub(crate) fn encode(self) -> Bytes {
        let keyed = |tag: u8, ids: &[Uuid]| {
            [tag].into_iter().chain(ids.iter().flat_map(|id| *id.as_bytes())).collect::<Vec<u8>>()
        };
        Bytes::from(match self {
            Self::Instance(id) => keyed(INSTANCE, &[id.uuid()]),
            Self::Project(id) => keyed(PROJECT, &[id.uuid()]),
            Self::Sled(id) => keyed(SLED, &[id.uuid()]),
            Self::Vmm(id) => keyed(VMM, &[id.uuid()]),
            Self::Ended(id) => keyed(ENDED, &[id.uuid()]),
            Self::Quarantined(stream) => [&[QUARANTINED, stream.kind.0][..], &stream.id].concat(),
            Self::Migration(id) => keyed(MIGRATION, &[id.uuid()]),
            Self::Saga(id) => keyed(SAGA, &[id.uuid()]),
            Self::Quota(scope) => vec![QUOTA, scope_number(scope)],
            Self::Group(project, group) => keyed(GROUP, &[project.uuid(), group.uuid()]),
            Self::Member(project, group, member) => {
                keyed(MEMBER, &[project.uuid(), group.uuid(), member.uuid()])
            }
        })
    }

    pub(super) fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        if *tag == QUARANTINED {
            let (kind, id) = rest.split_first()?;
            return Some(Self::Quarantined(StreamId::new(StreamKind(*kind), id.try_into().ok()?)));
        }
        if *tag == QUOTA {
            let is_it = |scope: &QuotaScope| rest == [scope_number(*scope)];
            return [QuotaScope::Project, QuotaScope::Silo, QuotaScope::Fleet]
                .into_iter()
                .find(is_it)
                .map(Self::Quota);
        }
        let (ids, []) = rest.as_chunks::<16>() else {
            return None;
        };
        match (*tag, ids) {
            (INSTANCE, [id]) => Some(Self::Instance(InstanceId::new(Uuid::from_bytes(*id)))),
            (PROJECT, [id]) => Some(Self::Project(ProjectId::new(Uuid::from_bytes(*id)))),
            (SLED, [id]) => Some(Self::Sled(SledId::new(Uuid::from_bytes(*id)))),
            (ENDED, [id]) => Some(Self::Ended(InstanceId::new(Uuid::from_bytes(*id)))),
            (VMM, [id]) => Some(Self::Vmm(VmmId::new(Uuid::from_bytes(*id)))),
            (MIGRATION, [id]) => Some(Self::Migration(MigrationId::new(Uuid::from_bytes(*id)))),
            (SAGA, [id]) => Some(Self::Saga(SagaId::new(Uuid::from_bytes(*id)))),
            (GROUP, [project, group]) => Some(Self::Group(
                ProjectId::new(Uuid::from_bytes(*project)),
                GroupId::new(Uuid::from_bytes(*group)),
            )),
            (MEMBER, [project, group, member]) => Some(Self::Member(
                ProjectId::new(Uuid::from_bytes(*project)),
                GroupId::new(Uuid::from_bytes(*group)),
                InstanceId::new(Uuid::from_bytes(*member)),
            )),
            _ => None,
        }
    }
}

const fn scope_number(scope: QuotaScope) -> u8 {
    match scope {
        QuotaScope::Project => 1,
        QuotaScope::Silo => 2,
        QuotaScope::Fleet => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEAD;
    use super::*;

    #[test]
    fn a_key_reads_back_as_written() {
        let id = Uuid::from_u128(0x0102);
        for key in [
            RowKey::Instance(InstanceId::new(id)),
            RowKey::Project(ProjectId::new(id)),
            RowKey::Sled(SledId::new(id)),
            RowKey::Vmm(VmmId::new(id)),
            RowKey::Ended(InstanceId::new(id)),
            RowKey::Quarantined(StreamId::new(StreamKind(7), *id.as_bytes())),
            RowKey::Migration(MigrationId::new(id)),
            RowKey::Saga(SagaId::new(id)),
            RowKey::Quota(QuotaScope::Project),
            RowKey::Quota(QuotaScope::Silo),
            RowKey::Quota(QuotaScope::Fleet),
            RowKey::Group(ProjectId::new(id), GroupId::new(Uuid::from_u128(3))),
            RowKey::Member(
                ProjectId::new(id),
                GroupId::new(Uuid::from_u128(3)),
                InstanceId::new(Uuid::from_u128(4)),
            ),
        ] {
            assert_eq!(RowKey::decode(&key.encode()), Some(key));
        }
        for bytes in [
            &[][..],
            &[HEAD],
            &[INSTANCE; 16],
            &[INSTANCE; 18],
            &[99; 17],
            &[QUARANTINED; 17],
            &[QUOTA, 4],
            &[GROUP; 17],
            &[MEMBER; 33],
        ] {
            assert_eq!(RowKey::decode(bytes), None);
        }
    }
}
