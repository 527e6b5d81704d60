//! Rows as they are kept in the cache: one per entity, and one that says what the others add up to.
//!
//! Invariants:
//! * a key is a tag byte and the entity's id; the head row's key is its tag alone;
//! * a row is small (at most 7 KiB): a project's groups and their members have rows of their own, after its own;
//! * rows are disposable: another version of the model or of the fold makes all of them void;
//! * rows that contradict each other, or are not as many as the head says, are never a model.

mod key;

use crate::instances::InstanceEntry;
use crate::migrations::MigrationRow;
use crate::model::{ReadModel, VmmPlace};
use crate::sagas::SagaRow;
use bytes::Bytes;
use eventlog::cache::Row;
use lifecycle::project::{Group, Project};
use lifecycle::sled::Sled;
use lifecycle::{GroupId, GroupPolicy, ProjectId, Quota, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use key::RowKey;

/// Version of the rows' layout, and of what the model keeps. Rises with either.
pub const MODEL_VERSION: u32 = 4;

/// Key of the head row; every other tag is larger.
pub(crate) const HEAD: u8 = 0;

/// Why rows are no model. The log is folded from its start instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There are none, or another build wrote them.
    #[error("{0}")]
    OtherVersion(String),
    /// They contradict themselves.
    #[error("{0}")]
    Contradiction(String),
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    model_version: u32,
    fold_version: u32,
    position: u64,
    rows: u64,
}

/// A project without its groups.
#[derive(Serialize, Deserialize)]
struct StoredProject {
    id: ProjectId,
    name: String,
    description: String,
    vni: u32,
    quota: Quota,
    time_created: Timestamp,
    time_modified: Timestamp,
}

/// A group without its members.
#[derive(Serialize, Deserialize)]
struct StoredGroup {
    name: String,
    description: String,
    policy: GroupPolicy,
    time_created: Timestamp,
    time_modified: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredInstance {
    /// As a snapshot, which is checked when it is read.
    state: Vec<u8>,
    time_last_auto_restarted: Option<Timestamp>,
}

impl StoredProject {
    fn new(project: &Project) -> Self {
        Self {
            id: project.id,
            name: project.name.clone(),
            description: project.description.clone(),
            vni: project.vni,
            quota: project.quota,
            time_created: project.time_created,
            time_modified: project.time_modified,
        }
    }

    fn project(self) -> Project {
        Project {
            id: self.id,
            name: self.name,
            description: self.description,
            vni: self.vni,
            quota: self.quota,
            groups: BTreeMap::new(),
            time_created: self.time_created,
            time_modified: self.time_modified,
            // What is deleted has no row.
            deleted: None,
        }
    }
}

impl StoredGroup {
    fn new(group: &Group) -> Self {
        Self {
            name: group.name.clone(),
            description: group.description.clone(),
            policy: group.policy,
            time_created: group.time_created,
            time_modified: group.time_modified,
        }
    }

    fn group(self) -> Group {
        Group {
            name: self.name,
            description: self.description,
            policy: self.policy,
            members: BTreeSet::new(),
            time_created: self.time_created,
            time_modified: self.time_modified,
        }
    }
}

/// The head row of a model as it is now.
pub(crate) fn head_row(model: &ReadModel) -> Row {
    let head = StoredHead {
        model_version: MODEL_VERSION,
        fold_version: journal::FOLD_VERSION,
        position: model.position().get(),
        rows: model.row_count(),
    };
    (Bytes::from_static(&[HEAD]), journal::encode_disposable(&head))
}

/// The value of a row as it is now; none if there is no such row any more.
pub(crate) fn row_value(model: &ReadModel, key: RowKey) -> Option<Bytes> {
    match key {
        RowKey::Instance(id) => model.entry(id).map(|entry| {
            journal::encode_disposable(&StoredInstance {
                state: journal::encode_snapshot(&entry.state).to_vec(),
                time_last_auto_restarted: entry.time_last_auto_restarted,
            })
        }),
        RowKey::Project(id) => {
            model.project(id).map(|project| journal::encode_disposable(&StoredProject::new(project)))
        }
        RowKey::Sled(id) => model.sled_state(id).map(journal::encode_disposable),
        RowKey::Vmm(id) => model.vmm(id).as_ref().map(journal::encode_disposable),
        RowKey::Ended(id) => model.ended_row(id).as_ref().map(journal::encode_disposable),
        RowKey::Quarantined(stream) => model.quarantine_of(stream).map(|why| Bytes::from(why.to_owned())),
        RowKey::Migration(id) => model.migration(id).map(journal::encode_disposable),
        RowKey::Saga(id) => model.saga(id).map(journal::encode_disposable),
        RowKey::Quota(scope) => model.quota_set(scope).as_ref().map(journal::encode_disposable),
        RowKey::Group(project, group) => stored_group(model, project, group)
            .map(|group| journal::encode_disposable(&StoredGroup::new(group))),
        RowKey::Member(project, group, member) => stored_group(model, project, group)
            .filter(|group| group.members.contains(&member))
            .map(|_| Bytes::new()),
    }
}

fn stored_group(model: &ReadModel, project: ProjectId, group: GroupId) -> Option<&Group> {
    model.project(project).and_then(|project| project.groups.get(&group))
}

/// The rows of a model, the head first: what [`Loading`] makes the same model of.
pub fn rows(model: &ReadModel) -> impl Iterator<Item = Row> + '_ {
    let all = model.row_keys().filter_map(|key| Some((key.encode(), row_value(model, key)?)));
    std::iter::once(head_row(model)).chain(all)
}

