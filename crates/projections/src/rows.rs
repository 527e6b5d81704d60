//! Rows as they are kept in the cache: one per entity, and one that says what the others add up to.
//!
//! Invariants:
//! * a key is a tag byte and the entity's id; the head row's key is its tag alone;
//! * rows are disposable: another version of the model or of the fold makes all of them void;
//! * rows that contradict each other, or are not as many as the head says, are never a model.

use crate::instances::InstanceEntry;
use crate::model::{ReadModel, VmmPlace};
use bytes::Bytes;
use eventlog::cache::Row;
use eventlog::{StreamId, StreamKind};
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{InstanceId, ProjectId, SledId, Timestamp, VmmId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of the rows' layout, and of what the model keeps. Rises with either.
pub const MODEL_VERSION: u32 = 1;

const HEAD: u8 = 0;
const INSTANCE: u8 = 1;
const PROJECT: u8 = 2;
const SLED: u8 = 3;
const VMM: u8 = 4;
const QUARANTINED: u8 = 5;

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
    /// Why a stream is quarantined.
    Quarantined(StreamId),
}

/// Why rows are no model. The log is folded from its start instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
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

#[derive(Serialize, Deserialize)]
struct StoredInstance {
    /// As a snapshot, which is checked when it is read.
    state: Vec<u8>,
    time_last_auto_restarted: Option<Timestamp>,
}

impl RowKey {
    /// Its bytes in the cache.
    pub(crate) fn encode(self) -> Bytes {
        let keyed = |tag: u8, id: Uuid| [&[tag][..], id.as_bytes()].concat();
        Bytes::from(match self {
            Self::Instance(id) => keyed(INSTANCE, id.uuid()),
            Self::Project(id) => keyed(PROJECT, id.uuid()),
            Self::Sled(id) => keyed(SLED, id.uuid()),
            Self::Vmm(id) => keyed(VMM, id.uuid()),
            Self::Quarantined(stream) => [&[QUARANTINED, stream.kind.0][..], &stream.id].concat(),
        })
    }

    fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        if *tag == QUARANTINED {
            let (kind, id) = rest.split_first()?;
            return Some(Self::Quarantined(StreamId::new(StreamKind(*kind), id.try_into().ok()?)));
        }
        let id = Uuid::from_bytes(rest.try_into().ok()?);
        match *tag {
            INSTANCE => Some(Self::Instance(InstanceId::new(id))),
            PROJECT => Some(Self::Project(ProjectId::new(id))),
            SLED => Some(Self::Sled(SledId::new(id))),
            VMM => Some(Self::Vmm(VmmId::new(id))),
            _ => None,
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
        RowKey::Project(id) => model.project(id).map(journal::encode_disposable),
        RowKey::Sled(id) => model.sled_state(id).map(journal::encode_disposable),
        RowKey::Vmm(id) => model.vmm(id).as_ref().map(journal::encode_disposable),
        RowKey::Quarantined(stream) => model.quarantine_of(stream).map(|why| Bytes::from(why.to_owned())),
    }
}

/// Builds a model from its rows.
pub(crate) struct Loading {
    model: ReadModel,
    head: Option<StoredHead>,
}

impl Loading {
    pub(crate) fn new() -> Self {
        Self { model: ReadModel::default(), head: None }
    }

    /// Takes the next row. The head comes first: its key is the smallest.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
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
                let project: Project = decoded(value)?;
                project.id == id && model.insert_project(id, project)
            }
            RowKey::Sled(id) => {
                let sled: Sled = decoded(value)?;
                sled.id == id && model.insert_sled(id, sled)
            }
            RowKey::Vmm(id) => {
                let place: VmmPlace = decoded(value)?;
                model.insert_vmm(id, place)
            }
            RowKey::Quarantined(stream) => {
                let why = std::str::from_utf8(value).map_err(|error| error.to_string())?;
                model.insert_quarantined(stream, why.to_owned())
            }
        })
    }

    /// The model, if the rows are all there and belong to the checkpoint.
    pub(crate) fn finish(mut self, checkpoint: u64) -> Result<ReadModel, RowError> {
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
    use lifecycle::{BootId, EventMeta, LeaseEpoch, SledEvent};

    fn project() -> Project {
        Project {
            id: ProjectId::new(Uuid::from_u128(1)),
            name: "demo".to_owned(),
            description: "d".to_owned(),
            vni: 1024,
            time_created: Timestamp::from_micros(5),
            time_modified: Timestamp::from_micros(6),
            deleted: None,
        }
    }

    #[test]
    fn a_key_reads_back_as_written() {
        let id = Uuid::from_u128(0x0102);
        for key in [
            RowKey::Instance(InstanceId::new(id)),
            RowKey::Project(ProjectId::new(id)),
            RowKey::Sled(SledId::new(id)),
            RowKey::Vmm(VmmId::new(id)),
            RowKey::Quarantined(StreamId::new(StreamKind(7), *id.as_bytes())),
        ] {
            assert_eq!(RowKey::decode(&key.encode()), Some(key));
        }
        for bytes in [&[][..], &[HEAD], &[INSTANCE; 16], &[INSTANCE; 18], &[9; 17], &[QUARANTINED; 17]] {
            assert_eq!(RowKey::decode(bytes), None);
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
        assert!(model.insert_project(project.id, project) && model.insert_sled(sled, state));
        // Different bytes mean that MODEL_VERSION has to rise, and these with it.
        let hex = |key| format!("{:02x?}", &row_value(&model, key).unwrap()[..]).replace(", ", "");
        assert_eq!(
            (MODEL_VERSION, hex(key).as_str()),
            (1, "[10000000000000000000000000000000010464656d6f0164fb0004050600]")
        );
        assert_eq!(
            hex(RowKey::Sled(sled)),
            "[1000000000000000000000000000000002017308fd000000000400000001630161011000000000000000000000000000000004020110000000000000000000000000000000030100070903]"
        );
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
                loading.take(&key, &journal::encode_disposable(&project))?;
            }
            loading.finish(1)
        };
        let id = ProjectId::new(Uuid::from_u128(2));
        assert!(rows(Project { id, name: "other".to_owned(), ..project() }).is_ok());
        assert!(matches!(rows(Project { id, ..project() }), Err(RowError::Contradiction(_))));
    }
}