/// Builds a model from its rows.
pub struct Loading {
    model: ReadModel,
    head: Option<StoredHead>,
}

impl Default for Loading {
    fn default() -> Self {
        Self::new()
    }
}

impl Loading {
    /// Before the first row.
    pub fn new() -> Self {
        Self { model: ReadModel::default(), head: None }
    }

    /// Takes the next row. The head comes first: its key is the smallest.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        if key == [HEAD] {
            self.head = Some(read_head(value)?);
            return Ok(());
        }
        if self.head.is_none() {
            return Err(RowError::OtherVersion("its rows have no head".to_owned()));
        }
        let wrong = |why: &str| RowError::Contradiction(format!("row {key:02x?} {why}"));
        let key = RowKey::decode(key).ok_or_else(|| wrong("is named like no row"))?;
        let inserted = self.insert(key, value).map_err(|why| wrong(&why))?;
        if inserted { Ok(()) } else { Err(wrong("claims what another row has")) }
    }

    fn insert(&mut self, key: RowKey, value: &[u8]) -> Result<bool, String> {
        let model = &mut self.model;
        Ok(match key {
            RowKey::Instance(id) => {
                let stored: StoredInstance = decoded(value)?;
                let state = journal::decode_snapshot(&stored.state).map_err(|error| error.to_string())?;
                let time_last_auto_restarted = stored.time_last_auto_restarted;
                state.id == id && model.insert_instance(id, InstanceEntry { state, time_last_auto_restarted })
            }
            RowKey::Project(id) => {
                let stored: StoredProject = decoded(value)?;
                stored.id == id && model.insert_project(id, stored.project())
            }
            RowKey::Sled(id) => {
                let sled: Sled = decoded(value)?;
                sled.id == id && model.insert_sled(id, sled)
            }
            RowKey::Vmm(id) => {
                let place: VmmPlace = decoded(value)?;
                model.insert_vmm(id, place)
            }
            RowKey::Ended(id) => model.insert_ended(id, decoded(value)?),
            RowKey::Quarantined(stream) => {
                let why = std::str::from_utf8(value).map_err(|error| error.to_string())?;
                model.insert_quarantined(stream, why.to_owned())
            }
            RowKey::Migration(id) => {
                let row: MigrationRow = decoded(value)?;
                row.id == id && model.insert_migration(id, row)
            }
            RowKey::Saga(id) => {
                let row: SagaRow = decoded(value)?;
                row.id == id && model.insert_saga(id, row)
            }
            RowKey::Quota(scope) => model.insert_quota(scope, decoded(value)?),
            RowKey::Group(project, group) => {
                let stored: StoredGroup = decoded(value)?;
                model.insert_group(project, group, stored.group())
            }
            RowKey::Member(project, group, member) => {
                value.is_empty() && model.insert_member(project, group, member)
            }
        })
    }

    /// The model, if the rows are all there and belong to the checkpoint.
    pub fn finish(mut self, checkpoint: u64) -> Result<ReadModel, RowError> {
        let Some(head) = self.head else {
            return Err(RowError::OtherVersion("its rows have no head".to_owned()));
        };
        let rows = self.model.row_count();
        if head.rows != rows {
            return Err(RowError::Contradiction(format!(
                "there are {rows} rows, the head says {}",
                head.rows
            )));
        }
        if head.position != checkpoint {
            let position = head.position;
            return Err(RowError::Contradiction(format!(
                "the checkpoint is {checkpoint}, the head says {position}"
            )));
        }
        self.model.set_position(checkpoint);
        Ok(self.model)
    }
}

/// Whether this head row was written by this build for a model at `checkpoint`.
pub(crate) fn is_head_of(value: &[u8], checkpoint: u64) -> bool {
    read_head(value).is_ok_and(|head| head.position == checkpoint)
}

fn read_head(value: &[u8]) -> Result<StoredHead, RowError> {
    let head: StoredHead = decoded(value).map_err(RowError::OtherVersion)?;
    let known = (MODEL_VERSION, journal::FOLD_VERSION);
    let found = (head.model_version, head.fold_version);
    if found == known {
        Ok(head)
    } else {
        Err(RowError::OtherVersion(format!("its rows are of version {found:?}, this build's are {known:?}")))
    }
}

fn decoded<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    journal::decode_disposable(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::Ended;
    use crate::migrations::{MigrationEnd, MigrationOutcome, MigrationSide};
    use crate::sagas::{SagaEnd, SagaOutcome};
    use lifecycle::instance::{Pause, PauseCause, UnwindReason};
    use lifecycle::migration::{CancelReason, SideState};
    use lifecycle::{
        BootId, EventMeta, Generation, InstanceId, LeaseEpoch, MigrationId, Origin, QuotaScope, Refusal,
        SagaId, SagaKind, SledEvent, SledId, Span, Step, VmmId,
    };
    use uuid::Uuid;

    fn project() -> Project {
        Project {
            id: ProjectId::new(Uuid::from_u128(1)),
            name: "demo".to_owned(),
            description: "d".to_owned(),
            vni: 1024,
            quota: Quota { cpus: Some(300), memory: None },
            groups: BTreeMap::new(),
            time_created: Timestamp::from_micros(5),
            time_modified: Timestamp::from_micros(6),
            deleted: None,
        }
    }

    #[test]
    fn the_layout_of_rows_changes_only_with_the_model_version() {
        let mut model = ReadModel::default();
        let (project, sled) = (project(), SledId::new(Uuid::from_u128(2)));
        let registered = SledEvent::Registered {
            id: sled,
            name: "s".to_owned(),
            threads: 8,
            memory: 1 << 34,
            cpu_family: "c".to_owned(),
            address: "a".to_owned(),
        };
        let booted = |boot, epoch| SledEvent::Booted {
            boot: BootId::new(Uuid::from_u128(boot)),
            epoch: LeaseEpoch::new(epoch),
        };
        let mut state = None;
        for (event, n) in [registered, booted(3, 1), booted(4, 2)].iter().zip(7..) {
            let meta = EventMeta { version: n - 6, position: n, time: Timestamp::from_micros(n) };
            lifecycle::sled::evolve(&mut state, event, meta);
        }
        let state = state.unwrap();
        let key = RowKey::Project(project.id);
        assert!(model.insert_project(project.id, project.clone()) && model.insert_sled(sled, state));
        let group = GroupId::new(Uuid::from_u128(5));
        assert!(model.insert_group(project.id, group, group_of_one()));
        let (migration, saga) = (migration_row(), saga_row());
        assert!(
            model.insert_migration(migration.id, migration.clone())
                && model.insert_saga(saga.id, saga.clone())
        );
        assert!(model.insert_quota(QuotaScope::Silo, project.quota));
        let ended = InstanceId::new(Uuid::from_u128(30));
        assert!(model.insert_ended(ended, Ended { deleted: Timestamp::from_micros(31), version: 32 }));
        // Different bytes mean that MODEL_VERSION has to rise, and these with it.
        let keys = [
            key,
            RowKey::Sled(sled),
            RowKey::Group(project.id, group),
            RowKey::Migration(migration.id),
            RowKey::Saga(saga.id),
            RowKey::Quota(QuotaScope::Silo),
            RowKey::Ended(ended),
        ];
        let rows = keys.map(|key| {
            let bytes = row_value(&model, key).unwrap();
            bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
        });
        assert_eq!((MODEL_VERSION, rows), (4, ROWS.map(str::to_owned)));
        let member = RowKey::Member(project.id, group, InstanceId::new(Uuid::from_u128(6)));
        assert_eq!(row_value(&model, member), Some(Bytes::new()));
    }

    const ROWS: [&str; 7] = [
        "10000000000000000000000000000000010464656d6f0164fb000401fb2c01000506",
        "1000000000000000000000000000000002017308fd000000000400000001630161011000000000000000000000000000000004020000011000000000000000000000000000000003010000070903",
        "067370726561640164010708",
        "100000000000000000000000000000001410000000000000000000000000000000061000000000000000000000000000000015100000000000000000000000000000001610000000000000000000000000000000170303100000000000000000000000000000001810000000000000000000000000000000190103090a0101010b0c0201",
        "100000000000000000000000000000001502100000000000000000000000000000000600100000000000000000000000000000001807090a0b09010a0105010c0d020003020100",
        "01fb2c0100",
        "1f20",
    ];

    fn group_of_one() -> Group {
        Group {
            name: "spread".to_owned(),
            description: "d".to_owned(),
            policy: GroupPolicy::Fail,
            members: BTreeSet::from([InstanceId::new(Uuid::from_u128(6))]),
            time_created: Timestamp::from_micros(7),
            time_modified: Timestamp::from_micros(8),
        }
    }

    fn migration_row() -> MigrationRow {
        let side = |n, state| MigrationSide {
            vmm: VmmId::new(Uuid::from_u128(n)),
            sled: SledId::new(Uuid::from_u128(n + 1)),
            state,
            generation: Generation::new(3),
        };
        MigrationRow {
            id: MigrationId::new(Uuid::from_u128(20)),
            instance: InstanceId::new(Uuid::from_u128(6)),
            saga: SagaId::new(Uuid::from_u128(21)),
            source: side(22, SideState::Failed),
            target: side(24, SideState::InProgress),
            started: Timestamp::from_micros(9),
            deadline: Span::from_micros(10),
            cancelled: Some(CancelReason::Deadline),
            end: Some(MigrationEnd {
                at: Timestamp::from_micros(11),
                position: 12,
                outcome: MigrationOutcome::Cancelled(CancelReason::Deadline),
            }),
        }
    }

    fn saga_row() -> SagaRow {
        let undone = vec![Step::Allocate, Step::Reserve];
        SagaRow {
            id: SagaId::new(Uuid::from_u128(21)),
            kind: SagaKind::Migrate,
            instance: InstanceId::new(Uuid::from_u128(6)),
            origin: Origin::User,
            vmm: VmmId::new(Uuid::from_u128(24)),
            step: Step::MigrationTarget,
            started: Timestamp::from_micros(9),
            step_started: Timestamp::from_micros(10),
            deadline: Span::from_micros(11),
            deadline_from: Timestamp::from_micros(9),
            pause: Some(Pause {
                since: Timestamp::from_micros(10),
                cause: PauseCause::Failures { count: 5 },
            }),
            end: Some(SagaEnd {
                at: Timestamp::from_micros(12),
                position: 13,
                outcome: SagaOutcome::Unwound { reason: UnwindReason::Refused(Refusal::NoRoom), undone },
            }),
        }
    }

    #[test]
    fn a_group_without_its_project_and_a_member_without_its_group_are_no_model() {
        let mut model = ReadModel::default();
        let (project, group) = (project(), GroupId::new(Uuid::from_u128(5)));
        let member = InstanceId::new(Uuid::from_u128(6));
        assert!(!model.insert_group(project.id, group, group_of_one()));
        assert!(model.insert_project(project.id, project.clone()));
        assert!(!model.insert_member(project.id, group, member));
        assert!(model.insert_group(project.id, group, group_of_one()));
        assert!(!model.insert_member(project.id, group, member), "it is one already");
    }

    #[test]
    fn rows_that_claim_the_same_name_are_no_model() {
        let rows = |second: Project| {
            let mut loading = Loading::new();
            let head = StoredHead {
                model_version: MODEL_VERSION,
                fold_version: journal::FOLD_VERSION,
                position: 1,
                rows: 2,
            };
            loading.take(&[HEAD], &journal::encode_disposable(&head))?;
            for project in [project(), second] {
                let key = RowKey::Project(project.id).encode();
                loading.take(&key, &journal::encode_disposable(&StoredProject::new(&project)))?;
            }
            loading.finish(1)
        };
        let id = ProjectId::new(Uuid::from_u128(2));
        assert!(rows(Project { id, name: "other".to_owned(), ..project() }).is_ok());
        assert!(matches!(rows(Project { id, ..project() }), Err(RowError::Contradiction(_))));
    }
}
